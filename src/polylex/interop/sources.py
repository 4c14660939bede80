"""Sources: what the adapters for other libraries search, here or on a server, and how they show what was found.

    passages = find(retriever, "who may marry", 3, where="lang = 'de'")
    passages[0].text, passages[0].metadata["year"], passages[0].score

A source is a Retriever, a Hybrid, a Client, or anything else with their `search`; an AsyncClient is for awaiting only.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, cast

from polylex.corpus import BODY_FIELDS, TITLE_FIELDS, document_text
from polylex.errors import BadInput
from polylex.filters import And, parse
from polylex.hybrid import Hybrid
from polylex.ids import ID_FIELDS
from polylex.index import Hit
from polylex.retriever import Retriever

if TYPE_CHECKING:
    from polylex.client import Client


class Source(Protocol):
    """What is asked for documents: a Retriever, a Hybrid, a Client, or a stand-in."""

    def search(self, query: str, k: int = 10, *, where: str | None = None) -> Sequence[Hit]:
        """The `k` best documents, best first."""


class AsyncSource(Protocol):
    """The same, to be awaited: an AsyncClient."""

    def search(self, query: str, k: int = 10, *, where: str | None = None) -> Awaitable[Sequence[Hit]]:
        """The `k` best documents, best first."""


AnySource: TypeAlias = Source | AsyncSource


@dataclass(frozen=True, slots=True)
class Passage:
    """A found document, as other libraries have them.

    id        str
    text      str    what was encoded: its text fields in order, joined and cleaned
    metadata  dict   all other fields, and its title once more; no id
    score     float  > 0; comparable within one query only
    """

    id: str
    text: str
    metadata: Mapping[str, Any]
    score: float


def find(
    source: AnySource, query: str, k: int, *, where: str | None = None, text_fields: Sequence[str] | None = None
) -> list[Passage]:
    """Search a source.

    text_fields  which fields are the text; None: those that a local index says were encoded, else the usual ones

    Raises BadInput for an AsyncClient, and where a document has no such field; BadFilter.
    """
    if _is_async(source):
        raise BadInput(f"{type(source).__name__} can only be awaited; call the asynchronous method, or give a Client")
    return _passages(source, cast(Source, source).search(query, k, where=where), text_fields)


async def find_later(
    source: AnySource, query: str, k: int, *, where: str | None = None, text_fields: Sequence[str] | None = None
) -> list[Passage]:
    """`find`, without holding up the event loop: awaited where the source can be, in a thread elsewhere."""
    if not _is_async(source):
        return await asyncio.to_thread(find, source, query, k, where=where, text_fields=text_fields)
    return _passages(source, await source.search(query, k, where=where), text_fields)


def both(one: str | None, other: str | None) -> str | None:
    """The filter of what passes both; None stands for all. Raises BadFilter."""
    if one is None or other is None:
        return other if one is None else one
    return str(And((parse(one), parse(other))))


def open_source(name: str, key: str | None = None) -> Retriever | Client:
    """The index in a folder, or the server at an http address. Raises as `Retriever.open` and Client do."""
    if not name.startswith(("http://", "https://")):
        return Retriever.open(name)
    from polylex.client import Client

    return Client(name, key)


def _is_async(source: AnySource) -> TypeGuard[AsyncSource]:
    return inspect.iscoroutinefunction(source.search)


def _passages(source: AnySource, hits: Sequence[Hit], text_fields: Sequence[str] | None) -> list[Passage]:
    index = source.index if isinstance(source, Retriever | Hybrid) and text_fields is None else None
    return [passage(hit, index.text_fields(hit.row) if index else text_fields) for hit in hits]


def passage(hit: Hit, text_fields: Sequence[str] | None = None) -> Passage:
    """A hit as a passage; `text_fields` as for `find`. Raises BadInput where it has no text."""
    texts = text_fields or [name for name in BODY_FIELDS if name in hit.fields][:1]
    shown = {
        name: value
        for name, value in hit.fields.items()
        if (name not in texts or name in TITLE_FIELDS) and not (name in ID_FIELDS and str(value) == hit.id)
    }
    return Passage(hit.id, document_text(hit.fields, text_fields), shown, hit.score)
