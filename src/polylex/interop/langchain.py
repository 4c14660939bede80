"""A LangChain retriever: multilingual search in a chain or an agent.

    retriever = PolylexRetriever(source=polylex.Retriever.open("articles.plx"), k=5)
    retriever.invoke("¿Quién puede casarse?", where="lang = 'de'")

Needs the extra polylex[langchain].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polylex.errors import MissingExtra
from polylex.interop.sources import AnySource, Passage, both, find, find_later

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import Field, SkipValidation
except ImportError:
    raise MissingExtra("langchain-core", "langchain", "The LangChain retriever") from None


class PolylexRetriever(BaseRetriever):  # type: ignore[misc] # its types are not looked at
    """Documents with their text as `page_content`, their other fields and `relevance_score` as `metadata`.

    source       a Retriever, Hybrid or Client; for `ainvoke` and its like also an AsyncClient
    k            documents to return
    where        only documents of which this is true (docs/filters.md), in every call
    text_fields  fields that are the text; None: those that were encoded, or the usual ones

    A call may say `k`, and `where` to narrow down further. Raises what the source raises.
    """

    source: SkipValidation[AnySource]
    k: int = Field(default=10, ge=1)
    where: str | None = None
    text_fields: Sequence[str] | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: str | None = None,
    ) -> list[Document]:
        return list(map(_document, find(self.source, query, **self._wishes(k, where))))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        where: str | None = None,
    ) -> list[Document]:
        return list(map(_document, await find_later(self.source, query, **self._wishes(k, where))))

    def _wishes(self, k: int | None, where: str | None) -> dict[str, Any]:
        number = self.k if k is None else k
        return {"k": number, "where": both(self.where, where), "text_fields": self.text_fields}


def _document(passage: Passage) -> Document:
    return Document(
        id=passage.id, page_content=passage.text, metadata={**passage.metadata, "relevance_score": passage.score}
    )
