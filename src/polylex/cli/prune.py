"""`polylex prune`: fewer terms per document, in a file of vectors or in an index, without encoding again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.terminal import print_json, show, show_bytes, show_count, stdout
from polylex.cli.verb import Verb, argument, voice
from polylex.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from polylex.vectors import SparseVectors


@click.command(
    "prune",
    cls=Verb,
    short_help="Drop the lightest terms.",
    prints="Documents, terms per document before and after (mean, 95th percentile), bytes; with --json one object.",
    examples="""
polylex prune articles.plx --mass 0.9 --out small.plx
polylex prune articles.safetensors --top-k 64 --out small.safetensors
polylex prune articles.plx --pivot-top-k 48 --source-top-k 16 --out small.plx
""",
)
@argument("source", "IN", "Index, or file written by `polylex encode --out`.", type=click.Path())
@click.option(
    "-o", "--out", required=True, metavar="OUT", help="Where to write; refused if it exists, unless --overwrite."
)
@click.option(
    "--mass",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Keep the fewest heaviest terms that hold SHARE of a document's weight, e.g. 0.9.",
)
@click.option("--top-k", type=options.AT_LEAST_1, metavar="N", help="Keep at most N terms per document.")
@click.option(
    "--max-ratio",
    type=click.FloatRange(0, 1),
    metavar="R",
    help="Keep terms of at least R times the document's heaviest weight.",
)
@click.option("--threshold", type=click.FloatRange(0), metavar="W", help="Keep terms of at least weight W.")
@click.option("--pivot-top-k", type=options.AT_LEAST_1, metavar="N", help="Keep at most N English terms.")
@click.option("--source-top-k", type=options.AT_LEAST_1, metavar="N", help="Keep at most N terms of the text itself.")
@click.option(
    "--model",
    metavar="MODEL",
    help="Model of a file of vectors, for the two limits above. [default: the bundled one]",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@options.as_json
def prune(source: str, out: str, model: str | None, overwrite: bool, as_json: bool, **limits: Any) -> None:  # noqa: ANN401
    """Drop the lightest terms of encoded documents: smaller, quicker, a little worse.

    Nothing is encoded again. The strictest of several limits decides; a document that has a term keeps one.
    """
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if not given:
        raise click.UsageError("give a limit, e.g. --mass 0.9")
    if Path(source).is_dir():
        before, after = _prune_index(source, out, given, overwrite)
    else:
        before, after = _prune_file(source, out, given, model, overwrite)
    if as_json:
        print_json({"in": before.to_dict(), "out": after.to_dict(), "limits": given})
    elif not voice().quiet:
        _show(before, after)


class Size:
    """How large some vectors are."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.bytes = 0
        self._lengths: list[NDArray[np.int64]] = []

    def count(self, vectors: SparseVectors) -> SparseVectors:
        """Take note of the terms per row; gives the vectors back."""
        import numpy as np

        self._lengths.append(np.diff(vectors.indptr))
        return vectors

    def to_dict(self) -> dict[str, Any]:
        """Documents, terms per document and bytes."""
        import numpy as np

        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        return {
            "path": self.path,
            "documents": len(lengths),
            "terms_mean": round(float(lengths.mean()), 1) if len(lengths) else 0.0,
            "terms_p95": round(float(np.percentile(lengths, 95)), 1) if len(lengths) else 0.0,
            "bytes": self.bytes,
        }


Prune = Callable[["SparseVectors"], "SparseVectors"]


def _rule(limits: dict[str, Any], pivot_size: Callable[[], int]) -> Prune:
    """The limits as one function. `pivot_size` is asked for only where a limit of one view needs it."""
    from polylex.prune import Pruning, per_view

    both = Pruning(**{name: limit for name, limit in limits.items() if name not in ("pivot_top_k", "source_top_k")})
    if both and len(limits) == len(set(limits) - {"pivot_top_k", "source_top_k"}):
        return both
    pivot, source = (Pruning(top_k=limits.get(name)) for name in ("pivot_top_k", "source_top_k"))
    size = pivot_size()
    return lambda vectors: both(per_view(vectors, size, pivot=pivot, source=source))


def _prune_index(source: str, out: str, limits: dict[str, Any], overwrite: bool) -> tuple[Size, Size]:
    from polylex.index import Index

    before, after = Size(source), Size(out)
    with Index.open(source) as index:
        info = index.info()
        if Path(out).exists() and Path(out).samefile(source):
            raise BadInput(f"{out} is the index to read; give another path, pruned terms cannot be brought back")
        rule = _rule(limits, lambda: len(index.vocab.pivot))
        settings = {**info.settings, "pruning": limits}
        with index.rewrite(
            out, lambda vectors: after.count(rule(before.count(vectors))), settings=settings, overwrite=overwrite
        ) as pruned:
            before.bytes, after.bytes = info.bytes, pruned.info().bytes
    return before, after


def _prune_file(source: str, out: str, limits: dict[str, Any], model: str | None, overwrite: bool) -> tuple[Size, Size]:
    from polylex.cli.encode import refuse
    from polylex.storage import load_vectors, save_vectors

    refuse(Path(out), overwrite)
    before, after = Size(source), Size(out)
    vectors, ids = load_vectors(source)

    def pivot_size() -> int:
        from polylex.models import DEFAULT, load

        vocab = load(model or DEFAULT).vocab
        vocab.require(vectors)
        return len(vocab.pivot)

    save_vectors(out, after.count(_rule(limits, pivot_size)(before.count(vectors))), ids)
    before.bytes, after.bytes = Path(source).stat().st_size, Path(out).stat().st_size
    return before, after


def _show(before: Size, after: Size) -> None:
    from rich.table import Table
    from rich.text import Text

    old, new = before.to_dict(), after.to_dict()
    console = stdout()
    show(console, Text(f"Pruned {show_count(new['documents'], 'document')} into {after.path}", "bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in ("  terms per document", "before", "after", ""):
        table.add_column(name, justify="left" if name.startswith(" ") else "right")
    for label, key in (("  mean", "terms_mean"), ("  95th percentile", "terms_p95")):
        table.add_row(label, f"{old[key]:,.1f}", f"{new[key]:,.1f}", _change(old[key], new[key]))
    table.add_row("  size", show_bytes(before.bytes), show_bytes(after.bytes), _change(before.bytes, after.bytes))
    show(console, table)


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.0%}" if before else ""
