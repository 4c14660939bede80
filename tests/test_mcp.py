"""The MCP server, asked by the client of the real `mcp` package: in the process, over standard input, over HTTP."""

import asyncio
import json
import subprocess
import sys

import pytest

pytest.importorskip("mcp.server.mcpserver")

import httpx2
from click.testing import CliRunner
from fish import ENCODER, build
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from test_client import EXPLANATION, FOUND

import polylex
from polylex import client
from polylex.cli import program
from polylex.errors import BadInput, CorruptIndex
from polylex.interop.library import Local
from polylex.interop.mcp import server
from polylex.interop.mcp_http import KeyGuard, application
from polylex.server.keys import KeyFile, KeyRing

TOOLS = ["search", "explain", "encode", "get_document"]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    with build(tmp_path_factory.mktemp("i") / "index") as built:
        yield built


def ask(built, tool, **arguments):
    """The structured answer of a tool, or the text of its error."""

    async def run():
        async with Client(built) as asked:
            return await asked.call_tool(tool, arguments)

    result = asyncio.run(run())
    if result.is_error:
        return result.content[0].text
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


# -- the tools ---------------------------------------------------------------------------------------


def test_a_search_gives_the_beginning_of_each_text_and_the_other_fields(retriever):
    found = ask(server(Local(retriever)), "search", query="red", where="lang = 'en'", chars=7)
    fields = {"title": "One", "lang": "en", "year": 1960, "tags": ["dr", "rhyme"]}
    hit = {"rank": 1, "id": "1", "score": 1.0, "text": "One red", "characters": 12, "fields": fields}
    assert found == {"hits": [hit]}
    assert ask(server(Local(retriever)), "search", query="green") == {"hits": []}
    assert len(ask(server(Local(retriever)), "search", query="red", k=1, where="")["hits"]) == 1


def test_an_explanation_names_the_words_of_both_sides(retriever):
    # "red" stands twice in the query and once in the document, "fish" once in each: 2 of 3 and 1 of 3
    found = ask(server(Local(retriever)), "explain", query="red fish red", id="1")
    assert (found["score"], found["rest"]) == (3.0, 0.0)
    first = {"term": "red", "kind": "english", "share": 0.6667, "query_words": ["red"], "document_words": ["red"]}
    assert found["terms"][0] == first
    found = ask(server(Local(retriever)), "explain", query="red fish red", id="1", limit=1)
    assert (len(found["terms"]), found["rest"]) == (1, 0.3333)
    assert ask(server(Local(retriever)), "explain", query="black", id="1") == {"score": 0.0, "terms": [], "rest": 0.0}


def test_terms_come_heaviest_first(retriever):
    found = ask(server(Local(retriever)), "encode", text="fish red red black black black", limit=2)
    assert [(each["term"], each["kind"], each["weight"]) for each in found["terms"]] == [
        ("black", "english", 3.0),
        ("red", "english", 2.0),
    ]


def test_a_long_document_is_read_part_by_part(retriever):
    built = server(Local(retriever))
    parts, start = [], 0
    while start is not None:
        part = ask(built, "get_document", id="2", start=start, chars=7)
        parts.append(part["text"])
        start = part["next_start"]
    assert parts == ["Two blu", "e blue ", "fish"]
    assert part["fields"] == {"title": "Two", "lang": "en", "year": 1970}


def test_the_text_is_that_of_the_fields_given_and_a_document_without_text_shows_its_fields(retriever):
    assert ask(server(Local(retriever), text_fields=["lang"]), "get_document", id="1")["text"] == "en"
    part = ask(server(Local(retriever), text_fields=["year"]), "get_document", id="1")
    assert (part["text"], part["fields"]["text"]) == ("", "red fish")


def test_an_answer_is_never_long(tmp_path):
    fields = {"text": "fish " * 4000, "note": "x" * 5000, "deep": {"a": ["y"] * 900}}
    fields |= {f"field {number}": number for number in range(500)}
    documents = [{"id": str(number), **fields} for number in range(9)]
    with build(tmp_path / "i", documents) as retriever:
        found = ask(server(Local(retriever)), "search", query="fish", k=9, chars=10_000)
    assert {hit["characters"] for hit in found["hits"]} == {20_000}
    assert all(len(hit["fields"]["note"]) == len(hit["fields"]["deep"]) == 201 for hit in found["hits"])
    assert all(5 < len(hit["fields"]) < 500 for hit in found["hits"])
    assert 50_000 < len(json.dumps(found)) < 70_000


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("search", {"query": "red", "where": "lang == 'de'"}, "character 6: write = for equality"),
        ("search", {"query": "red", "k": 51}, "less than or equal to 50"),
        ("search", {"query": ""}, "at least 1 character"),
        ("search", {"query": "x" * 4001}, "at most 4000 characters"),
        ("explain", {"query": "red", "id": "none"}, "There is no document with this id"),
        ("get_document", {"id": "none"}, "There is no document with this id"),
        ("encode", {"text": "x", "kind": "title"}, "Input should be 'query' or 'document'"),
    ],
)
def test_a_mistake_is_told_so_that_the_assistant_can_mend_it(retriever, tool, arguments, words):
    answer = ask(server(Local(retriever)), tool, **arguments)
    assert words in answer
    assert str(retriever.index.info().path) not in answer


def test_a_fault_of_the_index_names_no_file(retriever, monkeypatch):
    library = Local(retriever)
    monkeypatch.setattr(library, "search", lambda *_, **__: (_ for _ in ()).throw(CorruptIndex("/secret/path")))
    answer = ask(server(library), "search", query="red")
    assert "cannot be searched at the moment" in answer and "secret" not in answer


