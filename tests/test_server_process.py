"""The server in a process of its own: what only a real one can show."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from served import Program

from polylex.index import Index
from polylex.retriever import Retriever

DOCUMENTS = [
    {"id": "en", "text": "Men and women of full age have the right to marry."},
    {"id": "de", "text": "Männer und Frauen haben das Recht zu heiraten."},
]
QUERY = "Men and women have the right to marry"
posix = pytest.mark.skipif(os.name != "posix", reason="signals of Unix")


def build(path, encoder):
    Retriever.build(path, DOCUMENTS, encoder).close()
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory, encoder):
    """One server for all hostile clients: it must outlive them."""
    path = build(tmp_path_factory.mktemp("process") / "i.plx", encoder)
    running = Program(path, "--writable", "--read-seconds", 1, "--connections", 40)
    yield running
    assert running.end() == 0
    assert [line["trace"] for line in running.events("error")] == []


@pytest.fixture(autouse=True)
def still_well(request):
    """After every test the shared server answers as at the beginning."""
    yield
    if "program" in request.fixturenames:
        running = request.getfixturevalue("program")
        with running.client() as client:
            found = client.post("/search", json={"query": QUERY, "k": 1}).json()
            assert [hit["id"] for hit in found["hits"]] == ["en"]


def answer_of(connection):
    """All that a server sends until it closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def raw(program, *pieces, pause=0.0):
    with program.connect() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer_of(connection)


def head(method="POST", path="/search", **headers):
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


# -- hostile clients -----------------------------------------------------------------------------


def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(program):
    size = 10_000_000
    assert raw(program, head(content_length=size)).startswith(b"HTTP/1.1 413 ")
    said = raw(program, head(content_length=size), b" " * size)
    assert said == b"" or said.startswith(b"HTTP/1.1 413 ")  # or the connection was reset under what was still coming
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    said = raw(program, head(transfer_encoding="chunked"), *([chunk] * 200))
    assert said == b"" or said.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_lies_about_its_length_is_given_up(program):
    assert raw(program, head(content_length=100), b"{}").startswith(b"HTTP/1.1 408 ")
    assert b"HTTP/1.1 400 " in raw(program, head(content_length="-5"))
    assert b"HTTP/1.1 400 " in raw(program, head(content_length="2", transfer_encoding="chunked"), b"{}")


def test_a_header_that_comes_too_slowly_ends_the_connection(program):
    started = time.monotonic()
    assert raw(program, b"GET / HTTP/1.1\r\n", b"host: x\r\n") == b""
    assert raw(program) == b""
    assert time.monotonic() - started > 1.8  # each was given its second


def test_a_header_without_end_is_cut_off(program):
    said = raw(program, b"GET / HTTP/1.1\r\n", *([b"x: " + b"a" * 10_000 + b"\r\n"] * 20), pause=0.001)
    assert said == b"" or said.startswith(b"HTTP/1.1 431 ")
    assert raw(program, head(x="a" * 40_000)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert raw(program, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n")[:13] in (
        b"HTTP/1.1 400 ",
        b"HTTP/1.1 431 ",
        b"",
    )


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x00\xff\xfe nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx\x00y: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(program, bytes_):
    assert raw(program, bytes_)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404", b"")


def test_a_header_cannot_be_smuggled_into_an_answer(program):
    for value in ("a%0d%0aset-cookie: x=1", "a\\r\\nset-cookie: x=1"):
        said = raw(
            program, head("GET", f"/documents/{value.replace(' ', '%20')}", x_request_id=value, connection="close")
        )
        header = said.partition(b"\r\n\r\n")[0].lower()
        assert header.startswith(b"http/1.1 404")
        assert b"set-cookie" not in header


def test_clients_that_take_no_answer_and_clients_that_vanish_harm_nobody(program):
    body = json.dumps({"texts": [f"word {number} marries" for number in range(100)]}).encode()
    idle = []
    for _ in range(5):
        connection = program.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall((head(path="/encode", content_length=len(body)) + body) * 3)
        idle.append(connection)
    for _ in range(10):  # reset while the server works
        connection = program.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.sendall(head(content_length=20) + b'{"query": "marriage"}')
        connection.close()
    for connection in idle:
        connection.close()


def test_connections_beyond_the_limit_are_refused_and_the_others_go_on(program):
    with program.client() as client:
        assert client.get("/health").status_code == 200  # keeps its connection
        others = [program.connect() for _ in range(60)]
        time.sleep(0.2)
        assert client.get("/health").status_code == 200
        refused = 0
        for connection in others[45:]:
            refused += answer_of(connection).startswith(b"HTTP/1.1 503 ")
        assert refused >= 10
        for connection in others:
            connection.close()


def test_many_clients_at_one_time_get_their_own_answers(program):
    texts = [f"marriage number {number}" for number in range(40)]

    def ask(text):
        with program.client() as client:
            return client.post("/search", json={"query": text, "k": 1}).json()["query"]["text"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, texts)) == texts


