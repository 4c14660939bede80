"""The LangChain retriever, against the real langchain-core."""

import asyncio
import json

import pytest

pytest.importorskip("langchain_core")
httpx2 = pytest.importorskip("httpx2")

from fish import Awaited, build  # noqa: E402
from langchain_core.documents import Document  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402
from pydantic import ValidationError  # noqa: E402
from test_client import FOUND  # noqa: E402

from polylex.client import Client  # noqa: E402
from polylex.errors import BadFilter, BadInput  # noqa: E402
from polylex.interop.langchain import PolylexRetriever  # noqa: E402

ONE = Document(
    id="1",
    page_content="One red fish",
    metadata={"title": "One", "lang": "en", "year": 1960, "tags": ["dr", "rhyme"], "relevance_score": 1.0},
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    with build(tmp_path_factory.mktemp("i") / "index") as built:
        yield built


def ids(documents):
    return [document.id for document in documents]


def test_documents_come_with_text_metadata_and_score(source):
    documents = PolylexRetriever(source=source).invoke("red")
    assert ids(documents) == ["3", "1"]
    assert documents[1] == ONE


def test_a_call_may_say_how_many_and_narrow_the_filter_but_not_widen_it(source):
    retriever = PolylexRetriever(source=source, k=2, where="lang = 'en'")
    assert ids(retriever.invoke("fish red")) == ["1", "2"]
    assert ids(retriever.invoke("fish red", k=1)) == ["1"]
    assert ids(retriever.invoke("fish red", where="year = 1970")) == ["2"]
    assert ids(retriever.invoke("fish red", where="lang = 'de'")) == []
    with pytest.raises(BadFilter):
        retriever.invoke("fish", where="lang = ")


def test_it_works_in_chains_in_batches_and_awaited(source):
    retriever = PolylexRetriever(source=source, k=1)
    chain = retriever | RunnableLambda(lambda documents: documents[0].page_content)
    assert chain.invoke("blue") == "Two blue blue fish"
    assert chain.batch(["blue", "black"]) == ["Two blue blue fish", "black"]
    assert ids(asyncio.run(retriever.ainvoke("red", k=2))) == ["3", "1"]
    awaited = PolylexRetriever(source=Awaited(source), k=1)
    assert ids(asyncio.run(awaited.ainvoke("red", where="lang = 'en'"))) == ["1"]
    with pytest.raises(BadInput, match="can only be awaited"):
        awaited.invoke("red")


def test_a_server_is_a_source():
    sent = []

    def answer(request):
        sent.append(json.loads(request.content))
        return httpx2.Response(200, json=FOUND | {"hits": FOUND["hits"][:1]})

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        retriever = PolylexRetriever(source=Client("http://here", http=http), k=4, where="lang = 'en'")
        assert ids(retriever.invoke("boda")) == ["7"]
    assert [(each["query"], each["k"], each["where"]) for each in sent] == [("boda", 4, "lang = 'en'")]


def test_k_below_one_is_refused(source):
    with pytest.raises(ValidationError):
        PolylexRetriever(source=source, k=0)
