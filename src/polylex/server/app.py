"""The ASGI application: endpoints, pages, keys and limits put together.

application(Settings(index="my-index"))          for any ASGI server; `polylex.server.process` runs it with uvicorn
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from polylex.server import openapi
from polylex.server.api import Api, dump
from polylex.server.endpoints import ENDPOINTS, Endpoint
from polylex.server.guard import App, Guard, Receive, Scope, Send
from polylex.server.journal import note
from polylex.server.keys import KeyRing, Role
from polylex.server.metrics import Metrics
from polylex.server.pages import Pages
from polylex.server.problems import Problem
from polylex.server.rates import Rates
from polylex.server.service import Service
from polylex.server.settings import Settings

_REALM = {"WWW-Authenticate": 'Bearer realm="polylex"'}


class Access:
    """Who may do what, and how often."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._ring = KeyRing(settings.keys) if settings.keys else None
        self._rates = Rates(settings.limits.rate)
        self._metrics = metrics

    def check(self, request: Request, role: Role | None) -> None:
        """Raise a Problem (401, 403, 429) unless this request may be made."""
        if role is None:
            return
        client = request.client.host if request.client else ""
        if self._ring is None:
            self._rates.admit(client)
            return
        secret = _secret(request)
        key = self._ring.find(secret) if secret else None
        if key is None:
            self._metrics.refused.labels("key").inc()
            self._rates.admit(client)
            raise Problem(
                401, "A valid API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.", headers=_REALM
            )
        request.scope["key_name"] = key.name
        self._rates.admit(f"key {key.name}")
        if role == "write" and key.role != "write":
            raise Problem(403, "This key may only read.")


def _secret(request: Request) -> str:
    """The API key that a request brings; "" where there is none."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


class Application:
    """What answers requests that the Guard lets through."""

    def __init__(self, settings: Settings, metrics: Metrics, service: Service | None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._service = service
        self._api: Api | None = None
        self._access = Access(settings, metrics)
        self._pages = Pages()
        served = [each for each in ENDPOINTS if settings.writable or not each.writes]
        self._description = dump(openapi.document(served, keys=settings.keys is not None))
        self._router = Router(
            [
                *(Route(each.path, self._answering(each), methods=[each.method], name=each.name) for each in ENDPOINTS),
                Route("/openapi.json", self._describe, methods=["GET"]),
                Route("/{address:path}", self._show, methods=["GET"]),
            ],
            redirect_slashes=False,
            lifespan=self._life,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Raises a Problem, or what the library raises."""
        scope["app"] = self  # so that the router raises what it does not know, instead of answering
        await self._router(scope, receive, send)

    @asynccontextmanager
    async def _life(self, _: object) -> AsyncIterator[None]:
        service = self._service
        if service is None:
            service = await asyncio.to_thread(Service.open, self._settings)
        await asyncio.to_thread(service.warm)
        self._api = Api(service, self._settings, self._metrics)
        note("started", documents=len(service.index), worker=os.getpid(), lanes=self._settings.lanes)
        try:
            yield
        finally:
            await self._api.close()
            note("stopped", worker=os.getpid())

    def _answering(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            request.scope["route_name"] = endpoint.shown_path
            self._access.check(request, endpoint.role)
            assert self._api is not None
            return await endpoint.answer_to(self._api, request)

        return answer

    async def _describe(self, request: Request) -> Response:
        request.scope["route_name"] = "/openapi.json"
        return Response(self._description, media_type="application/json")

    async def _show(self, request: Request) -> Response:
        """A file of the search page."""
        request.scope["route_name"] = "page"
        if request.url.path not in self._pages:
            raise Problem(404, "There is nothing here.")
        return self._pages.answer(request)


def application(settings: Settings, service: Service | None = None) -> App:
    """The server's ASGI application. It opens the index when it starts and closes it when it stops.

    service  an open one, instead of what the settings name
    """
    metrics = Metrics()
    app: App = Guard(Application(settings, metrics, service), settings, metrics)
    if settings.origins:
        app = CORSMiddleware(  # outside of the guard: a page may read what went wrong
            app,
            allow_origins=settings.origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "Content-Type", "X-API-Key", "X-Request-ID"),
            expose_headers=("Retry-After", "X-Request-ID"),
        )
    return app