def test_what_others_write_meanwhile_is_found(tmp_path):
    with build(tmp_path / "i") as retriever:
        library = Local(retriever)
        with retriever.index.writer() as writer:
            writer.add(["5"], [{"text": "black black"}], ENCODER.encode(["black black"]))
        assert [hit.id for hit in library.search("black")] == ["5", "4"]
        assert library.document("5").fields == {"text": "black black"}
        assert library.explain("black", "5").score == 2.0


def test_assistants_are_told_what_there_is_and_that_tools_only_read(retriever):
    library = Local(retriever)

    async def run():
        async with Client(server(library, about="Rhymes.", fields=library.fields())) as asked:
            return asked.instructions, (await asked.list_tools()).tools

    instructions, tools = asyncio.run(run())
    assert (
        "Rhymes.\nFields for `where`: _id (text), title (text), text (text), lang (text), year (number),"
        in instructions
    )
    assert "year (number), " in instructions and "author (object)" in instructions and "tags (list)" in instructions
    assert [tool.name for tool in tools] == TOOLS
    assert all(tool.annotations.read_only_hint and not tool.annotations.open_world_hint for tool in tools)
    assert all(tool.description and "\n   " not in tool.description and tool.output_schema for tool in tools)
    described = [each for tool in tools for each in tool.input_schema["properties"].values()]
    assert all("description" in each for each in described)


def test_a_running_server_is_a_library():
    def answer(request):
        known = {"/search": FOUND, "/explain": EXPLANATION}
        if request.url.path in known:
            return httpx2.Response(200, json=known[request.url.path])
        return httpx2.Response(503, headers={"retry-after": "99"})

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        built = server(client.Client("http://here", http=http))
        assert [hit["id"] for hit in ask(built, "search", query="boda")["hits"]] == ["7", "9"]
        assert ask(built, "explain", query="boda", id="7")["terms"][0]["document_words"] == ["wedding"]
        assert "try again later" in ask(built, "encode", text="boda")


# -- the program -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index that was made with the bundled model."""
    path = tmp_path_factory.mktemp("i") / "index"
    documents = [
        {"id": "de", "text": "Männer und Frauen haben das Recht zu heiraten und eine Familie zu gründen."},
        {"id": "fr", "text": "Toute personne a droit à l'éducation. L'éducation doit être gratuite."},
    ]
    polylex.Retriever.build(path, documents).close()
    return str(path)


async def conversation(asked):
    tools = [tool.name for tool in (await asked.list_tools()).tools]
    hits = (await asked.call_tool("search", {"query": "Who may marry?", "k": 1})).structured_content["hits"]
    return asked.instructions, tools, [hit["id"] for hit in hits]


def test_an_assistant_that_starts_the_program_can_search(folder):
    async def run():
        arguments = ["-W", "error", "-m", "polylex", "mcp", folder, "--about", "Human rights."]
        started = StdioServerParameters(command=sys.executable, args=arguments)
        async with Client(stdio_client(started)) as asked:
            return await conversation(asked)

    instructions, tools, hits = asyncio.run(run())
    assert (tools, hits) == (TOOLS, ["de"])
    assert instructions.endswith("Human rights.\nFields for `where`: id (text), text (text).")


def test_over_http_a_key_is_asked_for_and_the_same_is_answered(folder, tmp_path):
    keys = tmp_path / "keys.json"
    secret = KeyFile(keys).add("assistant", "read")
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "polylex",
        "mcp",
        folder,
        "--http",
        "--port",
        "0",
        "--keys",
        str(keys),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stderr.readline()
        address = said.split()[3]
        assert httpx2.post(address, json={}).status_code == 401
        assert httpx2.post(address, json={}, headers={"Authorization": "Bearer plx_wrong"}).status_code == 401

        async def run():
            headers = {"Authorization": f"Bearer {secret}"}
            async with (
                httpx2.AsyncClient(headers=headers) as http,
                Client(streamable_http_client(address, http_client=http)) as asked,
            ):
                return await conversation(asked)

        instructions, tools, hits = asyncio.run(run())
        assert (tools, hits) == (TOOLS, ["de"])
        assert "There are 2 documents." in instructions
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_over_http_only_this_machine_is_answered_unless_there_are_keys(retriever, tmp_path):
    built = server(Local(retriever))
    with pytest.raises(BadInput, match=r"listening on 0\.0\.0\.0 lets others on the network read this index"):
        application(built, "0.0.0.0")
    keys = tmp_path / "keys.json"
    KeyFile(keys).add("assistant", "read")
    assert isinstance(application(built, "0.0.0.0", KeyRing(keys)), KeyGuard)

    async def call(host):
        app = application(built)
        async with app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
                return (await http.post("/mcp", json=body)).status_code

    assert asyncio.run(call("rebound.example.com")) == 421  # a page elsewhere that lets its name mean this machine
    assert asyncio.run(call("127.0.0.1:8766")) != 421


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no index at nowhere"),
        (["http://127.0.0.1:9", "--model", "polylex-mini"], "--model is for an index on this machine"),
        (["x", "--keys", __file__], "--keys is for --http"),
    ],
)
def test_wrong_use_is_told_before_anything_is_served(arguments, words):
    result = CliRunner().invoke(program, ["mcp", *arguments])
    assert result.exit_code in (1, 2) and words in result.output
