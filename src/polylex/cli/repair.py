"""`polylex repair`: a sound index from what is intact of a damaged one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polylex.cli import options
from polylex.cli.terminal import note, one_line, print_json, progress, show_count
from polylex.cli.verb import Verb, argument, voice
from polylex.errors import BadInput, CorruptIndex, PolylexError

if TYPE_CHECKING:
    from polylex.repair import Repaired

_SHOWN = 20  # lost documents named one by one; --json names all


@click.command(
    "repair",
    cls=Verb,
    short_help="Save what is intact of a damaged index.",
    prints="What is damaged, which documents are lost, how many were recovered; with --json one object that names all.",
    examples="""
polylex repair articles.plx --dry-run                  only look
polylex repair articles.plx --out saved.plx
polylex repair articles.plx --in-place                 the damaged one is kept as articles.plx.damaged
""",
)
@argument("path", "INDEX", "Folder of a damaged index; only read, unless --in-place.", type=click.Path())
@click.option("-o", "--out", metavar="OUT", help="Folder to write. [default: INDEX.repaired]")
@click.option("--in-place", is_flag=True, help="Put the repaired index at INDEX, and the damaged one at INDEX.damaged.")
@click.option("--dry-run", is_flag=True, help="Only tell what is lost.")
@options.model_of_index
@options.as_json
def repair(path: str, out: str | None, in_place: bool, dry_run: bool, model: str | None, as_json: bool) -> None:
    """Write a new index with every document whose vector, id and fields are intact.

    Exits with 1 when a document is lost. Lost documents can be added again with `polylex add`.
    """
    if sum((out is not None, in_place, dry_run)) > 1:
        raise click.UsageError("give --out, --in-place or --dry-run, one of them")
    path = path.rstrip("/")
    target, aside = out or f"{path}.repaired", Path(f"{path}.damaged")
    if in_place and aside.exists():
        raise BadInput(f"{aside} is there already; move it away first")
    found = _repaired(path, None if dry_run else target, model)
    if in_place:
        os.rename(path, aside)
        os.rename(target, path)
        target = path
    if as_json:
        lost = [{"row": lost.row, "id": lost.id, "reason": lost.reason} for lost in found.lost]
        told = {"path": path, "out": None if dry_run else target, "documents": found.documents}
        print_json({**told, "lost": lost, "faults": found.faults})
    else:
        _show(found, None if dry_run else target)
    if found.lost:
        raise click.exceptions.Exit(1)


def _repaired(path: str, out: str | None, model: str | None) -> Repaired:
    """Repair; with the names of terms that a model has, where the index has lost them."""
    from polylex.models import load
    from polylex.repair import model_of
    from polylex.repair import repair as repaired

    def attempt(named: str | None) -> Repaired:
        vocab = load(named).vocab if named else None
        with progress("Repairing", None) as bar:
            done = [0]

            def advance(documents: int) -> None:
                bar.advance(documents - done[0])
                done[0] = documents

            return repaired(path, out, vocab=vocab, on_progress=advance)

    try:
        return attempt(model)
    except CorruptIndex as fault:
        own = "" if model or "--model" not in str(fault) else model_of(path)
        if not own:
            raise
        note(f"{one_line(str(fault))}; trying {own}")
        try:
            return attempt(own)
        except PolylexError:
            raise fault from None


def _show(found: Repaired, out: str | None) -> None:
    for fault in found.faults:
        click.echo(one_line(fault))
    for lost in found.lost[:_SHOWN]:
        click.echo(f"lost: {one_line(lost.id) or f'row {lost.row}'} ({one_line(lost.reason)})")
    if len(found.lost) > _SHOWN:
        click.echo(f"... and {len(found.lost) - _SHOWN:,} more; --json names all")
    if not voice().quiet:
        where = f"recovered into {out}" if out else "can be recovered"
        click.echo(f"{show_count(found.documents, 'document')} {where}, {len(found.lost):,} lost")
