"""Options that several verbs take, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from polylex.files import FORMATS
from polylex.models import DEFAULT

F = TypeVar("F", bound=Callable[..., Any])


AT_LEAST_1 = click.IntRange(min=1)


def names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Names separated by commas, as a list; a callback for options."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def expression(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A filter that can be read; a callback for options."""
    from polylex.errors import BadFilter
    from polylex.filters import parse

    try:
        if value is not None:
            parse(value)
    except BadFilter as fault:
        raise click.BadParameter(str(fault)) from None
    return value


def fields(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Names of fields that can be read, separated by commas; a callback for options."""
    from polylex.errors import BadFilter
    from polylex.filters import parse_field

    try:
        for name in (found := names(context, parameter, value)) or []:
            parse_field(name)
    except BadFilter as fault:
        raise click.BadParameter(str(fault)) from None
    return found


model = click.option(
    "--model",
    default=DEFAULT,
    show_default=True,
    metavar="MODEL",
    help="Bundled name, folder of an exported model, or a hub id such as owner/name.",
)
model_of_index = click.option(
    "--model",
    metavar="MODEL",
    help="Bundled name, folder or hub id. [default: the model that the index was made with]",
)
threads = click.option(
    "--threads",
    type=AT_LEAST_1,
    metavar="N",
    help="Texts encoded at one time. [default: the cores this process may use]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
explain_limit = click.option(
    "--limit", type=AT_LEAST_1, default=12, show_default=True, metavar="N", help="Shared terms to show."
)
top = click.option("-k", "k", type=AT_LEAST_1, default=10, show_default=True, metavar="N", help="Hits for each query.")


def documents(command: F) -> F:
    """The options of `read_documents`."""
    for decorate in reversed(
        (
            click.option(
                "--format",
                "format_",
                type=click.Choice(FORMATS),
                help="What the inputs hold. [default: told by each name; jsonl for -]",
            ),
            click.option(
                "--id-field",
                metavar="NAME",
                help="Field with the id. [default: _id, id, docid or doc_id; where there is none, ids are file:line]",
            ),
            click.option(
                "--text-fields",
                callback=names,
                metavar="NAMES",
                help="Fields to encode, in this order, e.g. title,text. [default: these, by their usual names]",
            ),
            click.option(
                "--on-error",
                type=click.Choice(("stop", "skip")),
                default="stop",
                show_default=True,
                help="A record that cannot be used stops the run, or is skipped and named.",
            ),
            click.option(
                "--max-chars",
                type=AT_LEAST_1,
                default=1_000_000,
                show_default=True,
                metavar="N",
                help="Characters a text may have; a longer one is an error.",
            ),
        )
    ):
        command = decorate(command)
    return command
