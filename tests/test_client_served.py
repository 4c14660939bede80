"""The client against the server of this release: what comes back is what the library says of the same index."""

import asyncio

import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
pytest.importorskip("httpx2")

import httpx2
from served import WORDS, serving
from word_encoder import WordEncoder

import polylex
from polylex.client import AsyncClient, Client, Term
from polylex.errors import AccessDenied, BadFilter, BadInput, DocumentNotFound, DuplicateId
from polylex.server.keys import KeyFile

ENCODER = WordEncoder(WORDS)


class Through(httpx2.BaseTransport):
    """Carries requests to a server in this process."""

    def __init__(self, served):
        self._served = served

    def handle_request(self, request):
        answer = self._served.ask(request.method, str(request.url), content=request.read(), headers=request.headers)
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)


def now(served, ask, key=None):
    with httpx2.Client(transport=Through(served)) as http:
        return ask(Client("http://localhost", key, http=http))


def later(served, ask, key=None):
    async def run():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served.app)) as http:
            return await ask(AsyncClient("http://localhost", key, http=http))

    return served.run(run())


@pytest.fixture(params=[now, later], ids=["Client", "AsyncClient"])
def call(request):
    """Ask a server through either client."""
    return request.param


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("client") / "i.plx"


@pytest.fixture(scope="module")
def server(path):
    with serving(path) as served:
        yield served


@pytest.fixture(scope="module")
def retriever(server, path):
    with polylex.Retriever.open(path, ENCODER) as opened:
        yield opened


def told(hits):
    return [(hit.id, hit.score, hit.fields) for hit in hits]


def test_a_search_finds_what_the_index_has(call, server, retriever):
    for where in (None, "lang = 'de'", "tags has 'law' and year < 2005"):
        answer = call(server, lambda client, where=where: client.search("who may learn cats", where=where))
        assert told(answer) == told(retriever.search("who may learn cats", where=where))
    assert len(answer) == 1 and answer.documents == 4
    terms = call(server, lambda client: client.search("cats cats sleep")).terms
    assert terms == (Term("e_cats", "pivot", 2.0), Term("e_sleep", "pivot", 1.0))
    assert told(call(server, lambda client: client.search({"e_cats": 2.0}, 1))) == told(
        retriever.search("cats cats", 1)
    )


def test_explanations_facets_fields_and_pruning_come_along(call, server, retriever):
    pruning = polylex.Pruning(top_k=1)
    answer = call(
        server,
        lambda client: client.search(
            "who may", 1, explain=True, facets=["lang"], fields=["year"], prune_documents=pruning
        ),
    )
    # one term of each is left: "marry" of m1, where it stands twice, and of l1 "who", the first one
    assert answer.facets == {"lang": [("de", 1)]}
    assert answer.pruned.terms_per_document == 1.0 < answer.pruned.terms_per_document_before
    answer = call(server, lambda client: client.search("who may marry", explain=True, fields=["year"]))
    assert [dict(hit.fields) for hit in answer] == [{"year": 2001}, {"year": 2010}]
    assert answer.explanations == {hit.id: retriever.explain("who may marry", hit.id) for hit in answer}


def test_an_explanation_a_vector_and_a_document_are_those_of_the_library(call, server, retriever):
    explained = call(server, lambda client: client.explain("cats", "c/1 ä", limit=3))
    assert explained == retriever.explain("cats", "c/1 ä", limit=3)
    [terms] = call(server, lambda client: client.encode(["cats sleep sleep"], kind="query", top_k=1))
    assert terms == (Term("e_sleep", "pivot", 2.0),)
    assert call(server, lambda client: client.document("c/1 ä")).fields == retriever.index.document("c/1 ä").fields


def test_the_server_says_what_it_is(call, server):
    info = call(server, lambda client: client.info())
    assert (info.version, info.model, info.documents, info.writable) == (polylex.__version__, "words", 4, False)
    assert info.fields["year"] == "number" and info.fields["tags"] == "list"
    assert info.limits["hits"] == 1000


def test_mistakes_are_the_errors_of_the_library(call, server, retriever):
    with pytest.raises(BadFilter) as theirs:
        call(server, lambda client: client.search("cats", where="lang == 'de'"))
    with pytest.raises(BadFilter) as ours:
        retriever.search("cats", where="lang == 'de'")
    assert str(theirs.value) == str(ours.value)
    with pytest.raises(DocumentNotFound, match="'none'"):
        call(server, lambda client: client.document("none"))
    with pytest.raises(DocumentNotFound, match="'none'"):
        call(server, lambda client: client.explain("cats", "none"))
    with pytest.raises(BadInput, match="k: Input should be less than or equal to 1000"):
        call(server, lambda client: client.search("cats", 1001))
    with pytest.raises(BadInput, match="at most 4,000 are allowed"):
        call(server, lambda client: client.search("x" * 4001))
    with pytest.raises(AccessDenied, match="only reads"):
        call(server, lambda client: client.delete(["m1"]))


def test_documents_are_added_replaced_and_deleted(call, tmp_path):
    with serving(tmp_path / "i.plx", writable=True) as served:
        changed = call(
            served, lambda client: client.add([{"id": "z", "text": "zero zero"}, {"id": "y", "text": "the"}])
        )
        assert (changed.added, changed.replaced, changed.documents) == (2, 0, 6)
        assert call(served, lambda client: client.search("zero"))[0].id == "z"
        with pytest.raises(DuplicateId):
            call(served, lambda client: client.add([{"id": "z", "text": "zero"}]))
        changed = call(served, lambda client: client.upsert([{"id": "z", "text": "zero"}, {"id": "x", "text": "a"}]))
        assert (changed.added, changed.replaced, changed.documents) == (1, 1, 7)
        changed = call(served, lambda client: client.delete(["z", "nobody"]))
        assert (changed.deleted, changed.documents) == (1, 6)
        assert list(call(served, lambda client: client.search("zero"))) == []
        with pytest.raises(BadInput, match="no text"):
            call(served, lambda client: client.add([{"id": "w"}]))


def test_keys_open_what_they_are_for(call, tmp_path):
    keys = tmp_path / "keys.json"
    reader, writer = (KeyFile(keys).add(role, role) for role in ("read", "write"))
    with serving(tmp_path / "i.plx", writable=True, keys=str(keys)) as served:
        with pytest.raises(AccessDenied, match="API key"):
            call(served, lambda client: client.search("cats"))
        assert len(call(served, lambda client: client.search("cats"), reader)) == 2
        with pytest.raises(AccessDenied, match="only read"):
            call(served, lambda client: client.delete(["m1"]), reader)
        assert call(served, lambda client: client.delete(["m1"]), writer).deleted == 1


def test_many_calls_at_one_time_through_one_client(server):
    async def run():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(server.app)) as http:
            client = AsyncClient("http://localhost", http=http)
            return await asyncio.gather(*(client.search(word) for word in ["cats", "dogs", "sleep"] * 5))

    answers = server.run(run())
    assert [answer[0].id for answer in answers] == ["c/1 ä", "d1", "c/1 ä"] * 5
