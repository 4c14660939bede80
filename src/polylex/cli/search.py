"""`polylex search`: queries in any language, documents in any other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from polylex.cli import options
from polylex.cli.explain import show_explanation
from polylex.cli.highlight import document_marks, meetings, paint, wrapped
from polylex.cli.terminal import (
    Silence,
    has_colours,
    note,
    one_line,
    print_json,
    progress,
    show,
    show_count,
    signs_of,
    stdout,
)
from polylex.cli.verb import Verb, argument
from polylex.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from polylex.columns import Counts
    from polylex.explanation import Explanation
    from polylex.hybrid import Hybrid
    from polylex.index import Hit
    from polylex.retriever import Retriever
    from polylex.trec import Query

_BATCH = 64  # queries of a file encoded at one time
_EXPLAINED_TERMS = 12  # located in every hit with --explain
_FACET_VALUES = 10  # shown of a field
_ID = 32  # cells of an id; a longer one is folded
_LANGUAGE_FIELDS = ("lang", "language")


@click.command(
    "search",
    cls=Verb,
    short_help="Search with queries in any language.",
    prints="For each query a table: rank, score, id, language if there is a field lang, beginning of the text; "
    "below it a line for each of --facets. "
    'With --json one object a line: {"query_id", "query", "hits": [{"rank", "id", "score", "fields"}]}, with '
    '--explain "matches" in each hit, with --facets "facets": {NAME: [{"value", "count"}]}. With --trec '
    "the six columns of a TREC run.",
    examples="""
