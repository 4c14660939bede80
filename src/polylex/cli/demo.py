"""`polylex demo`: the Universal Declaration of Human Rights in many languages, asked in any."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex import __version__
from polylex.cli import options
from polylex.cli.build import Watched, watching
from polylex.cli.explain import show_explanation
from polylex.cli.terminal import is_unicode, note, one_line, print_json, progress, show, show_count, stdout
from polylex.cli.verb import Verb, argument, voice
from polylex.errors import BadInput, CorruptIndex, IndexNotFound, UnknownFormat

if TYPE_CHECKING:
    from rich.console import Console

    from polylex.demo import SampleQuery
    from polylex.explanation import Explanation
    from polylex.index import Hit
    from polylex.retriever import Retriever
    from polylex.runtime.encoder import Encoder

# Shown without arguments: three scripts, three families of languages.
_SHOWN = ("sw", "ja", "fr")
_TERMS = 10  # of the explanation
_ECHO_LIMIT = 0.03  # share of the score that comes from shared pieces of words; below it a hit is in another language


@click.command(
    "demo",
    cls=Verb,
    short_help="Try it: human rights, in many languages at one time.",
    prints="For each question the best articles, in whatever language they are, a mark at those that answer a sample "
    "question, and why the best one in another language matched. With --json one object a question.",
    examples="""
polylex demo
polylex demo "¿Quién puede casarse?"
polylex demo --lang ar                   a sample question in Arabic
polylex demo --languages all -k 10       all 139 languages
""",
)
@argument("query", "[QUERY]", "A question in any language; without it, sample questions.", required=False)
@click.option(
    "--lang", metavar="TAG", help="Ask a sample question in this language; with QUERY, its language. E.g. sw."
)
@click.option(
    "--languages",
    callback=options.names,
    metavar="TAGS",
    help="Languages to search: tags such as de,hi,zh-Hans, or all. [default: some forty that span the scripts]",
)
@click.option("-k", "k", type=options.AT_LEAST_1, default=5, show_default=True, metavar="N", help="Hits a question.")
@options.as_json
def demo(query: str | None, lang: str | None, languages: list[str] | None, k: int, as_json: bool) -> None:
    """Search the Universal Declaration of Human Rights, across languages.

    The first run encodes the declaration on your CPU, which takes about half a minute, and keeps the index in
    $POLYLEX_CACHE or the user's folder for caches; later runs answer at once.
    """
    from polylex.demo import DEMO_LANGUAGES, SAMPLE_QUERIES

    samples = _questions(query, lang, SAMPLE_QUERIES)
    chosen = None if languages == ["all"] else sorted(languages or DEMO_LANGUAGES)
    with opened(chosen) as retriever:
        answers = [(sample, retriever.search(sample.text, k)) for sample in samples]
        if as_json:
            for sample, hits in answers:
                print_json(_as_dict(retriever, sample, hits))
            return
        console = stdout()
        for sample, hits in answers:
            _show_answer(console, sample, hits)
        sample, hits = answers[0]
        explanation = _best_foreign(retriever, sample, hits)
        if explanation is not None:
            show(console, _line("Why ", (explanation.document_id or "", "bold"), " matched:"))
            show_explanation(console, explanation)
        if not voice().quiet:
            _farewell(console, retriever, None if query else SAMPLE_QUERIES)


def _questions(query: str | None, lang: str | None, samples: Sequence[SampleQuery]) -> list[SampleQuery]:
    """What to ask: the user's question, the sample in a language, or the samples shown without arguments."""
    from polylex.demo import SampleQuery

    if query is not None:
        if not query.strip():
            raise BadInput("the question is empty; ask something, or give no QUERY for sample questions")
        return [SampleQuery(lang or "", query, -1, "")]
    found = [sample for tag in ([lang] if lang else _SHOWN) for sample in samples if sample.language == tag]
    if not found:
        known = " ".join(sample.language for sample in samples)
        raise BadInput(f"no sample question in {lang!r}; there is one in {known}. Or ask your own: polylex demo QUERY")
    return found


# -- the index ---------------------------------------------------------------------------------------


@contextmanager
def opened(languages: Sequence[str] | None) -> Iterator[Retriever]:
    """The index of the declaration in some languages (all if None): from the cache, or built now."""
    from polylex.models import load
    from polylex.retriever import Retriever

    encoder = load()
    with _folder() as folder:
        path = folder / _name(encoder.weights_id, languages)
        try:
            retriever = Retriever.open(path, encoder)
        except (IndexNotFound, CorruptIndex, UnknownFormat):
            retriever = _build(path, encoder, languages)
        with retriever:
            yield retriever


def _name(weights_id: str, languages: Sequence[str] | None) -> str:
    """A name that no other release, model or choice of languages has."""
    choice = hashlib.sha256(" ".join(languages or ["all"]).encode()).hexdigest()
    return f"udhr-{__version__}-{weights_id[:8]}-{choice[:8]}.plx"


