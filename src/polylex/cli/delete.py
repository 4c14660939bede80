"""`polylex delete`: documents out of an index, while others search it. `polylex compact`: their space, too."""

from __future__ import annotations

from collections.abc import Iterator

import click

from polylex.cli import options
from polylex.cli.terminal import print_json, show_bytes, show_count
from polylex.cli.verb import Verb, argument, voice
from polylex.errors import BadInput


@click.command(
    "delete",
    cls=Verb,
    short_help="Delete documents from an index.",
    prints="How many were deleted and how many are left; with --json one object.",
    examples="""
polylex delete articles.plx de-16 de-17
polylex delete articles.plx --ids outdated.txt --missing-ok
""",
)
@argument("index", "INDEX", "Folder written by `polylex index`.", type=click.Path())
@argument("ids", "[ID]...", "Ids of the documents, as hits show them.", nargs=-1)
@click.option("--ids", "file", metavar="FILE", help="Ids, one a line; - is standard input.")
@click.option("--missing-ok", is_flag=True, help="Pass over ids that are not there; otherwise nothing is deleted.")
@options.as_json
def delete(index: str, ids: tuple[str, ...], file: str | None, missing_ok: bool, as_json: bool) -> None:
    """Delete documents from an index, all or none. Needs no model.

    Their space is given back by and by, when more is written, or by `polylex compact`.
    """
    from polylex.writer import IndexWriter

    wanted = [*ids, *(_read(file) if file else ())]
    if not wanted:
        raise click.UsageError("name the documents: ID... or --ids FILE")
    with IndexWriter(index) as writer:
        deleted = writer.delete(wanted, missing_ok=missing_ok)
        left = len(writer)
    if as_json:
        print_json({"index": index, "deleted": deleted, "missing": len(set(wanted)) - deleted, "documents": left})
    elif not voice().quiet:
        click.echo(f"Deleted {show_count(deleted, 'document')} from {index}; {left:,} are left")


def _read(file: str) -> Iterator[str]:
    """The ids of a file, one a line."""
    try:
        with click.open_file(file, encoding="utf-8") as lines:
            yield from (line.rstrip("\r\n") for line in lines if line.strip())
    except UnicodeDecodeError as fault:
        raise BadInput(f"{file} is no text in UTF-8 ({fault}); write one id a line") from None


@click.command(
    "compact",
    cls=Verb,
    short_help="Make an index as small and quick as it was when new.",
    prints="Segments, bytes and deleted documents before and after; with --json one object.",
    examples="""
polylex compact articles.plx
""",
)
@argument("path", "INDEX", "Folder written by `polylex index`.", type=click.Path())
@options.as_json
def compact(path: str, as_json: bool) -> None:
    """Put small segments together and drop what deleted documents left behind. Hits and scores stay what they are.

    Every write does some of this by itself. Whoever searches meanwhile is not disturbed, but keeps the old files on the
    disk until it ends.
    """
    from polylex.index import Index
    from polylex.writer import IndexWriter

    with Index.open(path) as index:
        before = index.info()
    with IndexWriter(path) as writer:
        writer.compact()
    with Index.open(path) as index:
        after = index.info()
    if as_json:
        told = {
            name: {"segments": info.segments, "bytes": info.bytes, "deleted": info.deleted}
            for name, info in (("before", before), ("after", after))
        }
        print_json({"index": path, "documents": after.documents, **told})
    elif not voice().quiet:
        click.echo(
            f"{path}: {show_count(before.segments, 'segment')} became {after.segments:,}, "
            f"{show_bytes(before.bytes)} became {show_bytes(after.bytes)}"
        )
