"""`polylex search`: queries in any language, documents in any other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.highlight import document_marks, meetings, paint
from polylex.cli.terminal import is_unicode, one_line, print_json, show, show_count, show_seconds, stderr, stdout
from polylex.cli.verb import Verb, argument, voice

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from polylex.explanation import Explanation
    from polylex.index import Hit
    from polylex.prune import Pruning
    from polylex.retriever import Retriever
    from polylex.trec import Query

_BATCH = 64  # queries of a file encoded at one time
_EXPLAINED_TERMS = 12  # located in every hit with --explain
_LANGUAGE_FIELDS = ("lang", "language")


@click.command(
    "search",
    cls=Verb,
    prints="For each query a table: rank, score, id, language if the documents have the field lang, beginning of the text. "
    'With --json one object a line: {"query_id", "query", "hits": [{"rank", "id", "score", "fields"}]}, and with '
    '--explain "matches" in each hit. With --trec the six columns of a TREC run.',
    examples="""
polylex search articles.plx "¿Quién puede casarse?"
polylex search articles.plx who may marry -k 3 --explain
polylex search articles.plx                               asks for queries, one after another
cat queries.txt | polylex search articles.plx --json      one query a line, one object a line
polylex search articles.plx --queries queries.jsonl -k 100 --trec --run-tag mini > mini.run

Scores have no unit; they are comparable within one query only.
""",
)
@argument("index", "INDEX", "Folder written by `polylex index`.", type=click.Path())
@argument(
    "words",
    "[QUERY]...",
    "The query in any language; several words are one query. Without it, queries are read from standard input, one a line.",
    nargs=-1,
)
@options.top
@click.option(
    "--queries",
    metavar="FILE",
    help="Queries to run: JSON lines, TSV (id, text), a text file with one a line, or a BEIR folder.",
)
@click.option("--explain", "explained", is_flag=True, help="Show which words of the query met which of each document.")
@click.option(
    "--fields", type=options.FIELDS, metavar="NAMES", help="Fields of the documents to print, e.g. title,url. [default: "
    "the text; with --json all]"
)
@click.option(
    "--prune-top", type=options.AT_LEAST_1, metavar="N", help="Use the N heaviest terms of each query, N >= 1; quicker."
)
@options.model_of_index
@options.threads
@options.as_json
@click.option("--trec", is_flag=True, help="A TREC run on standard output.")
@click.option("--run-tag", default="polylex", show_default=True, metavar="TAG", help="Last column of the TREC run.")
def search(
    index: str,
    words: tuple[str, ...],
    queries: str | None,
    model: str | None,
    k: int,
    prune_top: int | None,
    threads: int | None,
    trec: bool,
    **look: Any,  # noqa: ANN401 - how hits are printed, as declared above
) -> None:
    """Search an index with queries in any language."""
    if words and queries:
        raise click.UsageError("give a QUERY or --queries FILE, not both")
    if trec and look["as_json"]:
        raise click.UsageError("give --json or --trec, not both")
    with open_retriever(index, model, threads) as retriever:
        searcher = Searcher(retriever, k, prune_top, threads or 1)
        write = _writer(retriever, trec=trec, **look)
        if not words and not queries and sys.stdin.isatty():
            converse(searcher, write)
        for query, hits in searcher.answers(_queries(words, queries), _BATCH if queries else 1):
            write(query, hits)


Write: TypeAlias = "Callable[[Query, Sequence[Hit]], None]"


@contextmanager
def open_retriever(index: str, model: str | None = None, threads: int | None = None) -> Iterator[Retriever]:
    """An index with the model that was asked for, or its own."""
    from polylex.index import Index
    from polylex.models import load
    from polylex.retriever import Retriever

    with Index.open(index) as opened:
        yield Retriever(load(model or opened.info().settings.get("model") or DEFAULT, threads=threads), opened)


def _queries(words: Sequence[str], path: str | None) -> Iterator[Query]:
    """The queries to answer: that of the command line, those of a file, or the lines of standard input."""
    from polylex.corpus import read_queries
    from polylex.trec import Query

    if words:
        yield Query("1", " ".join(words))
    elif path:
        yield from read_queries(path)
    elif not sys.stdin.isatty():
        for number, line in enumerate(sys.stdin, 1):
            if line.strip():
                yield Query(str(number), line.strip())


@dataclass(frozen=True)
class Searcher:
    """An open index and how it is asked."""

    retriever: Retriever
    k: int
    prune_top: int | None
    threads: int

    def answers(self, queries: Iterable[Query], batch: int) -> Iterator[tuple[Query, list[Hit]]]:
        """Each query with its hits, as soon as its batch is done."""
        from polylex.prune import Pruning

        rule = Pruning(top_k=self.prune_top) if self.prune_top else None
        remaining = iter(queries)
        while group := list(islice(remaining, batch)):
            texts = [query.text for query in group]
            found = self.retriever.search_batch(texts, self.k, prune=rule, threads=self.threads)
            yield from zip(group, found, strict=True)


def converse(searcher: Searcher, write: Write) -> None:
    """Ask for queries on a terminal until the user leaves; `:2` explains hit 2 of the last one."""
    from polylex.trec import Query

    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` a history and an editor

    note(
        f"{show_count(len(searcher.retriever.index), 'document')}. A query in any language, :1 to see why hit 1 matched, "
        "Ctrl-D to leave."
    )
    query, hits = "", list[Hit]()
    for number in count(1):
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if line.startswith(":") and line[1:].isdigit():
            if 1 <= int(line[1:]) <= len(hits):
                explanation = searcher.retriever.explain(query, hits[int(line[1:]) - 1].id, limit=_EXPLAINED_TERMS)
                show_explanation(stdout(), explanation)
            else:
                note(f"there is no hit {line[1:]}")
        elif line:
            query = line
            [(_, hits)] = searcher.answers([Query(str(number), query)], 1)
            write(Query(str(number), query), hits)
