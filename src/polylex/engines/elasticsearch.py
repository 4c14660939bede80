"""Elasticsearch, by its own client: a `sparse_vector` field from which nothing is pruned.

engine = ElasticsearchEngine("http://127.0.0.1:9200", "articles", Space(vocab))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from polylex.engine import Space
from polylex.engines.lucene import Body, LuceneEngine, is_busy
from polylex.errors import EngineError, EngineUnreachable, MissingExtra
from polylex.formats.bulk import ElasticBulk


class ElasticsearchEngine(LuceneEngine):
    """An index of Elasticsearch, 9.1 or later (`index_options.prune`)."""

    def __init__(
        self,
        url: str,
        index: str,
        space: Space,
        *,
        texts: Sequence[str] = (),
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Make a client; nothing is sent yet.

        texts    fields whose words are indexed too, for `bulk.hybrid`
        options  go to elasticsearch.Elasticsearch: api_key, basic_auth, ca_certs, request_timeout (seconds), ...

        Raises MissingExtra.
        """
        try:
            from elasticsearch import Elasticsearch
        except ImportError:
            raise MissingExtra("elasticsearch", "elasticsearch", "Elasticsearch") from None
        super().__init__(index, space, ElasticBulk(texts))
        self._client = Elasticsearch(url, **{"max_retries": 0, **options})

    def call(self, method: str, path: str, body: Body = None, **parameters: Any) -> Any:  # noqa: ANN401
        """As LuceneEngine.call."""
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        headers = {"accept": "application/json", **({} if body is None else {"content-type": kind})}
        with _faults():
            return self._client.perform_request(method, path, params=parameters, headers=headers, body=body).body

    def exists(self) -> bool:
        """As LuceneEngine.exists."""
        with _faults():
            return bool(self._client.indices.exists(index=self.index))

    def close(self) -> None:
        """As Engine.close."""
        self._client.close()


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what the client raises into our errors."""
    from elasticsearch import ApiError, TransportError

    try:
        yield
    except ApiError as fault:
        kind = EngineUnreachable if is_busy(fault.meta.status) else EngineError
        raise kind(f"Elasticsearch: {fault.meta.status} {fault.message}: {fault.body!s:.500}") from fault
    except TransportError as fault:
        raise EngineUnreachable(f"Elasticsearch: {fault.message}; check that it runs at that address") from fault
