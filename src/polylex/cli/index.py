"""`polylex index`: documents in, a searchable folder out, all or nothing."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.build import Watched, watching
from polylex.cli.terminal import (
    note,
    print_json,
    progress,
    show,
    show_bytes,
    show_count,
    show_rate,
    show_seconds,
    stdout,
)
from polylex.cli.verb import Verb, argument, voice

if TYPE_CHECKING:
    from polylex.corpus import Document
    from polylex.errors import BadRecord
    from polylex.files import Format
    from polylex.index import IndexInfo

_SHOWN_FAULTS = 10  # skipped records named one by one; the others are counted
_COUNTED_BYTES = 1 << 30  # of input whose lines are counted beforehand: a second of reading


@click.command(
    "index",
    cls=Verb,
    short_help="Encode documents and index them.",
    prints="Documents, terms per document, size, time and rate; with --json one object. Progress is on standard error.",
    examples="""
polylex index articles.jsonl --out articles.plx
polylex index notes/ --out notes.plx                     a folder of .txt and .md files
polylex index scifact/ --out scifact.plx                 a BEIR folder
polylex index news.tsv.gz --id-field key --text-fields headline,body --out news.plx
zcat dump.gz | jq -c .article | polylex index - --out dump.plx --on-error skip
polylex index articles.jsonl --out small.plx --prune-mass 0.9
""",
)
@argument(
    "inputs",
    "INPUT...",
    "Files or folders (JSON lines, TSV, CSV, Parquet, text, BEIR), plain or packed with gz, xz, bz2 or zst; - is "
    "standard input.",
    nargs=-1,
    required=True,
)
@click.option("-o", "--out", required=True, metavar="INDEX", help="Folder to write; refused if it exists.")
@options.documents
@click.option(
    "--prune-mass",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Keep per document the fewest heaviest terms that hold SHARE of its weight, e.g. 0.9.",
)
@click.option("--prune-top", type=options.AT_LEAST_1, metavar="N", help="Keep at most N terms per document.")
@options.model
@options.threads
@click.option("--bm25", is_flag=True, help="Add BM25, for `polylex search --hybrid`; needs polylex[hybrid].")
@click.option("--overwrite", is_flag=True, help="Replace INDEX; it stays searchable until the new one is complete.")
@options.as_json
def index(
    inputs: tuple[str, ...],
    out: str,
    prune_mass: float | None,
    prune_top: int | None,
    as_json: bool,
    **settings: Any,  # noqa: ANN401 - as declared above
) -> None:
    """Encode documents and build a searchable index of them.

    Nothing stands at INDEX before the last document is in. After an interruption (Ctrl-C, a power cut) the same command
    goes on where it stopped.
    """
    from polylex.models import load
    from polylex.prune import Pruning
    from polylex.retriever import Retriever

    if settings["bm25"]:
        from polylex.bm25 import BM25

        BM25.build([], [])  # a missing package is told before the documents are encoded
    started = time.perf_counter()
    skipped = Skipped()
    documents = read(inputs, skipped, **settings)
    with progress("Indexing", expected(inputs, settings["format_"])) as bar, watching(bar) as build:
        retriever = Retriever.build(
            out,
            documents,
            Watched(load(settings["model"], threads=settings["threads"]), bar.advance),
            text_fields=settings["text_fields"],
            prune=Pruning(mass=prune_mass, top_k=prune_top) or None,
            overwrite=settings["overwrite"],
            on_progress=build,
        )
    with retriever:
        info = retriever.index.info()
    if settings["bm25"]:
        from polylex.hybrid import add_bm25

        add_bm25(out)
    seconds = time.perf_counter() - started
    if as_json:
        print_json(
            {
                "index": out,
                "documents": info.documents,
                "encoded": info.documents - build.resumed,
                "skipped": skipped.count,
                "terms_per_document": info.terms_per_document,
                "bytes": info.bytes,
                "seconds": round(seconds, 3),
            }
        )
    elif not voice().quiet:
        _show(out, info, seconds, skipped.count, build.resumed)


def _show(out: str, info: IndexInfo, seconds: float, skipped: int, resumed: int) -> None:
    """The summary for people."""
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    show(console, Text(f"Indexed {show_count(info.documents, 'document')} into {out}", "bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_row("  terms", f"{info.terms_per_document:.0f} per document")
    table.add_row("  size", show_bytes(info.bytes))
    rate = show_rate((info.documents - resumed) / seconds)
    table.add_row("  time", f"{show_seconds(seconds)}, {rate} documents/s")
    if resumed:
        table.add_row("  before", f"{show_count(resumed, 'document')} stored by an interrupted run")
    if skipped:
        table.add_row("  skipped", show_count(skipped, "record"))
    show(console, table)
    show(console, Text(f'Search it: polylex search {shlex.quote(out)} "a question in any language"', "dim"))


# -- reading -----------------------------------------------------------------------------------------


class Skipped:
    """Records that could not be used: the first few are named on standard error, all are counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, fault: BadRecord) -> None:
        """Take note of one."""
        self.count += 1
        if self.count <= _SHOWN_FAULTS:
            note(f"skipped {fault}")
        elif self.count == _SHOWN_FAULTS + 1:
            note("more records were skipped; the end says how many")


def read(
    inputs: Sequence[str],
    skipped: Skipped,
    *,
    format_: Format | None,
    id_field: str | None,
    text_fields: list[str] | None,
    on_error: Any,  # noqa: ANN401 - "stop" or "skip", as click has checked
    max_chars: int,
    only: Callable[[int], bool] | None = None,
    **_: object,
) -> Iterator[Document]:
    """The documents that the options of `options.documents` name; `only` as for `read_documents`."""
    from polylex.corpus import read_documents

    return read_documents(
        list(inputs),
        format=format_,
        id_field=id_field,
        text_fields=text_fields,
        on_error=on_error,
        on_skip=skipped,
        max_chars=max_chars,
        only=only,
    )


def expected(inputs: Sequence[str], format_: Format | None) -> int | None:
    """How many documents the inputs hold, where that is cheap to tell: lines of plain files, files of a folder.

    None where it is not; off by what a file has of blank lines, faulty ones, or no header. For a progress bar.
    """
    from polylex.compression import SUFFIXES
    from polylex.files import find_files

    files = find_files(list(inputs), format_)
    if any(str(file.path) == "-" or str(file.path).endswith(SUFFIXES) for file in files):
        return None
    if any(file.format in ("csv", "parquet") for file in files):
        return None
    lined = [Path(file.path) for file in files if file.format != "text"]
    if sum(os.path.getsize(path) for path in lined) > _COUNTED_BYTES:
        return None
    return len(files) - len(lined) + sum(map(_count_lines, lined))


def _count_lines(path: Path) -> int:
    """Line ends of a file, and its last line if that has none."""
    lines, last = 0, b"\n"
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            lines, last = lines + block.count(b"\n"), block[-1:]
    return lines + (last != b"\n")
