"""From a recipe to a run: read the model, the teacher and the data, put the stage together, start the loop.

session.align(AlignConfig(...))       session.distill(DistillConfig(...))       session.dry_run(config)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar

from polylex.errors import BadInput
from polylex.model.model import SparseModel
from polylex.text import Preparation
from polylex.train import loop
from polylex.train.align import Align
from polylex.train.beir import BeirHook
from polylex.train.card import DataFacts, training_card
from polylex.train.data import Groups, Pairs, Tokenization, read_groups, read_pairs
from polylex.train.distill import Distill, Probe
from polylex.train.estimate import Estimate, estimate
from polylex.train.ranks import Ranks
from polylex.train.recipe import AlignConfig, DistillConfig, Recipe
from polylex.train.teacher import Teacher

OnLog = Callable[[loop.Log], None]
Row = TypeVar("Row")


def align(config: AlignConfig, *, resume: bool = False, on_log: OnLog | None = None) -> loop.Result:
    """Stage 1 by a recipe, on the GPUs that torchrun, SLURM or nobody told of. Errors are those of `loop.run`."""
    with _ranks() as ranks:
        return _train(align_stage(config, ranks), config, ranks, resume, on_log)


def distill(config: DistillConfig, *, resume: bool = False, on_log: OnLog | None = None) -> loop.Result:
    """Stage 2 by a recipe, likewise."""
    with _ranks() as ranks:
        return _train(distill_stage(config, ranks), config, ranks, resume, on_log)


def dry_run(config: AlignConfig | DistillConfig) -> Estimate:
    """What a recipe would take: its data are read and tokenised, nothing is trained."""
    with _ranks() as ranks:
        return estimate(_stage(config, ranks), config, ranks)


def align_stage(config: AlignConfig, ranks: Ranks) -> Align:
    """Stage 1 of a recipe, ready for `loop.run`."""
    model = _model(config, {"max_length": config.max_length})
    teacher = Teacher.read(config.teacher, config.teacher_speakers)
    pairs = _pairs(config.train_files, config, model, teacher, ranks)
    if model.source_head is not None:
        model.source_head.requires_grad_(False)  # nothing here tells it anything: decay alone would move it
    return Align(config, model, teacher, pairs, ranks)


def distill_stage(config: DistillConfig, ranks: Ranks) -> Distill:
    """Stage 2 of a recipe, ready for `loop.run`."""
    model = _model(
        config, {"query_max_length": config.query_max_length, "document_max_length": config.document_max_length}
    )
    groups = _groups(config, model, ranks)
    probe = grounding = None
    if config.monitor_pairs:
        teacher = Teacher.read(config.teacher, config.teacher_speakers).to(ranks.device) if config.teacher else None
        pairs = _pairs((config.monitor_pairs,), config, model, teacher, ranks)
        probe = Probe.of(pairs, config, model, teacher)
        if config.align_weight and teacher is not None:
            grounding = Align(config.as_align(), model, teacher, pairs, ranks)
    return Distill(config, model, groups, ranks, probe, grounding)


# -- parts -------------------------------------------------------------------------------------------


def _stage(config: AlignConfig | DistillConfig, ranks: Ranks) -> Align | Distill:
    return align_stage(config, ranks) if isinstance(config, AlignConfig) else distill_stage(config, ranks)


def _train(stage: Align | Distill, config: Recipe, ranks: Ranks, resume: bool, on_log: OnLog | None) -> loop.Result:
    data = stage.pairs if isinstance(stage, Align) else stage.groups
    facts = DataFacts.of(data.strata, data.stratum)
    hook = BeirHook(config.eval_folders, max_length=config.eval_max_length) if config.eval_folders else None
    return loop.run(
        stage, config, ranks, resume=resume, evaluate=hook, on_log=on_log,
        card=lambda: training_card(stage.model.config, config, facts),
    )  # fmt: skip


@contextmanager
def _ranks() -> Iterator[Ranks]:
    ranks = Ranks.start()
    try:
        yield ranks
    finally:
        ranks.stop()


def _model(config: Recipe, limits: dict[str, int]) -> SparseModel:
    model = SparseModel.from_pretrained(config.model)
    for name, tokens in limits.items():
        if tokens > model.config.max_length:
            raise BadInput(f"{name} is {tokens}, the model reads {model.config.max_length} tokens at most; lower it")
    return model


def _tokenization(model: SparseModel, prompt: str) -> Tokenization:
    return Tokenization(model.tokens, Preparation(prompt, model.config.lowercase))


def _pairs(files: Sequence[str], config: Recipe, model: SparseModel, teacher: Teacher | None, ranks: Ranks) -> Pairs:
    student = _tokenization(model, model.config.document_prompt)
    english = None if teacher is None else Tokenization(teacher.tokens, Preparation(lowercase=teacher.lowercase))
    folder = _written(files, "pairs.rows")
    if folder is None:
        folder = _cache(files, config, f"{student.fingerprint}{english.fingerprint if english else ''}")
        if ranks.leads and not (folder / "pairs.rows").exists():
            Pairs.write(folder, _rows(read_pairs, files), student, teacher=english)
        ranks.barrier()
    pairs = Pairs.open(folder)
    pairs.english.require(student, f"{folder}/english.tokens")
    pairs.other.require(student, f"{folder}/other.tokens")
    if english is not None and pairs.teacher is not None:
        pairs.teacher.require(english, f"{folder}/teacher.tokens")
    return pairs


def _groups(config: DistillConfig, model: SparseModel, ranks: Ranks) -> Groups:
    query = _tokenization(model, model.config.query_prompt)
    document = _tokenization(model, model.config.document_prompt)
    folder = _written(config.train_files, "groups.rows")
    if folder is None:
        folder = _cache(config.train_files, config, query.fingerprint + document.fingerprint)
        if ranks.leads and not (folder / "groups.rows").exists():
            Groups.write(folder, _rows(read_groups, config.train_files), query=query, document=document)
        ranks.barrier()
    groups = Groups.open(folder)
    groups.queries.require(query, f"{folder}/queries.tokens")
    groups.documents.require(document, f"{folder}/documents.tokens")
    return groups


def _written(files: Sequence[str], name: str) -> Path | None:
    """The folder of a token cache, when that is what was given."""
    folder = Path(files[0])
    if not folder.is_dir():
        return None
    if len(files) > 1 or not (folder / name).exists():
        raise BadInput(f"{folder} is a folder; give one folder that holds {name}, or JSONL files")
    return folder


def _cache(files: Sequence[str], config: Recipe, tokenizers: str) -> Path:
    """Where the tokens of these files go: another place for changed files or another tokenizer."""
    digest = hashlib.sha256(tokenizers.encode())
    for name in files:
        path = Path(name)
        if not path.is_file():
            raise BadInput(f"{path} does not exist; name JSONL files or a folder written by `polylex data`")
        digest.update(f"{path.resolve()}\0{path.stat().st_size}\0{path.stat().st_mtime_ns}\0".encode())
    return Path(config.output_dir) / "cache" / digest.hexdigest()[:16]


def _rows(read: Callable[[str], Iterator[Row]], files: Sequence[str]) -> Iterable[Row]:
    return chain.from_iterable(map(read, files))
