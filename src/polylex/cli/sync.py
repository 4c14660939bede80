"""`polylex sync`: a collection on an engine, kept equal to a folder or table of documents."""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.demo import cache_folder
from polylex.cli.index import Skipped, read
from polylex.cli.terminal import note, print_json, progress, show_count
from polylex.cli.verb import Verb, argument, voice

if TYPE_CHECKING:
    from polylex.engine import Engine
    from polylex.sync import Changes, Synced


@click.command(
    "sync",
    cls=Verb,
    short_help="Keep a collection on an engine equal to documents.",
    prints="Documents added, updated, deleted and unchanged, and each one that the engine rejected, with its reason; "
    "with --json one object. Exit code 1 if one was rejected.",
    examples="""
polylex sync articles/ milvus://127.0.0.1:19530/articles --create
polylex sync articles.parquet qdrant://127.0.0.1:6333/articles --dry-run
polylex sync articles.jsonl opensearch+https://search.example.com:9200/articles
""",
)
@argument("source", "INPUT", "File or folder, as for `polylex index`.", type=click.Path())
@argument(
    "address",
    "ENGINE",
    "milvus://HOST:PORT/COLLECTION, or with qdrant, opensearch, elasticsearch, postgresql; +https encrypts. A secret "
    "is in $POLYLEX_ENGINE_KEY.",
)
@click.option("--create", is_flag=True, help="Make the collection where it is not there.")
@click.option("--dry-run", is_flag=True, help="Change nothing; tell what would be changed.")
@click.option(
    "--most-deletes",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="Refuse to begin where more of the collection would be deleted.",
)
@click.option(
    "--prune-mass", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE", help="As in `polylex index`."
)
@click.option("--prune-top", type=options.AT_LEAST_1, metavar="N", help="As in `polylex index`.")
@click.option(
    "--ledger",
    metavar="FILE",
    help="What the collection is known to hold; without it every document is sent once more. [default: in the user's "
    "folder for caches]",
)
@options.documents
@options.model
@options.threads
@options.as_json
def sync(
    source: str,
    address: str,
    create: bool,
    dry_run: bool,
    most_deletes: float,
    as_json: bool,
    **settings: Any,  # noqa: ANN401 - as declared above
) -> None:
    """Add, update and delete until ENGINE has the documents of INPUT, and nothing else.

    Only new and changed documents are encoded. After an interruption the same command goes on where it stopped.
    """
    from polylex.engine import Space
    from polylex.engines.address import open_engine
    from polylex.ledger import Ledger
    from polylex.models import load
    from polylex.prune import Pruning
    from polylex.sync import Sync

    encoder = load(settings["model"], threads=settings["threads"])
    engine = open_engine(address, Space(encoder.vocab), os.environ)
    rule = Pruning(mass=settings["prune_mass"], top_k=settings["prune_top"]) or None
    skipped = Skipped()
    try:
        if create and not dry_run:
            _make(engine)
        with Ledger(settings["ledger"] or _ledger(address), address) as ledger:
            work = Sync(engine, encoder, ledger, prune=rule)
            changes = work.compare(read([source], skipped, **settings))
            if dry_run:
                _tell(changes, None, skipped.count, as_json)
                return
            changes.require(most_deletes, skipped=skipped.count)
            with progress("Syncing", len(changes.added) + len(changes.updated)) as bar:
                report = work.apply(
                    changes,
                    read([source], lambda fault: None, **settings),  # type: ignore[arg-type]
                    on_progress=lambda state: bar.start_at(state.pushed),
                )
    finally:
        engine.close()
    _tell(changes, report, skipped.count, as_json)
    if report.rejected:
        raise click.exceptions.Exit(1)


def _make(engine: Engine) -> None:
    """Create a collection that is not there."""
    from polylex.engine import again
    from polylex.errors import EngineError, EngineUnreachable

    try:
        again(engine.count)
    except EngineUnreachable:
        raise
    except EngineError:  # whatever else it is, creating tells it too
        again(engine.create)


def _ledger(address: str) -> Path:
    folder = cache_folder(os.environ, sys.platform, Path.home()) / "ledgers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{sha256(address.encode()).hexdigest()[:16]}.sqlite"


def _tell(changes: Changes, report: Synced | None, skipped: int, as_json: bool) -> None:
    """What was done; without a report what would be."""
    counts = {
        "added": len(changes.added),
        "updated": len(changes.updated),
        "deleted": len(changes.deleted),
        "unchanged": changes.unchanged,
    }
    if as_json:
        print_json(
            {
                "dry_run": report is None,
                **counts,
                "skipped": skipped,
                "rejected": [{"id": each.id, "reason": each.reason} for each in (report.rejected if report else [])],
                "retries": report.retries if report else 0,
            }
        )
        return
    for each in report.rejected if report else []:
        note(f"rejected {each.id}: {each.reason}")
    if not voice().quiet:
        done = "Would be" if report is None else "Done"
        told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        lost = f", {show_count(len(report.rejected), 'document')} rejected" if report and report.rejected else ""
        click.echo(f"{done}: {told}{lost}" + (f", {skipped:,} skipped" if skipped else ""))
