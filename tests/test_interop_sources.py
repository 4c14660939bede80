"""What the adapters share: passages of a source, and filters of other libraries as ours."""

import asyncio
import subprocess
import sys
from importlib import import_module

import pytest
from fish import Awaited, build
from hypothesis import given
from hypothesis import strategies as st

from polylex.corpus import document_text
from polylex.errors import BadFilter, BadInput, MissingExtra
from polylex.filters import holds, parse
from polylex.interop.conditions import compared, joined
from polylex.interop.sources import Passage, both, find, find_later, open_source


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    with build(tmp_path_factory.mktemp("i") / "index") as built:
        yield built


ONE = Passage("1", "One red fish", {"title": "One", "lang": "en", "year": 1960, "tags": ["dr", "rhyme"]}, 1.0)
THREE = Passage("3", "red red red", {"lang": "de", "author": {"name": "O'Hara"}}, 3.0)


def test_a_passage_has_the_text_that_was_encoded_and_all_other_fields(retriever):
    assert find(retriever, "red", 5) == [THREE, ONE]
    assert find(retriever, "red", 1) == [THREE]
    assert find(retriever, "red", 5, where="year < 1970") == [ONE]


def test_a_source_that_is_awaited_gives_the_same_passages(retriever):
    assert asyncio.run(find_later(retriever, "red", 5)) == [THREE, ONE]
    assert asyncio.run(find_later(Awaited(retriever), "red", 5, where="lang = 'en'")) == [ONE]
    with pytest.raises(BadInput, match="Awaited can only be awaited"):
        find(Awaited(retriever), "red", 5)


def test_the_fields_that_an_index_was_built_of_are_the_text(tmp_path):
    documents = [{"id": "1", "head": "red", "body": "fish", "text": "a note", "doc_id": "7"}]
    with build(tmp_path / "i", documents, text_fields=["head", "body"]) as retriever:
        [passage] = find(retriever, "fish", 1)
        assert (passage.text, passage.metadata) == ("red fish", {"text": "a note", "doc_id": "7"})
        [passage] = find(retriever, "fish", 1, text_fields=["body"])
        assert (passage.text, passage.metadata) == ("fish", {"head": "red", "text": "a note", "doc_id": "7"})
        [hit] = retriever.search("fish")
        assert passage.text == document_text(hit.fields, ["body"])


def test_two_filters_hold_both():
    assert both(None, None) is None
    assert (both("a = 1", None), both(None, "a = 1")) == ("a = 1", "a = 1")
    assert both("a = 1 or b = 2", "c = 3") == "(a = 1 or b = 2) and c = 3"
    with pytest.raises(BadFilter):
        both("a = 1", "b = 2) or (c = 3")  # does not get out of its parentheses


def test_a_source_is_opened_by_its_name(tmp_path):
    pytest.importorskip("httpx2")
    assert open_source("https://example.com/", "secret").url == "https://example.com"
    with pytest.raises(LookupError):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("polylex.client", "httpx2", "client"),
        ("polylex.interop.mcp", "mcp.server.mcpserver", "mcp"),
        ("polylex.interop.langchain", "langchain_core.callbacks", "langchain"),
        ("polylex.interop.llama_index", "llama_index.core.retrievers", "llama-index"),
        ("polylex.interop.haystack", "haystack", "haystack"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(monkeypatch, module, package, extra):
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # importing it now raises ImportError
    with pytest.raises(MissingExtra, match=rf'pip install "polylex\[{extra}\]"'):
        import_module(module)


def test_neither_the_client_nor_the_mcp_server_imports_torch():
    pytest.importorskip("mcp")
    code = "import sys, polylex.client, polylex.interop.mcp_http; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# -- conditions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "operator", "value", "expected"),
    [
        ("lang", "==", "de", "lang = 'de'"),
        ("year", ">=", 2020, "year >= 2020"),
        ("lang", "!=", "it's", "not lang = 'it''s'"),
        ("free", "==", True, "free = true"),
        ("author.name", "==", "UN", "author.name = 'UN'"),
        ("publication date", "<", "2020-01-01", "\"publication date\" < '2020-01-01'"),
        ("lang", "in", ["de", "fr"], "lang in ('de', 'fr')"),
        ("year", "not in", (1, 2.5), "not year in (1, 2.5)"),
        ("lang", "==", None, "not exists lang"),
        ("lang", "!=", None, "not not exists lang"),
        ("tags", "has", "law", "tags has 'law'"),
        ("title", "like", "50%_\\", "title like '%50\\%\\_\\\\%'"),
        ("id", "==", "7", "id = '7'"),
    ],
)
def test_a_condition_is_written_as_a_filter(name, operator, value, expected):
    expression = compared(name, operator, value)
    assert str(expression) == expected
    assert parse(expected) == expression


def test_conditions_are_joined():
    a, b = compared("a", "==", 1), compared("b", "==", 2)
    assert str(joined("and", [a, joined("or", [a, b])])) == "a = 1 and (a = 1 or b = 2)"
    assert str(joined("not", [a, b])) == "not (a = 1 and b = 2)"
    assert joined("or", [a]) == a


def test_one_of_none_is_never_true():
    for fields in ({}, {"lang": "de"}):
        assert not holds(compared("lang", "in", []), "1", fields)
        assert holds(compared("lang", "not in", []), "1", fields)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: compared("a", "=~", "x"), "'a' has the operator '=~'; filters of Polylex have ==, <"),
        (lambda: compared("a", "<", None), "compares with a text, a number or a truth value, got None"),
        (lambda: compared("a", "==", [1]), r"got \[1\]"),
        (lambda: compared("a", "in", "de"), "takes a list of values, got 'de'"),
        (lambda: compared("a", "like", 7), "takes a text, got 7"),
        (lambda: joined("and", []), "'and' joins no condition"),
        (lambda: joined("xor", [compared("a", "==", 1)] * 2), "got 'xor'"),
    ],
)
def test_what_cannot_be_said_is_refused(make, words):
    with pytest.raises(BadInput, match=words):
        make()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"])))
def test_no_name_or_value_gets_out_of_its_quotes(name, value):
    for operator in ("==", "has", "like"):
        if all(name.split(".")):
            expression = compared(name, operator, value)
            assert parse(str(expression)) == expression
