"""A search engine of a few lines behind HTTP, and its adapter: what a fault does to it can be counted."""

import json
import threading
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from polylex.engine import Rejected
from polylex.errors import EngineError, EngineUnreachable
from polylex.profiles import PROFILES


class Server(ThreadingHTTPServer):
    """Keeps documents in memory.

    documents  {id: {"terms", "weights", "fields"}}
    pushes     how often each id was taken
    refuse     {id: [again, ...]}: how the next attempts to push it are rejected
    room       how many documents fit in
    statuses   answers of the next requests, 200 afterwards
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.documents, self.pushes, self.refuse, self.statuses = {}, {}, {}, []
        self.room, self.mark, self.lock = 10**9, None, threading.Lock()
        self.port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def answer(self, call, body):
        if call == "push":
            return [problem for id, document in body.items() if (problem := self._push(id, document))]
        if call == "delete":
            for id in body:
                self.documents.pop(id, None)
        elif call == "mark":
            self.mark = body or self.mark
            return self.mark
        elif call == "ids":
            return list(self.documents)
        return None

    def _push(self, id, document):
        if self.refuse.get(id):
            return [id, "refused", self.refuse[id].pop(0)]
        if id not in self.documents and len(self.documents) >= self.room:
            return [id, "no room", True]
        self.documents[id] = document
        self.pushes[id] = self.pushes.get(id, 0) + 1
        return None


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["content-length"])
        data = self.rfile.read(length)
        if len(data) < length:
            return  # half a request
        with self.server.lock:
            status = self.server.statuses.pop(0) if self.server.statuses else 200
            answer = self.server.answer(self.path[1:], json.loads(data)) if status == 200 else {}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class HttpEngine:
    """The adapter, as small as one can be."""

    profile = PROFILES["milvus"]

    def __init__(self, port, space, timeout=0.5):
        self.space, self._port, self._timeout = space, port, timeout
        self._opener = build_opener(ProxyHandler({}))

    def _call(self, name, body=None):
        request = Request(f"http://127.0.0.1:{self._port}/{name}", json.dumps(body).encode(), method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return json.loads(response.read())
        except HTTPError as fault:
            fault.close()
            kind = EngineUnreachable if fault.code in (429, 503) else EngineError
            raise kind(f"status {fault.code}") from None
        except (URLError, HTTPException, OSError, ValueError) as fault:
            raise EngineUnreachable(str(fault)) from None

    def create(self, *, replace=False):
        pass

    def drop(self):
        self._call("delete", self._call("ids"))

    def mark(self):
        return self._call("mark")

    def set_mark(self, mark):
        self._call("mark", mark)

    def push(self, batch):
        rows = (batch.vectors.row(row) for row in range(len(batch)))
        body = {
            id: {"terms": terms.tolist(), "weights": weights.tolist(), "fields": dict(fields)}
            for id, (terms, weights), fields in zip(batch.ids, rows, batch.fields, strict=True)
        }
        return [Rejected(*problem) for problem in self._call("push", body)]

    def delete(self, ids):
        self._call("delete", list(ids))

    def refresh(self):
        self._call("refresh")

    def count(self):
        return len(self._call("ids"))

    def ids(self):
        return iter(self._call("ids"))

    def search(self, queries, k=10, *, where=None):
        raise NotImplementedError

    def close(self):
        pass
