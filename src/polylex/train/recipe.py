"""AlignConfig and DistillConfig: what a run is, as frozen dataclasses and as TOML. Names follow TrainingArguments.

config = read_recipe(DistillConfig, "recipe.toml", {"max_steps": "200"})
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from polylex.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings that both stages share.

    model                  folder of the model to start from
    train_files            JSONL files, or one folder written by `polylex data`; all are read as one set
    output_dir             gets checkpoints, log.jsonl, best/ and model/
    max_steps              optimiser steps of the whole run
    max_minutes            minutes after which the run ends, its schedule shortened to fit; 0 = no limit
    tokens_per_batch       padded tokens that one GPU gets in a step, about; 0 = no limit
    per_device_train_batch_size  pairs or queries that one GPU gets in a step, at most (align) or exactly (distill)
    chunk_tokens           padded tokens of one forward pass; a batch's texts are sorted by length and cut
    gradient_accumulation_steps  batches to a step
    learning_rate          of connector and heads; encoder_learning_rate, embedding_learning_rate: of the backbone
    warmup_ratio           share of the run in which learning rates rise from 0; then cosine to 0
    max_grad_norm          gradients are scaled down to this norm; 0 = never
    bf16                   autocast to bfloat16
    dropout                of the backbone; 0 trains a little better in runs of minutes
    source_share           regularisers weigh the source view by this share of the pivot view's
    regulariser_warmup     share of the run in which regularisers rise quadratically
    language_temperature   languages are drawn in proportion to n ** (1 / temperature); 1 = as they are
    source_temperature     the same for the sources of a language
    source_weights         factors for single sources, e.g. {"SquadShifts" = 0.2}; 0 leaves one out
    bucket_rows            rows drawn at one time, among which texts of like length are brought together
    seed                   of sampling and dropout
    save_steps, eval_steps, logging_steps   0 = never; there is always a checkpoint at the end
    save_total_limit       checkpoints kept
    eval_folders           BEIR folders; their mean nDCG@10 chooses best/; texts are cut to eval_max_length tokens
    dataloader_num_workers threads that build batches
    gradient_checkpointing, torch_compile   of the backbone: less memory, or faster after a minute of compiling
    monitor_grace          share of the run before the collapse monitor may stop it
    monitor_max_empty, monitor_max_terms, monitor_max_always_on   a run stops when more than this share of texts has no
                           pivot term, a text has more active ones on average, more terms are on in half of all texts
    monitor_min_live, monitor_min_translation, monitor_min_teacher   or when less of the vocabulary is in use, or
                           texts overlap less with their translations, or with the English teacher (0..1)
    weight_decay, adam_beta1, adam_beta2, adam_epsilon   of AdamW; tf32: matrix products of float32 may use it
    """

    model: str
    train_files: tuple[str, ...]
    output_dir: str
    max_steps: int = 1000
    max_minutes: float = 0.0
    tokens_per_batch: int = 32768
    per_device_train_batch_size: int = 1024
    chunk_tokens: int = 16384
    gradient_accumulation_steps: int = 1
    learning_rate: float = 3e-4
    encoder_learning_rate: float = 1.5e-4
    embedding_learning_rate: float = 1e-4
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_epsilon: float = 1e-8
    warmup_ratio: float = 0.04
    max_grad_norm: float = 1.0
    bf16: bool = True
    tf32: bool = True
    dropout: float = 0.0
    source_share: float = 0.3
    regulariser_warmup: float = 0.33
    language_temperature: float = 1.0
    source_temperature: float = 1.0
    source_weights: Mapping[str, float] = field(default_factory=dict)
    bucket_rows: int = 16384
    seed: int = 42
    save_steps: int = 500
    eval_steps: int = 0
    logging_steps: int = 20
    save_total_limit: int = 2
    eval_folders: tuple[str, ...] = ()
    eval_max_length: int = 256
    dataloader_num_workers: int = 4
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    monitor_grace: float = 0.2
    monitor_max_empty: float = 0.3
    monitor_max_terms: float = 2000.0
    monitor_max_always_on: int = 200
    monitor_min_live: float = 0.005
    monitor_min_translation: float = 0.02
    monitor_min_teacher: float = 0.05

    def __post_init__(self) -> None:
        if not self.train_files:
            raise BadInput("train_files is empty; name JSONL files or a folder written by `polylex data`")
        for name in ("max_steps", "gradient_accumulation_steps", "per_device_train_batch_size", "chunk_tokens",
                     "bucket_rows", "dataloader_num_workers", "save_total_limit"):  # fmt: skip
            _at_least(self, name, 1)
        for name in ("max_minutes", "tokens_per_batch", "weight_decay", "max_grad_norm", "source_share",
                     "learning_rate", "encoder_learning_rate", "embedding_learning_rate",
                     "save_steps", "eval_steps", "logging_steps"):  # fmt: skip
            _at_least(self, name, 0)
        for name in ("warmup_ratio", "regulariser_warmup", "dropout", "monitor_grace"):
            _within(self, name, 0, 1)
        for name in ("language_temperature", "source_temperature"):
            _at_least(self, name, 1)

    def to_toml(self) -> str:
        """The text of a recipe file: every setting, defaults included."""
        plain = {key: value for key, value in asdict(self).items() if not isinstance(value, Mapping)}
        tables = {key: value for key, value in asdict(self).items() if isinstance(value, Mapping) and value}
        text = "".join(f"{key} = {_toml(value)}\n" for key, value in plain.items())
        for key, table in tables.items():
            text += f"\n[{key}]\n" + "".join(f"{_toml(name)} = {_toml(value)}\n" for name, value in table.items())
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignConfig(Recipe):
    """Stage 1.

    teacher            folder of the English sparse teacher: a masked language model (SPLADE), or a model of ours
    teacher_speakers   tokens of the teacher that speak: "all" as SPLADE is trained, or "content"
    teacher_floor      the teacher's raw maxima are clamped from below at this value
    max_length         tokens of a text, special ones included; longer ones are cut
    concat_share       share of rows that are made of several consecutive pairs of one source, so that long texts are
                       learned too; concat_tokens: tokens such a text aims at, drawn uniformly from 32 up to this
    l1, flops          weights of the regularisers, all texts
    """

    teacher: str
    teacher_speakers: Literal["all", "content"] = "all"
    teacher_floor: float = -0.5
    max_length: int = 256
    concat_share: float = 0.15
    concat_tokens: int = 192
    l1: float = 0.0
    flops: float = 0.0

    def __post_init__(self) -> None:
        # slots=True makes a new class, which super() without arguments would not find.
        Recipe.__post_init__(self)
        _within(self, "concat_share", 0, 1)
        for name in ("l1", "flops"):
            _at_least(self, name, 0)
        for name in ("max_length", "concat_tokens"):
            _at_least(self, name, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig(Recipe):
    """Stage 2.

    negatives             documents of a group besides its positive, drawn anew each time
    query_max_length, document_max_length   tokens, special ones included
    cross_gpu_negatives   documents of all GPUs are negatives
    ce_weight             cross-entropy of the positive among all documents of the batch
    kl_weight             KL to the teacher's scores of the group (pos_scores, neg_scores)
    in_batch_kl_weight    KL to the dense teacher's cosines over all documents of the batch
    margin_mse_weight     margin MSE to the teacher's scores of the group
    temperature           student scores are divided by it
    teacher_temperature   scores of the group are divided by it; cosine_temperature: the dense teacher's cosines
    l1_query, l1_document, flops_query, flops_document   weights of the regularisers
    aim_terms             active terms that a document should have, both views; the weights of the documents'
                          regularisers are multiplied by (terms / aim)^8, at most 10. 0 = as they are
    pruned_weight         share of the loss that is taken on documents cut to their heaviest terms, so that rankings
                          survive pruning; pruned_terms: the fewest terms, up to four times as many are drawn
    align_weight          weight of stage 1's loss on pairs of `monitor_pairs`, which keeps the terms grounded and rare
                          ones in use; a step takes align_tokens_per_batch padded tokens of them
    monitor_pairs         JSONL of parallel pairs, or a folder of them, on which the monitor measures translations and,
                          with `teacher` (its tokens: teacher_speakers), grounding; it takes monitor_rows of them
    """

    negatives: int = 5
    query_max_length: int = 64
    document_max_length: int = 256
    per_device_train_batch_size: int = 128
    learning_rate: float = 1e-4
    encoder_learning_rate: float = 1e-4
    embedding_learning_rate: float = 5e-5
    cross_gpu_negatives: bool = True
    ce_weight: float = 1.0
    kl_weight: float = 0.0
    in_batch_kl_weight: float = 0.5
    margin_mse_weight: float = 0.0
    temperature: float = 1.0
    teacher_temperature: float = 1.0
    cosine_temperature: float = 0.02
    l1_query: float = 2e-3
    l1_document: float = 8e-4
    flops_query: float = 0.0
    flops_document: float = 0.0
    aim_terms: float = 0.0
    pruned_weight: float = 0.0
    pruned_terms: int = 16
    align_weight: float = 0.0
    align_tokens_per_batch: int = 16384
    monitor_pairs: str = ""
    monitor_rows: int = 512
    teacher: str = ""
    teacher_speakers: Literal["all", "content"] = "all"

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        for name in ("negatives", "ce_weight", "kl_weight", "in_batch_kl_weight", "margin_mse_weight",
                     "l1_query", "l1_document", "flops_query", "flops_document", "aim_terms",
                     "align_weight"):  # fmt: skip
            _at_least(self, name, 0)
        _within(self, "pruned_weight", 0, 1)
        _at_least(self, "pruned_terms", 1)
        for name in ("temperature", "teacher_temperature", "cosine_temperature"):
            if not getattr(self, name) > 0:
                raise BadInput(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("query_max_length", "document_max_length"):
            _at_least(self, name, 8)
        _at_least(self, "align_tokens_per_batch", 1)
        if not any((self.ce_weight, self.kl_weight, self.in_batch_kl_weight, self.margin_mse_weight)):
            raise BadInput("every loss has weight 0; set ce_weight, kl_weight, in_batch_kl_weight or margin_mse_weight")

    def as_align(self) -> AlignConfig:
        """Stage 1 as `align_weight` takes it: its own defaults, no regularisers, pairs of `monitor_pairs`."""
        return AlignConfig(
            model=self.model,
            train_files=(self.monitor_pairs,),
            output_dir=self.output_dir,
            teacher=self.teacher,
            teacher_speakers=self.teacher_speakers,
            tokens_per_batch=self.align_tokens_per_batch,
            chunk_tokens=self.chunk_tokens,
            max_length=self.document_max_length,
            bucket_rows=self.bucket_rows,
            seed=self.seed,
        )


Kind = TypeVar("Kind", bound=Recipe)


def read_recipe(kind: type[Kind], path: str | os.PathLike[str] | None, flags: Mapping[str, str] | None = None) -> Kind:
    """Read a recipe: the settings of a TOML file, then `flags` (text, as on a command line) over them.

    A file may hold both stages as tables [align] and [distill]; settings outside them go to both. Raises BadInput for
    an unknown setting (with the nearest known one), a value of the wrong type, a missing one, or text that is not TOML.
    """
    table = _stage_table(kind, Path(path)) if path is not None else {}
    where = str(path) if path is not None else "the command line"
    settings = {key: _checked(kind, key, value, where) for key, value in table.items()}
    for key, text in (flags or {}).items():
        name = key.replace("-", "_")
        settings[name] = _parsed(kind, name, text)
    missing = [f.name for f in fields(kind) if _required(f) and f.name not in settings]
    if missing:
        raise BadInput(f"{where} does not set {', '.join(missing)}; add it to the recipe, or give --{missing[0]}")
    return kind(**settings)


def write_recipe(config: Recipe, path: str | os.PathLike[str]) -> None:
    """Write all settings of a run beside its results."""
    Path(path).write_text(config.to_toml(), encoding="utf-8")


# -- TOML --------------------------------------------------------------------------------------------


def _stage_table(kind: type[Recipe], path: Path) -> dict[str, Any]:
    try:
        table = _load_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; recipes/ has examples") from None
    except ValueError as fault:
        raise BadInput(f"{path} is not TOML: {fault}") from None
    stage = kind.__name__.removesuffix("Config").lower()
    own = table.pop(stage, {})
    for other in {"align", "distill"} - {stage}:
        table.pop(other, None)
    return {**table, **own}


def _load_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return dict(tomllib.loads(text))


def _toml(value: object) -> str:
    import json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _hint(kind: type[Recipe], key: str, where: str) -> Any:  # noqa: ANN401 - a type
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    if key not in known:
        near = get_close_matches(key, known, 1)
        raise BadInput(f"{where}: unknown setting {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    return hints[key]


def _checked(kind: type[Recipe], key: str, value: object, where: str) -> Any:  # noqa: ANN401
    hint = _hint(kind, key, where)
    origin = get_origin(hint)
    if origin is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if origin is Literal and value in get_args(hint):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    if isinstance(value, dict) and origin not in (tuple, Literal) and not isinstance(hint, type):
        return {str(name): _number(weight, f"{where}: {key}.{name}") for name, weight in value.items()}
    raise BadInput(f"{where}: {key} must be {_told(hint)}, got {value!r}")


def _parsed(kind: type[Recipe], key: str, text: str) -> Any:  # noqa: ANN401
    """A value from the command line: numbers and true/false as TOML writes them, lists with commas."""
    hint = _hint(kind, key, "the command line")
    if get_origin(hint) is tuple:
        return tuple(part for part in text.split(",") if part)
    if hint is str or get_origin(hint) is Literal:
        return _checked(kind, key, text, "the command line")
    try:
        value = _load_toml(f"value = {text.lower() if hint is bool else text}")["value"]
    except ValueError:
        raise BadInput(f"--{key} must be {_told(hint)}, got {text!r}") from None
    return _checked(kind, key, value, "the command line")


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadInput(f"{where} must be a number of at least 0, got {value!r}")
    return float(value)


def _told(hint: Any) -> str:  # noqa: ANN401
    if get_origin(hint) is tuple:
        return "a list of texts"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(
        hint, "a table of numbers"
    )


def _required(setting: Any) -> bool:  # noqa: ANN401 - dataclasses.Field is generic
    from dataclasses import MISSING

    return setting.default is MISSING and setting.default_factory is MISSING


def _at_least(config: Recipe, name: str, least: float) -> None:
    value = getattr(config, name)
    if not value >= least:
        raise BadInput(f"{name} must be at least {least}, got {value}")


def _within(config: Recipe, name: str, least: float, most: float) -> None:
    value = getattr(config, name)
    if not least <= value <= most:
        raise BadInput(f"{name} must be between {least} and {most}, got {value}")
