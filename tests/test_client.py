"""The client of a server: what it sends, what it reads, when it asks again, what it raises."""

import asyncio
import inspect
import json
import socket
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from urllib.parse import unquote

import pytest

httpx2 = pytest.importorskip("httpx2")

from word_encoder import WordEncoder  # noqa: E402

import polylex  # noqa: E402
from polylex.client import (  # noqa: E402
    AsyncClient,
    Changed,
    Client,
    Language,
    PrunedSize,
    Retries,
    ServerInfo,
    Term,
)
from polylex.client.answers import read_explanation  # noqa: E402
from polylex.client.attempts import Attempts, retry_after  # noqa: E402
from polylex.documents import Record  # noqa: E402
from polylex.errors import (  # noqa: E402
    AccessDenied,
    BadFilter,
    BadInput,
    DocumentNotFound,
    DuplicateId,
    ServerBusy,
    ServerError,
    ServerUnreachable,
    StorageFull,
)
from polylex.index import Hit  # noqa: E402

EAGER = Retries(first_s=0)

EXPLANATION = {
    "query": "boda",
    "document": "a wedding",
    "document_id": "7",
    "score": 2.5,
    "matches": [
        {
            "term": "e_wedding",
            "view": "pivot",
            "query_weight": 2.0,
            "document_weight": 1.25,
            "product": 2.5,
            "share": 1.0,
            "query_words": [{"start": 0, "end": 4, "text": "boda"}],
            "document_words": [{"start": 2, "end": 9, "text": "wedding"}],
        }
    ],
}
FOUND = {
    "hits": [
        {"rank": 1, "id": "7", "score": 2.5, "fields": {"text": "a wedding"}, "explanation": EXPLANATION},
        {"rank": 2, "id": "9", "score": 0.5, "fields": {}, "explanation": None},
    ],
    "query": {
        "text": "boda",
        "language": {"code": "es", "name": "Spanish", "confidence": 0.75},
        "terms": [{"term": "e_wedding", "view": "pivot", "weight": 2.0}],
    },
    "facets": {"lang": [{"value": "en", "count": 2}]},
    "pruned": {"terms_per_document": 8.0, "terms_per_document_before": 16.0, "bytes": 100, "bytes_before": 200},
    "documents": 12,
    "encode_ms": 3.5,
    "search_ms": 0.25,
}
NOTHING = {"hits": [], "query": {"text": None, "language": None, "terms": []}, "facets": {}, "pruned": None}
NOTHING |= {"documents": 12, "encode_ms": 0.0, "search_ms": 0.25}


class Server:
    """Gives the outcomes it was told, one after another, the last one for ever; keeps the requests."""

    def __init__(self, *outcomes):
        self.outcomes, self.requests = list(outcomes), []

    def __call__(self, request):
        self.requests.append(request)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        if not isinstance(outcome, httpx2.Response):
            return httpx2.Response(200, json=outcome)
        return httpx2.Response(outcome.status_code, content=outcome.content, headers=outcome.headers)  # reads only once

    @property
    def last(self):
        return self.requests[-1]


def now(server, ask, **options):
    transport = httpx2.MockTransport(server)
    with httpx2.Client(transport=transport) as http, Client("http://here", http=http, **options) as client:
        return ask(client)


def later(server, ask, **options):
    async def run():
        transport = httpx2.MockTransport(server)
        async with (
            httpx2.AsyncClient(transport=transport) as http,
            AsyncClient("http://here", http=http, **options) as client,
        ):
            return await ask(client)

    return asyncio.run(run())


@pytest.fixture(params=[now, later], ids=["Client", "AsyncClient"])
def call(request):
    """Ask a server through either client."""
    return request.param


def problem(status, detail="no", headers=None, **more):
    body = {"type": "about:blank", "title": "t", "status": status, "detail": detail, **more}
    kind = {"content-type": "application/problem+json"}
    return httpx2.Response(status, content=json.dumps(body), headers=kind | (headers or {}))


# -- what is sent, what is read ----------------------------------------------------------------------


def test_a_search_sends_what_was_asked_and_reads_all_that_is_answered(call):
    server = Server(FOUND)
    answer = call(
        server,
        lambda client: client.search(
            "boda",
            3,
            where="lang = 'en'",
            prune_documents=polylex.Pruning(mass=0.5),
            explain=4,
            fields=["text"],
            facets=["lang"],
        ),
    )
    assert (server.last.method, server.last.url.path) == ("POST", "/search")
    assert json.loads(server.last.content) == {
        "query": "boda",
        "k": 3,
        "where": "lang = 'en'",
        "prune": {"mass": 0.5},
        "explain": 4,
        "fields": ["text"],
        "facets": ["lang"],
    }
    assert list(answer) == [Hit("7", 2.5, -1, {"text": "a wedding"}), Hit("9", 0.5, -1, {})]
    assert (len(answer), answer[0].id, answer[-1:]) == (2, "7", (Hit("9", 0.5, -1, {}),))
    assert answer.explanations == {"7": read_explanation(EXPLANATION)}
    assert answer.terms == (Term("e_wedding", "pivot", 2.0),)
    assert answer.language == Language("es", "Spanish", 0.75)
    assert answer.facets == {"lang": [("en", 2)]}
    assert answer.pruned == PrunedSize(8.0, 16.0, 100, 200)
    assert (answer.documents, answer.encode_ms, answer.search_ms) == (12, 3.5, 0.25)


