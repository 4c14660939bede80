"""`polylex serve` answers searches over HTTP; `polylex keys` says who may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from polylex.cli import options
from polylex.cli.terminal import note, print_json
from polylex.cli.verb import Verb, argument, voice
from polylex.errors import MissingExtra

F = TypeVar("F", bound=Callable[..., Any])


def _limit(name: str, metavar: str, about: str) -> Callable[[F], F]:
    """An option of `polylex.server.settings.Limits`; its default stands there."""
    from polylex.server.settings import Limits

    default = next(each.default for each in fields(Limits) if each.name == name)
    kind = click.FLOAT if isinstance(default, float) else click.INT
    flag = f"--{name.replace('_', '-')}"
    return click.option(flag, name, type=kind, default=default, show_default=True, metavar=metavar, help=about)


@click.command(
    "serve",
    cls=Verb,
    short_help="Answer searches over HTTP, with a search page.",
    prints="Nothing; one JSON object a line for each request goes to standard error.",
    examples="""
polylex serve articles.plx                                     then open http://127.0.0.1:8765
polylex serve articles.plx --writable --workers 4
polylex keys add keys.json website read
polylex serve articles.plx --host 0.0.0.0 --keys keys.json --tls-cert cert.pem --tls-key key.pem
""",
)
@argument("index", "INDEX", "Folder written by `polylex index`.", type=click.Path())
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, metavar="N", help="0: any free."
)
@click.option("--workers", type=options.AT_LEAST_1, default=1, show_default=True, metavar="N", help="Processes.")
@click.option(
    "--threads",
    type=options.AT_LEAST_1,
    metavar="N",
    help="Texts that a worker encodes at one time. [default: the cores, shared out among the workers]",
)
@options.model_of_index
@click.option("--writable", is_flag=True, help="Let clients add and delete documents.")
@click.option("--keys", type=click.Path(dir_okay=False), metavar="FILE", help="API keys; see `polylex keys`.")
@click.option("--public", is_flag=True, help="Listen beyond this machine although there are no keys.")
@click.option(
    "--origin", "origins", multiple=True, metavar="URL", help="Let web pages from there call (CORS). Repeatable."
)
@click.option(
    "--host-name", "hosts", multiple=True, metavar="NAME", help="A name under which the server is called. Repeatable."
)
@click.option("--tls-cert", type=click.Path(dir_okay=False), metavar="FILE", help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(dir_okay=False), metavar="FILE", help="Its key, PEM.")
@_limit("body_bytes", "N", "Size of a request.")
@_limit("texts", "N", "Texts or documents of one request.")
@_limit("waiting", "N", "Texts that wait to be encoded, a worker; more are refused.")
@_limit("requests", "N", "Requests under way, a worker; more are refused.")
@_limit("rate", "N", "Requests a second of one key or address, a worker; 0: any number.")
@_limit("connections", "N", "Open connections, a worker; more are refused.")
@_limit("read_seconds", "S", "For a request to arrive, and for its answer to be taken.")
@_limit("request_seconds", "S", "Until an answer must be there.")
@_limit("shutdown_seconds", "S", "For requests under way when the server is told to stop.")
@_limit("preview_bytes", "N", "Memory for the pruning slider, a worker.")
def serve(index: str, **wishes: Any) -> None:  # noqa: ANN401 - as declared above
    """Answer searches over HTTP, and show a search page at the same address.

    Without --keys the server answers this machine only. On Ctrl-C or SIGTERM it ends the requests that are under way.
    """
    try:
        from polylex.server.process import serve as run
    except ImportError as fault:
        raise MissingExtra(fault.name or "starlette", "server", "Serving") from None
    from polylex.server.settings import Limits, Settings

    limits = {each.name: wishes.pop(each.name) for each in fields(Limits) if each.name in wishes}
    settings = Settings(index=index, **wishes, limits=Limits(**limits))
    scheme = "https" if settings.tls_cert else "http"
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host

    def tell(port: int) -> None:
        if not voice().quiet:
            note(f"serving {index} on {scheme}://{shown}:{port} (Ctrl-C ends it)")

    level = "warning" if voice().quiet else "debug" if voice().verbose else "info"
    run(settings, log_level=level, on_listening=tell)


@click.group("keys", short_help="Make and remove API keys for `polylex serve`.")
def keys() -> None:
    """Make, list and remove API keys. The file holds only their hashes; a running server follows its changes."""


@keys.command("add", cls=Verb, short_help="Make a key.", prints="The key, once; it is not kept.")
@argument("file", "FILE", "File of keys; made if it is not there.", type=click.Path(dir_okay=False))
@argument("name", "NAME", "Who uses the key; logs have it.")
@argument("role", "ROLE", "read, or write, which may read too.", type=click.Choice(("read", "write")))
def add(file: str, name: str, role: Any) -> None:  # noqa: ANN401 - as click has checked
    """Make a key and print it."""
    from polylex.server.keys import KeyFile

    click.echo(KeyFile(file).add(name, role))


@keys.command("list", cls=Verb, short_help="Name the keys.", prints="A line a key: name, role, day.")
@argument("file", "FILE", "File of keys.", type=click.Path(exists=True, dir_okay=False))
@options.as_json
def list_(file: str, as_json: bool) -> None:
    """Name the keys, never the secrets."""
    from polylex.server.keys import KeyFile

    for key in KeyFile(file).read():
        if as_json:
            print_json({"name": key.name, "role": key.role, "created": key.created})
        else:
            click.echo(f"{key.name}\t{key.role}\t{key.created}")


@keys.command("remove", cls=Verb, short_help="Remove a key.", prints="Nothing.")
@argument("file", "FILE", "File of keys.", type=click.Path(exists=True, dir_okay=False))
@argument("name", "NAME", "Name of the key.")
def remove(file: str, name: str) -> None:
    """Remove a key; servers refuse it from now on."""
    from polylex.server.keys import KeyFile

    KeyFile(file).remove(name)
