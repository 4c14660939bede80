"""What `polylex encode` does with a share of its input, and what it says of the rest: shards and estimates."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from polylex.cli import options
from polylex.cli.index import Skipped, expected, read
from polylex.cli.terminal import note, print_json, progress, show, show_bytes, show_count, show_rate, stdout
from polylex.errors import BadInput

if TYPE_CHECKING:
    from polylex.job import Kind
    from polylex.partition import Partition, Text
    from polylex.prune import Pruning
    from polylex.throughput import Throughput

F = TypeVar("F", bound=Callable[..., Any])
_SAMPLE = 256  # texts that an estimate encodes ...
_SPREAD = 32  # ... one of so many at the beginning of the input


def job_options(command: F) -> F:
    """Options for encoding at scale."""
    for decorate in reversed(
        (
            click.option(
                "--shard",
                metavar="I/N",
                help="Encode the I-th, from 0, of N shares into the folder OUT; `polylex merge` joins them. [default: "
                "RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS, where there is more than one process]",
            ),
            click.option(
                "--split",
                type=click.Choice(("documents", "files")),
                default="documents",
                show_default=True,
                help="Document p is in shard p % N and each process reads all; or file f in shard f % N, and it reads "
                "only its own.",
            ),
            click.option(
                "--device",
                metavar="DEVICE",
                help="cuda, cuda:1, ...: encode with PyTorch there; needs polylex[model] and a model in its layout. "
                "[default: the CPU, with ONNX Runtime]",
            ),
            click.option(
                "--batch-size",
                type=options.AT_LEAST_1,
                default=32,
                show_default=True,
                metavar="N",
                help="Windows encoded at one time on DEVICE.",
            ),
            click.option(
                "--estimate",
                type=options.AT_LEAST_1,
                metavar="N",
                help="Write nothing; encode a sample of INPUT and tell what N such texts would take.",
            ),
            click.option(
                "--devices",
                type=options.AT_LEAST_1,
                default=1,
                show_default=True,
                metavar="N",
                help="With --estimate: devices like this one that share the work.",
            ),
            click.option(
                "--price",
                type=click.FloatRange(0),
                metavar="PRICE",
                help="With --estimate: of one device for an hour, in any currency.",
            ),
        )
    ):
        command = decorate(command)
    return command


def partition_of(shard: str | None, split: str, *, from_launcher: bool) -> Partition | None:
    """The shard that the options, or the launcher of this process, name."""
    from polylex.partition import Partition

    if shard is not None:
        return Partition.parse(shard, split)  # type: ignore[arg-type]
    if not from_launcher:
        return None
    return Partition.of_environment(os.environ, split)  # type: ignore[arg-type]


def open_encoder(settings: dict[str, Any]) -> tuple[Any, str]:
    """The encoder that the options name, and its device for people."""
    device = settings["device"]
    if device in (None, "cpu"):
        from polylex.models import load

        encoder = load(settings["model"], threads=settings["threads"])
        return encoder, f"cpu, {show_count(encoder.threads, 'thread')}"
    from polylex.models import load_on
    from polylex.partition import local_rank

    if device == "cuda" and (rank := local_rank(os.environ)):
        device = f"cuda:{rank}"
    placed = load_on(settings["model"], device, batch_size=settings["batch_size"])
    return placed, placed.device_name


# -- a shard -----------------------------------------------------------------------------------------


def encode_job(
    partition: Partition, inputs: Sequence[str], out: Path, kind: Kind, rule: Pruning, settings: dict[str, Any]
) -> None:
    """Encode one shard and tell how quick that was."""
    from polylex.job import Plan, encode_shard
    from polylex.partition import Share
    from polylex.throughput import Meter

    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; a shard is written into a folder: give another name")
    if any(os.path.isdir(each) and out.resolve().is_relative_to(Path(each).resolve()) for each in inputs):
        raise BadInput(f"{out} lies in the input, and would be read as a part of it; give a folder elsewhere")
    skipped = Skipped()
    texts = _texts(partition, inputs, kind, skipped, settings)
    encoder, device = open_encoder(settings)
    listing = _listing(inputs, settings) if partition.split == "files" else ""
    about = {name: settings[name] for name in ("format_", "id_field", "text_fields", "on_error", "max_chars")}
    about["pruning"] = repr(rule) if rule else None
    total = expected(inputs, settings["format_"]) if partition.split == "documents" else None
    with progress("Encoding", None if total is None else -(-total // partition.of), "texts") as bar:
        meter = Meter(encoder, device, bar.advance)
        manifest = encode_shard(
            out,
            Share(partition, texts),
            Plan.make(partition, meter, kind=kind, listing=listing, settings=about),
            meter,
            prune=rule or None,
            overwrite=settings["overwrite"],
            on_step=lambda step: bar.start_at(step.resumed) if step.texts == step.resumed else None,
        )
    measured = meter.measured()
    if settings["as_json"]:
        print_json(
            {
                "shard": partition.shard,
                "of": partition.of,
                "out": str(out / partition.name),
                "documents": manifest.documents,
                "encoded": measured.texts,
                "skipped": skipped.count,
                **_rates(measured),
            }
        )
        return
    note(
        f"{partition.name} of {out}: {show_count(manifest.documents, 'vector')}, of them "
        f"{manifest.documents - measured.texts:,} of an earlier run"
    )
    if measured.texts:
        rate, tokens = show_rate(measured.texts_per_second), show_rate(measured.tokens_per_second)
        note(f"{device}: {rate} texts/s, {tokens} tokens/s")
    if skipped.count:
        note(f"{show_count(skipped.count, 'record')} skipped")


def _rates(measured: Throughput) -> dict[str, Any]:
    return {
        "device": measured.device,
        "seconds": round(measured.seconds, 3),
        "texts_per_second": round(measured.texts_per_second, 2),
        "tokens_per_second": round(measured.tokens_per_second, 1),
    }


def _texts(
    partition: Partition, inputs: Sequence[str], kind: Kind, skipped: Skipped, settings: dict[str, Any]
) -> Iterator[Text]:
    """What a Share wants to be given."""
    from polylex.files import find_files
    from polylex.partition import Text

    if kind == "query":
        from polylex.cli.encode import queries_of

        if partition.split == "files":
            raise BadInput("queries are split by documents; leave --split files out")
        return (Text(*pair) for pair in queries_of(inputs, skipped, **settings))
    if partition.split == "documents":
        return (Text(each.id, each.text) for each in read(inputs, skipped, **settings))
    files = find_files(list(inputs), settings["format_"])
    if any(str(file.path) == "-" for file in files):
        raise BadInput("standard input cannot be split by files; name files, or leave --split files out")
    numbers = {file.name: number for number, file in enumerate(files)}
    documents = read(inputs, skipped, only=partition.has, **settings)
    return (Text(each.id, each.text, numbers[each.source]) for each in documents)


def _listing(inputs: Sequence[str], settings: dict[str, Any]) -> str:
    """SHA-256 (hex) of the names and sizes of all files of the input."""
    from polylex.files import find_files

    files = find_files(list(inputs), settings["format_"])
    sizes = [[file.label, os.path.getsize(file.path)] for file in files]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


# -- an estimate -------------------------------------------------------------------------------------


def tell_estimate(inputs: Sequence[str], kind: Kind, rule: Pruning, settings: dict[str, Any]) -> None:
    """Encode a sample and say what more of it would take."""
    from polylex.partition import Partition
    from polylex.throughput import measure

    texts = _texts(Partition(), inputs, kind, Skipped(), settings)
    beginning = [text.text for text in islice(texts, _SAMPLE * _SPREAD)]
    sample = beginning[:: -(-len(beginning) // _SAMPLE) or 1]
    encoder, device = open_encoder(settings)
    measured = measure(encoder, sample, kind=kind, device=device, prune=rule or None)
    told = measured.estimate(settings["estimate"], devices=settings["devices"], price=settings["price"])
    found = {
        "documents": told.documents,
        "sample": measured.texts,
        **_rates(measured),
        "tokens_per_text": round(measured.tokens / measured.texts, 1),
        "terms_per_text": round(measured.postings / measured.texts, 1),
        "devices": told.devices,
        "hours": round(told.hours, 3),
        "device_hours": round(told.device_hours, 3),
        "cost": None if told.cost is None else round(told.cost, 2),
        "bytes": told.bytes,
    }
    if settings["as_json"]:
        print_json(found)
        return
    from rich.table import Table
    from rich.text import Text as Styled

    console = stdout()
    show(console, Styled(f"{show_count(told.documents, 'text')} like these {measured.texts:,}", "bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_row("  device", device)
    table.add_row(
        "  rate",
        f"{show_rate(measured.texts_per_second)} texts/s, {show_rate(measured.tokens_per_second)} tokens/s, "
        f"{found['tokens_per_text']} tokens a text",
    )
    table.add_row("  time", f"{show_rate(told.hours)} hours on {show_count(told.devices, 'device')}")
    table.add_row("  work", f"{show_rate(told.device_hours)} device hours")
    if told.cost is not None:
        table.add_row("  cost", f"{told.cost:,.2f}")
    table.add_row("  size", f"{show_bytes(told.bytes)} of vectors, {found['terms_per_text']} terms a text")
    show(console, table)
