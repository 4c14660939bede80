"""`polylex tune`: the pruning that meets a target of size, latency or quality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.terminal import is_unicode, note, print_json, progress, show, show_bytes, stdout
from polylex.cli.verb import Verb, argument
from polylex.errors import BadInput, DocumentNotFound

if TYPE_CHECKING:
    from polylex.allotment import Labels
    from polylex.index import Index
    from polylex.retriever import Encoder
    from polylex.trec import Judgments, Query
    from polylex.trials import Subject
    from polylex.tuning import Candidate, Target, Tuning
    from polylex.vectors import SparseVectors

_MARK = ("", "► ")
_STEP = 0.01  # of quality, between two lines of the table
_HEAD = ("rule", "terms", "size", "ms", "kept", "held out", "95 %")


@click.command(
    "tune",
    cls=Verb,
    short_help="Find the pruning that meets a size, a latency or a quality.",
    prints="The rules that no other beats: terms per document, size, predicted milliseconds a query, share of the "
    "unpruned nDCG that they keep on the queries that choose and on those held out; which one meets the targets, and "
    "how well its latency was predicted. With --json one object with every rule that was tried.",
    examples="""
polylex tune articles.plx --queries log.txt --target 'bytes<=200MB'
polylex tune articles.plx --queries queries.jsonl --qrels qrels.tsv --target 'ndcg>=0.98' --apply small.plx
polylex tune articles.plx --queries log.txt --target 'latency_ms<=2' --target 'ndcg>=0.9' --by lang
polylex tune articles.safetensors --queries log.txt --plot pareto.svg
""",
)
@argument("source", "IN", "Index, or file written by `polylex encode --out`.", type=click.Path())
@click.option(
    "--queries",
    required=True,
    metavar="FILE",
    help="Queries such as your users ask: JSON lines, TSV, a text file with one a line, or a BEIR folder. Hundreds.",
)
@click.option(
    "--qrels",
    metavar="FILE",
    help="Which documents are relevant. [default: the unpruned index's own first results, so that quality is likeness]",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="T",
    help="bytes<=200MB, latency_ms<=2, terms<=40 (a document), ndcg>=0.98 (share of the unpruned); may be repeated.",
)
@click.option("--by", metavar="FIELD", help="Also prune documents of each value of this field differently, e.g. lang.")
@click.option("--apply", "out", metavar="OUT", help="Write the pruned copy; refused if it exists, unless --overwrite.")
@click.option("-k", "k", type=options.AT_LEAST_1, default=10, show_default=True, metavar="N", help="Depth of nDCG.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the split of the queries.")
@click.option("--plot", metavar="FILE", help="Write quality against terms as an SVG picture.")
@click.option("--markdown", is_flag=True, help="The table in Markdown.")
@click.option(
    "--model",
    metavar="MODEL",
    help="Model for the queries. [default: the one the index was made with; the bundled one for a file of vectors]",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@options.as_json
def tune(
    source: str,
    queries: str,
    qrels: str | None,
    targets: tuple[str, ...],
    by: str | None,
    out: str | None,
    plot: str | None,
    **rest: Any,  # noqa: ANN401 - as declared above
) -> None:
    """Find how much of the documents' terms can go, and which, for a target of size, latency or quality.

    Nothing is encoded again and nothing is written without --apply. Rules are chosen on a random half of the queries;
    what they keep is checked on the other half, which had no say.
    """
    from polylex.tuning import Target

    wanted = [Target.parse(target) for target in targets]
    if out and not wanted:
        raise click.UsageError("--apply needs a --target: which of the rules is to be written?")
    if out:
        _refuse(source, out, rest["overwrite"])
    with _opened(source, rest["model"]) as material:
        run = _run(material, _read(queries), qrels, by, rest["k"], rest["seed"])
        choice = run.tuning.choose(wanted) if wanted else None
        if plot:
            Path(plot).write_text(_plot(run.tuning, source), encoding="utf-8")
        applied = _apply(material, run, choice, out, rest["overwrite"]) if out and choice else None
        _print(run, wanted, choice, applied, as_json=rest["as_json"], markdown=rest["markdown"])


# -- what is tuned -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    """An index or vectors, opened.

    rows_of  row by id, of the ids that are there
    """

    subject: Subject
    encoder: Encoder
    index: Index | None
    vectors: SparseVectors | None
    ids: Sequence[str] | None

    def rows_of(self, ids: set[str]) -> dict[str, int]:
        """Row of each id that is there."""
        if self.index is None:
            if self.ids is None:
                raise BadInput("the file of vectors has no ids, which --qrels needs; tune without it, or tune an index")
            return {id: row for row, id in enumerate(self.ids) if id in ids}
        found = {}
        for id in ids:
            try:
                found[id] = self.index.document(id).row
            except DocumentNotFound:
                continue
        return found


@contextmanager
def _opened(source: str, model: str | None) -> Iterator[Material]:
    from polylex.cli.search import open_retriever
    from polylex.index import Index
    from polylex.models import DEFAULT, load
    from polylex.storage import load_vectors
    from polylex.trials import Subject

    if Path(source).is_dir():
        with open_retriever(source, model) as retriever:
            if not isinstance(retriever.index, Index):
                raise BadInput(f"{source} is made of several indexes; tune one of them, and prune all by what it says")
            yield Material(Subject.of_index(retriever.index), retriever.encoder, retriever.index, None, None)
        return
    vectors, ids = load_vectors(source)
    encoder = load(model or DEFAULT)
    encoder.vocab.require(vectors)
    subject = Subject.of_vectors(vectors, Path(source).stat().st_size, len(encoder.vocab.pivot))
    yield Material(subject, encoder, None, vectors, ids)


def _read(path: str) -> list[Query]:
    from polylex.corpus import read_queries

    return list(read_queries(path))


def _grades(material: Material, queries: Sequence[Query], judgments: Judgments) -> list[Mapping[int, int]]:
    """Grades by row; judged documents that are not there count as never found."""
    known = {id for query in queries for id in judgments.get(query.id, {})}
    rows = material.rows_of(known)
    places = {id: rows.get(id, -1 - number) for number, id in enumerate(sorted(known))}
    return [{places[id]: grade for id, grade in judgments.get(query.id, {}).items()} for query in queries]


def _labels(material: Material, field: str | None) -> Labels | None:
    if field is None:
        return None
    from polylex.allotment import Labels

    if material.index is None:
        raise BadInput("--by needs the fields of documents, which a file of vectors does not have; tune an index")
    values = material.index.values(field)
    if not any(values.values()):
        raise BadInput(f"no document has a field {field!r}; give --by the name of one that they have, e.g. lang")
    return Labels(field, values)


# -- running -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A tuning, with what it was made of.

    held  vectors of the queries that were held out
    """

    material: Material
    tuning: Tuning
    held: SparseVectors
    labels: Labels | None

    def measured_ms(self, candidate: Candidate) -> float:
        """What the prediction of a candidate's latency is checked against."""
        from polylex.tuning import measured_ms

        return measured_ms(self.material.subject, self.held, candidate.rule, self.tuning.k, self.labels)


