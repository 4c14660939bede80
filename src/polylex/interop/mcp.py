"""An MCP server: an index as tools for AI assistants, `search`, `explain`, `encode` and `get_document`.

    with polylex.Retriever.open("articles.plx") as retriever:
        server(Local(retriever)).run("stdio")

`polylex mcp INDEX` does this. A Client in the place of Local makes the same of a running `polylex serve`. All tools
only read, and none of them answers with much more than 60,000 characters. Needs the extra polylex[mcp].
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import getdoc
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from polylex import __version__
from polylex.documents import Record
from polylex.errors import BadInput, BadVectors, DocumentNotFound, MissingExtra, PolylexError, ServerError
from polylex.explanation import Match, Span
from polylex.index import Hit
from polylex.interop.library import Library
from polylex.interop.sources import passage

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
    from pydantic import Field
except ImportError:
    raise MissingExtra("mcp", "mcp", "The MCP server") from None

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_ANSWER_CHARS = 60_000  # of text in one answer: some 15,000 tokens of an assistant's context
_FIELDS_CHARS = 1_000  # of all fields beside a text
_FIELD_CHARS = 200  # of one of them
_WORDS = 8  # shown behind a term
_WORD_CHARS = 80

INSTRUCTIONS = """\
Search a collection of documents by meaning, across languages: a question in any language finds documents in all.
Use `search` first, with a question or keywords in the user's own language; there is no need to translate.
`get_document` reads a found document in full, `explain` tells which words of the question met which words of a
document, and `encode` shows what the model reads in a text. Scores order the hits of one search, no more than that.
{about}"""

Query = Annotated[
    str, Field(min_length=1, max_length=4_000, description="What to look for: a question or keywords, in any language.")
]
Where = Annotated[
    str | None,
    Field(
        max_length=10_000,
        description="Only documents whose fields pass this filter, e.g. lang = 'de' and (year >= 2020 or tags has "
        "'law'). Texts stand in single quotes. Tests: = != < <= > >=, in ('a', 'b'), has (a list holds a value), like "
        "'%part%', exists field, field is null; joined by and, or, not.",
    ),
]
Id = Annotated[str, Field(min_length=1, max_length=512, description="The id of a document, as `search` gave it.")]

# What the tools answer. No slots: the package would take their descriptors for default values.


@dataclass(frozen=True)
class Found:
    """A document that matches."""

    rank: int
    id: str
    score: float
    text: Annotated[str, Field(description="The beginning of the text; get_document has the rest.")]
    characters: Annotated[int, Field(description="Length of the whole text.")]
    fields: Annotated[dict[str, Any], Field(description="Other fields; what is long is cut.")]


@dataclass(frozen=True)
class Hits:
    """What a search found, best first; empty where no document shares a term with the query."""

    hits: list[Found]


@dataclass(frozen=True)
class Meeting:
    """A term that the query and the document share."""

    term: str
    kind: Annotated[
        Literal["english", "same text"], Field(description="An English meaning, or a piece of text in both.")
    ]
    share: Annotated[float, Field(description="Of the score, in [0, 1].")]
    query_words: Annotated[list[str], Field(description="Empty where the query as a whole carries the term.")]
    document_words: list[str]


@dataclass(frozen=True)
class Reason:
    """Why a document matches a query."""

    score: float
    terms: Annotated[list[Meeting], Field(description="Heaviest first.")]
    rest: Annotated[float, Field(description="Share of the score that lies in further terms, in [0, 1].")]


@dataclass(frozen=True)
class Weight:
    """A term of a text."""

    term: str
    kind: Literal["english", "same text"]
    weight: float


@dataclass(frozen=True)
class Weights:
    """The terms of a text, heaviest first."""

    terms: list[Weight]


@dataclass(frozen=True)
class Part:
    """A document, or a part of a long one."""

    id: str
    text: str
    start: int
    next_start: Annotated[int | None, Field(description="Give this as `start` to read on; null at the end.")]
    characters: Annotated[int, Field(description="Length of the whole text.")]
    fields: dict[str, Any]


def server(
    library: Library,
    *,
    about: str = "",
    fields: Mapping[str, str] | None = None,
    text_fields: Sequence[str] | None = None,
) -> MCPServer:
    """A server with the tools, ready to `run("stdio")`.

    library      a Local or a Client
    about        a sentence on what the documents are, for assistants
    fields       name and kind of the fields that filters may ask for, for assistants
    text_fields  fields that are the text of a document; None: those with the usual names

    Has the `mcp` package log to standard error.
    """
    if fields:
        about = f"{about}\nFields for `where`: {', '.join(f'{name} ({kind})' for name, kind in fields.items())}."
    built: MCPServer = MCPServer(
        "polylex", instructions=INSTRUCTIONS.format(about=about).strip(), version=__version__, log_level="WARNING"
    )
    tools = Tools(library, text_fields)
    for tool, title in (
        (tools.search, "Search documents in any language"),
        (tools.explain, "Explain why a document matches"),
        (tools.encode, "Show the terms of a text"),
        (tools.get_document, "Read a document"),
    ):
        built.add_tool(
            _told(tool),
            title=title,
            description=getdoc(tool),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
        )
    return built


class Tools:
    """The tools, as functions. Their docstrings and annotations are what assistants read."""

    def __init__(self, library: Library, text_fields: Sequence[str] | None = None) -> None:
        self._library = library
        self._text_fields = text_fields

    def search(
        self,
        query: Query,
        k: Annotated[int, Field(ge=1, le=50, description="How many documents to return.")] = 5,
        where: Where = None,
        chars: Annotated[int, Field(ge=0, le=10_000, description="Characters of each text to return.")] = 600,
    ) -> Hits:
        """Find documents by meaning, whatever their language and that of the query.

        Returns the best documents with the beginning of their text. A query is matched as a whole: write what the
        document should say, not commands. If nothing fits, try other words or drop the filter.
        """
        shown = min(chars, _ANSWER_CHARS // k - _FIELDS_CHARS)
        hits = self._library.search(
            query, k, where=(where or "").strip() or None
        )  # some assistants fill in all there is
        return Hits([self._found(rank, hit, shown) for rank, hit in enumerate(hits, 1)])

    def explain(
        self,
        query: Query,
        id: Id,
        limit: Annotated[int, Field(ge=1, le=50, description="How many terms to return.")] = 8,
    ) -> Reason:
        """Tell why a document matches a query: which words of both met, in whatever languages, and through which terms.

        Use it to judge whether a hit is right, or to quote the words that answer.
        """
        found = self._library.explain(query, id, limit=limit)
        shares = sum(match.share for match in found.matches)
        rest = max(0.0, 1 - shares) if found.matches else 0.0
        return Reason(_rounded(found.score), list(map(_meeting, found.matches)), _rounded(rest))

    def encode(
        self,
        text: Annotated[str, Field(min_length=1, max_length=20_000, description="A text in any language.")],
        kind: Annotated[
            Literal["query", "document"], Field(description="Whether it is read as a query or as a document.")
        ] = "query",
        limit: Annotated[int, Field(ge=1, le=200, description="How many terms to return.")] = 30,
    ) -> Weights:
        """Show the weighted terms that the model reads in a text: English meanings, and pieces of the text itself."""
        [terms] = self._library.encode([text], kind=kind, top_k=limit)
        return Weights([Weight(_bare(each.term), _kind(each.view), _rounded(each.weight)) for each in terms])

    def get_document(
        self,
        id: Id,
        start: Annotated[int, Field(ge=0, description="Character to begin at.")] = 0,
        chars: Annotated[int, Field(ge=1, le=50_000, description="Characters to return.")] = 10_000,
    ) -> Part:
        """Read a document in full, or a long one part by part."""
        record = self._library.document(id)
        text, fields = self._shown(record)
        stop = start + chars
        return Part(record.id, text[start:stop], start, stop if stop < len(text) else None, len(text), fields)

    def _found(self, rank: int, hit: Hit, chars: int) -> Found:
        text, fields = self._shown(hit)
        return Found(rank, hit.id, _rounded(hit.score), text[:chars], len(text), fields)

    def _shown(self, document: Hit | Record) -> tuple[str, dict[str, Any]]:
        """The text of a document, and its other fields in short."""
        try:
            found = passage(Hit(document.id, 0.0, document.row, document.fields), self._text_fields)
        except BadInput:  # no text under the usual names: all of its fields are shown instead
            return "", _brief(document.fields)
        return found.text, _brief(found.metadata)


def _told(tool: Callable[P, T]) -> Callable[P, T]:
    """A tool whose errors an assistant can read and mend. What is not its fault names no file and no address."""

    @wraps(tool)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return tool(*args, **kwargs)
        except DocumentNotFound:
            raise ToolError("There is no document with this id; take ids from `search`.") from None
        except (BadInput, BadVectors) as fault:
            raise ToolError(str(fault)) from None
        except ServerError as fault:
            log.warning("%s", fault)
            raise ToolError("The search server cannot answer at the moment; try again later.") from None
        except PolylexError as fault:
            log.error("%s", fault)
            raise ToolError("The index cannot be searched at the moment; the log of this server says why.") from None

    return guarded


def _meeting(match: Match) -> Meeting:
    return Meeting(
        _bare(match.term),
        _kind(match.view),
        _rounded(match.share),
        _distinct(match.query_words),
        _distinct(match.document_words),
    )


def _distinct(words: Sequence[Span]) -> list[str]:
    return list(dict.fromkeys(word.text[:_WORD_CHARS] for word in words))[:_WORDS]


def _bare(term: str) -> str:
    """The name of a term without its prefix and the tokenizer's sign for a space."""
    return term[2:].replace("▁", "")


def _kind(view: str) -> Literal["english", "same text"]:
    return "english" if view == "pivot" else "same text"


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def _brief(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The first fields, as far as there is room; of long values the beginning, as text."""
    shown: dict[str, Any] = {}
    room = _FIELDS_CHARS
    for name, value in fields.items():
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        room -= len(name) + min(len(written), _FIELD_CHARS)
        if room < 0:
            break
        shown[name] = value if len(written) <= _FIELD_CHARS else written[:_FIELD_CHARS] + "…"
    return shown
