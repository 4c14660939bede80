"""A history of changes that anybody can replay: what an index must hold after each of them, and how it must answer.

crash.py and soak.py compare a real index with it. A document is an id and a version, which decide all else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polylex.index import Index, IndexWriter
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

TERMS = 48
VOCAB = Vocab([f"word{i}" for i in range(TERMS // 2)], [f"token{i}" for i in range(TERMS // 2)])
CLOCK = "clock"  # a document whose version is the number of the step that wrote it last: every step does
FIRST = 300  # documents at the beginning
IDS = 1200  # different ids; about half of them are there at a time


@dataclass(frozen=True)
class Step:
    """One transaction.

    verb  "upsert", "delete", "both" or "compact"
    """

    verb: str
    upserts: tuple[tuple[str, int], ...] = ()
    deletes: tuple[str, ...] = ()


class History:
    """The state after some steps: id -> version, in the order of rows."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.steps = 0
        self.state = {f"d{number}": 0 for number in range(FIRST)} | {CLOCK: 0}

    def next(self) -> Step:
        """What the next step will be."""
        number, draw = self.steps + 1, random.Random(f"{self.seed}/{self.steps}")
        verb = draw.choices(("upsert", "delete", "both", "compact"), (8, 4, 6, 1))[0]
        if verb == "compact":
            return Step(verb)
        size = draw.choice((1, 1, 1, 3, 20, 120))
        upserts = tuple((f"d{draw.randrange(IDS)}", number) for _ in range(size if verb != "delete" else 0))
        there = sorted(self.state.keys() - {CLOCK})
        wanted = size if verb == "delete" else draw.randint(1, 1 + size) if verb == "both" else 0
        deletes = tuple(draw.sample(there, min(wanted, len(there))))
        unique = dict(item for item in upserts if item[0] not in deletes)
        return Step(verb, (*unique.items(), (CLOCK, number)), deletes)

    def take(self, step: Step) -> None:
        """Take the next step."""
        for id in (*step.deletes, *(id for id, _ in step.upserts)):
            self.state.pop(id, None)
        self.state |= step.upserts
        self.steps += 1

    def replay(self, steps: int) -> History:
        """Go on until so many steps are taken; itself."""
        while self.steps < steps:
            self.take(self.next())
        return self


def apply(writer: IndexWriter, step: Step) -> None:
    """One step on a real index."""
    if step.verb == "compact":
        writer.compact()
        return
    if step.deletes:
        writer.delete(step.deletes)
    documents = list(step.upserts)
    writer.upsert([id for id, _ in documents], fields_of(documents), vectors_of(documents))
    writer.commit()


def build(path: Path) -> None:
    """The index before the first step."""
    documents = list(History(0).state.items())
    Index.build(path, vectors_of(documents), [id for id, _ in documents], fields_of(documents), vocab=VOCAB).close()


def fields_of(documents: Sequence[tuple[str, int]]) -> list[dict[str, int]]:
    """Fields of some documents."""
    return [{"version": version, "group": version % 3} for _, version in documents]


def dense_of(documents: Sequence[tuple[str, int]]) -> NDArray[np.float32]:
    """Weights of some documents [documents, TERMS]: few different ones, so that ties are common."""
    weights = np.zeros((len(documents), TERMS), np.float32)
    for row, (id, version) in enumerate(documents):
        draw = random.Random(f"{id}/{version}")
        for term in draw.sample(range(TERMS), draw.randint(0, 6)):
            weights[row, term] = draw.choice((0.25, 0.5, 1.0, 3.0))
    return weights


def vectors_of(documents: Sequence[tuple[str, int]]) -> SparseVectors:
    """`dense_of`, as an index takes them."""
    dense = dense_of(documents)
    rows, terms = np.nonzero(dense)
    return SparseVectors(
        np.searchsorted(rows, np.arange(len(documents) + 1)), terms, dense[rows, terms], VOCAB.fingerprint
    )


def queries(draw: random.Random, count: int) -> tuple[NDArray[np.float32], SparseVectors]:
    """Random queries, dense and sparse."""
    dense = np.zeros((count, TERMS), np.float32)
    for row in dense:
        for term in draw.sample(range(TERMS), draw.randint(1, 8)):
            row[term] = draw.choice((0.5, 1.0, 1.5))
    rows, terms = np.nonzero(dense)
    return dense, SparseVectors(
        np.searchsorted(rows, np.arange(count + 1)), terms, dense[rows, terms], VOCAB.fingerprint
    )


class Oracle:
    """Answers by definition: every document is scored, ties in the order of rows."""

    def __init__(self, state: dict[str, int]) -> None:
        self._documents = list(state.items())
        self._weights = dense_of(self._documents)
        self._groups = np.array([version % 3 for _, version in self._documents])

    def top(self, query: NDArray[np.float32], k: int, group: int | None = None) -> list[tuple[str, int, float]]:
        """Id, version and score of the best `k` documents, of one group if asked."""
        scores = np.zeros(len(self._documents), np.float32)
        for term in np.flatnonzero(query):
            scores += self._weights[:, term] * query[term]
        if group is not None:
            scores[self._groups != group] = 0
        order = np.argsort(-scores, kind="stable")[:k]
        return [(*self._documents[row], float(scores[row])) for row in order if scores[row] > 0]


def faults_of(index: Index, state: dict[str, int], draw: random.Random, count: int = 3) -> list[str]:
    """In what an index differs from a state, in words: documents, order, vectors by their scores, filters."""
    records = index._catalog.records_between(0, index.span)
    held = [(record.id, record.fields["version"]) for record in records]
    if held != list(state.items()):
        return [f"holds {len(held)} documents, expected {len(state)} others or in another order"]
    return [fault for _ in range(count) for fault in answer_faults(index, Oracle(state), draw)]


def answer_faults(index: Index, oracle: Oracle, draw: random.Random) -> list[str]:
    """In what a few answers of an index differ from those of an oracle, in words."""
    dense, sparse = queries(draw, 4)
    k, group = draw.choice((1, 5, 30)), draw.choice((None, None, 0, 1, 2))
    where = None if group is None else f"group = {group}"
    found = index.search(sparse, k, where=where, threads=draw.choice((1, 2)))
    faults = []
    for query, hits in zip(dense, found, strict=True):
        expected = oracle.top(query, k, group)
        answer = [(hit.id, hit.fields["version"], hit.score) for hit in hits]
        if answer != expected:
            faults.append(f"of {where or 'all'} the best {k} were {answer[:3]} ..., expected {expected[:3]} ...")
    return faults