polylex search articles.plx "¿Quién puede casarse?"
polylex search articles.plx who may marry -k 3 --explain
polylex search articles.plx who may marry --where "lang = 'de' and year >= 2020" --facets tags
polylex search 2024.plx 2025.plx who may marry            two indexes as one
polylex search articles.plx "ISO 8601" --hybrid           by BM25 too
polylex search articles.plx                               asks for queries, one after another
cat queries.txt | polylex search articles.plx --json      one query a line, one object a line
polylex search articles.plx --queries queries.jsonl -k 100 --trec --run-tag mini > mini.run
""",
)
@argument(
    "index",
    "INDEX",
    "Folder written by `polylex index`. Further folders behind it are searched too.",
    type=click.Path(),
)
@argument(
    "words",
    "[QUERY]...",
    "The query in any language; several words are one query. Without it queries come from standard input, one a line.",
    nargs=-1,
)
@options.top
@click.option(
    "--queries",
    metavar="FILE",
    help="Queries to run: JSON lines, TSV (id, text), a text file with one a line, or a BEIR folder.",
)
@click.option(
    "--where",
    callback=options.expression,
    metavar="FILTER",
    help="Only documents whose fields pass, e.g. \"lang = 'de' and (year >= 2020 or tags has 'law')\".",
)
@click.option(
    "--hybrid", is_flag=True, help="Fuse with BM25, which finds names and numbers to the letter (`polylex bm25`)."
)
@click.option(
    "--facets",
    callback=options.fields,
    metavar="NAMES",
    help="Count the values of these fields over the hits of each query, e.g. lang,year.",
)
@click.option("--explain", "explained", is_flag=True, help="Show which words of the query met which of each document.")
@click.option(
    "--fields",
    callback=options.names,
    metavar="NAMES",
    help="Fields of the documents to print, e.g. title,url. [default: the text; with --json all]",
)
@click.option(
    "--prune-top", type=options.AT_LEAST_1, metavar="N", help="Use the N heaviest terms of each query; quicker."
)
@options.model_of_index
@click.option(
    "--threads",
    type=options.AT_LEAST_1,
    default=1,
    show_default=True,
    metavar="N",
    help="Cores that look through the index.",
)
@options.as_json
@click.option("--trec", is_flag=True, help="A TREC run on standard output.")
@click.option("--run-tag", default="polylex", show_default=True, metavar="TAG", help="Last column of the TREC run.")
def search(
    index: str,
    words: tuple[str, ...],
    queries: str | None,
    model: str | None,
    hybrid: bool,
    trec: bool,
    **wishes: Any,  # noqa: ANN401 - how to search and to print, as declared above
) -> None:
    """Search an index with queries in any language.

    A score is the inner product of query and document (with --hybrid a sum of reciprocal ranks). It has no unit and is
    comparable within one query only.
    """
    if words and queries:
        raise click.UsageError("give a QUERY or --queries FILE, not both")
    paths, words = _indexes(index, words)
    ask = {name: wishes.pop(name) for name in ("k", "where", "prune_top", "threads")}
    if trec and (wishes["as_json"] or wishes["facets"]):
        raise click.UsageError("give --trec alone: a run holds nothing but ids and scores")
    with open_hybrid(paths, model) if hybrid else open_retriever(paths, model) as retriever:
        searcher = Searcher(retriever, **ask)
        several = not words and (bool(queries) or not sys.stdin.isatty())
        write = _writer(retriever, trec=trec, headed=several, **wishes)
        if not words and not several:
            converse(searcher, write)
        watched = bool(queries) and not sys.stdout.isatty()  # else the answers show how far it is
        with progress("Searching", None, "queries") if watched else nullcontext(Silence()) as bar:
            for query, hits in searcher.answers(_queries(words, queries), _BATCH if queries else 1):
                write(query, hits)
                bar.advance()


Write: TypeAlias = "Callable[[Query, Sequence[Hit]], None]"


def _indexes(index: str, words: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """The folders to search: INDEX, and those of the following words that are one; and the words of the query."""
    from polylex.database import NAME

    paths = [index]
    while words and words[0] not in paths and (Path(words[0]) / NAME).is_file():
        paths.append(words[0])
        words = words[1:]
    return paths, words


def open_retriever(index: str | list[str], model: str | None = None) -> Retriever:
    """An index, or several as one, with the model that was asked for, or with their own."""
    from polylex.models import load
    from polylex.retriever import Retriever
    from polylex.shards import Shards

    paths = [index] if isinstance(index, str) else index
    Shards.open(paths).close()  # a wrong path is told before a model is loaded
    return Retriever.open(paths[0] if len(paths) == 1 else paths, load(model) if model else None)


def open_hybrid(paths: list[str], model: str | None = None) -> Hybrid:
    """An index with its BM25."""
    from polylex.hybrid import Hybrid, load_bm25

    bm25 = load_bm25(paths[0])  # told before a model is loaded
    retriever = open_retriever(paths, model)
    try:
        return Hybrid(retriever, bm25)
    except BaseException:
        retriever.close()
        raise


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

    retriever: Retriever | Hybrid
    k: int
    where: str | None
    prune_top: int | None
    threads: int

    def answers(self, queries: Iterable[Query], batch: int) -> Iterator[tuple[Query, list[Hit]]]:
        """Each query with its hits, as soon as its batch is done."""
        from polylex.prune import Pruning

        rule = Pruning(top_k=self.prune_top) if self.prune_top else None
        remaining = iter(queries)
        while group := list(islice(remaining, batch)):
            texts = [query.text for query in group]
            found = self.retriever.search_batch(texts, self.k, where=self.where, prune=rule, threads=self.threads)
            yield from zip(group, found, strict=True)


def converse(searcher: Searcher, write: Write) -> None:
    """Ask for queries on a terminal until the user leaves; `:2` explains hit 2 of the last one."""
    from polylex.trec import Query

    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` a history and an editor

    note(
        f"{show_count(len(searcher.retriever.index), 'document')}. A query in any language, :1 to see why hit 1 "
        "matched, Ctrl-D to leave."
    )
    query = ""
    hits: list[Hit] = []
    for number in count(1):
        try:
            line = input("> ").strip()
        except EOFError:
            click.echo()
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


# -- printing ----------------------------------------------------------------------------------------


def _writer(
    retriever: Retriever | Hybrid,
    *,
    trec: bool,
    run_tag: str,
    as_json: bool,
    explained: bool,
    fields: list[str] | None,
    facets: list[str] | None,
    headed: bool,
) -> Write:
    """What prints a query and its hits."""
    if trec:
        return RunLines(run_tag)
    explain = _explainer(retriever) if explained else None
    count = _counter(retriever, facets) if facets else None
    if as_json:
        return JsonLines(fields, explain, count)
    return Tables(fields, retriever.index.text_fields, explain, count, headed)


Explain: TypeAlias = "Callable[[Query, Hit], Explanation]"
Count: TypeAlias = "Callable[[Sequence[Hit]], dict[str, Counts]]"


def _explainer(retriever: Retriever | Hybrid) -> Explain:
    return lambda query, hit: retriever.explain(query.text, hit.id, limit=_EXPLAINED_TERMS)


def _counter(retriever: Retriever | Hybrid, facets: list[str]) -> Count:
    return lambda hits: retriever.index.facets(facets, rows=[hit.row for hit in hits])


@dataclass(frozen=True)
class RunLines:
    """TREC's six columns."""

    tag: str

    def __call__(self, query: Query, hits: Sequence[Hit]) -> None:
        """Print the lines of one query."""
        for rank, hit in enumerate(hits, 1):
            for word in (query.id, hit.id, self.tag):
                if not word or word.split() != [word]:
                    raise BadInput(f"a TREC run cannot hold {word!r}: its columns are parted by spaces; use --json")
            sys.stdout.write(f"{query.id} Q0 {hit.id} {rank} {hit.score!r} {self.tag}\n")


