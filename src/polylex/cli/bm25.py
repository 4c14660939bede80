"""`polylex bm25`: the words of an index's documents, for `polylex search --hybrid`."""

from __future__ import annotations

import time

import click

from polylex.cli import options
from polylex.cli.terminal import print_json, show_count, show_seconds
from polylex.cli.verb import Verb, argument, voice


@click.command(
    "bm25",
    cls=Verb,
    short_help="Add BM25 to an index, for hybrid search.",
    prints="Documents and time; with --json one object.",
    examples="""
polylex bm25 articles.plx
polylex search articles.plx "ISO 8601" --hybrid
""",
)
@argument("path", "INDEX", "Folder written by `polylex index`.", type=click.Path())
@click.option(
    "--k1", type=click.FloatRange(min=0), default=0.9, show_default=True, help="How soon repeats count no more."
)
@click.option(
    "--b",
    "b",
    type=click.FloatRange(0, 1),
    default=0.4,
    show_default=True,
    help="How much long documents are held back.",
)
@options.as_json
def bm25(path: str, k1: float, b: float, as_json: bool) -> None:
    """Count the words of all documents, and keep the counts in the folder of the index. Needs polylex[hybrid].

    Do it again after documents were added, changed or deleted: `polylex search --hybrid` says so.
    """
    from polylex.hybrid import add_bm25

    started = time.perf_counter()
    documents = len(add_bm25(path, k1=k1, b=b))
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"index": path, "documents": documents, "seconds": round(seconds, 3)})
    elif not voice().quiet:
        click.echo(f"Counted the words of {show_count(documents, 'document')} in {show_seconds(seconds)}")
