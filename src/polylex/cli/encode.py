"""`polylex encode`: texts to sparse vectors, as a file, as JSON lines, or as a table of one text's terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.highlight import words_of
from polylex.cli.index import Skipped, expected, read
from polylex.cli.job import encode_job, job_options, open_encoder, partition_of, tell_estimate
from polylex.cli.terminal import note, print_json, progress, show, show_bytes, show_count, signs_of, stdout, term_name
from polylex.cli.verb import Verb, argument
from polylex.errors import BadInput

if TYPE_CHECKING:
    from polylex.runtime.encoder import Encoder
    from polylex.runtime.tokens import Kind
    from polylex.vectors import SparseVectors

_BATCH = 256  # texts between two looks at the output
_TABLE_TERMS = 20


@click.command(
    "encode",
    cls=Verb,
    short_help="Turn texts into sparse vectors.",
    prints='With --json one object a text, heaviest term first: {"id": "7", "vector": {"e_music": 1.2, "m_jaz": 0.8}}. '
    "e_ is an English term, m_ a piece of the text itself; weights have six significant digits. With --text a table.",
    examples="""
polylex encode --text "¿Quién puede casarse?"
polylex encode articles.jsonl --out articles.safetensors
polylex encode articles.jsonl --json --top-k 64 > vectors.jsonl
polylex encode queries.tsv --query --out queries.safetensors
polylex encode articles.jsonl --shard 3/8 --out articles.job     on one of eight machines; see `polylex merge`
polylex encode articles.jsonl --estimate 1000000000 --devices 64
""",
)
@argument("inputs", "[INPUT]...", "Files or folders as for `polylex index`; - is standard input.", nargs=-1)
@click.option("--text", metavar="TEXT", help="Encode this text in place of INPUT.")
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="safetensors file to write; refused if it exists, unless --overwrite. With --shard a folder.",
)
@options.as_json
@click.option("--query", is_flag=True, help="Encode as queries. [default: as documents]")
@click.option("--top-k", type=options.AT_LEAST_1, metavar="N", help="Keep the N heaviest terms of each text.")
@options.documents
@options.model
@options.threads
@job_options
@click.option("--overwrite", is_flag=True, help="Replace FILE; with --shard, begin anew.")
def encode(
    inputs: tuple[str, ...],
    text: str | None,
    out: str | None,
    as_json: bool,
    query: bool,
    top_k: int | None,
    **settings: Any,  # noqa: ANN401 - as declared above
) -> None:
    """Turn texts into sparse vectors of readable terms.

    With --shard, or in a process that torchrun or Slurm started beside others, only a share of INPUT is encoded, into a
    folder; a killed process goes on where it was when the same command is given again.
    """
    from polylex.prune import Pruning

    kind: Kind = "query" if query else "document"
    rule = Pruning(top_k=top_k)
    if settings["estimate"]:
        if not inputs or out:
            raise click.UsageError("--estimate takes INPUT, and writes no --out")
        tell_estimate(inputs, kind, rule, {**settings, "as_json": as_json})
        return
    launched = bool(out and inputs)
    partition = partition_of(settings["shard"], settings["split"], from_launcher=launched)
    if partition is not None:
        if not out or not inputs:
            raise click.UsageError("--shard takes INPUT and --out FOLDER")
        encode_job(partition, inputs, Path(out), kind, rule, {**settings, "as_json": as_json})
        return
    _check_usage(inputs, text, out, as_json)
    if settings["device"] and text is not None and not out and not as_json:
        raise click.UsageError("--device goes with --out or --json; the table of one text is made on the CPU")
    if out:
        refuse(Path(out), settings["overwrite"])
    encoder, _ = open_encoder(settings)
    if text is not None and not out and not as_json:
        _show_terms(encoder, text, rule(encoder.encode([text], kind=kind)))
        return
    skipped = Skipped()
    texts = iter([("text", text)]) if text is not None else _texts(kind, inputs, skipped, **settings)
    total = 1 if text is not None else expected(inputs, settings["format_"])
    sink = VectorsFile(out, encoder.vocab.fingerprint) if out else JsonLines(encoder)
    with progress("Encoding", total, "texts") as bar:
        while batch := list(islice(texts, _BATCH)):
            vectors = encoder.encode([body for _, body in batch], kind=kind, on_text=lambda _: bar.advance())
            sink.take([name for name, _ in batch], rule(vectors))
    sink.finish()
    if skipped.count:
        note(f"{show_count(skipped.count, 'record')} skipped")


def _check_usage(inputs: tuple[str, ...], text: str | None, out: str | None, as_json: bool) -> None:
    if bool(inputs) == (text is not None):
        raise click.UsageError("give INPUT or --text TEXT, one of the two")
    if out and as_json:
        raise click.UsageError("give --out FILE or --json, not both")
    if inputs and not out and not as_json:
        raise click.UsageError("give --out FILE or --json")


# -- input -------------------------------------------------------------------------------------------


def _texts(
    kind: Kind,
    inputs: Sequence[str],
    skipped: Skipped,
    **settings: Any,  # noqa: ANN401
) -> Iterator[tuple[str, str]]:
    """Id and text of each record."""
    if kind == "document":
        return ((document.id, document.text) for document in read(inputs, skipped, **settings))
    return queries_of(inputs, skipped, **settings)


def queries_of(inputs: Sequence[str], skipped: Skipped, **settings: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Id and text of each query."""
    from polylex.corpus import read_queries

    fields = settings["text_fields"]
    if fields and len(fields) > 1:
        raise BadInput(f"a query has one text field, got --text-fields {','.join(fields)}; name one")
    for path in inputs:
        for query in read_queries(
            path,
            format=settings["format_"],
            id_field=settings["id_field"],
            text_field=fields[0] if fields else None,
            on_error=settings["on_error"],
            on_skip=skipped,
            max_chars=settings["max_chars"],
        ):
            yield query.id, query.text