def test_a_vector_is_searched_with_its_names(call):
    server = Server(NOTHING)
    answer = call(server, lambda client: client.search({"e_wedding": 2.0}))
    assert json.loads(server.last.content)["vector"] == {"e_wedding": 2.0}
    assert "query" not in json.loads(server.last.content)
    assert (list(answer), answer.language, answer.pruned, answer.explanations) == ([], None, None, {})


TERMS = {"vectors": [[{"term": "m_▁jazz", "view": "source", "weight": 1.5}], []]}
INFO = {
    "version": "0.1.0",
    "model": {"name": "polylex-mini", "weights": None, "terms": {}},
    "languages": [{"code": "de", "documents": 5}],
    "documents": 12,
    "terms_per_document": 80.5,
    "bytes": 1000,
    "fields": [{"name": "lang", "kind": "keyword", "facet": True}],
    "writable": False,
    "detects_languages": True,
    "limits": {"hits": 1000},
}
CALLS = {
    "explain": (
        lambda client: client.explain("boda", "7", limit=3),
        EXPLANATION,
        ("POST", "/explain", {"query": "boda", "id": "7", "limit": 3}),
        read_explanation(EXPLANATION),
    ),
    "encode": (
        lambda client: client.encode(["jazz", ""], kind="query", top_k=1),
        TERMS,
        ("POST", "/encode", {"texts": ["jazz", ""], "kind": "query", "top_k": 1}),
        [(Term("m_▁jazz", "source", 1.5),), ()],
    ),
    "document": (
        lambda client: client.document("7"),
        {"id": "7", "fields": {"text": "a wedding"}},
        ("GET", "/documents/7", None),
        Record(-1, "7", {"text": "a wedding"}),
    ),
    "add": (
        lambda client: client.add([{"id": 1, "text": "Bücher"}, polylex.Document("f:2", "x", {"text": "x"})]),
        {"added": 2, "replaced": 0, "documents": 14},
        ("POST", "/documents", {"documents": [{"id": 1, "text": "Bücher"}, {"text": "x", "id": "f:2"}], "mode": "add"}),
        Changed(2, 0, 0, 14),
    ),
    "upsert": (
        lambda client: client.upsert(iter([polylex.Document("1", "x", {"_id": "1", "text": "x"})])),
        {"added": 0, "replaced": 1, "documents": 12},
        ("POST", "/documents", {"documents": [{"_id": "1", "text": "x"}], "mode": "upsert"}),
        Changed(0, 1, 0, 12),
    ),
    "delete": (
        lambda client: client.delete(["1", "none"]),
        {"deleted": 1, "documents": 11},
        ("POST", "/documents/delete", {"ids": ["1", "none"]}),
        Changed(0, 0, 1, 11),
    ),
    "info": (
        lambda client: client.info(),
        INFO,
        ("GET", "/info", None),
        ServerInfo("0.1.0", "polylex-mini", {"de": 5}, 12, 80.5, 1000, {"lang": "keyword"}, False, {"hits": 1000}),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_sends_and_reads_what_the_server_has(call, name):
    ask, reply, (method, path, body), returned = CALLS[name]
    server = Server(reply)
    assert call(server, ask) == returned
    assert (server.last.method, server.last.url.path) == (method, path)
    assert (json.loads(server.last.content) if server.last.content else None) == body


def test_both_clients_have_the_same_calls_with_the_same_arguments():
    for name in ("search", *CALLS):
        assert inspect.signature(getattr(Client, name)) == inspect.signature(getattr(AsyncClient, name))
        assert getattr(Client, name).__doc__ == getattr(AsyncClient, name).__doc__
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name))


def test_an_explanation_comes_back_as_it_was(tmp_path):
    documents = [{"id": "1", "text": "red fish blue fish"}]
    with polylex.Retriever.build(tmp_path / "i", documents, WordEncoder("red blue fish")) as retriever:
        explanation = retriever.explain("blue fish", "1")
    assert read_explanation(json.loads(json.dumps(explanation.to_dict()))) == explanation
    assert len(explanation.matches) == 2