def _build(path: Path, encoder: Encoder, languages: Sequence[str] | None) -> Retriever:
    from polylex.demo import load_udhr
    from polylex.retriever import Retriever

    documents = load_udhr(languages)
    number = len({document.fields["lang"] for document in documents})
    note(
        f"encoding the Universal Declaration of Human Rights, {show_count(len(documents), 'article')} in "
        f"{show_count(number, 'language')}, on this CPU, into {path}"
    )
    with progress("Encoding", len(documents), "articles") as bar, watching(bar) as build:
        Retriever.build(path, documents, Watched(encoder, bar.advance), overwrite=True, on_progress=build).close()
    return Retriever.open(path, encoder)


@contextmanager
def _folder() -> Iterator[Path]:
    """The folder for caches; one that ends with this run where that cannot be written."""
    folder = cache_folder(os.environ, sys.platform, Path("~").expanduser())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    if usable:
        yield folder
        return
    note(f"{folder} cannot be written, so the index is not kept; set POLYLEX_CACHE to a folder that can")
    import tempfile

    with tempfile.TemporaryDirectory(prefix="polylex-") as temporary:
        yield Path(temporary)


def cache_folder(environment: Mapping[str, str], system: str, home: Path) -> Path:
    """Where caches belong: $POLYLEX_CACHE, or polylex in the folder that the operating system has for them."""
    if chosen := environment.get("POLYLEX_CACHE"):
        return Path(chosen)
    if system == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "polylex" / "cache"
    if system == "darwin":
        return home / "Library" / "Caches" / "polylex"
    return Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "polylex"


# -- answers -----------------------------------------------------------------------------------------


def _best_foreign(retriever: Retriever, sample: SampleQuery, hits: Sequence[Hit]) -> Explanation | None:
    """Why the best hit in another language than the question's matched; the best of all where there is none.

    Where the language of the question is unknown, a hit that shares hardly a piece of a word with it is foreign.
    """
    for hit in hits:
        if sample.language and hit.fields["lang"] == sample.language:
            continue
        explanation = retriever.explain(sample.text, hit.id)
        echoed = sum(match.share for match in explanation.matches if match.view == "source")
        if sample.language or echoed < _ECHO_LIMIT:
            return replace(explanation, matches=explanation.matches[:_TERMS])
    return retriever.explain(sample.text, hits[0].id, limit=_TERMS) if hits else None


def _as_dict(retriever: Retriever, sample: SampleQuery, hits: Sequence[Hit]) -> dict[str, Any]:
    found = [
        {"rank": rank, "id": hit.id, "score": hit.score, "fields": dict(hit.fields)} for rank, hit in enumerate(hits, 1)
    ]
    explanation = _best_foreign(retriever, sample, hits)
    return {
        "query": sample.text,
        "lang": sample.language or None,
        "meaning": sample.meaning or None,
        "article": sample.article if sample.article >= 0 else None,
        "hits": found,
        "explanation": explanation.to_dict() if explanation else None,
    }


def _show_answer(console: Console, sample: SampleQuery, hits: Sequence[Hit]) -> None:
    """A question and its hits."""
    from rich.table import Table
    from rich.text import Text

    meaning = f"   {sample.meaning}" if sample.meaning and sample.meaning != sample.text else ""
    show(console, _line((one_line(sample.text), "bold"), (meaning, "dim italic")))
    if not hits:
        show(console, Text("  no article shares a term with this question", "yellow"))
    tick = "✓" if is_unicode(console) else "+"
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(justify="right", style="dim")
    table.add_column(justify="right", style="cyan")
    if sample.article >= 0:
        table.add_column(style="bold green")
    table.add_column(no_wrap=True)
    table.add_column(style="magenta", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for rank, hit in enumerate(hits, 1):
        mark = [tick if hit.fields["article"] == sample.article else ""] if sample.article >= 0 else []
        text = Text(one_line(str(hit.fields["text"]))[: 4 * console.width])
        table.add_row(f"{rank:3}", f"{hit.score:.1f}", *mark, hit.id, str(hit.fields["language"]), text)
    show(console, table)
    show(console, Text())


def _farewell(console: Console, retriever: Retriever, samples: Sequence[SampleQuery] | None) -> None:
    """How good this is, and what to do next."""
    from rich.table import Table
    from rich.text import Text

    show(console, Text())
    if samples:
        right = [[hit.fields["article"] == each.article for hit in retriever.search(each.text, 5)] for each in samples]
        first, soon = sum(marks[:1] == [True] for marks in right), sum(any(marks) for marks in right)
        message = (
            f"Of all {len(samples)} sample questions, {first} find their article first, {soon} among the first five."
        )
        show(console, Text(message, "dim"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ignore")
    path = shlex.quote(str(retriever.index.path))
    for purpose, command in (
        ("your own question", 'polylex demo "¿Quién puede casarse?"'),
        ("a sample in another language", "polylex demo --lang ar"),
        ("a prompt", f"polylex search {path}"),
        ("your own documents", "polylex index FILE --out INDEX"),
    ):
        table.add_row(f"  {purpose}", command)
    show(console, table)


def _line(*parts: str | tuple[str, str]) -> Any:  # noqa: ANN401 - a Text of rich, which is imported late
    from rich.text import Text

    return Text.assemble(*parts)
