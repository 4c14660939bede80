"""A build as its user watches it: a bar that moves with every text, and what is safe when it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polylex.cli.terminal import Counter, note, show_count
from polylex.errors import PolylexError

if TYPE_CHECKING:
    from polylex.retriever import Progress
    from polylex.runtime.encoder import Encoder
    from polylex.runtime.tokens import Kind
    from polylex.vectors import SparseVectors
    from polylex.vocab import Vocab


class Build:
    """How far a build has come; what `Retriever.build` takes as on_progress.

    documents  stored safely
    resumed    of them, found there at the start
    """

    def __init__(self, bar: Counter) -> None:
        self.documents = self.resumed = 0
        self._bar: Counter | None = bar

    def __call__(self, state: Progress) -> None:
        """Take note."""
        if self._bar is not None:
            self._bar.start_at(state.resumed)
            self._bar = None
        self.documents, self.resumed = state.documents, state.resumed


@contextmanager
def watching(bar: Counter) -> Iterator[Build]:
    """Follow a build, and tell the user of one that stops what became of it."""
    build = Build(bar)
    try:
        yield build
    except KeyboardInterrupt:
        if build.documents:
            stored = show_count(build.documents, "document")
            message = f"interrupted; {stored} stored safely. Run the same command again to go on from there."
        else:
            message = "interrupted before the first documents were stored; nothing is left behind."
        raise KeyboardInterrupt(message) from None
    except PolylexError:
        if build.documents:
            note(f"{show_count(build.documents, 'document')} stored safely; the same command goes on from there")
        raise


@dataclass(frozen=True)
class Watched:
    """An encoder that says when it has finished a text, which a build asks of no encoder."""

    encoder: Encoder
    on_text: Callable[[], None]

    @property
    def source(self) -> str:
        """The encoder's own."""
        return self.encoder.source

    @property
    def name(self) -> str:
        """The encoder's own."""
        return self.encoder.name

    @property
    def weights_id(self) -> str:
        """The encoder's own."""
        return self.encoder.weights_id

    @property
    def vocab(self) -> Vocab:
        """The encoder's own."""
        return self.encoder.vocab

    def encode(self, texts: Sequence[str], *, kind: Kind = "document") -> SparseVectors:
        """One row a text, in order."""
        return self.encoder.encode(texts, kind=kind, on_text=lambda windows: self.on_text())
