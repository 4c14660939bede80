"""The model in training: chunks of a batch in, both views of all its texts out, with gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from polylex.model.model import SparseModel
from polylex.train.batches import Chunk
from polylex.train.head import peaks
from polylex.train.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Weights:
    """Both views of B texts as an index would hold them.

    pivot   float32 [B, V]  log(1 + relu(peaks))
    tokens  int64   [B, L]  token ids, padded with whatever
    echo    float32 [B, L]  source weight of each token, 0 where it may not speak; zeros without a source view
    """

    pivot: Tensor
    tokens: Tensor
    echo: Tensor

    def gathered(self, ranks: Ranks) -> Weights:
        """The texts of all ranks, with gradient; every rank has as many."""
        if ranks.world == 1:
            return self
        more = ranks.most(self.tokens.shape[1]) - self.tokens.shape[1]
        return Weights(
            ranks.gather(self.pivot), ranks.gather(pad(self.tokens, (0, more))), ranks.gather(pad(self.echo, (0, more)))
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    """B texts, in the order of the batch: peaks float32 [B, V] (raw maxima, -inf for a silent text), and weights."""

    peaks: Tensor
    weights: Weights


def encode(model: SparseModel, chunks: Sequence[Chunk]) -> Encoded:
    """Run all chunks of a batch through the model, decoder by the sparse-gradient head."""
    decoder = model.pivot_head.decoder
    longest = max(chunk.batch.ids.shape[1] for chunk in chunks)
    found, tokens, echoes = [], [], []
    for chunk in chunks:
        hidden = model.hidden(chunk.batch)
        found.append(peaks(hidden.pivot, hidden.speaks, decoder.weight, decoder.bias))
        more = longest - chunk.batch.ids.shape[1]
        tokens.append(pad(chunk.batch.ids, (0, more)))
        echo = hidden.source if hidden.source is not None else torch.zeros_like(chunk.batch.ids, dtype=torch.float32)
        echoes.append(pad(echo, (0, more)))
    back = torch.cat([chunk.rows for chunk in chunks]).argsort()
    best = torch.cat(found)[back]
    return Encoded(best, Weights(best.relu().log1p(), torch.cat(tokens)[back], torch.cat(echoes)[back]))


def scores(queries: Weights, documents: Weights, terms: int) -> Tensor:
    """Inner products [Q, D] over both views, with gradient; `terms` is the number of source tokens.

    Source view: only tokens of some query can score, so documents are spread over those alone (a space of Q x L ids,
    not of the whole tokenizer). Equal tokens of a text are summed by that.
    """
    pivot = queries.pivot @ documents.pivot.T
    asked = queries.tokens.reshape(-1)
    places = torch.arange(len(asked), device=asked.device)
    # A token's place is that of its first mention; the last column takes what no query asks for.
    table = torch.full((terms,), len(asked), device=asked.device)
    table.scatter_reduce_(0, asked, places, "amin")
    mine, theirs = (_spread(text, table, len(asked)) for text in (queries, documents))
    return pivot + mine @ theirs.T


def source_mean(texts: Weights, terms: int) -> Tensor:
    """Mean weight float32 [terms] of every source token over the texts."""
    total = texts.echo.new_zeros(terms).index_add(0, texts.tokens.reshape(-1), texts.echo.reshape(-1))
    return total / len(texts.tokens)


def _spread(texts: Weights, table: Tensor, columns: int) -> Tensor:
    wide = texts.echo.new_zeros((len(texts.tokens), columns + 1))
    return wide.scatter_add(1, table[texts.tokens], texts.echo)[:, :columns]
