"""Api: what the server does for each request, one method an endpoint."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from polylex.errors import PolylexError
from polylex.prune import Pruning
from polylex.server import messages
from polylex.server.batching import Batcher
from polylex.server.languages import can_detect
from polylex.server.metrics import Metrics
from polylex.server.problems import Problem
from polylex.server.service import Question, Service
from polylex.server.settings import Settings
from polylex.server.writes import Change, Delete, Put, Writes
from polylex.vectors import SparseVectors

T = TypeVar("T")
_FACTS = ("body_bytes", "query_chars", "document_chars", "texts", "hits", "explained")  # limits that clients are told


class Api:
    """The parts of a running server, put together. Answers are JSON values, or bytes of JSON."""

    def __init__(self, service: Service, settings: Settings, metrics: Metrics) -> None:
        limits = settings.limits
        self.service = service
        self.settings = settings
        self.metrics = metrics
        self.batcher = Batcher(service.encode, settings.lanes, limits, metrics.on_batch)
        self.writes = Writes(Path(settings.index), limits.lock_seconds, limits.requests, metrics.commit_seconds.observe)
        self.stopping = False
        # What takes long has threads of its own, so that plain searches never wait for it.
        self._quick = ThreadPoolExecutor(settings.lanes + 2, "polylex-search")
        self._explaining = ThreadPoolExecutor(settings.lanes, "polylex-explain")
        self._pruning = ThreadPoolExecutor(1, "polylex-prune")
        self._vectors: OrderedDict[str, SparseVectors] = OrderedDict()

    async def close(self) -> None:
        """End well: changes that were taken become durable."""
        self.stopping = True
        await self.writes.close()
        self.batcher.close()
        for pool in (self._quick, self._explaining, self._pruning):
            pool.shutdown(cancel_futures=True)
        self.service.close()

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        return await asyncio.get_running_loop().run_in_executor(self._quick, work, *arguments)

    # -- searching -------------------------------------------------------------------------------

    async def search(self, message: messages.Search) -> bytes:
        """POST /search."""
        if message.k > self.settings.limits.hits:
            raise Problem(422, f"k: at most {self.settings.limits.hits} hits.")
        started = time.perf_counter()
        vector = await self._vector(message)
        encoded = time.perf_counter()
        question = Question(
            text=message.query,
            vector=vector,
            k=message.k,
            where=message.where,
            rule=message.prune.rule() if message.prune else Pruning(),
            explain=_terms_to_explain(message.explain),
            fields=message.fields,
            facets=message.facets or [],
        )
        pool = self._pruning if question.rule else self._quick if question.explain == 0 else self._explaining
        return await asyncio.get_running_loop().run_in_executor(pool, self._answer, question, started, encoded)

    def _answer(self, question: Question, started: float, encoded: float) -> bytes:
        begun = time.perf_counter()
        answer = self.service.search(question)
        seconds = time.perf_counter() - begun
        self.metrics.search_seconds.observe(seconds)
        return dump({**answer, "encode_ms": _ms(encoded - started), "search_ms": _ms(seconds)})

    async def search_link(self, message: messages.SearchLink) -> bytes:
        """GET /search."""
        return await self.search(message.search())

    async def _vector(self, message: messages.Search) -> SparseVectors:
        if message.vector is not None:
            return await self._run(self.service.vector_of, message.vector)
        assert message.query is not None
        return await self._query_vector(message.query)

    async def _query_vector(self, text: str) -> SparseVectors:
        """The vector of a query, which is asked again and again while somebody moves a slider."""
        self.service.check_query(text)
        found = self._vectors.pop(text, None)
        if found is None:
            found = await self.batcher.encode([text], "query")
        self._vectors[text] = found
        if len(self._vectors) > self.settings.limits.cached_queries:
            self._vectors.popitem(last=False)
        return found

    async def explain(self, message: messages.Explain) -> bytes:
        """POST /explain."""
        question = Question(
            text=message.query,
            vector=await self._query_vector(message.query),
            k=1,
            where=None,
            rule=Pruning(),
            explain=message.limit,
            fields=None,
            facets=(),
        )
        loop = asyncio.get_running_loop()
        return dump(await loop.run_in_executor(self._explaining, self.service.explain, question, message.id))

    # -- encoding --------------------------------------------------------------------------------

    async def encode(self, message: messages.Encode) -> bytes:
        """POST /encode."""
        self.service.check_texts(message.texts)
        vectors = await self._encoded(message.texts, message.kind)
        return await self._run(lambda: dump({"vectors": self.service.terms(vectors, message.top_k)}))

    async def embed_sparse(self, message: messages.EmbedSparse) -> bytes:
        """POST /embed_sparse."""
        texts = [message.inputs] if isinstance(message.inputs, str) else message.inputs
        self.service.check_texts(texts)
        vectors = await self._encoded(texts, message.prompt_name or "document", truncate=message.truncate)
        return await self._run(lambda: dump(_by_number(vectors)))

    async def _encoded(
        self, texts: list[str], kind: Literal["query", "document"], *, truncate: bool = False
    ) -> SparseVectors:
        if not texts:
            return SparseVectors.empty(self.service.encoder.vocab.fingerprint)
        return await self.batcher.encode(texts, kind, truncate=truncate)

    # -- documents -------------------------------------------------------------------------------

    async def document(self, id: str) -> bytes:
        """GET /documents/{id}."""
        return dump(await self._run(self.service.document, id))

    async def add_documents(self, message: messages.NewDocuments) -> bytes:
        """POST /documents."""
        self.service.check_count(len(message.documents), "documents")
        documents = await self._run(self.service.read, message.documents)
        vectors = await self.batcher.encode([document.text for document in documents], "document")
        put = Put(
            [document.id for document in documents],
            [document.fields for document in documents],
            await self._run(self.service.pruned, vectors),
            message.mode == "upsert",
        )
        replaced = await self._change(put)
        return dump({"added": len(documents) - replaced, "replaced": replaced, "documents": await self._count()})

    async def delete_document(self, id: str) -> bytes:
        """DELETE /documents/{id}."""
        return await self._deleted(Delete([id], missing_ok=False))

    async def delete_documents(self, message: messages.Deletion) -> bytes:
        """POST /documents/delete."""
        self.service.check_count(len(message.ids), "ids")
        return await self._deleted(Delete(message.ids))

    async def _deleted(self, change: Delete) -> bytes:
        return dump({"deleted": await self._change(change), "documents": await self._count()})

    async def _change(self, change: Change) -> int:
        # A client that leaves does not undo what the index has taken.
        return await asyncio.shield(self.writes.make(change))

    async def _count(self) -> int:
        return await self._run(self.service.__len__)

    # -- about the server ------------------------------------------------------------------------

    async def info(self, _: None) -> bytes:
        """GET /info."""
        limits = self.settings.limits
        return dump(
            {
                **await self._run(self.service.info),
                "writable": self.settings.writable,
                "detects_languages": can_detect(),
                "limits": {name: getattr(limits, name) for name in _FACTS},
            }
        )

    async def live(self, _: None) -> bytes:
        """GET /health/live."""
        return dump({"status": "ok"})

    async def ready(self, _: None) -> bytes:
        """GET /health and /health/ready."""
        if self.stopping:
            raise Problem(503, "The server is stopping.")
        try:
            await self._run(self.service.state)
        except (PolylexError, OSError):
            raise Problem(503, "The index cannot be read; the log says why.") from None
        return dump({"status": "ok"})

    async def metrics_text(self, _: None) -> bytes:
        """GET /metrics."""
        state = await self._run(self.service.state)
        self.metrics.documents.set(len(state.catalog))
        self.metrics.generation.set(state.catalog.generation)
        return self.metrics.text()


def dump(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _terms_to_explain(wish: bool | int) -> int | None:
    """Terms a hit: 0 none, None all."""
    return None if wish is True else int(wish)


def _by_number(vectors: SparseVectors) -> list[list[dict[str, Any]]]:
    rows = (vectors.row(row) for row in range(len(vectors)))
    return [
        [{"index": term, "value": weight} for term, weight in zip(terms.tolist(), weights.tolist(), strict=True)]
        for terms, weights in rows
    ]
