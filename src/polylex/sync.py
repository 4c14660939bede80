"""Sync: keep a collection on an engine equal to a folder or table of documents.

with Ledger("articles.ledger", "milvus://127.0.0.1:19530/articles") as ledger:
    sync = Sync(engine, encoder, ledger)
    changes = sync.compare(read_documents("articles/"))
    changes.require()
    sync.apply(changes, read_documents("articles/")).require()

Only what is new or changed is encoded and sent. A run that was interrupted is continued by the same calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from polylex.engine import Engine, Patience, Pushed, Rejected, again, push
from polylex.errors import BadInput
from polylex.ledger import Ledger, content_digest
from polylex.prune import Pruning
from polylex.stream import SIZE, Batch, Stream

if TYPE_CHECKING:
    from polylex.corpus import Document
    from polylex.retriever import Encoder

_MOST_DELETES = 0.5


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes a collection equal to the documents.

    added, updated, deleted  tuple of str  ids; the first two in the order of the documents
    unchanged                int           documents that are there already
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    deleted: tuple[str, ...]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.deleted)

    @property
    def held(self) -> int:
        """Documents in the collection before."""
        return self.unchanged + len(self.updated) + len(self.deleted)

    def require(self, most_deletes: float = _MOST_DELETES, *, skipped: int = 0) -> None:
        """Raise BadInput where too much would go: a folder that is empty by mistake must not empty a collection.

        most_deletes  share of the collection that may be deleted, [0, 1]
        skipped       records of the input that could not be read; with one of them nothing may be deleted, as it may
                      be the very document
        """
        if not 0 <= most_deletes <= 1:
            raise BadInput(f"most_deletes must be a share in [0, 1], got {most_deletes}")
        if len(self.deleted) > most_deletes * self.held:
            raise BadInput(
                f"{len(self.deleted):,} of {self.held:,} documents would be deleted, more than {most_deletes:.0%}; see "
                "whether the input is whole, or allow it with most_deletes (--most-deletes)"
            )
        if skipped and self.deleted:
            raise BadInput(
                f"{skipped:,} records could not be read, and {len(self.deleted):,} documents of the collection were "
                "not found in the input, perhaps the same ones; mend the records first"
            )


@dataclass(slots=True)
class Synced:
    """How far a run has come.

    changes   Changes  that were found
    pushed    int      documents that the engine has taken, or rejected
    deleted   int      documents removed
    rejected  list     every document that the engine has not taken, with its reason
    retries   int      batches that were sent again
    """

    changes: Changes
    pushed: int = 0
    deleted: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    retries: int = 0

    def require(self) -> None:
        """Raise EngineError unless every document was taken."""
        Pushed(self.pushed, self.rejected, self.retries).require()


class Sync:
    """A collection, and what it is made equal with. One process at a time may sync a collection."""

    def __init__(
        self,
        engine: Engine,
        encoder: Encoder,
        ledger: Ledger,
        *,
        prune: Pruning | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Take the parts; with another model or pruning than before every document counts as changed."""
        self.engine, self.encoder, self.ledger = engine, encoder, ledger
        self.prune, self.patience = prune, patience
        self._making = [encoder.weights_id, encoder.vocab.fingerprint, repr(prune) if prune else ""]

    def compare(self, documents: Iterable[Document]) -> Changes:
        """What would have to change, by the ids that the engine has and the contents that the ledger has.

        A document that the engine has and the ledger does not know counts as updated. All ids are held in memory.
        Raises EngineUnreachable, EngineError, VocabMismatch for a collection with vectors of other terms.
        """
        engine, patience = self.engine, self.patience
        engine.space.require(again(engine.mark, patience), "the collection")
        again(engine.refresh, patience)
        there = again(lambda: set(engine.ids()), patience)
        added: list[str] = []
        updated: list[str] = []
        unchanged = 0
        left = set(there)
        for document in documents:
            left.discard(document.id)
            if document.id not in there:
                added.append(document.id)
            elif self.ledger.digest(document.id) != self._digest(document):
                updated.append(document.id)
            else:
                unchanged += 1
        return Changes(tuple(added), tuple(updated), tuple(sorted(left)), unchanged)

    def apply(
        self,
        changes: Changes,
        documents: Iterable[Document],
        *,
        on_progress: Callable[[Synced], None] | None = None,
    ) -> Synced:
        """Encode and send what is new or changed, then delete what is gone.

        documents    once more from the start; sent is what they are now
        on_progress  called after each batch; what it gets changes with the next

        What the engine rejected is in the report, by id; the next run tries it again. Raises as `push` does; what was
        done until then is done.
        """
        report = Synced(changes)
        if changes.added or changes.updated:
            self._push(documents, report, on_progress)
        for start in range(0, len(changes.deleted), SIZE):
            ids = changes.deleted[start : start + SIZE]
            self.ledger.forget(ids)
            again(partial(self.engine.delete, ids), self.patience)
            report.deleted += len(ids)
            if on_progress is not None:
                on_progress(report)
        if changes.deleted:
            again(self.engine.refresh, self.patience)
        return report

    def _push(
        self, documents: Iterable[Document], report: Synced, on_progress: Callable[[Synced], None] | None
    ) -> None:
        """Send what is new, and write down what was taken."""
        wanted = {*report.changes.added, *report.changes.updated}
        sent: dict[str, bytes] = {}

        def begin() -> Iterator[Batch]:
            changed = (document for document in documents if document.id in wanted)
            while some := list(islice(changed, SIZE)):
                vectors = self.encoder.encode([document.text for document in some], kind="document")
                sent.clear()
                sent.update((document.id, self._digest(document)) for document in some)
                self.ledger.forget(sent)
                kept = self.prune(vectors) if self.prune else vectors
                yield Batch([document.id for document in some], kept, [document.fields for document in some])

        def note(pushed: Pushed) -> None:
            refused = {each.id for each in pushed.rejected[len(report.rejected) :]}
            self.ledger.record((id, digest) for id, digest in sent.items() if id not in refused)
            report.pushed, report.rejected, report.retries = pushed.documents, list(pushed.rejected), pushed.retries
            if on_progress is not None:
                on_progress(report)

        stream = Stream(len(wanted), self.encoder.vocab.fingerprint, begin)
        push(self.engine, stream, patience=self.patience, on_progress=note)

    def _digest(self, document: Document) -> bytes:
        return content_digest(document, self._making)
