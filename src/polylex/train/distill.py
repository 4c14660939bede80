"""Stage 2, sparse contrastive training: queries meet their documents among all documents of the batch.

    loss = ce_weight * cross-entropy(positive | all documents of the batch)
         + kl_weight * KL(teacher || student) over a group + in_batch_kl_weight * KL(cosines || student) over the batch
         + margin_mse_weight * margin MSE over a group + l1 and flops of queries and documents, both views
         + align_weight * stage 1's loss on some parallel pairs

docs/method.md has the equations, losses.py the code. A parallel pair is a group: query = a sentence, positive = its
translation.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polylex.errors import BadInput
from polylex.model.model import SparseModel
from polylex.train import losses
from polylex.train.align import Align, AlignBatch
from polylex.train.batches import (
    Chunk,
    Frame,
    Rows,
    Sampler,
    Texts,
    chunked,
    ready,
    ready_chunks,
    slices,
    stratum_weights,
)
from polylex.train.data import Groups, Pairs, TokenCache
from polylex.train.monitor import Monitor
from polylex.train.ranks import Ranks
from polylex.train.recipe import DistillConfig
from polylex.train.sparsity import keep_heaviest, mean_terms, pressure
from polylex.train.student import Weights, encode, scores, source_mean
from polylex.train.teacher import Teacher


@dataclass(frozen=True, slots=True)
class DistillBatch:
    """Q queries with G documents each: Q x G texts, query after query, a missing one empty.

    queries, documents  chunks of Q and of Q * G texts
    numbers         int64 [Q * G]  which document each is; -1 where a group has fewer
    sizes           float32 [Q * G]  tokens of each document
    positives       int64 [Q, P]   all right documents of each query, padded with -2; the first column of a group is one
    taught          float32 [Q, G] the teacher's scores of the group; not-a-number where unknown
    query_vectors, document_vectors  float16 of the dense teacher; None without it
    languages       int64 [Q]
    aligned         pairs for stage 1's loss; None without it
    """

    queries: list[Chunk]
    documents: list[Chunk]
    numbers: Tensor
    sizes: Tensor
    positives: Tensor
    taught: Tensor
    query_vectors: Tensor | None
    document_vectors: Tensor | None
    languages: Tensor
    aligned: AlignBatch | None
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """Rows of Groups, and places in its positives and negatives: int64 [Q], [Q, G], the latter -1 where there is none.

    Column 0 of `places` counts in `positives`, the others in `negatives`. `pairs`: what Align.plan says, or None.
    """

    rows: Rows
    places: Rows
    pairs: tuple[Rows, Rows] | None = None


# Windows of stage 1's rows to one window of groups, at most.
_WINDOWS = 1000


class Distill:
    """Stage 2 for `loop.run`."""

    def __init__(
        self,
        config: DistillConfig,
        model: SparseModel,
        groups: Groups,
        ranks: Ranks,
        probe: Probe | None = None,
        grounding: Align | None = None,
    ) -> None:
        """Take stage 1 of the same model as `grounding` where align_weight asks for its loss.

        Raises BadInput when a loss needs scores or vectors that `groups` do not have, or pairs that nobody gave.
        """
        if config.align_weight and grounding is None:
            raise BadInput("align_weight needs parallel pairs and an English teacher; set monitor_pairs and teacher")
        self._grounding = grounding if config.align_weight else None
        self.config, self.model, self.groups, self.ranks = config, model, groups, ranks
        if config.in_batch_kl_weight and (groups.query_vectors is None or groups.document_vectors is None):
            raise BadInput(
                "in_batch_kl_weight needs vectors of a dense teacher (Groups.write_vectors); write them or set it to 0"
            )
        if (config.kl_weight or config.margin_mse_weight) and np.isnan(groups.positive_scores).all():
            raise BadInput(
                "kl_weight and margin_mse_weight need pos_scores and neg_scores; score the groups or set them to 0"
            )
        weights = stratum_weights(
            np.bincount(groups.stratum, minlength=len(groups.strata)).tolist(), groups.strata,
            language_temperature=config.language_temperature,
            source_temperature=config.source_temperature,
            source_weights=config.source_weights,
        )  # fmt: skip
        self._sampler = Sampler(groups.stratum, weights, config.seed)
        languages = sorted({language for language, _ in groups.strata})
        if probe is not None:
            languages = sorted({*languages, *probe.languages})
        self._language = np.array([languages.index(language) for language, _ in groups.strata], np.int64)
        names = [f"e_{name}" for name in model.vocab.pivot]
        self.monitor = Monitor(names, [*(name or "unknown" for name in languages), "documents"], ranks.device)
        self._terms = int(model.encoder.transformer.config.vocab_size)
        self._frame = Frame(groups.documents.head, groups.documents.tail, model.encoder.pad)
        self._probe = None if probe is None else (probe, torch.tensor([languages.index(x) for x in probe.language]))

    # -- data --------------------------------------------------------------------------------------

    def plan(self, window: int) -> list[GroupPlan]:
        """Batches of a window, this rank's share, negatives drawn."""
        config, world = self.config, self.ranks.world
        rng = np.random.default_rng([config.seed, 4, window])
        size = config.per_device_train_batch_size * world
        rows = self._sampler.window(window, max(config.bucket_rows // size, 1) * size)
        rng.shuffle(rows)
        groups = self.groups
        places = np.column_stack([
            drawn(groups.positive_indptr, rows, 1, rng),
            drawn(groups.negative_indptr, rows, config.negatives, rng),
        ])  # fmt: skip
        mine = slice(self.ranks.rank, None, world)
        batches = [slice(start, start + size) for start in range(0, len(rows) - size + 1, size)]
        plans = [GroupPlan(rows[b][mine], places[b][mine]) for b in batches]
        if self._grounding is None:
            return plans
        windows = map(self._grounding.plan, itertools.count(window * _WINDOWS))
        pairs = itertools.islice(itertools.chain.from_iterable(windows), len(plans))
        return [replace(plan, pairs=some) for plan, some in zip(plans, pairs, strict=True)]

    def build(self, plan: GroupPlan) -> DistillBatch:
        """Pad the texts of a batch and look up what the teachers say."""
        groups, config, rows, places = self.groups, self.config, plan.rows, plan.places
        device, dense = self.ranks.device, config.in_batch_kl_weight > 0
        numbers = np.full(places.shape, -1, np.int64)
        taught = np.full(places.shape, np.nan, np.float32)
        for columns, which, known in (
            (slice(0, 1), groups.positives, groups.positive_scores),
            (slice(1, None), groups.negatives, groups.negative_scores),
        ):
            there = places[:, columns] >= 0
            numbers[:, columns][there] = which[places[:, columns][there]]
            taught[:, columns][there] = known[places[:, columns][there]]
        asked = groups.query[rows].astype(np.int64)
        queries = _texts(groups.queries, asked, config.query_max_length - self._frame.size)
        documents = _texts(groups.documents, numbers.ravel(), config.document_max_length - self._frame.size)
        aligned = None if self._grounding is None or plan.pairs is None else self._grounding.build(plan.pairs)
        return DistillBatch(
            ready_chunks(device, chunked(queries, self._frame, config.chunk_tokens)),
            ready_chunks(device, chunked(documents, self._frame, config.chunk_tokens)),
            ready(device, torch.from_numpy(numbers.ravel())),
            ready(device, torch.from_numpy(documents.lengths.astype(np.float32))),
            ready(device, torch.from_numpy(padded(groups.positive_indptr, groups.positives, rows))),
            ready(device, torch.from_numpy(taught)),
            ready(device, _vectors(groups.query_vectors, asked)) if dense else None,
            ready(device, _vectors(groups.document_vectors, numbers.ravel())) if dense else None,
            ready(device, torch.from_numpy(self._language[groups.stratum[rows]])),
            aligned,
            len(rows),
            int(queries.lengths.sum() + documents.lengths.sum())
            + self._frame.size * (len(queries) + len(documents))
            + (aligned.tokens if aligned else 0),
        )

    # -- loss --------------------------------------------------------------------------------------

    def loss(self, batch: DistillBatch, factor: float) -> tuple[Tensor, dict[str, Tensor]]:
        """All losses with a weight, regularisers times `factor`, and figures for the log."""
        device = self.ranks.device
        queries = encode(self.model, [chunk.to(device) for chunk in batch.queries]).weights
        documents = encode(self.model, [chunk.to(device) for chunk in batch.documents]).weights
        # Scores of the whole batch in float32: bfloat16 would round a score of 20 to the nearest eighth.
        with torch.autocast(device.type, enabled=False):
            relevance, figures = self._relevance(batch, queries, documents)
            if self.config.pruned_weight:
                pruned, more = self._relevance(batch, queries, keep_heaviest(documents, self._pruned_terms()))
                relevance = relevance + self.config.pruned_weight * (pruned - relevance)
                figures |= {f"pruned_{name}": value for name, value in more.items()}
            penalty, more = self._penalty(batch, queries, documents)
        figures |= more
        self._watch(batch, queries, documents)
        total = relevance + factor * penalty
        if self._grounding is not None and batch.aligned is not None:
            aligned, more = self._grounding.loss(batch.aligned, factor)
            figures |= more
            total = total + self.config.align_weight * aligned
        return total, {name: value.detach() for name, value in figures.items()}

    @torch.no_grad()
    def _watch(self, batch: DistillBatch, queries: Weights, documents: Weights) -> None:
        device = self.ranks.device
        self.monitor.see(queries.pivot, batch.languages.to(device, non_blocking=True), queries.echo)
        there = (batch.numbers >= 0).nonzero().flatten()  # found on the CPU, where it makes nobody wait
        number = torch.full_like(there, len(self.monitor.languages) - 1)
        there, number = there.to(device), number.to(device)
        self.monitor.see(documents.pivot[there], number, documents.echo[there])

    def _relevance(self, batch: DistillBatch, queries: Weights, documents: Weights) -> tuple[Tensor, dict[str, Tensor]]:
        config, ranks, device = self.config, self.ranks, self.ranks.device
        count, size = batch.taught.shape
        shared = config.cross_gpu_negatives and ranks.world > 1
        numbers = batch.numbers.to(device, non_blocking=True)
        if shared:
            documents, numbers = documents.gathered(ranks), ranks.gather(numbers)
        found = scores(queries, documents, self._terms) / config.temperature
        start = ranks.rank * count * size if shared else 0
        columns = start + torch.arange(count * size, device=device).view(count, size)
        group = found.gather(1, columns)
        taught = batch.taught.to(device, non_blocking=True)
        known = taught.isfinite()
        figures, total = {}, torch.zeros((), device=device)
        if config.ce_weight:
            right = (numbers[None, :, None] == batch.positives.to(device, non_blocking=True)[:, None, :]).any(dim=2)
            figures["cross_entropy"] = losses.in_batch(found, columns[:, 0], right | (numbers < 0))
            total = total + config.ce_weight * figures["cross_entropy"]
        if config.kl_weight:
            figures["kl"] = losses.distill_kl(group, taught.nan_to_num() / config.teacher_temperature, known)
            total = total + config.kl_weight * figures["kl"]
        if config.margin_mse_weight:
            figures["margin_mse"] = losses.margin_mse(group, taught.nan_to_num(), known)
            total = total + config.margin_mse_weight * figures["margin_mse"]
        if batch.query_vectors is not None and batch.document_vectors is not None:
            dense = batch.document_vectors.to(device, non_blocking=True).float()
            dense = ranks.gather(dense) if shared else dense
            cosines = batch.query_vectors.to(device, non_blocking=True).float() @ dense.T
            there = (numbers >= 0).expand_as(cosines)
            figures["in_batch_kl"] = losses.distill_kl(found, cosines / config.cosine_temperature, there)
            total = total + config.in_batch_kl_weight * figures["in_batch_kl"]
        figures["accuracy"] = (group[:, 0] >= found.masked_fill(numbers < 0, -torch.inf).amax(dim=1)).float().mean()
        return total, figures

    def _pruned_terms(self) -> int:
        """From pruned_terms to four times as many, log-uniformly."""
        return int(self.config.pruned_terms * 4.0 ** float(torch.rand(())))

    def _penalty(self, batch: DistillBatch, queries: Weights, documents: Weights) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 and FLOPS of both sides and both views, weighted, before the warm-up factor."""
        config, figures = self.config, {}
        figures["terms_document"] = self.ranks.mean(mean_terms(documents, batch.sizes.to(documents.pivot.device)))
        press = pressure(figures["terms_document"], config.aim_terms) if config.aim_terms else 1.0
        total = torch.zeros((), device=self.ranks.device)
        for name, texts, l1, flops in (
            ("query", queries, config.l1_query, config.flops_query),
            ("document", documents, press * config.l1_document, press * config.flops_document),
        ):
            if getattr(config, f"l1_{name}"):
                figures[f"l1_{name}"] = losses.l1(texts.pivot) + config.source_share * losses.l1(texts.echo)
                total = total + l1 * figures[f"l1_{name}"]
            if getattr(config, f"flops_{name}"):
                pivot = losses.flops(self.ranks.mean(texts.pivot.mean(dim=0)))
                source = losses.flops(self.ranks.mean(source_mean(texts, self._terms)))
                figures[f"flops_{name}"] = pivot + config.source_share * source
                total = total + flops * figures[f"flops_{name}"]
        return total, figures

    # -- monitor -----------------------------------------------------------------------------------

    @torch.no_grad()
    def probe(self) -> None:
        """Let the monitor see fixed translations, and what the English teacher makes of them."""
        if self._probe is None:
            return
        probe, language = self._probe
        device = self.ranks.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bf16):
            weights = encode(self.model, [chunk.to(device) for chunk in probe.texts]).weights.pivot
        rows, languages = len(language), language.to(device)
        self.monitor.compare("translation", weights[:rows], weights[rows:], languages)
        if probe.taught is not None:
            self.monitor.compare("teacher", weights[:rows], probe.taught.to(device), languages)


@dataclass(frozen=True, slots=True)
class Probe:
    """Fixed parallel pairs for the monitor.

    texts      chunks of 2n texts: the other sides, then the English sides
    language   [n] of each pair; languages: all of them
    taught     float32 [n, V]  the English teacher's weights of the English sides; None without a teacher
    """

    texts: list[Chunk]
    language: tuple[str, ...]
    taught: Tensor | None

    @property
    def languages(self) -> set[str]:
        """All languages of the pairs."""
        return set(self.language)

    @classmethod
    def of(cls, pairs: Pairs, config: DistillConfig, model: SparseModel, teacher: Teacher | None) -> Probe:
        """Draw `monitor_rows` pairs, every language alike. Raises BadInput when the teacher's vocabulary is another."""
        if teacher is not None and teacher.terms != model.config.pivot_size:
            raise BadInput(
                f"the teacher has {teacher.terms} terms, the model {model.config.pivot_size}; they must agree"
            )
        sizes = np.bincount(pairs.stratum, minlength=len(pairs.strata)).tolist()
        weights = stratum_weights(sizes, pairs.strata, language_temperature=1e6)
        rows = Sampler(pairs.stratum, weights, config.seed).window(0, min(config.monitor_rows, len(pairs)))
        frame = Frame(pairs.english.head, pairs.english.tail, model.encoder.pad)
        room = config.document_max_length - frame.size
        sides = [_texts(column, rows, room) for column in (pairs.other, pairs.english)]
        texts = Texts(np.concatenate([s.ids for s in sides]), np.concatenate([s.lengths for s in sides]))
        taught = None
        if teacher is not None and pairs.teacher is not None:
            its = Frame(pairs.teacher.head, pairs.teacher.tail, teacher.pad)
            english = _texts(pairs.teacher, rows, min(room, teacher.limit - its.size))
            device = next(teacher.parameters()).device
            chunks = [chunk.to(device) for chunk in chunked(english, its, config.chunk_tokens)]
            taught = teacher(chunks).relu().log1p()
        language = tuple(pairs.strata[s][0] for s in pairs.stratum[rows])
        return cls(chunked(texts, frame, config.chunk_tokens), language, taught)


def drawn(indptr: NDArray[np.int64], rows: Rows, count: int, rng: np.random.Generator) -> Rows:
    """`count` places of each row's slice indptr[r]:indptr[r + 1], at random without repeats; -1 where it has fewer."""
    lengths = indptr[rows + 1] - indptr[rows]
    owner = np.repeat(np.arange(len(rows)), lengths)
    place = np.repeat(indptr[rows] - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    order = np.lexsort((rng.random(len(owner)), owner))
    owner, place = owner[order], place[order]
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    chosen = np.full((len(rows), count), -1, np.int64)
    few = rank < count
    chosen[owner[few], rank[few]] = place[few]
    return chosen


def padded(indptr: NDArray[np.int64], values: NDArray[np.uint32], rows: Rows) -> Rows:
    """The slices of some rows as one int64 array [rows, longest], padded with -2."""
    lengths = indptr[rows + 1] - indptr[rows]
    table = np.full((len(rows), int(lengths.max())), -2, np.int64)
    for index, row in enumerate(rows):
        table[index, : lengths[index]] = values[indptr[row] : indptr[row + 1]]
    return table


def _texts(cache: TokenCache, numbers: Rows, longest: int) -> Texts:
    """Cached texts by number; an empty text for -1."""
    first = np.maximum(numbers, 0)
    return slices(cache, first, first + (numbers >= 0), longest)


def _vectors(vectors: NDArray[np.float16] | None, numbers: Rows) -> Tensor:
    assert vectors is not None  # checked at the start
    return torch.from_numpy(np.asarray(vectors[np.maximum(numbers, 0)]))
