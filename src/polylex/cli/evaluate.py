"""`polylex evaluate`: quality, by language and with significance, beside its cost."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.demo import cache_folder
from polylex.cli.terminal import (
    note,
    print_json,
    progress,
    show,
    show_bytes,
    show_count,
    stdout,
)
from polylex.cli.verb import Verb, argument, voice
from polylex.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from polylex.assessment import Assessment
    from polylex.collection import Collection, Unknown
    from polylex.prune import Pruning
    from polylex.systems import System

_CURVE = ("mass=0.4,0.5,0.6,0.7,0.8,0.9", "top_k=8,16,32,64,128,256")
_COMMA = re.compile(r",(?![^({]*[)}])")  # not inside the brackets of a measure

_SYSTEM = (
    "Model (bundled name, folder, hub id), index, TREC run, folder of COLLECTION.run, bm25, dense:FOLDER or "
    "sparse-encoder:FOLDER; NAME= before it names it in tables."
)
_DATA = (
    "BEIR folders; LAYOUT:FOLDER:LANGUAGE with a layout of miracl, mldr, mmarco, mkqa, neuclir; ir_datasets:ID; or, "
    "for a run, a qrels file."
)

split_option = click.option(
    "--split", metavar="NAME", help="Part of the data. [default: test, or what the layout calls so]"
)
unknown_option = click.option(
    "--unknown-ids",
    type=click.Choice(("refuse", "keep")),
    default="refuse",
    show_default=True,
    help="Judgments of queries or documents that the data do not have: an error, or counted as never found.",
)
cache_option = click.option(
    "--cache", metavar="FOLDER", help="Keeps vectors between runs. [default: the user's cache folder]"
)
no_cache_option = click.option("--no-cache", is_flag=True, help="Keep vectors in memory only.")


@click.command(
    "evaluate",
    cls=Verb,
    short_help="Measure quality, by language, with significance.",
    prints="A table of measures for every collection, the comparisons with their p values, and the cost. With --json "
    "one object, the content of results.json (docs/evaluation.md).",
    examples="""
polylex evaluate polylex-mini scifact/ --out results
polylex evaluate polylex-mini scifact/ nfcorpus/ --against bm25 --measures nDCG@10,R@100,AP
polylex evaluate articles.plx miracl:data/miracl:sw --no-documents
polylex evaluate polylex-mini scifact/ --prune curve --out results
polylex evaluate new.run qrels.txt --against old=old.run
""",
)
@argument("system", "SYSTEM", _SYSTEM)
@argument("data", "DATA...", _DATA, nargs=-1, required=True)
@click.option(
    "--measures",
    default="nDCG@10,R@100",
    show_default=True,
    metavar="NAMES",
    help="In ir_measures' notation, with commas; the first one is plotted.",
)
@click.option("--against", multiple=True, metavar="SYSTEM", help="Compare with this, given as SYSTEM is. Repeatable.")
@click.option(
    "--prune",
    "prunings",
    multiple=True,
    metavar="RULE",
    help="Also with documents pruned so: mass=0.9, top_k=64, several values with commas (mass=0.5,0.7,0.9), or `curve` "
    "for a usual range of both. Repeatable.",
)
@click.option("-o", "--out", metavar="FOLDER", help="Write report.html, report.md, results.json, plots and runs.")
@click.option("--overwrite", is_flag=True, help="Write over the results in FOLDER.")
@click.option(
    "--languages",
    callback=options.names,
    metavar="TAGS",
    help="Languages that macro means are over; one without a judged query counts 0. [default: all with queries]",
)
@split_option
@click.option(
    "-k", "k", type=options.AT_LEAST_1, metavar="N", help="Hits a run holds. [default: what the measures need]"
)
@unknown_option
@click.option("--no-documents", is_flag=True, help="Do not read documents: enough for an index or a run.")
@cache_option
@no_cache_option
@click.option(
    "--draws", type=options.AT_LEAST_1, default=10_000, show_default=True, metavar="N", help="Of random tests."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of random tests.")
@options.threads
@options.as_json
def evaluate(
    system: str,
    data: tuple[str, ...],
    measures: str,
    out: str | None,
    as_json: bool,
    k: int | None,
    languages: list[str] | None,
    **settings: Any,  # noqa: ANN401 - as declared above
) -> None:
    """Measure how well SYSTEM finds what DATA say is relevant, and compare it with other systems.

    Queries without hits count 0. Macro means have a fixed denominator: all languages with queries, or --languages.
    """
    from polylex.assessment import assess

    _check_out(out, settings["overwrite"])
    rules = _rules(settings["prunings"])
    collections = list(collections_of(data, documents=not settings["no_documents"], **settings))
    with opened((system, *settings["against"]), **settings) as systems:
        systems = [systems[0], *_pruned(systems[0], rules), *systems[1:]]
        assessment = assess(
            systems,
            collections,
            [name.strip() for name in _COMMA.split(measures) if name.strip()],
            k=k,
            languages=languages,
            draws=settings["draws"],
            seed=settings["seed"],
            on_start=lambda name, collection: note(f"{name} on {collection}") if voice().verbose else None,
        )
        if out:
            from polylex.report import write_report

            assessment.write(out)
            write_report(out, assessment, systems)
    if as_json:
        print_json(assessment.to_dict())
    elif not voice().quiet:
        _show(assessment, out)


# -- what the options mean ---------------------------------------------------------------------------


def collections_of(
    data: Sequence[str],
    *,
    split: str | None,
    documents: bool,
    unknown_ids: Unknown,
    **_: object,
) -> Iterator[Collection]:
    """The collections; says how many judgments are of ids that are not there."""
    from polylex.layouts import read_collection

    for each in data:
        collection = read_collection(each, split=split, documents=documents, unknown=unknown_ids)
        unknown = collection.unknown_judgments()
        if unknown and any(query.text for query in collection.queries):
            note(f"{collection.name}: {show_count(unknown, 'judgment')} of ids that are not there count as not found")
        yield collection


@contextmanager
def opened(
    specs: Sequence[str],
    *,
    cache: str | None,
    no_cache: bool,
    threads: int | None,
    **_: object,
) -> Iterator[list[System]]:
    """The systems, while progress is shown."""
    from polylex.systems import open_system

    usual = cache_folder(os.environ, sys.platform, Path.home()) / "encodings"
    folder = None if no_cache else Path(cache) if cache else usual
    with progress("Encoding", None, "texts") as bar:
        yield [open_system(spec, cache=folder, threads=threads, on_texts=bar.advance) for spec in specs]


def _rules(texts: Sequence[str]) -> list[Pruning]:
    """The prunings of all --prune options, each one time."""
    from polylex.prune import Pruning

    rules: dict[Pruning, None] = {}
    for text in chain.from_iterable(_CURVE if text == "curve" else (text,) for text in texts):
        name, _, values = text.partition("=")
        if name not in ("mass", "top_k", "max_ratio", "threshold") or not values:
            raise BadInput(f"--prune {text}: expected mass=SHARE, top_k=N, max_ratio=R, threshold=W or curve")
        for value in values.split(","):
            try:
                number: Any = int(value) if name == "top_k" else float(value)
            except ValueError:
                raise BadInput(f"--prune {text}: {value!r} is no number") from None
            rules[Pruning(**{name: number})] = None
    return list(rules)


def _pruned(system: System, rules: Sequence[Pruning]) -> list[System]:
    if rules and not hasattr(system, "pruned"):
        raise BadInput(f"{system.name} is a run, which cannot be pruned; give the model or the index behind it")
    return [system.pruned(rule) for rule in rules]  # type: ignore[attr-defined] # checked above


def _check_out(out: str | None, overwrite: bool) -> None:
    """Refuse now what would be refused after hours."""
    if out and (Path(out) / "results.json").exists() and not overwrite:
        raise BadInput(f"{out} holds results already; give another folder, or --overwrite")


# -- printing ----------------------------------------------------------------------------------------


def table_of(*heads: str) -> Table:
    """A table with these heads, the first column left, the others right."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left", overflow="fold")
    return table


