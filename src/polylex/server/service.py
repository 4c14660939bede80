"""Service: an open index and its model, and all that requests ask of them. Knows nothing of HTTP."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from polylex import __version__
from polylex.columns import counts_of
from polylex.corpus import Document, as_document, document_text
from polylex.documents import Record
from polylex.errors import BadInput, ModelMismatch, PolylexError, TextTooLong, VocabMismatch
from polylex.explanation import Reader, explain
from polylex.filters import parse_field
from polylex.index import Index
from polylex.models import load
from polylex.previews import Previews
from polylex.prune import Pruning
from polylex.retriever import Encoder, check_model, stored_pruning
from polylex.server.languages import language_of
from polylex.server.settings import Limits, Settings
from polylex.snapshot import Snapshot
from polylex.vectors import SparseVectors

_COUNTED = 100  # best documents over which facets are counted
_SAMPLE = 500  # documents whose fields are looked at
_KEYWORD_CHARS = 60  # a longer text is no keyword
_LANGUAGE_FIELDS = ("lang", "language", "locale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A search.

    text     of the query; None for one by vector
    vector   SparseVectors of one row
    rule     the pruning to preview; without limits: the index as it is
    explain  shared terms of each hit to return; 0: no explanation, None: all
    fields   to return; None: all
    """

    text: str | None
    vector: SparseVectors
    k: int
    where: str | None
    rule: Pruning
    explain: int | None
    fields: Sequence[str] | None
    facets: Sequence[str]


