"""`polylex fuse`: one TREC run from several."""

from __future__ import annotations

import sys
from typing import Any

import click

from polylex.cli import options
from polylex.cli.verb import Verb, argument
from polylex.errors import BadInput

_METHODS = ("rrf", "minmax", "zscore", "sum")


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
    """Numbers separated by commas."""
    try:
        return None if value is None else [float(number) for number in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 1,0.5") from None


@click.command(
    "fuse",
    cls=Verb,
    short_help="Fuse TREC runs into one.",
    prints="The six columns of a TREC run, for every query that one of the runs has.",
    examples="""
polylex fuse polylex.run bm25.run > fused.run
polylex fuse polylex.run bm25.run --weights 2,1 -k 100 > fused.run
polylex fuse polylex.run dense.run --method minmax > fused.run
""",
)
@argument("runs", "RUN...", "Run files (query Q0 document rank score tag), plain or packed.", nargs=-1, required=True)
@click.option(
    "--method",
    type=click.Choice(_METHODS),
    default="rrf",
    show_default=True,
    help="rrf adds up 1 / (60 + rank); the others add up scores after making the scores of each run comparable.",
)
@click.option(
    "--weights",
    callback=_numbers,
    metavar="NUMBERS",
    help="How much each run counts, e.g. 2,1. [default: all the same]",
)
@click.option(
    "--rank-constant",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="N",
    help="Of rrf: a small one favours the first ranks.",
)
@click.option(
    "-k", "k", type=options.AT_LEAST_1, default=1000, show_default=True, metavar="N", help="Documents for each query."
)
@click.option("--run-tag", default="fused", show_default=True, metavar="TAG", help="Last column of the run.")
def fuse(runs: tuple[str, ...], run_tag: str, **how: Any) -> None:  # noqa: ANN401 - as declared above
    """Fuse the rankings of several systems, query by query.

    The same documents need the same ids in all runs. Ties go to the document that the first run ranks higher.
    """
    from polylex.fusion import fuse as fused
    from polylex.trec import read_run, run_lines

    if how["weights"] is not None and len(how["weights"]) != len(runs):
        raise BadInput(f"{len(how['weights'])} weights for {len(runs)} runs; give one each")
    sys.stdout.writelines(run_lines(fused([read_run(path) for path in runs], **how), tag=run_tag))
