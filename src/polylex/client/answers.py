"""What a server answers, as types: those of the library where it has them.

Every reader takes the JSON of an answer and raises KeyError, TypeError or ValueError where it is something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from polylex.columns import Counts
from polylex.documents import Record
from polylex.explanation import Explanation, Match, Span
from polylex.index import Hit
from polylex.vocab import View

Fields: TypeAlias = "dict[str, Any]"

NO_ROW = -1  # a server does not tell rows, which move with every change of the index


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a text: its name ("e_marry", "m_▁Liu"), its view ("pivot" or "source"), its weight > 0."""

    term: str
    view: View
    weight: float


@dataclass(frozen=True, slots=True)
class Language:
    """The language of a query, as the server sees it: ISO 639 code, English name, confidence in [0, 1]."""

    code: str
    name: str
    confidence: float


@dataclass(frozen=True, slots=True)
class PrunedSize:
    """What pruning the documents would change: mean terms a document, bytes of postings."""

    terms_per_document: float
    terms_per_document_before: float
    bytes: int
    bytes_before: int


@dataclass(frozen=True, slots=True)
class Answer(Sequence[Hit]):
    """The hits of a search, best first, as a sequence; and what else the server says.

    hits          tuple of Hit, whose rows are all -1
    explanations  dict: Explanation by document id, of as many hits as the server explains; empty if none was asked for
    terms         tuple of Term, those of the query, heaviest first
    language      Language of the query; None where it could not be told
    facets        dict: per field asked for, values and their counts, most frequent first
    pruned        PrunedSize; None where no pruning was asked for
    documents     int, in the index
    encode_ms, search_ms  float, milliseconds in the server
    """

    hits: tuple[Hit, ...]
    explanations: Mapping[str, Explanation]
    terms: tuple[Term, ...]
    language: Language | None
    facets: Mapping[str, Counts]
    pruned: PrunedSize | None
    documents: int
    encode_ms: float
    search_ms: float

    @overload
    def __getitem__(self, index: int) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of the documents did.

    added, replaced, deleted  int, documents
    documents                 int, in the index now
    """

    added: int
    replaced: int
    deleted: int
    documents: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server serves.

    version             str    of Polylex
    model               str    name of the model
    languages           dict   documents by language code; None where the documents do not tell
    documents           int
    terms_per_document  float  mean
    bytes               int    on disk
    fields              dict   kind ("text", "keyword", "number", "truth", "list", "object", "mixed") by name
    writable            bool   whether documents can be added and deleted
    limits              dict   of one request, by name
    """

    version: str
    model: str
    languages: Mapping[str, int] | None
    documents: int
    terms_per_document: float
    bytes: int
    fields: Mapping[str, str]
    writable: bool
    limits: Mapping[str, float]


def read_answer(json: Fields) -> Answer:
    """The answer to a search."""
    query, language, pruned = json["query"], json["query"]["language"], json["pruned"]
    explained = {hit["id"]: hit["explanation"] for hit in json["hits"] if hit["explanation"]}
    return Answer(
        hits=tuple(Hit(hit["id"], hit["score"], NO_ROW, hit["fields"]) for hit in json["hits"]),
        explanations={id: read_explanation(each) for id, each in explained.items()},
        terms=read_terms(query["terms"]),
        language=None if language is None else Language(language["code"], language["name"], language["confidence"]),
        facets={name: [(each["value"], each["count"]) for each in counts] for name, counts in json["facets"].items()},
        pruned=None if pruned is None else _pruned(pruned),
        documents=json["documents"],
        encode_ms=json["encode_ms"],
        search_ms=json["search_ms"],
    )


def _pruned(json: Fields) -> PrunedSize:
    return PrunedSize(
        json["terms_per_document"], json["terms_per_document_before"], json["bytes"], json["bytes_before"]
    )


def read_terms(json: Sequence[Fields]) -> tuple[Term, ...]:
    """Terms, in the order given."""
    return tuple(Term(each["term"], each["view"], each["weight"]) for each in json)


def read_vectors(json: Fields) -> list[tuple[Term, ...]]:
    """The answer to encoding: the terms of each text."""
    return [read_terms(terms) for terms in json["vectors"]]


def read_explanation(json: Fields) -> Explanation:
    """The inverse of `Explanation.to_dict`."""
    return Explanation(
        query=json["query"],
        document=json["document"],
        document_id=json["document_id"],
        score=json["score"],
        matches=tuple(map(_match, json["matches"])),
    )


def _match(json: Fields) -> Match:
    return Match(
        term=json["term"],
        view=json["view"],
        query_weight=json["query_weight"],
        document_weight=json["document_weight"],
        product=json["product"],
        share=json["share"],
        query_words=_words(json["query_words"]),
        document_words=_words(json["document_words"]),
    )


def _words(json: Sequence[Fields]) -> tuple[Span, ...]:
    return tuple(Span(each["start"], each["end"], each["text"]) for each in json)


def read_record(json: Fields) -> Record:
    """A document."""
    return Record(NO_ROW, json["id"], json["fields"])


def read_changed(json: Fields) -> Changed:
    """What adding or deleting did."""
    return Changed(json.get("added", 0), json.get("replaced", 0), json.get("deleted", 0), json["documents"])


def read_info(json: Fields) -> ServerInfo:
    """The description of a server."""
    languages = json["languages"]
    return ServerInfo(
        version=json["version"],
        model=json["model"]["name"],
        languages=None if languages is None else {each["code"]: each["documents"] for each in languages},
        documents=json["documents"],
        terms_per_document=json["terms_per_document"],
        bytes=json["bytes"],
        fields={each["name"]: each["kind"] for each in json["fields"]},
        writable=json["writable"],
        limits=json["limits"],
    )
