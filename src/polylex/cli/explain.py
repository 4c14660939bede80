"""`polylex explain`: why a document matches a query, down to the words of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from polylex.cli import options
from polylex.cli.highlight import (
    WHOLE,
    document_marks,
    group_of,
    groups_of,
    paint,
    query_marks,
    style_of,
    words_of,
)
from polylex.cli.terminal import is_unicode, print_json, stdout
from polylex.cli.verb import Verb, argument

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from polylex.explanation import Explanation, Match

_BAR = 8  # cells of the bar of the heaviest term


@click.command(
    "explain",
    cls=Verb,
    prints="The query and the document with the words that met highlighted (a word of the query and what it met look the "
    "same), then the shared terms, heaviest first: weight in the query x weight in the document, share of the score, "
    "and the words behind each. With --json one object: query, document, document_id, score, matches.",
    examples="""
polylex explain articles.plx "¿Quién puede casarse?" de-16
polylex explain articles.plx "who may marry" de-16 --limit 30
polylex explain articles.plx "who may marry" de-16 --json | jq .matches[0]
""",
)
@argument("index", "INDEX", "Folder written by `polylex index`.", type=click.Path())
@argument("query", "QUERY", "The query, in any language.")
@argument("document_id", "ID", "Id of the document; it need not be among the hits.")
@options.explain_limit
@options.model_of_index
@options.as_json
def explain(index: str, query: str, document_id: str, limit: int, model: str | None, as_json: bool) -> None:
    """Show why a document matches a query: the shared terms, and the words of both texts behind each."""
    from polylex.cli.search import open_retriever

    with open_retriever(index, model) as retriever:
        explanation = retriever.explain(query, document_id, limit=limit)
    if as_json:
        print_json(explanation.to_dict())
    else:
        show_explanation(stdout(), explanation)


def show_explanation(console: Console, explanation: Explanation) -> None:
    """Print an explanation for people."""
    from rich.padding import Padding
    from rich.table import Table

    matches = explanation.matches
    brackets = console.no_color or not console.color_system
    texts = Table.grid(padding=(0, 2))
    texts.add_column(style="dim", justify="right")
    texts.add_column(overflow="fold")
    texts.add_row("query", paint(explanation.query, query_marks(matches), brackets=brackets))
    texts.add_row(
        explanation.document_id or "document",
        paint(explanation.document, document_marks(matches), brackets=brackets),
    )
    console.print(Padding(texts, (0, 1)))
    if not matches:
        console.print("\n The two share no term; the score is 0.", style="yellow")
        return
    console.print()
    console.print(_terms(console, explanation, brackets=brackets))
    if any(match.view == "source" for match in matches):
        console.print(f" {_echo_sign(console)} the same piece of a word stands in both texts", style="dim")


def _terms(console: Console, explanation: Explanation, *, brackets: bool) -> Table:
    """One row a shared term."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
    times = "×" if is_unicode(console) else "x"
    table.add_column("term", no_wrap=True, max_width=18)
    table.add_column(f"query {times} document", justify="right", no_wrap=True)
    table.add_column("product", justify="right", no_wrap=True)
    table.add_column("share", no_wrap=True)
    table.add_column("in the query", overflow="fold")
    table.add_column("in the document", overflow="fold")
    groups = groups_of(explanation.matches)
    heaviest = explanation.matches[0].share
    for match in explanation.matches:
        group = group_of(match, groups)
        style = style_of(group) if group != WHOLE else "dim"
        number = f" {group}" if brackets and group != WHOLE else ""
        table.add_row(
            Text(term_name(match, _echo_sign(console)), "bold" if group != WHOLE else ""),
            f"{match.query_weight:.2f} {times} {match.document_weight:.2f}",
            f"{match.product:.2f}",
            share_bar(console, match.share, heaviest),
            Text((words_of(match.query_words) or "as a whole") + number, style),
            Text(words_of(match.document_words) or "as a whole", style if match.document_words else "dim"),
        )
    rest = explanation.score - sum(match.product for match in explanation.matches)
    if rest > 0.005:
        table.add_row(
            Text("lighter terms", "dim"),
            "",
            Text(f"{rest:.2f}", "dim"),
            share_bar(console, rest / explanation.score, heaviest),
        )
    table.add_row(Text("score", "dim"), "", Text(f"{explanation.score:.2f}", "bold"))
    return table


def term_name(match: Match, echo: str) -> str:
    """A term as people read it: without its prefix; one that both texts contain as it is with the sign for echo."""
    name = match.term[2:].replace("\u2581", " ").strip() or match.term
    return f"{echo} {name}" if match.view == "source" else name


def _echo_sign(console: Console) -> str:
    return "↺" if is_unicode(console) else "="


def share_bar(console: Console, share: float, heaviest: float) -> Text:
    """A share of the score as per cent and as a bar; the heaviest term fills it."""
    from rich.text import Text

    eighths = max(1, round(min(share / heaviest, 1) * _BAR * 8))
    if is_unicode(console):
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    else:
        bar = "#" * max(1, round(eighths / 8))
    return Text.assemble((f"{share:4.0%} ", ""), (bar, "cyan"))
