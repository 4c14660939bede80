"""The command line `polylex`: one file a verb, each a thin call into the library.

Everything heavy is imported inside the verbs, so that `polylex --help` and `polylex search` start quickly.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import IO, Any, NoReturn

import click

from polylex import __version__
from polylex.cli.add import add
from polylex.cli.bm25 import bm25
from polylex.cli.delete import compact, delete
from polylex.cli.demo import demo
from polylex.cli.diagnose import diagnose
from polylex.cli.encode import encode
from polylex.cli.evaluate import evaluate
from polylex.cli.explain import explain
from polylex.cli.export import export, import_
from polylex.cli.fuse import fuse
from polylex.cli.index import index
from polylex.cli.info import check, info
from polylex.cli.mcp import mcp
from polylex.cli.merge import merge
from polylex.cli.prune import prune
from polylex.cli.repair import repair
from polylex.cli.search import search
from polylex.cli.serve import keys, serve
from polylex.cli.sync import sync
from polylex.cli.tune import tune
from polylex.cli.verb import Voice, voice_options
from polylex.errors import PolylexError

_BROKEN_PIPE = 141  # 128 + the number of the signal, as shells count


class Failure(click.ClickException):
    """An error that the user can mend, as one line on standard error."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"polylex: {self.format_message()}", file=file or sys.stderr)


class Interrupted(Failure):
    """The user pressed Ctrl-C."""

    exit_code = 130  # 128 + the number of the signal, as shells count


# Groups of the training tier, imported when asked for: `polylex search` does not wait for them.
_LATER = {"train": "polylex.train.command", "data": "polylex.train.data_command"}


class Program(click.Group):
    """The group of all verbs; turns errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order in which a new user meets them."""
        return [*self.commands, *_LATER]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name."""
        if cmd_name in _LATER:
            group: click.Command = getattr(import_module(_LATER[cmd_name]), cmd_name)
            return group
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run the verb."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            _leave_quietly()
        except KeyboardInterrupt as fault:
            raise Interrupted(str(fault) or "interrupted") from None
        except (PolylexError, OSError) as fault:
            if ctx.ensure_object(Voice).verbose:
                import traceback

                traceback.print_exc()
            raise Failure(_line(fault)) from fault


def _line(fault: Exception) -> str:
    """An error as one line."""
    if isinstance(fault, OSError) and not isinstance(fault, PolylexError) and fault.strerror:
        return f"{fault.filename}: {fault.strerror}" if fault.filename else fault.strerror
    return " ".join(str(fault).split())


def _leave_quietly() -> NoReturn:
    """End after the reader of our output has left (`| head`): what Python still buffers goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise click.exceptions.Exit(_BROKEN_PIPE)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`polylex VERB --help` explains a verb, with examples. Start with `polylex demo`.",
    params=voice_options(),
)
@click.version_option(__version__, "-V", "--version", message="polylex %(version)s")
def program() -> None:
    """Search documents in any language with queries in any other, and see why each hit matched."""


for verb in (
    demo,
    index,
    add,
    delete,
    compact,
    search,
    explain,
    serve,
    keys,
    mcp,
    encode,
    merge,
    prune,
    export,
    import_,
    sync,
    tune,
    bm25,
    fuse,
    evaluate,
    diagnose,
    info,
    check,
    repair,
):
    program.add_command(verb)


def main() -> None:
    """Entry point of the console script."""
    # A terminal that cannot show a script still shows that something is there; bytes that are no text are a bad query.
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=errors)
    program(prog_name="polylex")