@dataclass(frozen=True)
class JsonLines:
    """One object a query."""

    fields: list[str] | None
    explain: Explain | None
    count: Count | None

    def __call__(self, query: Query, hits: Sequence[Hit]) -> None:
        """Print the line of one query, at once: another program may be waiting for it."""
        line: dict[str, Any] = {"query_id": query.id, "query": query.text}
        line["hits"] = [self._hit(query, rank, hit) for rank, hit in enumerate(hits, 1)]
        if self.count:
            line["facets"] = {
                name: [{"value": value, "count": count} for value, count in counts]
                for name, counts in self.count(hits).items()
            }
        print_json(line)
        sys.stdout.flush()

    def _hit(self, query: Query, rank: int, hit: Hit) -> dict[str, Any]:
        names = hit.fields if self.fields is None else [name for name in self.fields if name in hit.fields]
        found = {"rank": rank, "id": hit.id, "score": hit.score, "fields": {name: hit.fields[name] for name in names}}
        if self.explain:
            found["matches"] = self.explain(query, hit).to_dict()["matches"]
        return found


@dataclass(frozen=True)
class Tables:
    """A table a query, for people; `headed` by the query where there are several."""

    fields: list[str] | None
    text_fields: Callable[[int], list[str] | None]
    explain: Explain | None
    count: Count | None
    headed: bool

    def __call__(self, query: Query, hits: Sequence[Hit]) -> None:
        """Print the table of one query."""
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        console = stdout()
        if self.headed:
            show(console, Text(one_line(query.text), "bold"))
        if not hits:
            show(console, Text("  no document shares a term with this query", "yellow"))
            return
        language = next((name for name in _LANGUAGE_FIELDS if any(name in hit.fields for hit in hits)), "")
        digits = 2 if hits[0].score >= 1 else 4  # sums of reciprocal ranks are small
        heads = [(f"{rank:3}", f"{hit.score:.{digits}f}", hit.id) for rank, hit in enumerate(hits, 1)]
        languages = [one_line(str(hit.fields.get(language) or "")) for hit in hits]
        table = Table.grid(padding=(0, 2))
        for style, justify in (("dim", "right"), ("cyan", "right"), ("", "left"), ("magenta", "left")):
            table.add_column(style=style, justify=justify, overflow="fold", max_width=_ID)  # type: ignore[arg-type]
        table.add_column(overflow="fold")
        taken = [max(min(_ID, cell_len(cell)) for cell in column) for column in (*zip(*heads, strict=True), languages)]
        room = max(20, console.width - sum(taken) - 2 * len(taken))
        for head, name, hit in zip(heads, languages, hits, strict=True):
            table.add_row(*head, name, self._text(query, hit, console, room))
        show(console, table)
        for name, counts in (self.count(hits) if self.count else {}).items():
            show(console, _facet(name, counts))

    def _text(self, query: Query, hit: Hit, console: Console, room: int) -> Text:
        """What a line says of a document, in `room` cells."""
        if self.explain:
            return _explained(self.explain(query, hit), console, room)
        text = self._beginning(hit, 4 * room)
        text.truncate(room, overflow="ellipsis")
        return text

    def _beginning(self, hit: Hit, limit: int) -> Text:
        """The beginning of what was asked for, or of the text, its title in bold."""
        from rich.text import Text

        from polylex.corpus import document_text

        if self.fields is not None:
            values = [hit.fields[name] for name in self.fields if name in hit.fields]
            return Text(one_line("  ".join(map(str, values))[:limit]))
        try:
            text = one_line(document_text(hit.fields, self.text_fields(hit.row))[: 2 * limit])[:limit]
        except BadInput:  # an index may have been built with other fields than its texts
            return Text(one_line(str(hit.fields or ""))[:limit])
        painted, title = Text(text), one_line(str(hit.fields.get("title") or ""))
        if title and text.startswith(title):
            painted.stylize("bold", 0, len(title))
        return painted


def _facet(name: str, counts: Counts) -> Text:
    """The counts of one field on a line; the rarest are summed up."""
    from rich.text import Text

    shown = [f"{one_line(str(value))} {count:,}" for value, count in counts[:_FACET_VALUES]]
    if len(counts) > _FACET_VALUES:
        shown.append(f"{len(counts) - _FACET_VALUES:,} more")
    return Text.assemble(("  " + one_line(name), "dim"), "  " + (", ".join(shown) or "none"))


def _explained(explanation: Explanation, console: Console, room: int) -> Text:
    """What stands around the words that met, and below it which words met through which terms."""
    marks = document_marks(explanation.matches)
    painted = wrapped(paint(explanation.document, marks, brackets=not has_colours(console), budget=200), room)
    for line in meetings(explanation.matches, signs_of(console), limit=3):
        painted.append("\n")
        painted.append_text(line)
    return painted
