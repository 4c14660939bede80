"""OpenSearch, by opensearch-py.

engine = OpenSearchEngine("http://127.0.0.1:9200", "articles", Space(vocab))

Vectors are in a `rank_features` field: exact but for rounding to 9 significant bits. With `sparse=True` the English
terms are in a `sparse_vector` field instead (approximate, quick, OpenSearch 3.3 and later), and the terms of the text
itself, whose ids it would fold together, stay in a `rank_features` field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from polylex.engine import Space
from polylex.engines.lucene import Body, LuceneEngine, is_busy, ndjson
from polylex.errors import EngineError, EngineUnreachable, MissingExtra, Unfit
from polylex.formats.bulk import PIVOT, SOURCE, Bulk, feature, settings
from polylex.formats.rows import Row
from polylex.names import TermNames
from polylex.profiles import PROFILES


class OpenSearchEngine(LuceneEngine):
    """An index of OpenSearch."""

    def __init__(
        self,
        url: str,
        index: str,
        space: Space,
        *,
        sparse: bool = False,
        ceiling: float = 3.0,
        texts: Sequence[str] = (),
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Make a client; nothing is sent yet.

        sparse   keep English terms in a `sparse_vector` field
        ceiling  the heaviest weight of an English term; heavier ones are cut down to it, as OpenSearch keeps a byte
        texts    fields whose words are indexed too, for `bulk.hybrid`
        options  go to opensearchpy.OpenSearch: http_auth, ca_certs, timeout (seconds), ...

        Raises MissingExtra, Unfit where the English terms do not fit into `sparse_vector`.
        """
        try:
            from opensearchpy import OpenSearch
        except ImportError:
            raise MissingExtra("opensearch-py", "opensearch", "OpenSearch") from None
        super().__init__(index, space, SparseBulk(space, ceiling, texts) if sparse else Bulk(texts))
        self._client = OpenSearch(hosts=[url], **{"max_retries": 0, **options})

    def call(self, method: str, path: str, body: Body = None, **parameters: Any) -> Any:  # noqa: ANN401
        """As LuceneEngine.call."""
        data: Any = ndjson(body) if isinstance(body, list) else body
        headers = {"content-type": "application/x-ndjson"} if isinstance(body, list) else None
        with _faults():
            return self._client.transport.perform_request(method, path, params=parameters, body=data, headers=headers)

    def exists(self) -> bool:
        """As LuceneEngine.exists."""
        with _faults():
            return bool(self._client.indices.exists(index=self.index))

    def close(self) -> None:
        """As Engine.close."""
        self._client.close()


class SparseBulk(Bulk):
    """English terms in `sparse_vector`, by id; terms of the text itself in `rank_features`, by name."""

    def __init__(self, space: Space, ceiling: float, texts: Sequence[str] = ()) -> None:
        """Take the terms. Raises Unfit."""
        super().__init__(texts)
        limit = int(PROFILES["opensearch-sparse"].dimensions or 0)
        if len(space.vocab.pivot) > limit:
            raise Unfit(
                f"sparse_vector folds ids modulo {limit:,}, and there are {len(space.vocab.pivot):,} English terms; "
                "index without sparse=True"
            )
        self._vocab, self._ceiling = space.vocab, ceiling
        self._names = TermNames(space.vocab, self.profile.forbids)

    def create(self) -> dict[str, Any]:
        """The body that creates the index."""
        parameters = {"quantization_ceiling_ingest": self._ceiling, "quantization_ceiling_search": self._ceiling}
        pivot = {"type": "sparse_vector", "method": {"name": "seismic", "parameters": parameters}}
        return settings({PIVOT: pivot, SOURCE: {"type": "rank_features"}}, self.texts, sparse=True)

    def _views(self, row: Row) -> tuple[dict[str, float], dict[str, float]]:
        """Weights of English terms by id, and of terms of the text by name."""
        pivot, source = {}, {}
        for name, weight in zip(row.terms, row.values, strict=True):
            term = self._names.id(str(name))
            if self._vocab.view(term) == "pivot":
                pivot[str(term)] = weight
            else:
                source[str(name)] = weight
        return pivot, source

    def source(self, row: Row) -> dict[str, Any]:
        """A document as it is stored."""
        pivot, source = self._views(row)
        return {PIVOT: pivot, SOURCE: source, "fields": dict(row.fields)}

    def clauses(self, row: Row) -> list[dict[str, Any]]:
        """One clause for all English terms, and one for each other term."""
        pivot, source = self._views(row)
        # Without top_n OpenSearch looks at the ten heaviest terms of a query.
        method = {"top_n": max(1, len(pivot)), "heap_factor": 1.0, "k": 100}
        english = {"neural_sparse": {PIVOT: {"query_tokens": pivot, "method_parameters": method}}}
        return [
            *([english] if pivot else []),
            *(feature(f"{SOURCE}.{name}", weight) for name, weight in source.items()),
        ]


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what opensearch-py raises into our errors."""
    from opensearchpy.exceptions import ConnectionError as Unreachable
    from opensearchpy.exceptions import OpenSearchException, TransportError

    try:
        yield
    except Unreachable as fault:
        raise EngineUnreachable(f"OpenSearch: {fault.error}; check that it runs at that address") from fault
    except TransportError as fault:
        status = fault.status_code
        kind = EngineUnreachable if isinstance(status, int) and is_busy(status) else EngineError
        raise kind(f"OpenSearch: {status} {fault.error}: {fault.info!s:.500}") from fault
    except OpenSearchException as fault:
        raise EngineError(f"OpenSearch: {fault}") from fault