# -- output ------------------------------------------------------------------------------------------


def refuse(path: Path, overwrite: bool) -> None:
    """Raise BadInput where a file would be lost, or cannot be written, before hours of encoding."""
    if path.exists() and not overwrite:
        raise BadInput(f"{path} exists; pass --overwrite to replace it, or give another name")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"there is no folder {path.absolute().parent} to write {path.name} in; make it first")


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a text on standard output."""

    encoder: Encoder

    def take(self, ids: Sequence[str], vectors: SparseVectors) -> None:
        """Print some."""
        for name, terms in zip(ids, vectors.decode(self.encoder.vocab), strict=True):
            print_json({"id": name, "vector": {term: float(f"{weight:.6g}") for term, weight in terms}})

    def finish(self) -> None:
        """Nothing is left to do."""


class VectorsFile:
    """One safetensors file, written whole at the end."""

    def __init__(self, path: str, vocab: str) -> None:
        self._path, self._vocab = path, vocab
        self._ids: list[str] = []
        self._parts: list[SparseVectors] = []

    def take(self, ids: Sequence[str], vectors: SparseVectors) -> None:
        """Keep some."""
        self._ids += ids
        self._parts.append(vectors)

    def finish(self) -> None:
        """Write the file."""
        from polylex.storage import save_vectors
        from polylex.vectors import SparseVectors

        vectors = SparseVectors.concat(self._parts or [SparseVectors.empty(self._vocab)])
        save_vectors(self._path, vectors, self._ids)
        mean = vectors.nnz / max(1, len(vectors))
        size = show_bytes(Path(self._path).stat().st_size)
        note(f"{show_count(len(vectors), 'vector')} in {self._path}, {mean:.0f} terms each, {size}")


def _show_terms(encoder: Encoder, text: str, vectors: SparseVectors) -> None:
    """The heaviest terms of one text, and the words that carry them."""
    from rich.table import Table
    from rich.text import Text

    from polylex.explanation import explain

    console = stdout()
    signs = signs_of(console)
    terms = explain(encoder, (text, vectors), (text, vectors), limit=_TABLE_TERMS).matches
    if not terms:
        show(console, Text("This text says nothing: its vector has no term.", "yellow"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("term", no_wrap=True)
    table.add_column("weight", no_wrap=True)
    table.add_column("from", overflow="fold")
    heaviest = terms[0].document_weight
    for term in terms:
        table.add_row(
            term_name(term.term, signs),
            Text.assemble(f"{term.document_weight:.2f} ", (signs.bar(term.document_weight / heaviest), "cyan")),
            words_of(term.document_words) or Text("as a whole", "dim"),
        )
    show(console, table)
    if vectors.nnz > len(terms):
        show(console, Text(f"and {vectors.nnz - len(terms):,} lighter terms; --json prints all", "dim"))
