"""Engine: one collection on a search engine that already runs, and what is done with it whichever engine it is.

    engine = MilvusEngine("http://127.0.0.1:19530", "articles", Space(index.vocab))
    engine.create()
    report = push(engine, Stream.of_index(index))
    verify(engine, Stream.of_index(index)).require()
    engine.search(encoder.encode_query(["¿Quién puede casarse?"]), k=3)

The adapters are in `polylex.engines`, one file an engine; each needs its client package. What an engine would refuse or
fold is found before anything is sent: see `polylex.fit`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from polylex.errors import BadFilter, EngineError, EngineUnreachable, VocabMismatch
from polylex.filters import And, Expression, Not, Or, Test, parse
from polylex.fit import Fit
from polylex.names import TermNames
from polylex.profiles import Profile
from polylex.stream import Batch, Stream
from polylex.termmap import TermMap
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

T = TypeVar("T")
_MARK = "polylex 1"
_LONGEST_WAIT = 30.0  # seconds between two attempts


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document that an engine did not take, though it took the request.

    again  bool  whether sending it again may help: the engine was busy, not displeased
    """

    id: str
    reason: str
    again: bool = False


class Engine(Protocol):
    """One collection. All of these raise EngineUnreachable where trying again may help, else EngineError."""

    @property
    def profile(self) -> Profile:
        """Its limits."""

    @property
    def space(self) -> Space:
        """The terms of its vectors."""

    def create(self, *, replace: bool = False) -> None:
        """Make the collection, empty. Raises EngineError where one of that name is there, unless `replace`."""

    def drop(self) -> None:
        """Remove the collection with all documents; nothing where there is none."""

    def mark(self) -> str | None:
        """What `set_mark` has stored with the collection: which terms its vectors have."""

    def set_mark(self, mark: str) -> None:
        """Store a line of ASCII text with the collection."""

    def push(self, batch: Batch) -> list[Rejected]:
        """Add documents, or replace those with the same ids, in one request; those that were not taken.

        Sending the same again changes nothing. Vectors are those of the space: see Space.documents.
        """

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents; ids that are not there do not matter."""

    def refresh(self) -> None:
        """Return when searches see all that was pushed and deleted before."""

    def count(self) -> int:
        """How many documents a search sees."""

    def ids(self) -> Iterator[str]:
        """Of all these documents, in any order."""

    def search(self, queries: SparseVectors, k: int = 10, *, where: str | None = None) -> list[list[tuple[str, float]]]:
        """Ids and scores of the `k` best documents for each query, best first.

        queries  in the vocabulary of the model; the space maps them
        where    a filter over fields, as `Index.search` takes it; values compare as the engine has them, so that the
                 text "2020" is no number there. Raises BadFilter for a test that the engine does not have
        """

    def close(self) -> None:
        """End the connection."""


class Space:
    """The terms of a collection's vectors: a vocabulary, by its names or ids or through a TermMap."""

    def __init__(self, vocab: Vocab, terms: TermMap | None = None) -> None:
        """Raises VocabMismatch where the map is of another vocabulary."""
        if terms is not None:
            SparseVectors.empty(terms.vocab).require(vocab.fingerprint, "the vocabulary")
        self.vocab = vocab
        self.terms = terms

    @property
    def size(self) -> int:
        """Ids are below this."""
        return len(self.vocab) if self.terms is None else len(self.terms)

    def names(self, profile: Profile) -> TermNames:
        """The names of terms, as an engine takes them."""
        return TermNames(self.vocab, profile.forbids)

    def documents(self, vectors: SparseVectors) -> SparseVectors:
        """Vectors of documents as they are sent. Raises VocabMismatch, and BadVectors for a term the map lacks."""
        self.vocab.require(vectors)
        return vectors if self.terms is None else self.terms.to_dense(vectors)

    def queries(self, vectors: SparseVectors) -> SparseVectors:
        """Vectors of queries; terms that no document has are left out. Raises VocabMismatch."""
        self.vocab.require(vectors)
        return vectors if self.terms is None else self.terms.to_dense(vectors, unknown="drop")

    @property
    def mark(self) -> str:
        """What tells this space from others, kept with the collection."""
        return f"{_MARK} {self.vocab.fingerprint} {'' if self.terms is None else self.terms.fingerprint}".strip()

    def require(self, mark: str | None, owner: str) -> None:
        """Raise VocabMismatch unless a collection with this mark has vectors of this space, or of what it grew from."""
        earlier = {self.mark}
        if self.terms is not None:
            earlier |= {f"{_MARK} {self.vocab.fingerprint} {space}" for space in self.terms.spaces}
        if mark is not None and mark not in earlier:
            raise VocabMismatch(
                f"{owner} was filled with other terms ({mark[:40]}...), these are {self.mark[:40]}...; use the model "
                "and the map that it was filled with, or push to another collection"
            )


