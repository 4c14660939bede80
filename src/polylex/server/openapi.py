"""OpenAPI: the document that tells programs what they can ask, made of the table of endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from polylex import __version__
from polylex.server.messages import ProblemAnswer
from polylex.server.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from polylex.server.endpoints import Endpoint

_REFERENCE = "#/components/schemas/{model}"
_USUAL = {"400": "Not JSON", "413": "Too large", "422": "Not what was expected", "503": "Busy; see Retry-After"}
_WITH_KEYS = {"401": "No valid API key", "403": "The key may only read", "429": "Too many requests; see Retry-After"}


def document(endpoints: Sequence[Endpoint], *, keys: bool) -> dict[str, Any]:
    """OpenAPI 3.1.

    keys  whether the server asks for API keys
    """
    models = [model for each in endpoints for model in (each.body, each.answer) if model is not None]
    used: list[type[BaseModel]] = list(dict.fromkeys([*models, ProblemAnswer]))
    names, definitions = models_json_schema([(model, "validation") for model in used], ref_template=_REFERENCE)
    schemas = {model: names[model, "validation"] for model in used}
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(each.shown_path, {})[each.method.lower()] = _operation(each, schemas, keys)
    components: dict[str, Any] = {"schemas": definitions["$defs"]}
    if keys:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Polylex",
            "version": __version__,
            "description": "Search documents in any language with queries in any other, and see why each matched.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": components,
    }


def _operation(endpoint: Endpoint, schemas: dict[type[BaseModel], Any], keys: bool) -> dict[str, Any]:
    asks_key = keys and endpoint.role is not None
    said = {**endpoint.problems, **(_USUAL if endpoint.body or endpoint.parameters else {"503": _USUAL["503"]})}
    said |= _WITH_KEYS if asks_key else {}
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint.parameters)],
        "responses": {
            "200": {"description": "Done", "content": {endpoint.media_type: {"schema": _answer(endpoint, schemas)}}},
            **{
                status: {"description": text, "content": {MEDIA_TYPE: {"schema": schemas[ProblemAnswer]}}}
                for status, text in sorted(said.items())
            },
        },
    }
    if endpoint.body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[endpoint.body]}},
        }
    if asks_key:
        operation["security"] = [{"bearer": []}, {"header": []}]
    return operation


def _answer(endpoint: Endpoint, schemas: dict[type[BaseModel], Any]) -> dict[str, Any]:
    if endpoint.answer is None:
        return {"type": "string"}
    schema: dict[str, Any] = schemas[endpoint.answer]
    for _ in range(endpoint.lists):
        schema = {"type": "array", "items": schema}
    return schema


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if "{id}" not in endpoint.shown_path:
        return []
    schema = {"type": "string", "minLength": 1, "maxLength": 512}
    return [{"name": "id", "in": "path", "required": True, "schema": schema, "description": "of the document"}]


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=_REFERENCE)
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": part, **_described(part)}
        for name, part in schema["properties"].items()
    ]


def _described(schema: dict[str, Any]) -> dict[str, str]:
    return {"description": schema["description"]} if "description" in schema else {}