class Service:
    """From any number of threads."""

    def __init__(self, index: Index, encoder: Encoder, limits: Limits) -> None:
        """Put an index and a model together. Raises VocabMismatch, ModelMismatch."""
        check_model(encoder, index)
        self.index = index
        self.encoder = encoder
        self.limits = limits
        self._previews = Previews(limits.preview_bytes)
        self._refreshing = threading.Lock()
        self._mismatch: PolylexError | None = None
        self._described: tuple[Snapshot, dict[str, Any]] | None = None

    @classmethod
    def open(cls, settings: Settings) -> Service:
        """Open what the settings name. Raises IndexNotFound, CorruptIndex, ModelNotFound, and as above."""
        index = Index.open(settings.index)
        try:
            name = settings.model or index.info().settings.get("model") or index.info().encoder
            return cls(index, load(name, threads=1), settings.limits)
        except BaseException:
            index.close()
            raise

    def warm(self) -> None:
        """Do once what would make the first request slow."""
        self.encode(["warm"], "query")
        language_of("warm")
        self.encoder.vocab.names(())

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> Snapshot:
        """The newest state of the index: a change that was acknowledged anywhere is in it.

        Raises VocabMismatch or ModelMismatch while there is an index of another model.
        """
        with self._refreshing:
            if self.index.refresh():
                self._mismatch = None
                try:
                    check_model(self.encoder, self.index)
                except (VocabMismatch, ModelMismatch) as fault:
                    self._mismatch = fault
            if self._mismatch is not None:
                raise self._mismatch
            return self.index.snapshot

    # -- encoding --------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str], kind: str, truncate: bool = False) -> SparseVectors:
        """Vectors of some texts, on this thread."""
        options: dict[str, Any] = {"max_windows": 1} if truncate else {}
        return self.encoder.encode(list(texts), kind=cast(Any, kind), **options)

    def vector_of(self, terms: Mapping[str, float]) -> SparseVectors:
        """A vector by the names of its terms. Raises BadVectors."""
        return SparseVectors.from_dicts([terms], self.encoder.vocab)

    def terms(self, vectors: SparseVectors, top_k: int | None = None) -> list[list[dict[str, Any]]]:
        """Terms of vectors, the heaviest first."""
        vocab = self.encoder.vocab
        rows = []
        for row in range(len(vectors)):
            terms, weights = vectors.row(row)
            order = np.argsort(-weights, kind="stable")[:top_k]
            rows.append(
                [
                    {"term": vocab.name(term), "view": vocab.view(term), "weight": weight}
                    for term, weight in zip(terms[order].tolist(), weights[order].tolist(), strict=True)
                ]
            )
        return rows

    # -- searching -------------------------------------------------------------------------------

    def search(self, question: Question) -> dict[str, Any]:
        """All of the answer but how long it took."""
        state = self.state()
        depth = max(question.k, _COUNTED) if question.facets else question.k
        within = max(1, min(depth, len(state.catalog)))
        allowed = None if question.where is None else state.columns.matching(question.where)
        preview = self._previews.of(state, question.rule) if question.rule else None
        found, scores = (preview or state).top(question.vector, within, allowed=allowed)
        rows = [row for row in found[0].tolist() if row >= 0]
        wanted = [parse_field(name) for name in question.facets]
        bare = question.fields == [] and not wanted and question.explain == 0
        records = _bare(state, rows) if bare else state.catalog.records(rows)
        hits = list(zip(records, scores[0].tolist(), strict=False))[: question.k]
        answer: dict[str, Any] = {
            "hits": [
                {
                    "rank": rank,
                    "id": record.id,
                    "score": score,
                    "fields": _chosen(record.fields, question.fields),
                    "explanation": None,
                }
                for rank, (record, score) in enumerate(hits, 1)
            ],
            "query": {
                "text": question.text,
                "language": language_of(question.text) if question.text else None,
                "terms": self.terms(question.vector)[0],
            },
            "facets": {
                name: [{"value": value, "count": count} for value, count in counts_of(field, records)]
                for name, field in zip(question.facets, wanted, strict=True)
            },
            "pruned": preview
            and {
                "terms_per_document": preview.terms_per_document,
                "terms_per_document_before": preview.terms_per_document_before,
                "bytes": preview.bytes,
                "bytes_before": preview.bytes_before,
            },
            "documents": len(state.catalog),
        }
        if question.explain != 0 and question.text is not None:
            reader = _Remembering(self._reader(), question.text, question.vector)
            for hit, (record, _) in list(zip(answer["hits"], hits, strict=True))[: self.limits.explained]:
                hit["explanation"] = self._explained(state, reader, question, record)
        return answer

    def explain(self, question: Question, id: str) -> dict[str, Any]:
        """Why a document matches. Raises DocumentNotFound."""
        state = self.state()
        return self._explained(state, self._reader(), question, state.catalog.record(id))

    def _reader(self) -> Reader:
        if not hasattr(self.encoder, "term_spans"):
            raise BadInput("the model of this server cannot point at words, which an explanation needs")
        return cast(Reader, self.encoder)

    def _explained(self, state: Snapshot, reader: Reader, question: Question, record: Record) -> dict[str, Any]:
        assert question.text is not None
        text = document_text(record.fields, _text_fields(state))
        vector = question.rule(_vector(state, record.row))
        found = explain(
            reader, (question.text, question.vector), (text, vector), document_id=record.id, limit=question.explain
        )
        return found.to_dict()

    # -- documents -------------------------------------------------------------------------------

    def document(self, id: str) -> dict[str, Any]:
        """A document by its id. Raises DocumentNotFound."""
        record = self.state().catalog.record(id)
        return {"id": record.id, "fields": record.fields}

    def read(self, tables: Iterable[Mapping[str, Any]]) -> list[Document]:
        """Documents as clients send them. Raises BadInput, TextTooLong."""
        names = _text_fields(self.state())
        return [as_document(table, text_fields=names, max_chars=self.limits.document_chars) for table in tables]

    def pruned(self, vectors: SparseVectors) -> SparseVectors:
        """Vectors of new documents, pruned as those that are there. Raises BadInput."""
        rule = stored_pruning(json.loads(self.index.snapshot.catalog.meta["settings"]).get("pruning"))
        return rule(vectors) if rule else vectors

    def __len__(self) -> int:
        """Documents, with all changes that were made by now."""
        return len(self.state().catalog)

    # -- what there is ---------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """What is served; counts over all documents are made anew when they have changed."""
        state = self.state()
        described = self._described
        if described is None or described[0] is not state:
            described = self._described = state, self._describe(state)
        return described[1]

    def _describe(self, state: Snapshot) -> dict[str, Any]:
        info, vocab = self.index.info(), self.encoder.vocab
        fields = list(_fields(_sample(state)))
        speaking = next((each["name"] for each in fields if each["name"] in _LANGUAGE_FIELDS and each["facet"]), None)
        counts = state.columns.counts(parse_field(speaking), state.permitted(None)) if speaking else []
        return {
            "version": __version__,
            "model": {
                "name": info.encoder,
                "weights": info.weights_id[:12] or None,
                "terms": {"pivot": len(vocab.pivot), "source": len(vocab.source)},
            },
            "languages": [{"code": str(value), "documents": count} for value, count in counts] if speaking else None,
            "documents": info.documents,
            "terms_per_document": info.terms_per_document,
            "bytes": info.bytes,
            "fields": fields,
        }

    # -- limits ----------------------------------------------------------------------------------

    def check_query(self, text: str) -> None:
        """Raise TextTooLong for a query over the limit."""
        _check_length("the query", text, self.limits.query_chars)

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise BadInput for too many texts, TextTooLong for one that is too long."""
        self.check_count(len(texts), "texts")
        for number, text in enumerate(texts):
            _check_length(f"text {number}", text, self.limits.document_chars)

    def check_count(self, count: int, what: str) -> None:
        """Raise BadInput for more than one request may have."""
        if count > self.limits.texts:
            raise BadInput(f"{count} {what} in one request, at most {self.limits.texts} are allowed; send several")


def _check_length(what: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise TextTooLong(f"{what} has {len(text):,} characters, at most {limit:,} are allowed")


class _Remembering:
    """A Reader that looks at the query of many explanations once."""

    def __init__(self, reader: Reader, text: str, vector: SparseVectors) -> None:
        self._reader = reader
        self.vocab = reader.vocab
        self._text = text
        self._spans = reader.term_spans(text, vector.terms.tolist(), kind="query")

    def term_spans(self, text: str, terms: Sequence[int], *, kind: Any) -> dict[int, list[tuple[int, int]]]:  # noqa: ANN401
        if kind == "query" and text == self._text:
            return self._spans
        return self._reader.term_spans(text, terms, kind=kind)


def _bare(state: Snapshot, rows: Sequence[int]) -> list[Record]:
    """Documents without their fields, which is quicker."""
    ids = state.catalog.ids(rows)
    return [Record(row, ids[row], {}) for row in rows]


def _chosen(fields: Mapping[str, Any], names: Sequence[str] | None) -> Mapping[str, Any]:
    return fields if names is None else {name: fields[name] for name in names if name in fields}


def _text_fields(state: Snapshot) -> list[str] | None:
    found: list[str] | None = json.loads(state.catalog.meta["settings"]).get("text_fields")
    return found


def _vector(state: Snapshot, row: int) -> SparseVectors:
    """The vector of a document that is there."""
    for number, segment in enumerate(state.table.segments):
        here, documents = state.find(number, np.array([row], np.int64))
        if len(here):
            return segment.vectors(segment.first_row + documents)
    raise BadInput(f"row {row} has no vector")


# -- fields ------------------------------------------------------------------------------------------


def _sample(state: Snapshot) -> list[Record]:
    """Some documents, from all of the index."""
    last = state.catalog.next_row
    starts = np.unique(np.linspace(0, max(0, last - 1), 10).astype(int)).tolist()
    records = {
        record.row: record for start in starts for record in state.catalog.records_between(start, start + _SAMPLE // 10)
    }
    return list(records.values())


def _fields(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
    """Name and kind of each field, in the order of the first document that has it, and whether its values repeat."""
    values: dict[str, list[Any]] = {}
    for record in records:
        for name, value in record.fields.items():
            values.setdefault(name, []).append(value)
    for name, found in values.items():
        kinds = Counter(_kind(value) for value in found if value is not None)
        kind = next(iter(kinds)) if len(kinds) == 1 else "text" if kinds.keys() == {"text", "keyword"} else "mixed"
        yield {"name": name, "kind": kind, "facet": kind in ("keyword", "number", "truth", "list") and _repeats(found)}


def _kind(value: Any) -> str:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        return "keyword" if len(value) <= _KEYWORD_CHARS else "text"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list) else "object"


def _repeats(values: Sequence[Any]) -> bool:
    """Whether a value stands in two documents on average, at least."""
    elements = [each for value in values for each in (value if isinstance(value, list) else [value])]
    plain = [each for each in elements if isinstance(each, str | int | float)]
    return len(plain) >= 2 * len(set(plain)) > 0