@pytest.mark.parametrize("id", ["..", ".", "a/b", "a?b#c", "50%", "Ä", " x ", "a%2Fb"])
def test_an_id_of_any_form_arrives_in_the_path_as_it_is(call, id):
    server = Server({"id": id, "fields": {}})
    call(server, lambda client: client.document(id))
    path = server.last.url.raw_path.decode()
    assert unquote(path) == f"/documents/{id}"
    assert path.count("/") == 2 and "?" not in path


def test_a_server_may_live_below_a_path(call):
    server = Server(NOTHING)
    assert Client("https://example.com/search/").url == "https://example.com/search"
    with httpx2.Client(transport=httpx2.MockTransport(server)) as http:
        Client("https://example.com/polylex/", http=http).search("x")
    assert str(server.last.url) == "https://example.com/polylex/search"


def test_the_key_goes_with_every_call_and_is_never_shown(call):
    server = Server(FOUND)
    call(server, lambda client: client.search("x"), key="secret")
    assert server.last.headers["authorization"] == "Bearer secret"
    call(server, lambda client: client.search("x"))
    assert "authorization" not in server.last.headers
    assert repr(Client("http://here", "secret")) == "Client('http://here')"


def test_the_key_is_not_carried_to_where_a_server_redirects(call):
    server = Server(httpx2.Response(302, headers={"location": "http://elsewhere/"}))
    with pytest.raises(ServerError, match="302"):
        call(server, lambda client: client.search("x"), key="secret")
    assert len(server.requests) == 1


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (problem(422, "k must be at most 1000"), BadInput, r"http://here refused POST /explain \(422\): k must be at"),
        (problem(413, "too long"), BadInput, "too long"),
        (problem(401, "give a key"), AccessDenied, "give a key"),
        (problem(403, "not writable"), AccessDenied, "not writable"),
        (problem(404, "No document"), DocumentNotFound, "no document with id '7' at http://here"),
        (problem(409, "there already"), DuplicateId, "there already"),
        (problem(507, "The disk is full"), StorageFull, "The disk is full"),
        (problem(500, "its log says why"), ServerError, "its log says why"),
        (problem(429, "slow down"), ServerBusy, "slow down"),
        (problem(503, "starting", {"retry-after": "7"}), ServerBusy, "starting Asked to wait 7 s"),
        (httpx2.Response(404, text="<h1>nginx</h1>"), ServerError, "Not Found"),
        (httpx2.Response(502, text="<h1>nginx</h1>"), ServerBusy, "Bad Gateway"),
        (httpx2.Response(200, text="<h1>Welcome</h1>"), ServerError, "no answer of a Polylex server"),
        (httpx2.Response(200, json={"score": 1}), ServerError, "KeyError: 'query'"),
        (httpx2.Response(200, json=[1]), ServerError, "TypeError"),
        (httpx2.Response(422, content=b"[1]", headers={"content-type": "application/problem+json"}), BadInput, "422"),
        (httpx2.Response(422, content=b"{", headers={"content-type": "application/problem+json"}), BadInput, "422"),
    ],
    ids=lambda value: str(getattr(value, "status_code", "")),
)
def test_what_a_server_refuses_is_the_error_that_the_library_has_for_it(call, answer, error, words):
    with pytest.raises(error, match=words) as caught:
        call(Server(answer), lambda client: client.explain("boda", "7"), retries=Retries(attempts=1))
    assert type(caught.value) is error


def test_a_filter_that_cannot_be_read_is_pointed_at(call):
    server = Server(problem(422, "The filter cannot be read: expected a value, got the end.", at=7))
    with pytest.raises(BadFilter) as caught:
        call(server, lambda client: client.search("x", where="lang = "))
    assert (caught.value.at, caught.value.text, caught.value.reason) == (7, "lang = ", "expected a value, got the end")


def test_what_is_no_json_is_refused_before_anything_is_sent(call):
    server = Server(FOUND)
    for documents in ([{"id": "1", "text": "x", "price": float("nan")}], [{"id": "1", "text": "\ud800"}], [{1, 2}]):
        with pytest.raises(BadInput, match="cannot be sent as JSON"):
            call(server, lambda client, documents=documents: client.add(documents))
    with pytest.raises(BadInput, match=r"write \['7'\]"):
        call(server, lambda client: client.delete("7"))
    with pytest.raises(BadInput, match="takes a list of texts"):
        call(server, lambda client: client.encode("jazz"))
    assert server.requests == []


def test_an_address_without_http_is_refused():
    with pytest.raises(BadInput, match="begins with http:// or https://, got 'localhost:8765'"):
        Client("localhost:8765")


# -- asking again ------------------------------------------------------------------------------------

DOCUMENTS = [{"id": "1", "text": "x"}]
CHANGED = {"added": 1, "replaced": 0, "documents": 1}