# -- pushing -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to try again.

    attempts  int    in all, for one batch; >= 1
    wait      float  seconds before the second; each is twice the one before, at most 30
    """

    attempts: int = 6
    wait: float = 0.5
    sleep: Callable[[float], object] = time.sleep

    def pauses(self) -> Iterator[float]:
        """Seconds before each further attempt."""
        return (min(self.wait * 2**attempt, _LONGEST_WAIT) for attempt in range(self.attempts - 1))


@dataclass(slots=True)
class Pushed:
    """How far a push has come.

    documents  int   read from the stream, those before `skip` included: where to go on
    rejected   list  every document that the engine has not taken, with its reason
    retries    int   batches that were sent again
    """

    documents: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    retries: int = 0

    def require(self) -> None:
        """Raise EngineError unless every document was taken."""
        if self.rejected:
            first = self.rejected[0]
            raise EngineError(
                f"{len(self.rejected):,} documents were not taken, the first {first.id!r}: {first.reason}; mend "
                "them and push them again"
            )


def push(
    engine: Engine,
    stream: Stream,
    *,
    skip: int = 0,
    patience: Patience | None = None,
    on_progress: Callable[[Pushed], None] | None = None,
) -> Pushed:
    """Send documents, batch by batch; what the engine did not take is in the report, by name.

    stream       in the vocabulary of the model; the space maps it
    skip         documents that were sent before: `documents` of the last progress of an interrupted push
    on_progress  called after each batch that is done; what it gets changes with the next

    Documents are told apart by their ids, so that nothing is doubled by sending it twice. Before a batch is sent it is
    checked against the limits of the engine. Raises Unfit, VocabMismatch, and EngineUnreachable where the engine stays
    away; what was sent until then stays there.
    """
    space, patience = engine.space, patience or Patience()
    again(lambda: space.require(engine.mark(), "the collection"), patience)
    report = Pushed()
    again(lambda: engine.set_mark(space.mark), patience)
    for batch in stream:
        if report.documents + len(batch) > skip:
            wanted = batch.take(range(skip - report.documents, len(batch))) if report.documents < skip else batch
            ready = Batch(wanted.ids, space.documents(wanted.vectors), wanted.fields)
            fit = Fit(engine.profile, space.vocab, mapped=space.terms is not None)
            fit.add(ready.ids, ready.vectors)
            fit.require()
            report.rejected += _send(engine, ready, patience, report)
        report.documents += len(batch)
        if on_progress is not None:
            on_progress(report)
    again(engine.refresh, patience)
    return report


def _send(engine: Engine, batch: Batch, patience: Patience, report: Pushed) -> list[Rejected]:
    """One batch; what was rejected for good, or every time."""
    refused: list[Rejected] = []
    pauses = patience.pauses()
    while True:
        busy: list[Rejected] = []
        try:
            rejected = engine.push(batch)
            refused += [each for each in rejected if not each.again]
            busy = [each for each in rejected if each.again]
            if not busy:
                return refused
        except EngineUnreachable:
            pause = next(pauses, None)
            if pause is None:
                raise
        else:
            places = {id: row for row, id in enumerate(batch.ids)}
            batch = batch.take([places[each.id] for each in busy])
            pause = next(pauses, None)
            if pause is None:
                return refused + busy
        report.retries += 1
        patience.sleep(pause)


def again(call: Callable[[], T], patience: Patience | None = None) -> T:
    """What `call` gives; where the engine is unreachable, after trying again."""
    patience = patience or Patience()
    for pause in patience.pauses():
        try:
            return call()
        except EngineUnreachable:
            patience.sleep(pause)
    return call()


# -- verifying ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verified:
    """What a collection has, held against what it should have.

    missing, unexpected  tuple of str  ids, in order
    """

    documents: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def require(self) -> None:
        """Raise EngineError unless the collection has exactly the documents it should have."""
        for name, ids in (("missing", self.missing), ("unexpected", self.unexpected)):
            if ids:
                raise EngineError(
                    f"{len(ids):,} of {self.documents:,} documents are {name}, the first {ids[0]!r}; "
                    f"{'push' if name == 'missing' else 'delete'} them"
                )


def verify(engine: Engine, stream: Stream) -> Verified:
    """Compare the ids of a collection with those of a stream, all in memory. Raises EngineError, VocabMismatch."""
    engine.space.require(engine.mark(), "the collection")
    engine.refresh()
    wanted, found = set(stream.ids()), set(engine.ids())
    return Verified(len(wanted), tuple(sorted(wanted - found)), tuple(sorted(found - wanted)))


# -- filters -----------------------------------------------------------------------------------------


def translate(where: str, test: Callable[[Test], T], join: Callable[[str, list[T]], T]) -> T:
    """A filter in an engine's words.

    test  makes one of a test; may raise BadFilter
    join  makes one of "and" or "or" and several, or of "not" and one

    Raises BadFilter.
    """

    def of(expression: Expression) -> T:
        if isinstance(expression, Not):
            return join("not", [of(expression.operand)])
        if isinstance(expression, And | Or):
            return join("and" if isinstance(expression, And) else "or", [of(each) for each in expression.operands])
        return test(expression)

    return of(parse(where))


def unsupported(test: Test, engine: str) -> BadFilter:
    """The error for a test that an engine does not have."""
    return BadFilter(f"{engine} cannot test `{test}`; search more hits and filter them in your program", "", 0)


def reason_of(fault: Mapping[str, Any]) -> str:
    """The message in an error object of OpenSearch or Elasticsearch."""
    return f"{fault.get('type', 'error')}: {fault.get('reason', 'no reason given')}"
