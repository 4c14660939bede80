"""The LlamaIndex retriever, against the real llama-index-core."""

import asyncio

import pytest

pytest.importorskip("llama_index.core")

from fish import Awaited, build
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from polylex.errors import BadInput
from polylex.interop.llama_index import PolylexRetriever, expression


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    with build(tmp_path_factory.mktemp("i") / "index") as built:
        yield built


def ids(nodes):
    return [node.node.node_id for node in nodes]


def only(key, operator, value):
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


def test_nodes_come_with_text_metadata_and_score(source):
    nodes = PolylexRetriever(source).retrieve("red")
    assert ids(nodes) == ["3", "1"]
    metadata = {"title": "One", "lang": "en", "year": 1960, "tags": ["dr", "rhyme"]}
    assert nodes[1] == NodeWithScore(node=TextNode(id_="1", text="One red fish", metadata=metadata), score=1.0)
    assert ids(PolylexRetriever(source, 1).retrieve(QueryBundle("red"))) == ["3"]


def test_it_is_awaited(source):
    assert ids(asyncio.run(PolylexRetriever(source).aretrieve("red"))) == ["3", "1"]
    assert ids(asyncio.run(PolylexRetriever(Awaited(source)).aretrieve("blue"))) == ["2"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (only("lang", FilterOperator.EQ, "en"), ["1", "2"]),
        (only("lang", FilterOperator.NE, "en"), ["3", "4"]),
        (only("year", FilterOperator.GT, 1970), ["4"]),
        (only("year", FilterOperator.LTE, 1970), ["1", "2"]),
        (only("lang", FilterOperator.IN, ["de", "fr"]), ["3", "4"]),
        (only("lang", FilterOperator.NIN, ["de", "fr"]), ["1", "2"]),
        (only("tags", FilterOperator.CONTAINS, "dr"), ["1"]),
        (only("tags", FilterOperator.ANY, ["dr", "law"]), ["1"]),
        (only("tags", FilterOperator.ALL, ["dr", "law"]), []),
        (only("title", FilterOperator.TEXT_MATCH, "w"), ["2"]),
        (only("author.name", FilterOperator.EQ, "O'Hara"), ["3"]),
    ],
    ids=lambda value: value.filters[0].operator.name if isinstance(value, MetadataFilters) else "",
)
def test_its_filters_are_ours(source, filters, expected):
    found = PolylexRetriever(source, filters=filters).retrieve("red blue black")
    assert sorted(ids(found)) == expected


def test_filters_are_nested_and_joined_with_where(source):
    either = MetadataFilters(
        filters=[only("year", FilterOperator.EQ, 1960), only("year", FilterOperator.EQ, 1980)],
        condition=FilterCondition.OR,
    )
    assert str(expression(either)) == "year = 1960 or year = 1980"
    neither = MetadataFilters(filters=either.filters[:1], condition=FilterCondition.NOT)
    assert str(expression(neither)) == "not year = 1960"
    found = PolylexRetriever(source, where="lang = 'de'", filters=either).retrieve("red blue black")
    assert ids(found) == ["4"]


@pytest.mark.parametrize("operator", [FilterOperator.IS_EMPTY, FilterOperator.TEXT_MATCH_INSENSITIVE])
def test_a_filter_that_ours_cannot_say_is_refused(source, operator):
    with pytest.raises(BadInput, match=operator.value):
        PolylexRetriever(source, filters=only("tags", operator, "x"))
    with pytest.raises(BadInput, match="takes a list of values"):
        PolylexRetriever(source, filters=only("tags", FilterOperator.ANY, "x"))
