"""The Haystack component, against the real haystack-ai."""

import asyncio
import os

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # before it is imported
pytest.importorskip("haystack")
pytest.importorskip("httpx2")

from fish import ENCODER, Awaited, build
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.core.errors import PipelineConnectError
from haystack.document_stores.types import FilterPolicy
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter

import polylex.models
from polylex.errors import BadInput
from polylex.filters import holds
from polylex.interop.haystack import PolylexRetriever, expression


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("i") / "index"
    build(path).close()
    return str(path)


@pytest.fixture
def source(folder):
    with polylex.Retriever.open(folder, ENCODER) as opened:
        yield opened


def ids(found):
    return [document.id for document in found["documents"]]


def test_documents_come_with_content_meta_and_score(source):
    found = PolylexRetriever(source).run("red")
    assert ids(found) == ["3", "1"]
    meta = {"title": "One", "lang": "en", "year": 1960, "tags": ["dr", "rhyme"]}
    assert found["documents"][1] == Document(id="1", content="One red fish", meta=meta, score=1.0)
    assert ids(PolylexRetriever(source, top_k=1).run("red")) == ["3"]
    assert ids(PolylexRetriever(source).run("red", top_k=1)) == ["3"]


def test_it_is_awaited(source):
    assert ids(asyncio.run(PolylexRetriever(source).run_async("red"))) == ["3", "1"]
    assert ids(asyncio.run(PolylexRetriever(Awaited(source)).run_async("blue"))) == ["2"]


def test_it_is_connected_in_a_pipeline_with_checked_types(source):
    pipeline = Pipeline()
    pipeline.add_component("retriever", PolylexRetriever(source))
    pipeline.add_component("join", DocumentJoiner())
    pipeline.connect("retriever.documents", "join.documents")
    with pytest.raises(PipelineConnectError, match=r"'join\.documents' with 'retriever\.top_k'"):
        pipeline.connect("join.documents", "retriever.top_k")
    assert ids(pipeline.run({"retriever": {"query": "blue"}})["join"]) == ["2"]


def test_a_pipeline_is_saved_and_loaded(folder, monkeypatch):
    monkeypatch.setattr(polylex.models, "load", lambda name: ENCODER)
    before = PolylexRetriever(
        folder,
        Secret.from_env_var("POLYLEX_KEY", strict=False),
        top_k=1,
        filters={"field": "meta.lang", "operator": "==", "value": "en"},
        filter_policy=FilterPolicy.MERGE,
        text_fields=["text"],
    )
    pipeline = Pipeline()
    pipeline.add_component("retriever", before)
    loaded = Pipeline.loads(pipeline.dumps(), allowed_modules=["polylex.interop.haystack"])
    assert loaded.get_component("retriever").to_dict() == before.to_dict()
    loaded.warm_up()
    found = loaded.run({"retriever": {"query": "red"}})["retriever"]
    assert [document.content for document in found["documents"]] == ["red fish"]


def test_a_key_or_an_open_index_is_never_saved(source):
    with pytest.raises(BadInput, match="a Retriever cannot be saved"):
        PolylexRetriever(source).to_dict()
    with pytest.raises(ValueError, match="Cannot serialize token-based secret"):
        PolylexRetriever("http://here", Secret.from_token("secret")).to_dict()


def test_filters_of_a_run_replace_or_join_those_of_the_component(source):
    english = {"field": "meta.lang", "operator": "==", "value": "en"}
    early = {"field": "meta.year", "operator": "<", "value": 1965}
    late = {"field": "meta.year", "operator": ">", "value": 1975}
    replacing = PolylexRetriever(source, filters=english)
    assert ids(replacing.run("red black", filters=late)) == ["4"]
    joining = PolylexRetriever(source, filters=english, filter_policy=FilterPolicy.MERGE)
    assert ids(joining.run("red black", filters=early)) == ["1"]
    assert ids(joining.run("red black", filters=late)) == []


METAS = [{}, {"lang": "de", "year": 1}, {"lang": "fr", "year": 2.5}, {"lang": None, "free": True, "a": {"b": "x"}}]
FILTERS = [
    {"field": "meta.lang", "operator": "==", "value": "de"},
    {"field": "lang", "operator": "!=", "value": "de"},
    {"field": "meta.lang", "operator": "==", "value": None},
    {"field": "meta.lang", "operator": "in", "value": ["de", "it"]},
    {"field": "meta.lang", "operator": "not in", "value": ["de", "it"]},
    {"field": "meta.lang", "operator": "in", "value": []},
    {"field": "meta.year", "operator": ">", "value": 1},
    {"field": "meta.year", "operator": "<=", "value": 2.5},
    {"field": "meta.free", "operator": "==", "value": True},
    {"field": "meta.a.b", "operator": "==", "value": "x"},
]
FILTERS += [{"operator": word, "conditions": [FILTERS[0], FILTERS[6]]} for word in ("AND", "OR", "NOT")]
FILTERS += [{"operator": "NOT", "conditions": [FILTERS[-2], FILTERS[1]]}]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_a_filter_means_what_it_means_to_haystack(filters):
    for meta in METAS:
        assert holds(expression(filters), "1", meta) == document_matches_filter(
            filters, Document(content="x", meta=meta)
        )


def test_what_is_no_filter_is_refused(source):
    with pytest.raises(BadInput, match="has field, operator and value"):
        expression({"lang": "de"})
    with pytest.raises(BadInput, match="joined by and, or, not; got 'xor'"):
        expression({"operator": "XOR", "conditions": FILTERS[:2]})
    with pytest.raises(BadInput, match="top_k must be at least 1"):
        PolylexRetriever(source, top_k=0)
    with pytest.raises(BadInput, match="at least 1, got 0"):
        PolylexRetriever(source).run("red", top_k=0)