def _run(material: Material, queries: Sequence[Query], qrels: str | None, by: str | None, k: int, seed: int) -> Run:
    from polylex.trec import read_judgments
    from polylex.tuning import tune as tune_vectors

    labels = _labels(material, by)
    grades = None if qrels is None else _grades(material, queries, read_judgments(qrels))
    vectors = material.encoder.encode([query.text for query in queries], kind="query")
    with progress("Trying rules", None, "documents pruned") as bar:
        tuning = tune_vectors(material.subject, vectors, grades, labels=labels, k=k, seed=seed, on_progress=bar.advance)
    return Run(material, tuning, vectors.take(tuning.held), labels)


def _refuse(source: str, out: str, overwrite: bool) -> None:
    """Raise before hours of work for what would be refused after them."""
    from polylex.cli.encode import refuse

    if Path(out).exists() and Path(out).samefile(source):
        raise BadInput(f"{out} is what is tuned; give another path, pruned terms cannot be brought back")
    if not Path(source).is_dir():
        refuse(Path(out), overwrite)
    elif Path(out).exists() and not overwrite:
        raise BadInput(f"{out} exists; pass --overwrite to replace it, or give another path")


def _apply(material: Material, run: Run, choice: Candidate, out: str, overwrite: bool) -> dict[str, Any]:
    """Write the pruned copy; its path and size, and of an index the milliseconds that a held-out query takes."""
    from polylex.latency import measure
    from polylex.rules import as_prune
    from polylex.storage import save_vectors

    labels = None if run.labels is None else run.labels.values.values()
    prune = as_prune(choice.rule, material.subject.pivot_size, labels)
    if material.index is None:
        assert material.vectors is not None
        save_vectors(out, prune(material.vectors), material.ids)
        return {"path": out, "bytes": Path(out).stat().st_size}
    settings = {**material.index.info().settings, "pruning": choice.rule.to_dict()}
    with material.index.rewrite(out, prune, settings=settings, overwrite=overwrite) as pruned:
        seconds = measure(pruned.top, run.held, run.tuning.k, rounds=3)
        return {"path": out, "bytes": pruned.info().bytes, "measured_ms": round(float(seconds.mean()) * 1e3, 4)}


