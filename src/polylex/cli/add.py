"""`polylex add`: documents into an index that is there, while others search it."""

from __future__ import annotations

import time
from typing import Any

import click

from polylex.cli import options
from polylex.cli.build import Watched
from polylex.cli.index import Skipped, expected, read
from polylex.cli.search import open_retriever
from polylex.cli.terminal import print_json, progress, show_count, show_rate, show_seconds
from polylex.cli.verb import Verb, argument, voice


@click.command(
    "add",
    cls=Verb,
    short_help="Add documents to an index.",
    prints="Documents added and replaced, and how many there are now; with --json one object.",
    examples="""
polylex add articles.plx today.jsonl
polylex add articles.plx corrected.jsonl --upsert            new ones in the place of old ones with the same ids
tail -n 100 feed.jsonl | polylex add articles.plx - --on-error skip
""",
)
@argument("index", "INDEX", "Folder written by `polylex index`.", type=click.Path())
@argument(
    "inputs", "INPUT...", "Files or folders, as for `polylex index`; - is standard input.", nargs=-1, required=True
)
@options.documents
@click.option("--upsert", is_flag=True, help="Replace documents that have the same id; otherwise they are an error.")
@options.model_of_index
@options.threads
@options.as_json
def add(
    index: str,
    inputs: tuple[str, ...],
    upsert: bool,
    as_json: bool,
    **settings: Any,  # noqa: ANN401 - as declared above
) -> None:
    """Encode documents with the model of an index and add them to it, all or none.

    Whoever searches meanwhile is not disturbed, and sees the documents when it opens the index again. Documents are
    pruned as those of the index were. One process writes at a time.
    """
    from polylex.errors import BadInput

    started = time.perf_counter()
    skipped = Skipped()
    with open_retriever(index, settings["model"]) as retriever:
        if settings["text_fields"] not in (None, retriever.index.text_fields(0)):
            raise BadInput(f"{index} holds the fields {retriever.index.text_fields(0)}; leave --text-fields out")
        documents = read(inputs, skipped, **{**settings, "text_fields": retriever.index.text_fields(0)})
        before = len(retriever.index)
        with progress("Adding", expected(inputs, settings["format_"])) as bar:
            retriever.encoder = Watched(retriever.encoder, bar.advance)  # type: ignore[arg-type]
            replaced = retriever.add(documents, upsert=upsert)
        total = len(retriever.index)
    added, seconds = total - before, time.perf_counter() - started
    if as_json:
        print_json(
            {
                "index": index,
                "added": added,
                "replaced": replaced,
                "skipped": skipped.count,
                "documents": total,
                "seconds": round(seconds, 3),
            }
        )
    elif not voice().quiet:
        rate = show_rate((added + replaced) / seconds)
        click.echo(
            f"Added {show_count(added, 'document')} to {index}, replaced {replaced:,}, skipped {skipped.count:,}; "
            f"{show_count(total, 'document')} now ({show_seconds(seconds)}, {rate} documents/s)"
        )
