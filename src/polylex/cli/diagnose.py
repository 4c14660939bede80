"""`polylex diagnose`: where and why queries fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from polylex.cli import options
from polylex.cli.evaluate import (
    cache_option,
    collections_of,
    no_cache_option,
    opened,
    split_option,
    table_of,
    unknown_option,
)
from polylex.cli.terminal import one_line, print_json, show, signs_of, stdout, term_name
from polylex.cli.verb import Verb, argument
from polylex.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from polylex.diagnosis import Diagnosis, Failure
    from polylex.systems import Explicable

_EXAMPLE = 70  # characters of a query


@click.command(
    "diagnose",
    cls=Verb,
    short_help="Say where and why queries fail.",
    prints="Per language the number of queries that fail, by reason, then examples. With --json one object; its "
    "failures name the relevant document, its rank, the hit in front of it, and the terms that part the two.",
    examples="""
polylex diagnose polylex-mini xquadr-pooled/
polylex diagnose articles.plx my-judgments/ -k 3 --examples 5
polylex diagnose polylex-mini scifact/ --json | jq '.by_reason'
""",
)
@argument("system", "SYSTEM", "Model (bundled name, folder, hub id) or index.")
@argument("data", "DATA", "BEIR folder, LAYOUT:FOLDER:LANGUAGE or ir_datasets:ID, as for `polylex evaluate`.")
@click.option(
    "-k", "k", type=options.AT_LEAST_1, default=10, show_default=True, metavar="N", help="A query fails if no relevant "
    "document is among its first N hits."
)  # fmt: skip
@click.option(
    "--examples", type=click.IntRange(min=0), default=2, show_default=True, metavar="N", help="Queries shown a reason."
)
@split_option
@unknown_option
@cache_option
@no_cache_option
@options.threads
@options.as_json
def diagnose(
    system: str,
    data: str,
    k: int,
    examples: int,
    as_json: bool,
    **settings: Any,  # noqa: ANN401 - as declared above
) -> None:
    """Find the queries whose relevant documents are not among the first hits, and tell why.

    Reasons, the first that holds: not in the collection; empty or collapsed vector of the query or the document; no
    shared term; truncated; outranked, by which document and through which terms.
    """
    from polylex.diagnosis import diagnose as examine

    (collection,) = collections_of((data,), documents=True, **settings)
    with opened((system,), **settings) as (found,):
        if not hasattr(found, "vectors"):
            raise BadInput(f"{system} has no sparse vectors to look at; give a model or an index, not a run")
        diagnosis = examine(cast("Explicable", found), collection, k)
    if as_json:
        print_json(diagnosis.to_dict())
    else:
        _show_diagnosis(diagnosis, examples)


def _show_diagnosis(diagnosis: Diagnosis, examples: int) -> None:
    """Counts by language and reason, then examples."""
    from rich.text import Text

    from polylex.diagnosis import MEANINGS

    console, failed = stdout(), len(diagnosis.failures)
    share = failed / diagnosis.queries
    title = (
        f"{failed:,} of {diagnosis.queries:,} queries ({share:.0%}) have no relevant document among {diagnosis.k} hits"
    )
    show(console, Text(title, "bold"))
    met = {reason: count for reason, count in diagnosis.by_reason().items() if count}
    if not met:
        return
    table = table_of("  language", "queries", "failed", "", *met)
    for language, reasons in diagnosis.by_language().items():
        queries, missed = diagnosis.counts[language], sum(reasons.values())
        cells = [str(reasons[reason] or "") for reason in met]
        table.add_row(f"  {language or '?'}", f"{queries:,}", f"{missed:,}", f"{missed / queries:.0%}", *cells)
    show(console, table)
    for reason, count in met.items():
        show(console, Text(f"{reason} ({count:,}): {MEANINGS[reason]}", "bold"))
        for failure in [each for each in diagnosis.failures if each.reason == reason][:examples]:
            show(console, _example(console, failure))


def _example(console: Console, failure: Failure) -> Text:
    from rich.text import Text

    signs = signs_of(console)
    text = one_line(failure.text)
    lines = Text.assemble(f"  {failure.query} ", (failure.language, "magenta"), f" {text[:_EXAMPLE]}", no_wrap=False)
    if failure.relevant is not None:
        place = f"rank {failure.rank}" if failure.rank else "not found"
        lines.append(f"\n    relevant {failure.relevant}: {place}, score {failure.score:.2f}")
    if failure.outranked_by is not None:
        lines.append(f"\n    first    {failure.outranked_by}: score {failure.ahead:.2f}")
    if failure.twin is not None:
        lines.append(f"\n    the same vector as {failure.twin}")
    if failure.terms:
        gained = ", ".join(
            f"{term_name(each.term, signs)} {each.ahead:.2f}/{each.relevant:.2f}" for each in failure.terms
        )
        lines.append(f"\n    through  {gained}", "dim")
    return lines
