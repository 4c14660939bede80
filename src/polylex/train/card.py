"""The model card of a trained model: data, languages, licences, figures, commands, all read from the run itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polylex.config import ModelConfig
from polylex.model.card import TORCH, model_card
from polylex.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a model was trained on.

    rows      of each (language, source)
    licences  of each source, as its provider states it; a source without one is listed as "not stated"
    """

    rows: Mapping[tuple[str, str], int]
    licences: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, strata: Sequence[tuple[str, str]], stratum: NDArray[np.uint32], licences: Mapping[str, str] | None = None
    ) -> DataFacts:
        """Count the rows of Pairs or Groups."""
        counts = np.bincount(stratum, minlength=len(strata)).tolist()
        return cls({key: count for key, count in zip(strata, counts, strict=True) if count}, licences or {})


def training_card(
    config: ModelConfig, recipe: Recipe, data: DataFacts, *, licence: str | None = None, limits: str = ""
) -> str:
    """The text of README.md for the model that `recipe` trained; figures are those of output_dir/log.jsonl."""
    stage = type(recipe).__name__.removesuffix("Config").lower()
    sections = [
        "## Training",
        f"Stage `{stage}`, started from `{Path(recipe.model).name}`. Repeat it with\n\n"
        f"    polylex train {stage} --config recipe.toml\n\nwhere `recipe.toml` is\n\n{_indented(recipe.to_toml())}",
        "## Data",
        _data_table(data),
        _languages(data),
        "## Figures",
        _figures(Path(recipe.output_dir) / "log.jsonl"),
    ]
    if limits:
        sections += ["## Limits", limits.strip()]
    return model_card(config, files=TORCH, facts="\n\n".join(sections), licence=licence)


def _data_table(data: DataFacts) -> str:
    totals: dict[str, int] = {}
    for (_, source), rows in data.rows.items():
        totals[source] = totals.get(source, 0) + rows
    lines = ["| source | rows | licence |", "|---|---|---|"]
    for source, rows in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"| {source or 'unnamed'} | {rows:,} | {data.licences.get(source, 'not stated')} |")
    return "\n".join(lines)


def _languages(data: DataFacts) -> str:
    totals: dict[str, int] = {}
    for (language, _), rows in data.rows.items():
        totals[language] = totals.get(language, 0) + rows
    listed = ", ".join(
        f"{name or 'unnamed'} {rows:,}" for name, rows in sorted(totals.items(), key=lambda i: (-i[1], i[0]))
    )
    return f"Rows by language ({len(totals)}): {listed}."


def _figures(log: Path) -> str:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    measured = [line for line in lines if "evaluation" in line]
    watched = [line for line in lines if "monitor" in line]
    told = []
    if measured:
        best = max(measured, key=lambda line: float(line["evaluation_mean"]))
        told += ["| collection | nDCG@10, all terms |", "|---|---|"]
        told += [f"| {name} | {value:.4f} |" for name, value in best["evaluation"].items()]
        told += [f"\nMeasured in training, at step {best['step']}, texts cut to one window."]
    if watched:
        health = watched[-1]["monitor"]["all"]
        told.append(f"\nActive English terms of a training text: {health['terms']}; after {watched[-1]['step']} steps.")
    return "\n".join(told).strip() or "None were measured in training."


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