# -- printing ----------------------------------------------------------------------------------------


def _print(
    run: Run,
    targets: Sequence[Target],
    choice: Candidate | None,
    applied: dict[str, Any] | None,
    *,
    as_json: bool,
    markdown: bool,
) -> None:
    measured = None
    if choice is not None:
        measured = (applied or {}).get("measured_ms") or run.measured_ms(choice)
    if as_json:
        chosen = None if choice is None else {**choice.to_dict(), "measured_ms": round(measured or 0.0, 4)}
        print_json({"targets": list(map(str, targets)), "choice": chosen, "applied": applied, **run.tuning.to_dict()})
        return
    _warn(run.tuning, targets, choice)
    if markdown:
        from polylex.pages import Table as MarkdownTable
        from polylex.pages import markdown as as_markdown

        rows = [(_MARK[each is choice] + name, *cells) for each, (name, *cells) in _rows(run.tuning, choice)]
        click.echo(as_markdown([MarkdownTable(_HEAD, rows)]), nl=False)
    else:
        _show(run.tuning, choice)
    if choice is not None and measured is not None:
        off = choice.held_latency_ms / measured - 1
        click.echo(
            f"\n{choice.rule.name}: {show_bytes(choice.bytes)}, {choice.held_latency_ms:.3g} ms predicted, "
            f"{measured:.3g} ms measured on {len(run.held)} held-out queries ({off:+.0%})"
        )
    if applied is not None:
        click.echo(f"written to {applied['path']}, {show_bytes(applied['bytes'])}")


def _rows(tuning: Tuning, choice: Candidate | None) -> Iterator[tuple[Candidate, tuple[str, ...]]]:
    """The front as text, without steps of quality that no table needs; and always the choice and the unpruned index."""
    shown = -1.0
    for each in dict.fromkeys([*tuning.front(), tuning.candidates[0]]):
        if each.kept < shown + _STEP and each is not choice and each is not tuning.candidates[0]:
            continue
        shown = max(shown, each.kept)
        low, high = each.interval
        yield (
            each,
            (
                each.rule.name,
                f"{each.terms:.1f}",
                show_bytes(each.bytes),
                f"{each.latency_ms:.3g}",
                f"{each.kept:.3f}",
                f"{each.held_kept:.3f}",
                f"{low:.3f} to {high:.3f}",
            ),
        )


def _warn(tuning: Tuning, targets: Sequence[Target], choice: Candidate | None) -> None:
    """What to know before believing the figures."""
    if tuning.pseudo:
        note(
            f"no --qrels: the unpruned index's own first {tuning.k} results count as relevant, so what is kept is "
            "likeness to them, which relevance often exceeds"
        )
    unjudged = tuning.queries - len(tuning.chosen_on) - len(tuning.held)
    if unjudged:
        note(f"{unjudged} of {tuning.queries} queries have no relevant document and say nothing")
    for target in targets:
        if choice is not None and target.is_quality and choice.held_kept < target.limit:
            note(
                f"on held-out queries {choice.rule.name} keeps {choice.held_kept:.4f} "
                f"({choice.interval[0]:.3f} to {choice.interval[1]:.3f}), short of {target}; more queries, or a "
                "stricter target, make it safer"
            )


def _show(tuning: Tuning, choice: Candidate | None) -> None:
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    mark = ("  ", "► " if is_unicode(console) else "> ")
    show(
        console,
        Text(
            f"{len(tuning.candidates)} rules, chosen on {len(tuning.chosen_on)} queries, checked on "
            f"{len(tuning.held)}; those that no other beats:",
            "bold",
        ),
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in _HEAD:
        table.add_column(f"  {name}" if name == "rule" else name, justify="left" if name == "rule" else "right")
    for each, (name, *cells) in _rows(tuning, choice):
        table.add_row(mark[each is choice] + name, *cells, style="bold green" if each is choice else "")
    show(console, table)


def _plot(tuning: Tuning, source: str) -> str:
    """Quality kept against terms a document: of every family of rules those that no other of it beats."""
    from polylex.plots import curves
    from polylex.tuning import pareto_front

    families: dict[str, list[Candidate]] = {}
    for each in tuning.candidates[1:]:
        families.setdefault(each.rule.family, []).append(each)
    lines = {name: [(each.terms, each.held_kept) for each in pareto_front(some)] for name, some in families.items()}
    axes = ("terms per document", "share of nDCG kept, held-out queries")
    return curves(f"Pruning {Path(source).name}", lines, axes=axes, level=("unpruned", 1.0))
