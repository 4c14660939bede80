"""Messages: what requests and answers look like, checked by pydantic and told to clients as an OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from polylex.prune import Pruning

Weight = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Id = Annotated[str, Field(min_length=1, max_length=512)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
K = Annotated[int, Field(ge=1, le=1000)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Explained = Annotated[int, Field(ge=0, le=1000)]


class Message(BaseModel):
    """Base of what clients send: unknown members are refused, as they are mistakes."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """Base of what clients get."""


# -- requests ----------------------------------------------------------------------------------------


class Prune(Message):
    """Search as if the documents had been pruned so; where several are given, the strictest decides."""

    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="at most so many terms")
    mass: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="the fewest heaviest terms that hold this share of a document's weight"
    )
    max_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="terms of at least this share of the heaviest weight"
    )
    threshold: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = Field(
        None, description="terms of at least this weight"
    )

    def rule(self) -> Pruning:
        """In the words of the library."""
        return Pruning(top_k=self.top_k, mass=self.mass, max_ratio=self.max_ratio, threshold=self.threshold)


class Search(Message):
    """A search by text or by vector, never both."""

    query: Annotated[str, Field(max_length=20_000)] | None = Field(None, description="text in any language")
    vector: Annotated[dict[str, Weight], Field(max_length=10_000)] | None = Field(
        None, description="weights by term name, as /encode gives them"
    )
    k: K = Field(10, description="hits")
    where: Annotated[str, Field(max_length=100_000)] | None = Field(
        None, description="only documents of which this is true, such as: lang = 'de' and year >= 2020"
    )
    prune: Prune | None = None
    explain: bool | Explained = Field(False, description="why each hit matches; a number: so many terms of each")
    fields: Annotated[list[Name], Field(max_length=100)] | None = Field(None, description="to return; null: all")
    facets: Annotated[list[Name], Field(max_length=20)] | None = Field(
        None, description="fields whose values are counted over the best 100 documents, or the best k if more"
    )

    @model_validator(mode="after")
    def _one_of(self) -> Search:
        if (self.query is None) == (self.vector is None):
            raise ValueError("give either query or vector")
        if self.explain and self.query is None:
            raise ValueError("only a query of text can be explained")
        return self


class SearchLink(Message):
    """A search in a link. Lists are names with commas between them."""

    q: Annotated[str, Field(max_length=1_000)] = Field(description="text in any language")
    k: K = Field(10, description="hits")
    where: Annotated[str, Field(max_length=10_000)] | None = None
    explain: Explained | bool = False
    fields: Annotated[str, Field(max_length=10_000)] | None = None
    facets: Annotated[str, Field(max_length=10_000)] | None = None
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    mass: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    max_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None

    def search(self) -> Search:
        """The same as a body."""
        limits = {name: getattr(self, name) for name in Prune.model_fields if getattr(self, name) is not None}
        return Search(
            query=self.q,
            vector=None,
            k=self.k,
            where=self.where,
            explain=self.explain,
            fields=_names(self.fields),
            facets=_names(self.facets),
            prune=Prune(**limits) if limits else None,
        )


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name for name in text.split(",") if name]


class Explain(Message):
    """Why a document matches, or would match, a query."""

    query: Annotated[str, Field(max_length=20_000)]
    id: Id
    limit: Limit | None = Field(None, description="shared terms to return; null: all")


class Encode(Message):
    """Texts to turn into vectors."""

    texts: Annotated[list[str], Field(max_length=1_000)]
    kind: Literal["query", "document"] = "document"
    top_k: Annotated[int, Field(ge=1)] | None = Field(None, description="the heaviest terms only")


class EmbedSparse(BaseModel):
    """As Hugging Face's text-embeddings-inference has it; members that it does not know are passed over."""

    inputs: str | Annotated[list[str], Field(max_length=1_000)]
    truncate: bool = Field(False, description="read only what fits the model at one time; else texts are read whole")
    prompt_name: Literal["query", "document"] | None = Field(None, description="what the texts are; null: documents")


class NewDocuments(Message):
    """Documents to add."""

    documents: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1_000)] = Field(
        description='each as a line of JSON for `polylex index`, such as {"id": "1", "text": "..."}'
    )
    mode: Literal["add", "upsert"] = Field("add", description="upsert: put them in the place of those with these ids")


class Deletion(Message):
    """Documents to delete; ids that are not there are passed over."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=1_000)]


# -- answers -----------------------------------------------------------------------------------------


class Term(Answer):
    """A term of a vector."""

    term: str = Field(description="e_: an English term, m_: a token of the text itself")
    view: Literal["pivot", "source"]
    weight: float


class Span(Answer):
    """Characters [start, end) of a text, and the word that stands there."""

    start: int
    end: int
    text: str


class Match(Answer):
    """A term that query and document share."""

    term: str
    view: Literal["pivot", "source"]
    query_weight: float
    document_weight: float
    product: float
    share: float = Field(description="of the score")
    query_words: list[Span] = Field(description="empty where only the text as a whole carries the term")
    document_words: list[Span]


class Explanation(Answer):
    """A score taken apart: it is the sum of the products of all matches."""

    query: str
    document: str
    document_id: str | None
    score: float
    matches: list[Match]


class Hit(Answer):
    """A document that matches."""

    rank: int
    id: str
    score: float
    fields: dict[str, Any]
    explanation: Explanation | None


class Language(Answer):
    """A language that a query seems to be in."""

    code: str
    name: str
    confidence: float


class Query(Answer):
    """A query as it was understood."""

    text: str | None
    language: Language | None
    terms: list[Term] = Field(description="heaviest first")


class Count(Answer):
    """A value of a field, and how many documents have it."""

    value: str | float | bool
    count: int


class Pruned(Answer):
    """What the pruning asked for leaves."""

    terms_per_document: float
    terms_per_document_before: float
    bytes: int = Field(description="of the postings")
    bytes_before: int


class Found(Answer):
    """The answer to a search."""

    hits: list[Hit]
    query: Query
    facets: dict[str, list[Count]]
    pruned: Pruned | None
    documents: int = Field(description="in the index")
    encode_ms: float
    search_ms: float


class Vectors(Answer):
    """A vector a text, each heaviest term first."""

    vectors: list[list[Term]]


class SparseValue(Answer):
    """A term by its number."""

    index: int
    value: float


class Stored(Answer):
    """A document."""

    id: str
    fields: dict[str, Any]


class Added(Answer):
    """Documents that are durable now."""

    added: int
    replaced: int
    documents: int = Field(description="in the index")


class Deleted(Answer):
    """Documents that are gone for good."""

    deleted: int
    documents: int = Field(description="in the index")


class FieldInfo(Answer):
    """A field of the documents, as a sample of them has it."""

    name: str
    kind: Literal["text", "keyword", "number", "truth", "list", "object", "mixed"]
    facet: bool = Field(description="whether counting its values tells something")


class LanguageCount(Answer):
    """A language of documents."""

    code: str
    documents: int


class Model(Answer):
    """The model of the index."""

    name: str
    weights: str | None
    terms: dict[str, int] = Field(description="of each view")


class Info(Answer):
    """What the server serves."""

    version: str
    model: Model
    languages: list[LanguageCount] | None = Field(description="null where documents do not tell")
    documents: int
    terms_per_document: float
    bytes: int
    fields: list[FieldInfo]
    writable: bool
    detects_languages: bool
    limits: dict[str, float]


class Health(Answer):
    """Whether the server is well."""

    status: Literal["ok", "starting", "stopping", "failing"]


class ProblemAnswer(Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    at: int | None = Field(None, description="of a filter: character at which it went wrong")
