"""Addresses: a collection on an engine as one line of text.

    open_engine("milvus://127.0.0.1:19530/articles", Space(vocab))

    milvus://HOST:PORT/COLLECTION          qdrant://HOST:PORT/COLLECTION       qdrant-edge:FOLDER
    opensearch://HOST:PORT/INDEX           elasticsearch://HOST:PORT/INDEX     postgresql://HOST:PORT/DATABASE/TABLE

With `+https`, as in qdrant+https://, the connection is encrypted. A secret does not stand in the address, which other
users of the machine can see: it is in the environment variable POLYLEX_ENGINE_KEY. An OpenSearch one is USER:PASSWORD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from polylex.engine import Engine, Space
from polylex.errors import BadInput

KEY = "POLYLEX_ENGINE_KEY"
_ADDRESS = re.compile(r"(milvus|qdrant|opensearch|elasticsearch)(\+https)?://([^/@?#]+)/([^/?#]+)")
_POSTGRES = re.compile(r"(postgresql://[^?#]+)/([^/?#]+)")


def open_engine(address: str, space: Space, environment: Mapping[str, str]) -> Engine:
    """The collection at an address. Raises BadInput for an address that cannot be read, and as the engine does."""
    if address.startswith("qdrant-edge:"):
        from polylex.engines.qdrant_edge import QdrantEdgeEngine

        return QdrantEdgeEngine(address.removeprefix("qdrant-edge:"), space)
    if (match := _POSTGRES.fullmatch(address)) is not None:
        from polylex.engines.pgvector import PgvectorEngine

        return PgvectorEngine(match[1], match[2], space)
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise BadInput(
            f"{address!r} is no address of a collection; write it as milvus://HOST:PORT/COLLECTION, or with qdrant, "
            f"opensearch, elasticsearch or postgresql; a secret belongs into ${KEY}"
        )
    name, encrypted, place, collection = match.groups()
    url = f"{'https' if encrypted else 'http'}://{place}"
    return _client(name, url, collection, space, environment.get(KEY))


def _client(name: str, url: str, collection: str, space: Space, key: str | None) -> Engine:
    options: dict[str, Any] = {}
    if name == "milvus":
        from polylex.engines.milvus import MilvusEngine

        if key:
            options["token"] = key
        return MilvusEngine(url, collection, space, **options)
    if name == "qdrant":
        from polylex.engines.qdrant import QdrantEngine

        if key:
            options["api_key"] = key
        return QdrantEngine(url, collection, space, **options)
    if name == "opensearch":
        from polylex.engines.opensearch import OpenSearchEngine

        if key:
            options["http_auth"] = tuple(key.split(":", 1))
        return OpenSearchEngine(url, collection, space, **options)
    from polylex.engines.elasticsearch import ElasticsearchEngine

    if key:
        options["api_key"] = key
    return ElasticsearchEngine(url, collection, space, **options)
