"""`polylex train align|distill`: a recipe, flags over it, and a log line now and then."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import click

from polylex.cli.verb import Verb, voice
from polylex.errors import MissingExtra
from polylex.train.recipe import AlignConfig, DistillConfig, Recipe, read_recipe


@click.group("train", short_help="Train a model, in two stages.")
def train() -> None:
    """Train a model in two stages: `align` to an English teacher, then `distill` relevance."""


def _verb(kind: type[Recipe], name: str, about: str) -> click.Command:
    """A verb whose flags are the settings of a recipe."""

    def run(config: str | None, resume: bool, dry_run: bool, as_json: bool, **flags: str | None) -> None:
        given = {key: value for key, value in flags.items() if value is not None}
        recipe = read_recipe(kind, config, given)
        _need_torch()
        (_estimate if dry_run else _train)(recipe, resume, as_json)

    options: list[click.Parameter] = [
        click.Option(["--config"], metavar="RECIPE", help="TOML file with the settings below."),
        click.Option(["--resume"], is_flag=True, help="Continue output_dir from its newest checkpoint, exactly."),
        click.Option(["--dry-run"], is_flag=True, help="Say tokens, steps, memory and time; train nothing."),
        click.Option(["--json", "as_json"], is_flag=True, help="JSON on standard output, for programs."),
        *(_flag(setting) for setting in fields(kind)),
    ]
    return Verb(
        name, params=options, callback=run, help=about,
        prints="Each log line (step, loss, speed, active terms); at the end the folder of the trained model.",
        examples=f"polylex train {name} --config recipes/{name}-toy.toml --dry-run\n"
        f"polylex train {name} --config recipes/{name}-toy.toml --max-steps 200 --seed 7\n"
        f"torchrun --nproc-per-node 4 -m polylex train {name} --config recipes/{name}-toy.toml --resume",
    )  # fmt: skip


def _flag(setting: Field[Any]) -> click.Option:
    if setting.default is not MISSING:
        told = json.dumps(setting.default)
    else:
        told = "{}" if setting.default_factory is not MISSING else "required"
    names = dict.fromkeys((f"--{setting.name.replace('_', '-')}", f"--{setting.name}"))
    return click.Option([*names, setting.name], metavar="VALUE", help=f"[default: {told}]")


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as fault:
        raise MissingExtra(fault.name or "torch", "train", "Training") from None


def _estimate(recipe: Recipe, resume: bool, as_json: bool) -> None:
    from polylex.train import session
    from polylex.train.estimate import told

    assert isinstance(recipe, AlignConfig | DistillConfig)
    found = session.dry_run(recipe)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
        return
    for name, value in told(found, recipe).items():
        click.echo(f"{name:>20}  {value}")


def _train(recipe: Recipe, resume: bool, as_json: bool) -> None:
    from polylex.train import session

    on_log: Callable[[Mapping[str, Any]], None] | None = None
    if as_json:
        on_log = _echo_json
    elif not voice().quiet:
        on_log = _echo_line
    if isinstance(recipe, AlignConfig):
        result = session.align(recipe, resume=resume, on_log=on_log)
    else:
        assert isinstance(recipe, DistillConfig)
        result = session.distill(recipe, resume=resume, on_log=on_log)
    if not as_json:
        click.echo(f"{result.model}: {result.steps:,} steps in {result.seconds / 60:.1f} min")


def _echo_json(line: Mapping[str, Any]) -> None:
    click.echo(json.dumps(line, ensure_ascii=False))


def _echo_line(line: Mapping[str, Any]) -> None:
    if "evaluation" in line:
        figures = " ".join(f"{name} {value:.3f}" for name, value in line["evaluation"].items())
        click.echo(f"step {line['step']:>7,}  nDCG@10 {line['evaluation_mean']:.4f}  {figures}")
        return
    watched = line["monitor"]
    seen = watched["all"]
    always = ", ".join(name for name, _ in watched["always_on"][:4])
    overlaps = "".join(f"  {name} {seen[name]:.2f}" for name in ("translation", "teacher") if seen[name] is not None)
    click.echo(
        f"step {line['step']:>7,}  {line['progress']:>4.0%}  loss {line['loss']:.4f}  terms {seen['terms'] or 0:.0f}"
        f"  live {watched['live']:.0%}{overlaps}  {line['tokens_per_second']:,} tokens/s"
        + (f"  always on: {always}" if always else "")
    )


for _kind, _name, _about in (
    (AlignConfig, "align",
     "Stage 1: give every text the sparse vector that an English teacher gives its English side."),
    (DistillConfig, "distill", "Stage 2: learn relevance from groups of a query and its documents."),
):  # fmt: skip
    train.add_command(_verb(_kind, _name, _about))
