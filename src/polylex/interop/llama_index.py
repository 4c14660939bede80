"""A LlamaIndex retriever: multilingual search for query engines and agents.

    retriever = PolylexRetriever(polylex.Retriever.open("articles.plx"), k=5)
    retriever.retrieve("¿Quién puede casarse?")

Needs the extra polylex[llama-index].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polylex.errors import BadInput, MissingExtra
from polylex.filters import Expression
from polylex.interop.conditions import compared, joined
from polylex.interop.sources import AnySource, Passage, both, find, find_later

try:
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
except ImportError:
    raise MissingExtra("llama-index-core", "llama-index", "The LlamaIndex retriever") from None

_OPERATORS = {"nin": "not in", "contains": "has", "text_match": "like"}


class PolylexRetriever(BaseRetriever):  # type: ignore[misc] # its types are not looked at
    """Nodes with the text of the documents, their other fields as metadata, and their scores."""

    def __init__(
        self,
        source: AnySource,
        k: int = 10,
        *,
        where: str | None = None,
        filters: MetadataFilters | None = None,
        text_fields: Sequence[str] | None = None,
        **options: Any,  # noqa: ANN401 - as BaseRetriever has them
    ) -> None:
        """Search a source.

        source       a Retriever, Hybrid or Client; for `aretrieve` also an AsyncClient
        k            nodes to return
        where        only documents of which this is true (docs/filters.md)
        filters      the same in the words of LlamaIndex; both may be given
        text_fields  fields that are the text; None: those that were encoded, or the usual ones
        options      of BaseRetriever, such as callback_manager

        Raises BadInput for filters that ours cannot say: text_match_insensitive, is_empty.
        """
        super().__init__(**options)
        self._source, self._k, self._text_fields = source, k, text_fields
        self._where = both(where, None if filters is None else str(expression(filters)))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list(map(_node, find(self._source, query_bundle.query_str, self._k, **self._options())))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list(map(_node, await find_later(self._source, query_bundle.query_str, self._k, **self._options())))

    def _options(self) -> dict[str, Any]:
        return {"where": self._where, "text_fields": self._text_fields}


def expression(filters: MetadataFilters | MetadataFilter) -> Expression:
    """Filters of LlamaIndex as one of ours. Raises BadInput."""
    if isinstance(filters, MetadataFilters):
        return joined((filters.condition or "and").lower(), [expression(each) for each in filters.filters])
    operator, value = filters.operator, filters.value
    if operator in (FilterOperator.ANY, FilterOperator.ALL):
        if not isinstance(value, list) or not value:
            raise BadInput(f"{operator.value!r} on {filters.key!r} takes a list of values, got {value!r}")
        tests = [compared(filters.key, "has", each) for each in value]
        return joined("or" if operator == FilterOperator.ANY else "and", tests)
    return compared(filters.key, _OPERATORS.get(operator.value, operator.value), value)


def _node(passage: Passage) -> NodeWithScore:
    return NodeWithScore(
        node=TextNode(id_=passage.id, text=passage.text, metadata=dict(passage.metadata)), score=passage.score
    )
