"""Why a document matched a query: the shared terms, their share of the score, and the words behind them on both sides.

Max pooling has an arg max: every pivot term of a text was put there by one token, and every echoed term *is* a token.
So each term of a match points at words of the query and of the document, in their own scripts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput
from polylex.vectors import SparseVectors
from polylex.vocab import View, Vocab


class Reader(Protocol):
    """What an explanation asks of a model: which characters of a text carry which terms."""

    @property
    def vocab(self) -> Vocab:
        """Names of the terms."""

    def term_spans(self, text: str, terms: Sequence[int], *, kind: Any) -> dict[int, list[tuple[int, int]]]:  # noqa: ANN401
        """Per term the character ranges [start, end) of `text` that carry it; none where the text as a whole does."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a text, and the word that stands there."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Match:
    """One term that query and document share.

    term             its name, "e_marry" (English term) or "m_▁Liu" (token that both texts contain)
    view             "pivot" or "source"
    query_weight, document_weight, product
    share            product / score, in [0, 1]
    query_words      the words of the query that carry the term; empty when only the sentence as a whole does
    document_words   the same in the document
    """

    term: str
    view: View
    query_weight: float
    document_weight: float
    product: float
    share: float
    query_words: tuple[Span, ...]
    document_words: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A score taken apart: `score` is the sum of the products of `matches`, heaviest first.

    `document_id` is None for a text that comes from no index.
    """

    query: str
    document: str
    document_id: str | None
    score: float
    matches: tuple[Match, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for JSON."""
        return asdict(self)


def explain(
    reader: Reader,
    query: tuple[str, SparseVectors],
    document: tuple[str, SparseVectors],
    *,
    document_id: str | None = None,
    limit: int | None = None,
) -> Explanation:
    """Explain the score of one (text, vector) pair against another.

    query, document  the text and its vector, one row; the vectors may be pruned, only what they hold counts
    limit            matches to locate and return; all by default. `score` counts every match all the same.

    Raises VocabMismatch when the vectors come from different models.
    """
    query_text, query_vector = query
    document_text, document_vector = document
    if len(query_vector) != 1 or len(document_vector) != 1:
        raise BadInput(f"explain takes one row on each side, got {len(query_vector)} and {len(document_vector)}")
    vocab = reader.vocab
    vocab.require(query_vector)
    vocab.require(document_vector)
    shared, mine, theirs = np.intersect1d(
        query_vector.terms, document_vector.terms, assume_unique=True, return_indices=True
    )
    query_weights, document_weights = query_vector.weights[mine], document_vector.weights[theirs]
    products = query_weights.astype(np.float64) * document_weights
    score = float(products.sum())
    order = np.argsort(-products, kind="stable")[:limit]
    terms = [int(term) for term in shared[order]]
    query_spans = reader.term_spans(query_text, terms, kind="query")
    document_spans = reader.term_spans(document_text, terms, kind="document")
    matches = tuple(
        Match(
            term=vocab.name(term),
            view=vocab.view(term),
            query_weight=float(query_weights[at]),
            document_weight=float(document_weights[at]),
            product=float(products[at]),
            share=float(products[at] / score),
            query_words=_words(query_text, query_spans.get(term, ())),
            document_words=_words(document_text, document_spans.get(term, ())),
        )
        for term, at in zip(terms, order, strict=True)
    )
    return Explanation(query_text, document_text, document_id, score, matches)


# -- from tokens to words ------------------------------------------------------------------------


def _words(text: str, spans: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    """The words around the given spans, each once, in text order."""
    grown = {word_around(text, start, end) for start, end in spans}
    return tuple(Span(start, end, text[start:end]) for start, end in sorted(grown) if start < end)


def word_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Grow the span of a token to the word it is a piece of; scripts written without spaces keep the token.

    >>> word_around("Menschenrechte gelten", 8, 14)
    (0, 14)
    """
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        return start, end
    if _joins(text[start]):
        while start > 0 and _joins(text[start - 1]):
            start -= 1
    if _joins(text[end - 1]):
        while end < len(text) and _joins(text[end]):
            end += 1
    elif end < len(text) and unicodedata.category(text[end])[0] == "M":
        end += 1  # never cut a vowel sign or accent off its letter
    return start, end


# Scripts whose words are not separated by spaces: first and last code point.
_UNSPACED: tuple[tuple[int, int], ...] = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, supplementary planes
)


def _joins(char: str) -> bool:
    """Whether a character continues a word of a script written with spaces."""
    if char in "'\u2019\u200c\u200d":  # apostrophes; the joiners of Persian and of Indic scripts
        return True
    point = ord(char)
    if any(low <= point <= high for low, high in _UNSPACED):
        return False
    return unicodedata.category(char)[0] in "LNM"


def best_tokens(
    logits: Sequence[NDArray[np.float32]],
) -> list[tuple[int, int]]:
    """Per term the (window, token) whose raw score is the highest; the first one on ties.

    logits  one array [L, terms] for each window of a text
    """
    peaks = np.stack([scores.max(axis=0) for scores in logits])
    window = peaks.argmax(axis=0)
    return [(int(w), int(logits[w][:, column].argmax())) for column, w in enumerate(window)]
