"""Client and AsyncClient: the same calls, one waiting for each answer, the other to be awaited."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx2

from polylex.client import calls
from polylex.client.attempts import Attempts, Outcome, Retries, result
from polylex.client.calls import Call
from polylex.errors import BadInput

P = ParamSpec("P")
T = TypeVar("T")


class _Connection:
    """What both clients know of a server."""

    def __init__(self, url: str, key: str | None, retries: Retries | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"the address of a server begins with http:// or https://, got {url!r}")
        self.url = url.rstrip("/")
        self._retries = retries or Retries()
        self._headers = {"accept": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"  # without the key

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        """The arguments of httpx's `request`."""
        headers = self._headers if call.body is None else {**self._headers, "content-type": "application/json"}
        return {"method": call.method, "url": self.url + call.path, "content": call.body, "headers": headers}

    def _attempts(self, call: Call[Any]) -> Attempts:
        return Attempts(self._retries, repeatable=call.repeatable)


def _now(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """A call as a method that returns its result."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(build(*args, **kwargs))

    return _as_method(method, build)


def _later(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """A call as a method whose result is awaited."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(build(*args, **kwargs))

    return _as_method(method, build)


def _as_method(method: T, build: Callable[..., Any]) -> T:
    """A method with the name, the words and the arguments of `build`, for `help`."""
    update_wrapper(method, build)  # type: ignore[arg-type] # T is a function
    signature = inspect.signature(build)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    returns = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    signature = signature.replace(parameters=[itself, *signature.parameters.values()], return_annotation=returns)
    method.__signature__ = signature  # type: ignore[attr-defined] # every function takes it
    return method


class Client(_Connection):
    """A server, as a Retriever far away. Close it, or use it in a `with` block. Safe to use from many threads."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: Retries | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        """Name a server; nothing is sent yet.

        url        its address, such as "https://search.example.com"
        key        API key, where the server wants one
        timeout_s  seconds until there is a connection, and then without a byte of the answer
        retries    Retries(...); Retries(attempts=1) to ask only once
        http       an HTTP client of yours (proxies, certificates, pools), with its own timeout; you close it

        Every call raises AccessDenied, ServerBusy, ServerUnreachable or ServerError, besides what it says itself.
        """
        super().__init__(url, key, retries)
        self._owns = http is None
        self._http = http or httpx2.Client(timeout=timeout_s)

    search = _now(calls.search)
    explain = _now(calls.explain)
    encode = _now(calls.encode)
    document = _now(calls.document)
    add = _now(calls.add)
    upsert = _now(calls.upsert)
    delete = _now(calls.delete)
    info = _now(calls.info)

    def _send(self, call: Call[T]) -> T:
        attempts = self._attempts(call)
        while (pause := attempts.pause_after(outcome := self._try(call))) is not None:
            time.sleep(pause)
        return result(call, outcome, self.url)

    def _try(self, call: Call[Any]) -> Outcome:
        try:
            return self._http.request(**self._request(call))
        except httpx2.RequestError as fault:
            return fault

    def close(self) -> None:
        """Close the connections."""
        if self._owns:
            self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_Connection):
    """A server, for programs that await (asyncio). Close it, or use it in an `async with` block."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: Retries | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        """Name a server; arguments and errors are those of Client."""
        super().__init__(url, key, retries)
        self._owns = http is None
        self._http = http or httpx2.AsyncClient(timeout=timeout_s)

    search = _later(calls.search)
    explain = _later(calls.explain)
    encode = _later(calls.encode)
    document = _later(calls.document)
    add = _later(calls.add)
    upsert = _later(calls.upsert)
    delete = _later(calls.delete)
    info = _later(calls.info)

    async def _send(self, call: Call[T]) -> T:
        attempts = self._attempts(call)
        while (pause := attempts.pause_after(outcome := await self._try(call))) is not None:
            await asyncio.sleep(pause)
        return result(call, outcome, self.url)

    async def _try(self, call: Call[Any]) -> Outcome:
        try:
            return await self._http.request(**self._request(call))
        except httpx2.RequestError as fault:
            return fault

    async def close(self) -> None:
        """Close the connections."""
        if self._owns:
            await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
