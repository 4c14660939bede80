"""Endpoints: every address of the API, what it takes, what it answers, and who may ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from polylex.server import messages, metrics
from polylex.server.api import Api
from polylex.server.keys import Role
from polylex.server.problems import Problem

_SHOWN_FAULTS = 3  # of a body that is not what was expected
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a method.

    name        of the operation
    path        as Starlette has it; `{id:path}` takes slashes too
    role        who may ask; None: anybody
    do          what is done: (api, message, id or None) -> JSON in bytes
    body        what is in the request; parameters: what is behind the "?"
    answer      what is in the answer; None: text
    lists       how many lists are around it
    writes      whether it is there only on a writable server
    problems    status -> what it means, besides the usual ones
    """

    name: str
    method: str
    path: str
    role: Role | None
    summary: str
    do: Callable[[Api, Any], Awaitable[bytes]]
    body: type[BaseModel] | None = None
    parameters: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    lists: int = 0
    writes: bool = False
    media_type: str = _JSON
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown_path(self) -> str:
        """The path as OpenAPI has it."""
        return self.path.replace(":path", "")

    async def answer_to(self, api: Api, request: Request) -> Response:
        """Read a request, do what it asks, and answer. Raises a Problem, or what the library raises."""
        if self.writes and not api.settings.writable:
            raise Problem(403, "This server only reads; it changes documents when started with --writable.")
        return Response(await self.do(api, await self._argument(request)), media_type=self.media_type)

    async def _argument(self, request: Request) -> Any:  # noqa: ANN401 - as declared by the endpoint
        if self.body is not None:
            return await _body(self.body, request)
        if self.parameters is not None:
            return _parameters(self.parameters, request)
        return request.path_params.get("id")


async def _body(model: type[BaseModel], request: Request) -> BaseModel:
    """The body of a request."""
    # Browsers send other types to other sites without asking; a page elsewhere must not search or change this index.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise Problem(415, "The body must be JSON: send the header Content-Type: application/json.")
    body = await request.body()
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as fault:
        status = 400 if any(each["type"] == "json_invalid" for each in _faults(fault)) else 422
        raise Problem(status, _sentence(fault)) from None


def _parameters(model: type[BaseModel], request: Request) -> BaseModel:
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as fault:
        raise Problem(422, _sentence(fault)) from None


def _faults(fault: ValidationError) -> list[Any]:
    return list(fault.errors(include_url=False, include_context=False, include_input=False))


def _sentence(fault: ValidationError) -> str:
    """What is wrong, place by place."""
    faults = _faults(fault)
    parts = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}"[:300] for each in faults[:_SHOWN_FAULTS]]
    more = len(faults) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


_NOT_FOUND = {"404": "No document with that id"}
_WRITING = {"403": "The server, or the key, may only read", "507": "The disk is full"}

ENDPOINTS = (
    Endpoint(
        "search", "POST", "/search", "read", "Search with a text or a vector.", Api.search,
        body=messages.Search, answer=messages.Found,
    ),
    Endpoint(
        "searchLink", "GET", "/search", "read", "The same for links.", Api.search_link,
        parameters=messages.SearchLink, answer=messages.Found,
    ),
    Endpoint(
        "explain", "POST", "/explain", "read", "Why a document matches a query.", Api.explain,
        body=messages.Explain, answer=messages.Explanation, problems=_NOT_FOUND,
    ),
    Endpoint(
        "encode", "POST", "/encode", "read", "Turn texts into sparse vectors.", Api.encode,
        body=messages.Encode, answer=messages.Vectors,
    ),
    Endpoint(
        "embedSparse", "POST", "/embed_sparse", "read", "The same as text-embeddings-inference has it.",
        Api.embed_sparse, body=messages.EmbedSparse, answer=messages.SparseValue, lists=2,
    ),
    Endpoint(
        "addDocuments", "POST", "/documents", "write", "Add documents; they are durable when the answer comes.",
        Api.add_documents, body=messages.NewDocuments, answer=messages.Added, writes=True,
        problems={**_WRITING, "409": "An id is there already, or given twice"},
    ),
    Endpoint(
        "deleteDocuments", "POST", "/documents/delete", "write", "Delete documents by their ids.",
        Api.delete_documents, body=messages.Deletion, answer=messages.Deleted, writes=True, problems=_WRITING,
    ),
    Endpoint(
        "document", "GET", "/documents/{id:path}", "read", "A document by its id.", Api.document,
        answer=messages.Stored, problems=_NOT_FOUND,
    ),
    Endpoint(
        "deleteDocument", "DELETE", "/documents/{id:path}", "write", "Delete a document.", Api.delete_document,
        answer=messages.Deleted, writes=True, problems={**_WRITING, **_NOT_FOUND},
    ),
    Endpoint(
        "info", "GET", "/info", "read", "What is served: model, documents, fields, languages.", Api.info,
        answer=messages.Info,
    ),
    Endpoint("health", "GET", "/health", None, "Whether the server can answer.", Api.ready, answer=messages.Health),
    Endpoint("live", "GET", "/health/live", None, "Whether the server runs.", Api.live, answer=messages.Health),
    Endpoint(
        "ready", "GET", "/health/ready", None, "Whether the server can answer.", Api.ready, answer=messages.Health
    ),
    Endpoint(
        "metrics", "GET", "/metrics", "read", "Counts and times, for Prometheus.", Api.metrics_text,
        media_type=metrics.MEDIA_TYPE,
    ),
)  # fmt: skip
