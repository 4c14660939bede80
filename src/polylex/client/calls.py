"""Every call that a server takes, once for both clients: what is sent, and how the answer is read.

A function here is a method of Client and of AsyncClient, with this signature and these words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from polylex.client.answers import (
    Answer,
    Changed,
    ServerInfo,
    Term,
    read_answer,
    read_changed,
    read_explanation,
    read_info,
    read_record,
    read_vectors,
)
from polylex.corpus import Document
from polylex.documents import Record
from polylex.errors import BadInput
from polylex.explanation import Explanation
from polylex.ids import ID_FIELDS
from polylex.prune import Pruning

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and how its answer is read.

    method, path  of HTTP; the path begins with "/" and is relative to the server's address
    body          bytes of JSON, None for no body
    read          from the JSON of the answer to what the method returns
    repeatable    whether sending it twice leaves the server as sending it once does
    where, id     the filter and the id that were sent, which errors tell; "" and None for none
    """

    method: str
    path: str
    body: bytes | None
    read: Callable[[Any], T]
    repeatable: bool = True
    where: str = ""
    id: str | None = None


def search(
    query: str | Mapping[str, float],
    k: int = 10,
    *,
    where: str | None = None,
    prune_documents: Pruning | None = None,
    explain: bool | int = False,
    fields: Sequence[str] | None = None,
    facets: Sequence[str] | None = None,
) -> Call[Answer]:
    """The `k` best documents for a query in any language, best first.

    query            a text, or a vector as {term name: weight}
    k                1..1000
    where            only documents of which this is true, such as "lang = 'de' and year >= 2020" (docs/filters.md)
    prune_documents  search as if the index had been pruned so, e.g. Pruning(mass=0.9)
    explain          True, or the number of terms to locate in each hit: fills `explanations`, for the best hits
    fields           names of the fields to return; None: all
    facets           names of fields whose values to count over the best 100 documents, or the best k if more

    Raises BadInput; BadFilter, which points at the mistake; and as every method does.
    """
    asked = {"query": query} if isinstance(query, str) else {"vector": dict(query)}
    pruning = prune_documents.limits() if prune_documents else None
    body = {**asked, "k": k, "where": where, "prune": pruning, "explain": explain, "fields": fields, "facets": facets}
    return Call("POST", "/search", _json(body), read_answer, where=where or "")


def explain(query: str, document_id: str, *, limit: int | None = None) -> Call[Explanation]:
    """Why a document matches, or would match, a query.

    limit  terms to locate and return, heaviest first; the score counts all

    Raises DocumentNotFound.
    """
    body = {"query": query, "id": document_id, "limit": limit}
    return Call("POST", "/explain", _json(body), read_explanation, id=document_id)


def encode(
    texts: Sequence[str], *, kind: Literal["query", "document"] = "document", top_k: int | None = None
) -> Call[list[tuple[Term, ...]]]:
    """The terms of each text, heaviest first; at most `top_k` of each."""
    if isinstance(texts, str):
        raise BadInput(f"encode takes a list of texts, got the text {texts[:40]!r}; write [text]")
    return Call("POST", "/encode", _json({"texts": list(texts), "kind": kind, "top_k": top_k}), read_vectors)


def document(id: str) -> Call[Record]:
    """The document of that id, with its fields; its row is -1. Raises DocumentNotFound."""
    return Call("GET", _document_path(id), None, read_record, id=id)


def add(documents: Iterable[Document | Mapping[str, Any]]) -> Call[Changed]:
    """Add new documents, all of them or none. Once it returns they are on disk and found by searches.

    documents  mappings as for Retriever.build, or what read_documents yields

    Not sent again after a broken connection, unless `Retries(all_calls=True)`: the first one may have arrived.
    Raises DuplicateId, BadInput, AccessDenied.
    """
    body = {"documents": [_fields(each) for each in documents], "mode": "add"}
    return Call("POST", "/documents", _json(body), read_changed, repeatable=False)


def upsert(documents: Iterable[Document | Mapping[str, Any]]) -> Call[Changed]:
    """`add`, in the place of documents with the same ids; sent again after a broken connection."""
    body = {"documents": [_fields(each) for each in documents], "mode": "upsert"}
    return Call("POST", "/documents", _json(body), read_changed)


def delete(ids: Sequence[str]) -> Call[Changed]:
    """Delete documents; ids that are not there are passed over. `deleted` counts those that were."""
    if isinstance(ids, str):
        raise BadInput(f"delete takes a list of ids, got the text {ids!r}; write [{ids!r}]")
    return Call("POST", "/documents/delete", _json({"ids": list(ids)}), read_changed)


def info() -> Call[ServerInfo]:
    """What the server is: model, languages, documents, sizes, fields and their kinds, whether it can be changed."""
    return Call("GET", "/info", None, read_info)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as fault:  # no JSON value, no finite number, half a surrogate pair
        raise BadInput(f"this cannot be sent as JSON: {fault}") from None


def _document_path(id: str) -> str:
    # Dots as well: "/documents/.." would be tidied up to "/" on the way.
    return "/documents/" + quote(id, safe="").replace(".", "%2E")


def _fields(document: Document | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(document, Document):
        return document
    named = any(document.fields.get(name) is not None for name in ID_FIELDS)
    return document.fields if named else {**document.fields, "id": document.id}
