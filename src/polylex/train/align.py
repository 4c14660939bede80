"""Stage 1, sparse alignment pretraining: every text gets the vector that an English teacher gives its English side.

    r = raw maxima of text and teacher; mask = {v : r_student[v] > 0 or r_teacher[v] > 0}
    loss = mean over mask (r_student - r_teacher)^2, for the other side + for the English side  (+ l1, flops)

docs/method.md has the equation, losses.align_mse the code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polylex.errors import BadInput
from polylex.model.model import SparseModel
from polylex.train import losses
from polylex.train.batches import (
    Chunk,
    Frame,
    Rows,
    Sampler,
    chunked,
    cut_by_tokens,
    joined,
    ready,
    ready_chunks,
    slices,
    stratum_weights,
)
from polylex.train.data import Pairs
from polylex.train.monitor import Monitor
from polylex.train.ranks import Ranks
from polylex.train.recipe import AlignConfig
from polylex.train.student import encode
from polylex.train.teacher import Teacher

# Texts made of several pairs have at least this many tokens, where their source has so many.
_SHORTEST_JOINED = 32


@dataclass(frozen=True, slots=True)
class AlignBatch:
    """n pairs.

    texts      2n texts for the student: the other sides, then the English sides
    english    n texts for the teacher, in its own tokens
    languages  int64 [n]  number of each pair's language
    rows, tokens  for the log: pairs, real tokens of the student
    """

    texts: list[Chunk]
    english: list[Chunk]
    languages: Tensor
    rows: int
    tokens: int


class Align:
    """Stage 1 for `loop.run`."""

    def __init__(self, config: AlignConfig, model: SparseModel, teacher: Teacher, pairs: Pairs, ranks: Ranks) -> None:
        """Raises BadInput when teacher and model differ in English vocabulary, or pairs lack the teacher's tokens."""
        if pairs.teacher is None:
            raise BadInput("these pairs hold no tokens of a teacher; write the folder again, with its tokenizer")
        if teacher.terms != model.config.pivot_size:
            raise BadInput(
                f"the teacher has {teacher.terms} terms, the model {model.config.pivot_size}; they must agree"
            )
        self.config, self.model, self.pairs, self.ranks = config, model, pairs, ranks
        self.teacher = teacher.to(ranks.device)
        weights = stratum_weights(
            np.bincount(pairs.stratum, minlength=len(pairs.strata)).tolist(), pairs.strata,
            language_temperature=config.language_temperature,
            source_temperature=config.source_temperature,
            source_weights=config.source_weights,
        )  # fmt: skip
        self._sampler = Sampler(pairs.stratum, weights, config.seed)
        languages = sorted({language for language, _ in pairs.strata})
        self._language = np.array([languages.index(language) for language, _ in pairs.strata], np.int64)
        names = [f"e_{name}" for name in model.vocab.pivot]
        self.monitor = Monitor(names, [*languages, "english"], ranks.device)
        self._frame = Frame(pairs.english.head, pairs.english.tail, model.encoder.pad)
        self._teacher_frame = Frame(pairs.teacher.head, pairs.teacher.tail, teacher.pad)

    # -- data --------------------------------------------------------------------------------------

    def plan(self, window: int) -> list[tuple[Rows, Rows]]:
        """Batches of a window, this rank's share: (first, last) rows of each text, last excluded."""
        config, world = self.config, self.ranks.world
        rows = self._sampler.window(window, config.bucket_rows)
        rng = np.random.default_rng([config.seed, 3, window])
        rng.shuffle(rows)
        first, last = rows, self._joined(rows, rng)
        lengths = self._padded_tokens(first, last)
        order = np.argsort(lengths, kind="stable")
        first, last, lengths = first[order], last[order], lengths[order]
        batches = cut_by_tokens(
            lengths, config.tokens_per_batch * world, config.per_device_train_batch_size * world, world
        )
        rng.shuffle(batches)
        mine = slice(self.ranks.rank, None, world)
        return [(first[a:b][mine], last[a:b][mine]) for a, b in batches]

    def _joined(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Where each text ends: after its row, or, for some, after as many rows of its source as make a longer text."""
        config, pairs = self.config, self.pairs
        room = min(config.concat_tokens, config.max_length - self._frame.size)
        wanted = rng.uniform(min(_SHORTEST_JOINED, room), room, len(rows)).astype(np.int64)
        end = np.searchsorted(pairs.stratum, pairs.stratum[rows], side="right")
        for column in (pairs.other, pairs.english):
            fits = np.searchsorted(column.offsets, column.offsets[rows] + wanted, side="right") - 1
            end = np.minimum(end, fits)
        longer = rng.random(len(rows)) < config.concat_share
        return np.where(longer, np.maximum(end, rows + 1), rows + 1)

    def _padded_tokens(self, first: Rows, last: Rows) -> Rows:
        room, frame = self.config.max_length, self._frame.size
        sides = (
            column.offsets[last] - column.offsets[first] + frame for column in (self.pairs.other, self.pairs.english)
        )
        total = sum(np.minimum(side, room) for side in sides)
        return np.asarray(total, np.int64)

    def build(self, plan: tuple[Rows, Rows]) -> AlignBatch:
        """Pad the texts of a batch."""
        (first, last), pairs, config = plan, self.pairs, self.config
        assert pairs.teacher is not None
        room = config.max_length - self._frame.size
        texts = joined(slices(pairs.other, first, last, room), slices(pairs.english, first, last, room))
        english = slices(
            pairs.teacher, first, last, min(config.max_length, self.teacher.limit) - self._teacher_frame.size
        )
        return AlignBatch(
            ready_chunks(self.ranks.device, chunked(texts, self._frame, config.chunk_tokens)),
            ready_chunks(self.ranks.device, chunked(english, self._teacher_frame, config.chunk_tokens)),
            ready(self.ranks.device, torch.from_numpy(self._language[pairs.stratum[first]])),
            len(first),
            int(texts.lengths.sum()) + self._frame.size * len(texts),
        )

    # -- loss --------------------------------------------------------------------------------------

    def loss(self, batch: AlignBatch, factor: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of both sides, regularisers times `factor` added, and figures for the log."""
        device = self.ranks.device
        reference = self.teacher([chunk.to(device) for chunk in batch.english])
        student = encode(self.model, [chunk.to(device) for chunk in batch.texts])
        figures = {}
        total = torch.zeros((), device=device)
        for name, side in (("mse_other", student.peaks[: batch.rows]), ("mse_english", student.peaks[batch.rows :])):
            error, terms = losses.align_mse(side, reference, self.config.teacher_floor)
            figures[name] = error / self.ranks.mean(terms).clamp(min=1)
            total = total + figures[name]
        weights = student.weights.pivot
        if self.config.l1:
            figures["l1"] = losses.l1(weights)
            total = total + factor * self.config.l1 * figures["l1"]
        if self.config.flops:
            figures["flops"] = losses.flops(self.ranks.mean(weights.mean(dim=0)))
            total = total + factor * self.config.flops * figures["flops"]
        self._watch(weights, reference, batch.languages.to(device, non_blocking=True))
        return total, {name: value.detach() for name, value in figures.items()}

    def _watch(self, weights: Tensor, reference: Tensor, languages: Tensor) -> None:
        rows = len(languages)
        taught = reference.relu().log1p()
        english = torch.full_like(languages, len(self.monitor.languages) - 1)
        self.monitor.see(weights[:rows], languages)
        self.monitor.see(weights[rows:], english)
        self.monitor.compare("translation", weights[:rows], weights[rows:], languages)
        self.monitor.compare("teacher", weights[:rows], taught, languages)
        self.monitor.compare("teacher", weights[rows:], taught, english)

    def probe(self) -> None:
        """Nothing more to see: every batch is made of translations and their teacher."""
