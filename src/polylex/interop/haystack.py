"""A Haystack component: multilingual search in a pipeline.

    pipeline.add_component("retriever", PolylexRetriever("articles.plx", top_k=5))
    pipeline.run({"retriever": {"query": "¿Quién puede casarse?"}})

Needs the extra polylex[haystack].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polylex.errors import BadInput, MissingExtra
from polylex.filters import Expression
from polylex.interop.conditions import compared, joined
from polylex.interop.sources import AnySource, Passage, find, find_later, open_source

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.types import FilterPolicy, apply_filter_policy
    from haystack.utils import Secret
except ImportError:
    raise MissingExtra("haystack-ai", "haystack", "The Haystack component") from None


@component
class PolylexRetriever:
    """Documents with their text as `content`, their other fields as `meta`, and their scores."""

    def __init__(
        self,
        source: str | AnySource,
        key: Secret | None = None,
        *,
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
        text_fields: Sequence[str] | None = None,
    ) -> None:
        """Search an index.

        source         folder of an index or http address of a server, which `warm_up` opens; or a Retriever, Hybrid,
                       Client or AsyncClient, with which a pipeline cannot be saved
        key            API key of the server, e.g. Secret.from_env_var("POLYLEX_KEY")
        top_k          documents to return
        filters        only documents that pass, in the words of Haystack
        filter_policy  whether filters of a run replace these or join them
        text_fields    fields that are the text; None: those that were encoded, or the usual ones

        Raises BadInput for top_k < 1.
        """
        if top_k < 1:
            raise BadInput(f"top_k must be at least 1, got {top_k}")
        self.source, self.key, self.top_k = source, key, top_k
        self.filters, self.filter_policy, self.text_fields = filters, filter_policy, text_fields
        self._opened: AnySource | None = None if isinstance(source, str) else source

    def warm_up(self) -> None:
        """Open the index or the connection."""
        self._open()

    def _open(self) -> AnySource:
        if self._opened is None:
            key = self.key.resolve_value() if self.key else None
            self._opened = open_source(str(self.source), key)
        return self._opened

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The best documents for a query in any language, best first. Raises what the source raises."""
        found = find(self._open(), query, **self._wishes(filters, top_k))
        return {"documents": list(map(_document, found))}

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`run`, to be awaited."""
        found = await find_later(self._open(), query, **self._wishes(filters, top_k))
        return {"documents": list(map(_document, found))}

    def _wishes(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        wanted = apply_filter_policy(self.filter_policy, self.filters, filters)
        where = str(expression(wanted)) if wanted else None
        return {"k": self.top_k if top_k is None else top_k, "where": where, "text_fields": self.text_fields}

    def to_dict(self) -> dict[str, Any]:
        """For saving a pipeline. Raises BadInput where `source` is an object."""
        if not isinstance(self.source, str):
            raise BadInput(
                f"a {type(self.source).__name__} cannot be saved with a pipeline; give the folder of the index or the "
                "address of the server as `source`"
            )
        saved: dict[str, Any] = default_to_dict(
            self,
            source=self.source,
            key=self.key.to_dict() if self.key else None,
            top_k=self.top_k,
            filters=self.filters,
            filter_policy=self.filter_policy.value,
            text_fields=self.text_fields,
        )
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PolylexRetriever:
        """The component that `to_dict` saved."""
        settings = dict(data["init_parameters"])
        settings["filter_policy"] = FilterPolicy.from_str(settings["filter_policy"])
        if settings["key"]:
            settings["key"] = Secret.from_dict(settings["key"])
        loaded: PolylexRetriever = default_from_dict(cls, {**data, "init_parameters": settings})
        return loaded


def expression(filters: Mapping[str, Any]) -> Expression:
    """Filters of Haystack as one of ours; "meta." before a field is passed over. Raises BadInput."""
    if "conditions" in filters:
        return joined(str(filters.get("operator")).lower(), [expression(each) for each in filters["conditions"]])
    if not {"field", "operator", "value"} <= filters.keys():
        raise BadInput(f"a filter has field, operator and value, or operator and conditions; got {dict(filters)!r}")
    return compared(str(filters["field"]).removeprefix("meta."), filters["operator"], filters["value"])


def _document(passage: Passage) -> Document:
    return Document(id=passage.id, content=passage.text, meta=dict(passage.metadata), score=passage.score)
