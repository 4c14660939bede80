"""Hard negatives: documents that our own index finds for a query, and that do not answer it.

mined = list(mine(groups, polylex.load(), "scratch.plx", Mining(count=4)))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from polylex.builder import IndexBuilder
from polylex.errors import BadInput
from polylex.index import Index
from polylex.retriever import Encoder
from polylex.train.data import Group

_CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Mining:
    """Which of the documents found become negatives.

    count      of a group, drawn at random from those that may
    depth      ranks that are looked at
    skip       best ranks that are left out, as they may well answer the query
    max_share  a document is left out that scores more than this share of the best positive: likely an answer too
    keep       whether the negatives that a group has stay (and count)
    seed       of the drawing
    """

    count: int = 4
    depth: int = 64
    skip: int = 0
    max_share: float = 0.95
    keep: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.skip < 0 or self.depth <= self.skip:
            raise BadInput(
                f"mining needs count >= 1 and 0 <= skip < depth, got {self.count}, {self.skip}, {self.depth}"
            )
        if not 0 < self.max_share <= 1:
            raise BadInput(f"max_share must be in (0, 1], got {self.max_share}; 1 leaves out what beats every positive")


def mine(
    groups: Sequence[Group],
    encoder: Encoder,
    folder: str | os.PathLike[str],
    mining: Mining | None = None,
    *,
    on_documents: Callable[[int], None] | None = None,
) -> Iterator[Group]:
    """The same groups with negatives found by searching all documents of all groups.

    folder        where the index of the documents goes; an interrupted one is continued
    on_documents  called with the number of documents indexed so far

    A positive that the search does not find among `depth` counts as scoring 0, and then nothing can be told apart by
    score: every rank may be drawn.
    """
    settings = mining or Mining()
    texts = list(dict.fromkeys(text for group in groups for text in (*group.positives, *group.negatives)))
    if not texts:
        return
    place = {text: row for row, text in enumerate(texts)}
    rng = np.random.default_rng(settings.seed)
    with _indexed(texts, encoder, folder, on_documents) as index:
        for start in range(0, len(groups), _CHUNK):
            some = groups[start : start + _CHUNK]
            rows, scores = index.top(encoder.encode([group.query for group in some], kind="query"), settings.depth)
            for group, found, score in zip(some, rows, scores, strict=True):
                right = {place[text] for text in group.positives}
                may = candidates(found, score, right, settings)
                yield _with(group, [texts[row] for row in rng.permutation(may)], settings)


def candidates(
    rows: NDArray[np.int64], scores: NDArray[np.float32], right: set[int], mining: Mining
) -> NDArray[np.int64]:
    """Rows of a ranking (best first, -1 where it ends) that may be negatives; `right` are those of the positives."""
    answers = np.isin(rows, list(right))
    limit = mining.max_share * scores[answers].max() if answers.any() else np.inf
    may = (rows >= 0) & ~answers & (scores <= limit)
    may[: mining.skip] = False
    return rows[may]


def _with(group: Group, found: list[str], mining: Mining) -> Group:
    held = group.negatives if mining.keep else ()
    fresh = [text for text in found if text not in held][: max(0, mining.count - len(held))]
    scores = group.negative_scores if mining.keep and not fresh else ()
    return replace(group, negatives=(*held, *fresh), negative_scores=scores)


def _indexed(
    texts: Sequence[str], encoder: Encoder, folder: str | os.PathLike[str], told: Callable[[int], None] | None
) -> Index:
    with IndexBuilder(folder, encoder.vocab, encoder=encoder.name, weights_id=encoder.weights_id) as builder:
        for start in range(len(builder), len(texts), _CHUNK):
            some = texts[start : start + _CHUNK]
            ids = [str(row) for row in range(start, start + len(some))]
            builder.add(ids, [{}] * len(some), encoder.encode(some, kind="document"))
            if told is not None:
                told(start + len(some))
        builder.finish()
    return Index.open(folder)
