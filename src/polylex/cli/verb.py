"""Verb: a click command whose help names its arguments, shows examples and lists the exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

EXITS = "Exit codes: 0 done, 1 bad input, 2 usage, 130 interrupted."


@dataclass
class Voice:
    """How much a run says on standard error.

    quiet    only errors: no progress, no summary
    verbose  the library's log, and tracebacks with errors
    """

    quiet: bool = False
    verbose: bool = False


def voice() -> Voice:
    """What the user asked for in the running command."""
    return click.get_current_context().find_root().ensure_object(Voice)


class Argument(click.Argument):
    """A positional argument with a line of help, which click has only since 8.5."""

    def __init__(self, declarations: list[str], *, about: str, metavar: str, **attributes: Any) -> None:  # noqa: ANN401
        super().__init__(declarations, metavar=metavar, **attributes)
        self.about = about


def argument(name: str, metavar: str, about: str, **attributes: Any) -> Callable[[Any], Any]:  # noqa: ANN401
    """Declare an Argument of a verb."""
    return click.argument(name, cls=Argument, metavar=metavar, about=about, **attributes)


class Verb(click.Command):
    """A command that can be quiet or verbose and whose help ends in examples and exit codes."""

    def __init__(self, *args: Any, examples: str = "", prints: str = "", **attributes: Any) -> None:  # noqa: ANN401
        """Take what click takes.

        examples  lines shown as they stand
        prints    what goes to standard output, one paragraph
        """
        super().__init__(*args, **attributes)
        self.examples = examples.strip("\n").splitlines()
        self.prints = prints
        self.params += voice_options()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Usage, purpose, arguments, options, what is printed, examples, exit codes."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        arguments = [(str(each.metavar), each.about) for each in self.params if isinstance(each, Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        options = [each.get_help_record(ctx) for each in self.get_params(ctx) if isinstance(each, click.Option)]
        with formatter.section("Options"):
            formatter.write_dl([record for record in options if record])
        if self.prints:
            with formatter.section("Prints"):
                formatter.write_text(self.prints)
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.examples))
        formatter.write_paragraph()
        formatter.write_text(EXITS)


def voice_options() -> list[click.Parameter]:
    """-q and -v, which every verb and the program itself take."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            setattr(context.find_root().ensure_object(Voice), str(parameter.name), True)
        if value and parameter.name == "verbose":
            logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
            logging.getLogger("polylex").setLevel(logging.DEBUG)

    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=remember,
            help="Say nothing but results and errors.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=remember,
            help="Log what happens; show the traceback of an error.",
        ),
    ]
