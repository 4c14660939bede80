"""`polylex merge`: the shards of an encoding job, checked, and joined to one file of vectors or one index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.encode import refuse
from polylex.cli.index import Skipped, read
from polylex.cli.terminal import note, print_json, progress, show, show_count, stdout
from polylex.cli.verb import Verb, argument, voice

if TYPE_CHECKING:
    from polylex.corpus import Document
    from polylex.harvest import Harvest


@click.command(
    "merge",
    cls=Verb,
    short_help="Check and join the shards of an encoding job.",
    prints="Each shard that is missing, unfinished, twice, damaged or of another job, by name; with --json one object. "
    "Exit code 1 if there is one: then nothing is written.",
    examples="""
polylex merge articles.job --check
polylex merge articles.job --out articles.safetensors
polylex merge articles.job --index articles.plx --from articles.jsonl
polylex merge /mnt/a/articles.job /mnt/b/articles.job --out articles.safetensors
""",
)
@argument(
    "jobs",
    "JOB...",
    "Folders that `polylex encode --shard ... --out` wrote, or single shards.",
    nargs=-1,
    required=True,
)
@click.option("-o", "--out", metavar="FILE", help="safetensors file to write, in the order of the input.")
@click.option("--index", "index", metavar="INDEX", help="Index to build.")
@click.option(
    "--from",
    "inputs",
    metavar="INPUT",
    multiple=True,
    help="The input once more, whose fields INDEX then has; give it as to `polylex encode`. [default: no fields]",
)
@click.option("--check", is_flag=True, help="Write nothing.")
@options.documents
@options.model_of_index
@click.option("--overwrite", is_flag=True, help="Replace FILE or INDEX.")
@options.as_json
def merge(
    jobs: tuple[str, ...],
    out: str | None,
    index: str | None,
    inputs: tuple[str, ...],
    check: bool,
    as_json: bool,
    **settings: Any,  # noqa: ANN401 - of the documents, model and overwrite
) -> None:
    """Join the shards of an encoding job, in the order of the input: the same whatever their number.

    Every byte is checked first, and nothing is written unless all shards are there and of one job.
    """
    if bool(out) + bool(index) + check != 1:
        raise click.UsageError("give --out FILE, --index INDEX or --check, one of the three")
    if inputs and not index:
        raise click.UsageError("--from goes with --index")
    if out:
        refuse(Path(out), settings["overwrite"])
    from polylex.harvest import Harvest

    harvest = Harvest.read(jobs)
    _report(harvest, out or index, as_json)
    if harvest.findings:
        raise click.exceptions.Exit(1)
    if out:
        from polylex.storage import save_vectors

        save_vectors(out, *harvest.vectors())
    elif index:
        _build(harvest, index, inputs, settings)
    if not check:
        note(f"{show_count(len(harvest), 'vector')} in {out or index}")


def _build(harvest: Harvest, index: str, inputs: tuple[str, ...], settings: dict[str, Any]) -> None:
    from polylex.models import DEFAULT, load

    vocab = load(settings["model"] or harvest.plan.model or DEFAULT).vocab
    documents: Iterator[Document] | None = None
    if inputs:
        wanted = settings["text_fields"] or harvest.plan.settings.get("text_fields")
        documents = read(inputs, Skipped(), **{**settings, "text_fields": wanted})
    with progress("Indexing", len(harvest)) as bar:
        harvest.build(index, vocab, documents, overwrite=settings["overwrite"], on_rows=bar.start_at)


def _report(harvest: Harvest, target: str | None, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "shards": len(harvest.shards),
                "of": harvest.plan.of,
                "documents": len(harvest),
                "postings": harvest.postings,
                "findings": [
                    {"kind": finding.kind, "shard": finding.shard, "text": finding.text} for finding in harvest.findings
                ],
                "out": None if harvest.findings else target,
            }
        )
        return
    if voice().quiet and not harvest.findings:
        return
    from rich.text import Text

    console = stdout()
    whole = ("whole", "green") if not harvest.findings else ("not whole", "red")
    counted = (
        f"{len(harvest.shards):,} of {show_count(harvest.plan.of, 'shard')}, {show_count(len(harvest), 'document')}: "
    )
    show(console, Text.assemble(counted, whole))
    for finding in harvest.findings:
        show(console, Text.assemble("  ", (finding.kind, "red"), f"  {finding.shard}  {finding.text}"))