def test_the_log_has_a_line_of_json_for_each_request_and_no_query(program):
    with program.client() as client:
        client.post("/search", json={"query": "a very private question"}, headers={"x-request-id": "find-me"})
    deadline = time.monotonic() + 10
    while not (found := [line for line in program.events("request") if line["request"] == "find-me"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    [line] = found
    assert (line["method"], line["route"], line["status"], line["level"]) == ("POST", "/search", 200, "info")
    assert line["ms"] > 0
    assert not any("private" in text for text in program.log)


# -- ends ----------------------------------------------------------------------------------------


@posix
def test_killing_the_server_under_writes_loses_nothing_acknowledged(tmp_path, encoder):
    path = build(tmp_path / "i.plx", encoder)
    acknowledged = []
    running = Program(path, "--writable")
    try:

        def write(worker):
            with running.client() as client:
                for number in range(10_000):
                    id = f"{worker}-{number}"
                    try:
                        answer = client.post("/documents", json={"documents": [{"id": id, "text": "Katze"}]})
                    except httpx2.TransportError:
                        return
                    if answer.status_code == 200:
                        acknowledged.append(id)

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 30:
            time.sleep(0.005)
        running.end(signal.SIGKILL)
        for thread in threads:
            thread.join()
    finally:
        running.end()
    with Index.open(path) as index:
        assert index.check() == []
        for id in acknowledged:
            assert index.document(id).id == id
    again = Program(path, "--writable")  # and goes on
    try:
        with again.client() as client:
            answer = client.post("/documents", json={"documents": [{"id": "after", "text": "Katze"}]})
            assert answer.json()["documents"] >= len(acknowledged) + len(DOCUMENTS) + 1
    finally:
        assert again.end() == 0


@posix
def test_requests_under_way_are_answered_before_the_server_ends(tmp_path, encoder):
    running = Program(build(tmp_path / "i.plx", encoder), "--threads", 1)
    try:
        texts = [f"{'marriage and family ' * 40}{number}" for number in range(60)]
        with ThreadPoolExecutor(1) as pool, running.client() as client:
            answer = pool.submit(client.post, "/encode", json={"texts": texts, "top_k": 1})
            time.sleep(0.3)
            started = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            assert len(answer.result().json()["vectors"]) == 60
        assert running.process.wait(30) == 0
        assert time.monotonic() - started < 30
    finally:
        running.end()
    assert running.events("stopped")


@posix
def test_every_worker_sees_what_any_worker_wrote(tmp_path, encoder):
    running = Program(build(tmp_path / "i.plx", encoder), "--writable", "--workers", 2, "--threads", 1)
    try:
        while len(running.events("started")) < 2:
            time.sleep(0.05)
        for number in range(5):
            document = {"id": f"n{number}", "text": f"Ein Hund und {number} Katzen"}
            with running.client() as client:
                assert client.post("/documents", json={"documents": [document]}).status_code == 200
            for _ in range(6):  # each on a connection of its own, which any worker may take
                with running.client() as client:
                    assert client.get(f"/documents/n{number}").json()["fields"] == document
        workers = {line["worker"] for line in running.events("started")}
        assert len(workers) == 2
        with running.client() as client:
            text = client.get("/metrics").text
        # counts of both workers together: the 5 writes, wherever they went
        assert 'polylex_requests_total{method="POST",route="/documents",status="200"} 5.0' in text
        os.kill(min(workers), signal.SIGKILL)  # one dies: another takes its place
        while len(running.events("started")) < 3:
            time.sleep(0.05)
        with running.client() as client:
            assert client.get("/health").status_code == 200
    finally:
        assert running.end() == 0


def test_a_server_speaks_tls(tmp_path, encoder):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=IP:127.0.0.1"
    made = subprocess.run([*command.split(), "-keyout", key, "-out", certificate], capture_output=True)
    if made.returncode:
        pytest.skip("needs the program openssl")
    running = Program(build(tmp_path / "i.plx", encoder), "--tls-cert", certificate, "--tls-key", key)
    try:
        context = ssl.create_default_context(cafile=certificate)
        with httpx2.Client(base_url=f"https://127.0.0.1:{running.port}", verify=context) as client:
            answer = client.get("/health")
        assert (answer.status_code, answer.headers["strict-transport-security"]) == (200, "max-age=31536000")
        with pytest.raises(httpx2.TransportError), running.client() as client:
            client.get("/health")
    finally:
        assert running.end() == 0


# -- the command line ----------------------------------------------------------------------------


def program_says(*arguments):
    done = subprocess.run([sys.executable, "-m", "polylex", *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_server_that_cannot_start_says_why_in_a_line(tmp_path):
    for arguments, said in (
        (("serve", tmp_path / "none"), "no index at"),
        (("serve", tmp_path, "--host", "0.0.0.0"), "there are no API keys"),
        (("serve", tmp_path, "--texts", "0"), "texts must be at least 1"),
        (("serve", tmp_path, "--tls-cert", "none.pem", "--tls-key", "none.pem"), "cannot be used"),
    ):
        code, _, errors = program_says(*arguments)
        assert (code, errors.count("\n")) == (1, 1)
        assert said in errors


def test_a_port_that_is_taken_is_told_in_a_line(program, tmp_path, encoder):
    code, _, errors = program_says("serve", build(tmp_path / "i.plx", encoder), "--port", program.port, "-q")
    assert (code, errors.count("\n")) == (1, 1)
    assert f"cannot listen on 127.0.0.1 port {program.port}" in errors


def test_keys_are_made_listed_and_removed(tmp_path):
    file = tmp_path / "keys.json"
    code, secret, _ = program_says("keys", "add", file, "website", "read")
    assert (code, len(secret.strip())) == (0, 47)
    code, listed, _ = program_says("keys", "list", file, "--json")
    assert json.loads(listed)["name"] == "website"
    assert secret.strip() not in listed
    assert program_says("keys", "remove", file, "website")[0] == 0
    assert program_says("keys", "remove", file, "website")[0] == 1
