"""`polylex mcp`: an index as tools for AI assistants."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from polylex.cli import options
from polylex.cli.search import open_retriever
from polylex.cli.terminal import note
from polylex.cli.verb import Verb, argument, voice

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from polylex.interop.library import Library

KEY_VARIABLE = "POLYLEX_KEY"


@click.command(
    "mcp",
    cls=Verb,
    short_help="Let AI assistants search (MCP).",
    prints="The Model Context Protocol, for the assistant that started it; with --http nothing.",
    examples="""
polylex mcp articles.plx --about "Rulings of the constitutional court, 1951-2025."
polylex mcp https://search.example.com                       a running `polylex serve`; its key in $POLYLEX_KEY
polylex mcp articles.plx --http --port 8766                  then add http://127.0.0.1:8766/mcp
claude mcp add articles -- polylex mcp /data/articles.plx    in Claude Code
""",
)
@argument("index", "INDEX", "Folder written by `polylex index`, or the address of a `polylex serve`.")
@click.option("--about", default="", metavar="TEXT", help="What the documents are; assistants read it.")
@click.option("--http", is_flag=True, help="Serve streamable HTTP at /mcp instead of standard input and output.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8766, show_default=True, metavar="N", help="0: any free."
)
@click.option(
    "--keys", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="API keys; see `polylex keys`."
)
@click.option(
    "--text-fields",
    callback=options.names,
    metavar="NAMES",
    help="Fields that are the text of a document. [default: those that were encoded]",
)
@options.model_of_index
def mcp(
    index: str,
    about: str,
    http: bool,
    host: str,
    port: int,
    keys: str | None,
    text_fields: list[str] | None,
    model: str | None,
) -> None:
    """Let AI assistants search an index, explain hits, read documents and look at terms (Model Context Protocol).

    Without --http it speaks over standard input and output, as assistants on this machine expect. With --http it
    answers this machine only, unless there are --keys. All tools only read.
    """
    if keys and not http:
        raise click.UsageError("--keys is for --http; over standard input and output there is nobody else")
    if model and _is_address(index):
        raise click.UsageError("--model is for an index on this machine; a server has its own")
    from polylex.interop.mcp import server

    with _library(index, model) as (library, contents):
        built = server(
            library,
            about=about or f"There are {contents.documents:,} documents.",
            fields=contents.fields,
            text_fields=text_fields or contents.text_fields,
        )
        if http:
            _serve(built, host, port, keys)
        else:
            built.run("stdio")


def _is_address(index: str) -> bool:
    return index.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Contents:
    """What assistants are told of an index."""

    documents: int
    fields: Mapping[str, str]
    text_fields: list[str] | None


@contextmanager
def _library(index: str, model: str | None) -> Iterator[tuple[Library, Contents]]:
    """An index of this machine or of a server."""
    if _is_address(index):
        from polylex.client import Client

        with Client(index, os.environ.get(KEY_VARIABLE)) as client:
            info = client.info()
            yield client, Contents(info.documents, info.fields, None)
    else:
        from polylex.interop.library import Local

        with open_retriever(index, model) as retriever:
            local, about = Local(retriever), retriever.index.info()
            yield local, Contents(about.documents, local.fields(), about.settings.get("text_fields"))


def _serve(built: MCPServer, host: str, port: int, keys: str | None) -> None:
    from polylex.interop.mcp_http import PATH, run
    from polylex.server.keys import KeyRing

    def tell(port: int) -> None:
        if not voice().quiet:
            note(f"MCP on http://{f'[{host}]' if ':' in host else host}:{port}{PATH} (Ctrl-C ends it)")

    run(built, host, port, KeyRing(keys) if keys else None, tell)
