"""A server to talk to: inside this process for its logic, in a process of its own for the rest."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx2
from word_encoder import WordEncoder

from polylex.retriever import Retriever
from polylex.server.app import application
from polylex.server.service import Service
from polylex.server.settings import Limits, Settings

WORDS = "who may marry learn right men women love cats dogs sleep the a zero"
DOCUMENTS = [
    {"id": "m1", "lang": "en", "year": 2001, "tags": ["law"], "text": "men and women may marry marry"},
    {"id": "l1", "lang": "de", "year": 2010, "tags": ["law", "school"], "text": "who may learn the right"},
    {"id": "c/1 ä", "lang": "de", "year": 2020, "text": "cats sleep"},
    {"id": "d1", "lang": "fr", "year": 2020, "text": "dogs love cats"},
]


class Served:
    """An application in this process. `ask` is a request; answers are httpx responses."""

    def __init__(self, app, headers=None):
        self.app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._inbox = self.run(self._queue())
        self._outbox = self.run(self._queue())
        self._life = asyncio.run_coroutine_threadsafe(
            app({"type": "lifespan", "state": {}}, self._inbox.get, self._outbox.put), self._loop
        )
        self._signal("startup")
        self._client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app), base_url="http://localhost", headers=headers, timeout=30
        )

    async def _queue(self):
        return asyncio.Queue()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def _signal(self, what):
        self.run(self._inbox.put({"type": f"lifespan.{what}"}))
        message = self.run(self._outbox.get())
        assert message["type"] == f"lifespan.{what}.complete", message

    def ask(self, method, url, **options):
        return self.run(self._client.request(method, url, **options))

    def together(self, *requests):
        """Some requests (method, url, options) at the same time."""

        async def all_of_them():
            asked = (self._client.request(method, url, **options) for method, url, options in requests)
            return await asyncio.gather(*asked)

        return self.run(all_of_them())

    def search(self, query=None, **wishes):
        answer = self.ask("POST", "/search", json={"query": query, **wishes})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def close(self):
        self.run(self._client.aclose())
        self._signal("shutdown")
        self._life.result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def serving(path, *, encoder=None, documents=DOCUMENTS, headers=None, **wishes):
    """Serve some documents with a WordEncoder; `wishes` are members of Settings or of Limits."""
    encoder = encoder or WordEncoder(WORDS)
    if not path.exists():
        Retriever.build(path, documents, encoder).close()
    limits = {name: wishes.pop(name) for name in list(wishes) if name in Limits.__dataclass_fields__}
    settings = Settings(index=str(path), limits=Limits(**limits), threads=wishes.pop("threads", 2), **wishes)
    from polylex.index import Index

    served = Served(application(settings, Service(Index.open(path), encoder, settings.limits)), headers)
    try:
        yield served
    finally:
        served.close()


class Program:
    """`polylex serve` in a process of its own, with the bundled model."""

    def __init__(self, index, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "polylex", "serve", str(index), "--port", "0", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        self.log = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self._wait(r"serving .*:(\d+) ")[1])
        self._wait('"event": "started"')

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line.decode())

    def _wait(self, pattern):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for line in list(self.log):
                if found := re.search(pattern, line):
                    return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in the log:\n{''.join(self.log)}")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options):
        return httpx2.Client(base_url=self.url, timeout=30, **options)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def events(self, name):
        """What was logged under a name."""
        lines = [json.loads(line) for line in list(self.log) if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def end(self, signal=None):
        """Send a signal, wait, and return the exit code."""
        if self.process.poll() is None:
            self.process.terminate() if signal is None else self.process.send_signal(signal)
        code = self.process.wait(60)
        self._reader.join(10)
        self.process.stderr.close()
        return code