@pytest.mark.parametrize(
    "fault",
    [problem(503), problem(429), problem(502), httpx2.ConnectError("refused"), httpx2.ReadError("reset")],
    ids=["503", "429", "502", "refused", "reset"],
)
def test_a_server_that_is_busy_or_away_is_asked_again(call, fault):
    server = Server(fault, fault, FOUND)
    assert call(server, lambda client: client.search("x"), retries=EAGER)[0].id == "7"
    assert len(server.requests) == 3
    assert len({request.content for request in server.requests}) == 1


@pytest.mark.parametrize("fault", [problem(500), problem(422), httpx2.ReadTimeout("slow")], ids=["500", "422", "slow"])
def test_a_server_that_failed_or_is_too_slow_is_not_asked_again(call, fault):
    server = Server(fault, FOUND)
    with pytest.raises((ServerError, BadInput)):
        call(server, lambda client: client.search("x"), retries=EAGER)
    assert len(server.requests) == 1


def test_after_the_last_attempt_the_error_says_what_stood_in_the_way(call):
    server = Server(problem(503, "full"))
    with pytest.raises(ServerBusy, match="full"):
        call(server, lambda client: client.search("x"), retries=Retries(first_s=0, attempts=3))
    assert len(server.requests) == 3
    with pytest.raises(ServerUnreachable, match="http://here cannot be reached: refused"):
        call(Server(httpx2.ConnectError("refused")), lambda client: client.search("x"), retries=EAGER)
    with pytest.raises(ServerUnreachable, match="did not answer in time"):
        call(Server(httpx2.ReadTimeout("")), lambda client: client.search("x"), retries=EAGER)


def test_adding_is_repeated_only_where_nothing_was_sent_or_where_asked_for(call):
    for fault, error in ((problem(503), ServerBusy), (httpx2.ReadError("reset"), ServerUnreachable)):
        server = Server(fault, CHANGED)
        with pytest.raises(error):
            call(server, lambda client: client.add(DOCUMENTS), retries=EAGER)
        assert len(server.requests) == 1
        everything = Retries(first_s=0, all_calls=True)
        assert call(Server(fault, CHANGED), lambda client: client.add(DOCUMENTS), retries=everything).added == 1
        assert call(Server(fault, CHANGED), lambda client: client.upsert(DOCUMENTS), retries=EAGER).added == 1
    server = Server(httpx2.ConnectError("refused"), CHANGED)
    assert call(server, lambda client: client.add(DOCUMENTS), retries=EAGER).added == 1


def pauses(*outcomes, chance=1.0, **options):
    attempts = Attempts(Retries(**options), repeatable=True, chance=lambda: chance)
    return [attempts.pause_after(outcome) for outcome in outcomes]


def test_waits_double_up_to_the_longest_and_are_drawn_below_that():
    fault = httpx2.ConnectError("refused")
    assert pauses(*[fault] * 6, attempts=6, first_s=1, longest_s=5) == [1, 2, 4, 5, 5, None]
    assert pauses(*[fault] * 3, attempts=9, first_s=1, chance=0.25) == [0.25, 0.5, 1.0]


def test_a_wait_is_never_shorter_than_the_server_asks_and_one_beyond_patience_is_none():
    assert pauses(problem(503, headers={"retry-after": "3"}), first_s=1, chance=0.5) == [3.5]
    assert pauses(problem(503, headers={"retry-after": "9"}), first_s=4, longest_s=10) == [10.0]
    assert pauses(problem(429, headers={"retry-after": "11"}), longest_s=10) == [None]


def test_retry_after_is_read_as_seconds_or_as_a_date():
    def said(value):
        return retry_after(problem(503, headers={"retry-after": value}))

    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    assert said("7") == 7 and 95 < said(soon) <= 100
    assert [said("Wed, 21 Oct 2015 07:28:00 GMT"), said("-1"), said("soon"), said("1e9"), said("")] == [0] * 5
    assert retry_after(problem(503)) == 0


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(BadInput, match="at least 1, got 0"):
        Retries(attempts=0)
    with pytest.raises(BadInput, match="got 3 and 2 seconds"):
        Retries(first_s=3, longest_s=2)


def test_a_connection_that_is_really_broken_is_tried_as_often_as_told(call):
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            for _ in range(3):
                connection, _ = listener.accept()
                accepted.append(connection.recv(10))
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        options = {"retries": Retries(attempts=3, first_s=0), "timeout_s": 10}
        with pytest.raises(ServerUnreachable):
            if call is now:
                with Client(address, **options) as client:
                    client.search("x")
            else:

                async def run():
                    async with AsyncClient(address, **options) as client:
                        await client.search("x")

                asyncio.run(run())
        thread.join(10)
    assert accepted == [b"POST /sear"] * 3
