"""Throughput: what a device encodes in a second, and what that makes of a number of documents.

measured = measure(encoder, texts, device="cpu")
measured.estimate(1_000_000_000, devices=64, price=2.5).hours
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from polylex.errors import BadInput
from polylex.prune import Pruning
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

WEIGHT_BYTES = 8  # of a file of vectors: a term and its weight
_ROW_BYTES = 8  # where a row begins; the id comes on top
_WARM = 8  # texts encoded before the clock starts
_COUNTED = 256  # texts whose tokens are counted, evenly over all


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was encoded on one device in a time.

    device    str    for people
    texts     int    encoded
    tokens    float  that the model read for them, those of overlapping windows twice; counted on some of the texts
    postings  int    weights of the vectors
    seconds   float  wall clock
    """

    device: str
    texts: int
    tokens: float
    postings: int
    seconds: float

    @property
    def texts_per_second(self) -> float:
        """Of one device."""
        return self.texts / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Of one device."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def estimate(self, documents: int, *, devices: int = 1, price: float | None = None) -> Estimate:
        """What so many documents of this kind take.

        devices  of this kind, each with its share of the documents
        price    of one device for an hour

        Raises BadInput where nothing was encoded.
        """
        if not self.texts or self.seconds <= 0:
            raise BadInput("nothing was encoded, so that nothing can be said of more; give texts")
        hours = documents / self.texts_per_second / 3600
        size = documents * (self.postings / self.texts * WEIGHT_BYTES + _ROW_BYTES)
        return Estimate(documents, devices, hours / devices, hours, None if price is None else hours * price, int(size))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What documents will take.

    hours         float  on the clock, if all devices work all the time
    device_hours  float  of all devices together
    cost          float  in the unit of the price; None without one
    bytes         int    of the vectors, without ids
    """

    documents: int
    devices: int
    hours: float
    device_hours: float
    cost: float | None
    bytes: int


def measure(
    encoder: Any,  # noqa: ANN401 - an Encoder
    texts: Sequence[str],
    *,
    kind: Literal["query", "document"] = "document",
    device: str = "cpu",
    prune: Pruning | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput:
    """Encode texts, by the clock. Raises BadInput where there is none."""
    if not texts:
        raise BadInput("there is no text to measure with; give documents like those that are to be encoded")
    encoder.encode(texts[:_WARM], kind=kind)
    start = clock()
    vectors: SparseVectors = encoder.encode(texts, kind=kind)
    kept = prune(vectors) if prune else vectors
    seconds = clock() - start
    return Throughput(device, len(texts), len(texts) * tokens_per_text(encoder, texts, kind), kept.nnz, seconds)


def tokens_per_text(encoder: Any, texts: Sequence[str], kind: Literal["query", "document"]) -> float:  # noqa: ANN401
    """Mean number of tokens that a model reads of a text; 0 where the encoder does not tell, or there is no text."""
    some = texts[:: max(1, len(texts) // _COUNTED)]
    if not some or not hasattr(encoder, "windows"):
        return 0.0
    return sum(len(window.ids) for windows in encoder.windows(some, kind=kind) for window in windows) / len(some)


class Meter:
    """An encoder that measures itself: the time inside of it, without reading and writing.

    device  str  for people
    """

    def __init__(self, encoder: Any, device: str, on_text: Callable[[], None] | None = None) -> None:  # noqa: ANN401
        """Take an Encoder; `on_text` is called after each text."""
        self.encoder, self.device = encoder, device
        self._on_text = on_text
        self._texts = self._postings = 0
        self._tokens = self._seconds = 0.0

    @property
    def name(self) -> str:
        """The encoder's own."""
        return str(self.encoder.name)

    @property
    def weights_id(self) -> str:
        """The encoder's own."""
        return str(self.encoder.weights_id)

    @property
    def source(self) -> str:
        """The encoder's own."""
        return str(getattr(self.encoder, "source", ""))

    @property
    def vocab(self) -> Vocab:
        """The encoder's own."""
        vocab: Vocab = self.encoder.vocab
        return vocab

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "document"] = "document") -> SparseVectors:
        """One row a text, in order."""
        watch = self._on_text
        options = {} if watch is None else {"on_text": lambda _: watch()}
        start = time.perf_counter()
        vectors: SparseVectors = self.encoder.encode(texts, kind=kind, **options)
        self._seconds += time.perf_counter() - start
        self._texts += len(texts)
        self._postings += vectors.nnz
        self._tokens += len(texts) * tokens_per_text(self.encoder, texts, kind)
        return vectors

    def measured(self) -> Throughput:
        """What was encoded up to now; the weights before pruning."""
        return Throughput(self.device, self._texts, self._tokens, self._postings, self._seconds)
