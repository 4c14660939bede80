"""Teachers of relevance: dense vectors for in-batch distillation, and scores for groups.

teacher = DenseTeacher.read("multilingual-e5-small", query_prompt="query: ", document_prompt="passage: ")
Groups.write_vectors("cache/groups", queries=teacher.embed(queries, "query"), documents=teacher.embed(documents))

scored = list(score_groups(groups, cross_encoder_scores("my-cross-encoder")))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModel

from polylex.errors import BadInput, BadModel, MissingExtra
from polylex.model.tokens import TokenBatch
from polylex.runtime.tokens import Kind, Tokens
from polylex.text import Preparation
from polylex.train.batches import Frame, Texts, chunked
from polylex.train.data import Group

# (query, document) pairs -> one score each; higher is more relevant.
Score = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
PathLike = str | os.PathLike[str]

_BLOCK = 1 << 15  # texts sorted by length at one time
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class MeanPooling(nn.Module):
    """A transformer whose vector of a text is the mean of its last states, scaled to length 1: e5, MiniLM, mpnet."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, batch: TokenBatch) -> Tensor:
        """Vectors float32 [B, D] of the mean over all real tokens, special ones included."""
        output: Any = self.transformer(input_ids=batch.ids, attention_mask=batch.real.long())
        states: Tensor = output.last_hidden_state
        real = batch.real[..., None]
        mean = (states.float() * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return nn.functional.normalize(mean, dim=1)


class DenseTeacher:
    """A dense bi-encoder with mean pooling, and how it wants its texts."""

    def __init__(
        self,
        transformer: nn.Module,
        tokens: Tokens,
        *,
        pad: int,
        max_length: int = 512,
        query_prompt: str = "",
        document_prompt: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        """Take a transformer and its tokenizer. `max_length` counts special tokens and prompt."""
        self.tokens, self.pad, self.max_length = tokens, pad, max_length
        self.device = torch.device(device)
        self.body = MeanPooling(transformer).to(self.device).eval()
        self._prompts: dict[Kind, str] = {"query": query_prompt, "document": document_prompt}

    @classmethod
    def read(
        cls,
        folder: PathLike,
        *,
        query_prompt: str = "",
        document_prompt: str = "",
        device: torch.device | str = "cpu",
    ) -> DenseTeacher:
        """Read a folder as `transformers` writes it, offline. e5 wants the prompts "query: " and "passage: ".

        Raises BadModel when it cannot be read.
        """
        path = Path(folder)
        tokens = Tokens.read(path)
        try:
            transformer = AutoModel.from_pretrained(str(path), local_files_only=True)
        except (OSError, ValueError, KeyError) as fault:
            raise BadModel(f"{path} cannot be read as an encoder ({fault}); give a folder of transformers") from None
        config = transformer.config
        return cls(
            transformer,
            tokens,
            pad=int(config.pad_token_id or 0),
            max_length=min(512, int(getattr(config, "max_position_embeddings", 512))),
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            device=device,
        )

    def embed(
        self,
        texts: Sequence[str],
        kind: Kind = "document",
        *,
        batch_tokens: int = 16384,
        on_texts: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Vectors float32 [texts, D] of length 1; texts over max_length are cut. `on_texts` hears how many are done."""
        prompt = self.tokens.content([self._prompts[kind].strip()], Preparation())[0] if self._prompts[kind] else []
        head, tail = self.tokens.frame
        frame = Frame((*head, *prompt), tuple(tail), self.pad)
        parts = [np.zeros((0, 0), np.float32)]
        for start in range(0, len(texts), _BLOCK):
            block = self.tokens.content(list(texts[start : start + _BLOCK]), Preparation())
            parts.append(mean_vectors(self.body, as_texts(block, self.max_length - frame.size), frame, batch_tokens))
            if on_texts is not None:
                on_texts(min(start + _BLOCK, len(texts)))
        return np.concatenate(parts[1:]) if len(parts) > 1 else parts[0]

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Cosine of each (query, document): a `Score`."""
        queries, documents = ({text: None for text in column} for column in zip(*pairs, strict=True))
        left, right = self.embed(list(queries), "query"), self.embed(list(documents))
        row, column = ({text: index for index, text in enumerate(found)} for found in (queries, documents))
        return [float(left[row[query]] @ right[column[document]]) for query, document in pairs]


@torch.inference_mode()
def mean_vectors(body: MeanPooling, texts: Texts, frame: Frame, batch_tokens: int) -> NDArray[np.float32]:
    """Vectors float32 [texts, D] of tokenised texts; on a GPU in bfloat16."""
    first = next(body.parameters())
    found: NDArray[np.float32] | None = None
    waiting: list[tuple[NDArray[np.int64], Tensor]] = []
    # cuDNN's attention would be planned anew for every shape, which takes longer than most batches.
    with sdpa_kernel(_ATTENTION), torch.autocast(first.device.type, torch.bfloat16, enabled=first.is_cuda):
        for chunk in chunked(texts, frame, batch_tokens):
            waiting.append((chunk.rows.numpy(), body(chunk.batch.to(first.device))))
    for rows, vectors in waiting:
        if found is None:
            found = np.zeros((len(texts), vectors.shape[1]), np.float32)
        found[rows] = vectors.float().cpu().numpy()
    return np.zeros((0, 0), np.float32) if found is None else found


def as_texts(ids: Sequence[Sequence[int]], longest: int) -> Texts:
    """Token ids of some texts, each cut to `longest`."""
    cut = [row[:longest] for row in ids]
    flat = np.fromiter((token for row in cut for token in row), np.uint32, sum(map(len, cut)))
    return Texts(flat, np.array([len(row) for row in cut], np.int64))


# -- scores of groups --------------------------------------------------------------------------------


def score_groups(groups: Iterable[Group], score: Score, *, batch_groups: int = 256) -> Iterator[Group]:
    """The same groups with a teacher's scores of their documents, in its own unit.

    score  e.g. DenseTeacher(...).scores, or cross_encoder_scores("folder")

    Raises BadInput when the teacher gives another number of scores, or one that is not finite.
    """
    stream = iter(groups)
    while batch := list(islice(stream, batch_groups)):
        pairs = [(group.query, text) for group in batch for text in (*group.positives, *group.negatives)]
        found = [float(value) for value in score(pairs)]
        if len(found) != len(pairs) or not np.isfinite(found).all():
            raise BadInput(f"the teacher gave {len(found)} scores for {len(pairs)} documents, or some are not finite")
        rest = iter(found)
        for group in batch:
            yield replace(
                group,
                positive_scores=tuple(islice(rest, len(group.positives))),
                negative_scores=tuple(islice(rest, len(group.negatives))),
            )


def cross_encoder_scores(folder: PathLike, *, batch_size: int = 32, device: str | None = None) -> Score:
    """A cross-encoder of sentence-transformers, from a local folder. Raises MissingExtra without the package."""
    try:
        from sentence_transformers import CrossEncoder
    except ImportError:
        raise MissingExtra("sentence-transformers", "teachers", "Scoring with a cross-encoder") from None
    model = CrossEncoder(str(folder), device=device, local_files_only=True)

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float(value) for value in model.predict(list(pairs), batch_size=batch_size, show_progress_bar=False)]

    return score


def bi_encoder_scores(folder: PathLike, *, batch_size: int = 32, device: str | None = None) -> Score:
    """A bi-encoder of sentence-transformers, from a local folder: its own similarity, pair by pair."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingExtra("sentence-transformers", "teachers", "Scoring with a bi-encoder") from None
    model = SentenceTransformer(str(folder), device=device, local_files_only=True)

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        left, right = (list(column) for column in zip(*pairs, strict=True))
        options: dict[str, Any] = {"batch_size": batch_size, "convert_to_tensor": True, "show_progress_bar": False}
        found = model.similarity_pairwise(model.encode(left, **options), model.encode(right, **options))
        return [float(value) for value in found]

    return score
