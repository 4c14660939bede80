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
    wrapped,
)
from polylex.cli.terminal import Signs, has_colours, print_json, show, signs_of, stdout, term_name
from polylex.cli.verb import Verb, argument

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from polylex.explanation import Explanation

_WHOLE_TEXT = "as a whole"
_NAME = 24  # cells of the id of a document


@click.command(
    "explain",
    cls=Verb,
    short_help="Show why a document matches a query.",
    prints="Query and document with the words that met highlighted (a word of the query and what it met look the "
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
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    matches = explanation.matches
    brackets = not has_colours(console)
    name = explanation.document_id or "document"
    room = max(20, console.width - max(len("query"), min(cell_len(name), _NAME)) - 2)
    texts = Table.grid(padding=(0, 2))
    texts.add_column(style="dim", justify="right", overflow="fold", max_width=_NAME)
    texts.add_column(overflow="fold")
    for label, text, marks in (
        ("query", explanation.query, query_marks(matches)),
        (name, explanation.document, document_marks(matches)),
    ):
        texts.add_row(label, wrapped(paint(text, marks, brackets=brackets), room))
    show(console, texts)
    show(console, Text())
    if not matches:
        show(console, Text("The two share no term; the score is 0.", "yellow"))
        return
    show(console, _terms(explanation, signs_of(console), brackets=brackets))
    if any(match.view == "source" for match in matches):
        show(console, Text(f"{signs_of(console).echo} this piece of a word stands in both texts", "dim"))


def _terms(explanation: Explanation, signs: Signs, *, brackets: bool) -> Table:
    """One row a shared term."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("term", no_wrap=True, max_width=20)
    for name in (f"query {signs.times} document", "product"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("share of score", no_wrap=True)
    table.add_column("in the query", overflow="fold")
    table.add_column("in the document", overflow="fold")
    groups = groups_of(explanation.matches)
    longest = explanation.matches[0].share
    for match in explanation.matches:
        group = group_of(match, groups)
        style = "dim" if group == WHOLE else style_of(group)
        number = f" {group}" if brackets and group != WHOLE else ""
        table.add_row(
            Text(term_name(match.term, signs), style),
            f"{match.query_weight:.2f} {signs.times} {match.document_weight:.2f}",
            f"{match.product:.2f}",
            _share(match.share, longest, signs, style),
            Text((words_of(match.query_words) or _WHOLE_TEXT) + number, style),
            Text(words_of(match.document_words) or _WHOLE_TEXT, style if match.document_words else "dim"),
        )
    rest = explanation.score - sum(match.product for match in explanation.matches)
    if rest > 0.005:
        table.add_row(
            Text("lighter terms", "dim"),
            "",
            Text(f"{rest:.2f}", "dim"),
            Text(f"{rest / explanation.score:4.0%}", "dim"),
        )
    table.add_row(Text("score", "bold"), "", Text(f"{explanation.score:.2f}", "bold"))
    return table


def _share(share: float, longest: float, signs: Signs, style: str) -> Text:
    """A share of the score as per cent and as a bar, which the greatest share fills."""
    from rich.text import Text

    return Text.assemble(f"{share:4.0%} ", (signs.bar(share / longest), style.removeprefix("bold ")))
