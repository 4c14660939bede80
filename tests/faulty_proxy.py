"""A proxy on loopback that breaks connections: what happens to the next ones stands in `faults`.

with Proxy(port) as proxy:
    proxy.faults += ["refuse", "lose", "pass"]         # then it passes everything
    connect_to(proxy.port)
"""

import socket
import threading
from contextlib import suppress

FAULTS = ("pass", "refuse", "cut", "lose", "stall")


class Proxy:
    """Passes bytes on to a port of this machine, one request a connection.

    refuse  closes the connection at once
    cut     passes half of the request, then closes: the server gets no whole one
    lose    passes the request, then closes: the server did it, and its answer is lost
    stall   passes the request, and never the answer
    """

    def __init__(self, port):
        self.faults = []
        self.met = []
        self._target = port
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            fault = self.faults.pop(0) if self.faults else "pass"
            self.met.append(fault)
            thread = threading.Thread(target=self._serve, args=(client, fault))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client, fault):
        with client, suppress(OSError):
            if fault == "refuse":
                return
            request = _whole_request(client)
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                if fault == "cut":
                    server.sendall(request[: len(request) // 2])
                    return
                server.sendall(request)
                answer = b"".join(iter(lambda: server.recv(65536), b""))
            if fault == "stall":
                self._ended.wait(5)
            elif fault == "pass":
                client.sendall(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def _whole_request(client):
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        part = client.recv(65536)
        if not part:
            break
        body += part
    return head + b"\r\n\r\n" + body