def _show(assessment: Assessment, out: str | None) -> None:
    """The results for people."""
    from rich.text import Text

    console = stdout()
    for collection in assessment.collections:
        judged = show_count(len(collection.judgments), "judged query").replace("querys", "queries")
        show(console, Text(f"{collection.name}: {show_count(len(collection.ids), 'document')}, {judged}", "bold"))
        heads = [f"{measure}{kind}" for measure in assessment.measures for kind in ("", " macro")]
        table = table_of("  mean over queries and over languages", *heads, "terms", "index", "ms/query")
        for name in assessment.systems:
            result = assessment.result(name, collection.name)
            mean, macro = result.evaluation.mean(), result.macro()
            cells = [f"{means[measure]:.3f}" for measure in assessment.measures for means in (mean, macro)]
            terms, size, speed = result.outcome.document_terms, result.outcome.index_bytes, result.search_ms
            costs = [
                "" if terms is None else f"{terms:.0f}",
                "" if size is None else show_bytes(size),
                "" if speed is None else f"{speed:.2f}",
            ]
            table.add_row(Text(f"  {name}"), *cells, *costs)
        show(console, table)
        _show_notes(console, assessment, collection.name)
        _show_tests(console, assessment, collection.name)
    if out:
        show(console, Text(f"Written: {Path(out) / 'report.html'}", "dim"))


def _show_notes(console: Console, assessment: Assessment, collection: str) -> None:
    from rich.text import Text

    for name in assessment.systems:
        result = assessment.result(name, collection)
        missing, unjudged = len(result.evaluation.missing), len(result.evaluation.unjudged)
        if missing:
            show(console, Text(f"  {name}: {missing:,} queries without a hit, which score 0", "yellow"))
        if unjudged:
            show(console, Text(f"  {name}: {unjudged:,} queries that nobody judged, which do not count", "dim"))
    absent = assessment.result(assessment.systems[0], collection).absent
    if absent:
        names = ", ".join(language or "unknown" for language in absent)
        show(console, Text(f"  no judged query in {names}: 0 in the macro mean", "yellow"))


def _show_tests(console: Console, assessment: Assessment, collection: str) -> None:
    from rich.text import Text

    found = [each for each in assessment.comparisons if each.collection == collection]
    if not found:
        return
    heads = ("difference", "95 % interval", "better/worse", "p (Holm): t", "randomisation", "bootstrap")
    table = table_of(f"  {found[0].first} against", "", *heads)
    for each in found:
        low, high = each.comparison.interval
        table.add_row(
            Text(f"  {each.second}{' (the same rankings)' if each.is_same else ''}"),
            each.comparison.measure,
            f"{each.comparison.difference:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
            f"{each.comparison.wins:,}/{each.comparison.losses:,}",
            *(f"{each.holm[name]:.4f}" for name in ("p_t", "p_randomisation", "p_bootstrap")),
        )
    show(console, table)
