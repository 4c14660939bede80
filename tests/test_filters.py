import json
import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import filters
from polylex.errors import BadFilter, BadInput
from polylex.filters import And, Compare, Exists, Field, Has, In, Like, Not, Or, holds, parse, parse_field

LANG, YEAR, TAGS = Field(("lang",)), Field(("year",)), Field(("tags",))
DOCUMENT = {
    "lang": "de",
    "year": 2020,
    "price": 9.5,
    "text_year": "2020",
    "free": True,
    "gone": None,
    "tags": ["law", "EU", 7],
    "author": {"name": "Ada", "born": {"year": 1815}},
    "a.b": "dot",
    "title": "50% of_it\nall",
    "big": 2**53 + 1,
    "empty": "",
}


def true(text, fields=DOCUMENT, id="d1"):
    return holds(parse(text), id, fields)


# -- meaning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "lang = 'de'",
        "year = 2020",
        "year = 2020.0",
        "price >= 9.5 and price < 9.51",
        "year in (1999, 2020)",
        "lang in ('fr', 'de')",
        "tags has 'law'",
        "tags has 7",
        "lang has 'de'",  # a value alone is a list of one
        "free = true",
        "free != false",
        "author.name = 'Ada'",
        "author.born.year < 1900",
        "\"a.b\" = 'dot'",
        "exists author",
        "exists empty",
        "empty = ''",
        "gone is null",
        "nowhere is null",
        "year is not null",
        "id = 'd1'",
        "id like 'd_'",
        "title like '50\\% of\\_it%'",
        "title like '%of_it%all'",
        "title like '%\nall'",
        "lang = 'de' OR lang = 'fr' And year = 1",  # words of the language ignore case, names do not
    ],
)
def test_is_true(text):
    assert true(text)


@pytest.mark.parametrize(
    "text",
    [
        "lang = 'DE'",
        "Lang = 'de'",
        "lang = 'd'",
        "lang like 'd'",
        "lang like 'E%'",
        "lang like 'd_e'",
        "lang like 'de_%'",
        "year like '2020'",  # a number is no text
        "tags = 'law'",  # a list is no text
        "tags has 'la'",
        "exists gone",
        "exists nowhere",
        "author.name.first = 'Ada'",
        "a.b = 'dot'",
        "author = 'Ada'",
        "(lang = 'de' or lang = 'fr') and year = 1",
        "not not lang = 'fr'",
        "id = 1",
    ],
)
def test_is_false(text):
    assert not true(text)


def test_what_is_not_equal_is_unequal_missing_or_of_another_type():
    for text in (
        "year != 2021",
        "nowhere != 2021",
        "lang != 2021",
        "tags != 'law'",
        "gone not in (1)",
        "nowhere not like '%'",
    ):
        assert true(text)
    for order in ("=", "<", "<=", ">", ">="):
        assert not true(f"nowhere {order} 0") and not true(f"lang {order} 0") and not true(f"gone {order} 'a'")


def test_a_text_that_is_written_as_a_number_counts_as_one_beside_a_number():
    assert (
        true("text_year >= 2020")
        and true("text_year = 2020.0")
        and true("text_year in (2020)")
        and true("text_year has 2020")
    )
    assert true("text_year = '2020'") and not true("year = '2020'") and not true("year > ''")
    for text in ("02020", " 2020", "2020 ", "２０２０", "2_020", "+2020", "0x7e4", "1e999", "NaN", "", "2020."):
        assert not true("n = 2020", {"n": text}) and not true("n > 0", {"n": text})
    assert true("n = 2020", {"n": "2.02e3"}) and true("n < 0", {"n": "-0.5"})
    assert true("n > 1e308", {"n": "1" + 399 * "0"}) and not true("n > 0", {"n": "1" + 400 * "0"})


def test_a_truth_value_is_neither_a_number_nor_a_text():
    assert not true("free = 1") and not true("free in (1, 'true')") and not true("free >= 0")
    assert (
        not true("f = true", {"f": 1}) and not true("f = true", {"f": "true"}) and not true("f in (true)", {"f": 1.0})
    )


def test_numbers_are_exact_whatever_their_size():
    assert (
        true("big = 9007199254740993") and not true("big = 9007199254740992") and not true("big in (9007199254740992)")
    )
    assert true(f"n = {10**350}", {"n": 10**350}) and true("n > 1e308", {"n": 10**350})
    assert true("big > 9007199254740992.0") and true(
        "n = 123456789012345678901234567890", {"n": 123456789012345678901234567890}
    )


def test_texts_are_compared_character_by_character():
    assert not true("t = 'é'", {"t": "e\u0301"})
    assert true("t > 'Z'", {"t": "a"}) and true("t > 'z'", {"t": "ä"}) and true("t > '\uffff'", {"t": "\U00010000"})
    assert true("язык = 'ру'", {"язык": "ру"}) and true("言語 like '日_'", {"言語": "日本"})


def test_and_binds_closer_than_or_and_not_closest():
    a, b, c = (Compare(Field((name,)), "=", 1) for name in "abc")
    assert parse("a = 1 or b = 1 and c = 1") == Or((a, And((b, c))))
    assert parse("not a = 1 and b = 1 or c = 1") == Or((And((Not(a), b)), c))
    assert parse("not (a = 1 and b = 1)") == Not(And((a, b)))


def test_each_form_becomes_what_it_says():
    assert parse("lang='de'") == Compare(LANG, "=", "de")
    assert parse("lang != 'it''s'") == Not(Compare(LANG, "=", "it's"))
    assert parse("year NOT IN (-1,2.5e1)") == Not(In(YEAR, (-1, 25.0)))
    assert parse("tags not has true") == Not(Has(TAGS, True))
    assert parse("lang not like 'd%'") == Not(Like(LANG, "d%"))
    assert parse("lang is null") == Not(Exists(LANG))
    assert parse("lang is not null") == parse("exists lang") == Exists(LANG)
    assert parse('"say ""hi""" . x-1 = 1') == Compare(Field(('say "hi"', "x-1")), "=", 1)
    assert parse_field('meta."like"') == Field(("meta", "like"))


def test_a_pattern_of_many_wildcards_takes_no_time():
    assert not true(f"t like '{'%a' * 500}%b'", {"t": "a" * 20_000})


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        ("", 0, "expected the name of a field, got the end"),
        ("lang", 4, "expected =, !=, <, <=, >, >=, in, like, has or is behind the field, got the end"),
        ("lang == 'de'", 5, "write = for equality"),
        ("lang <> 'de'", 5, "write !="),
        ("lang = de", 7, "expected a value: a text in single quotes, a number, true or false, got de"),
        ('lang = "de"', 7, "expected a value: a text in single quotes"),
        ("lang = 'de", 7, "no closing '"),
        ("lang = null", 7, "is null"),
        ("lang = 'de' & year = 1", 12, "write and"),
        ("lang = 'de' year = 1", 12, "expected and, or, or the end, got year"),
        ("(lang = 'de'", 12, "expected and, or, or ), got the end"),
        ("lang in 'de'", 8, "expected ( and a list of values"),
        ("lang in ()", 9, "expected a value"),
        ("lang in ('de'", 13, "expected a comma or )"),
        ("lang is 'de'", 8, "expected null, or not null"),
        ("lang not = 'de'", 9, "expected in, like or has"),
        ("lang like 5", 10, "a text in single quotes"),
        ("free < true", 7, "true and false have no order"),
        ("year = 2020x", 7, "this is no number"),
        ("year = 1e999", 7, "too large"),
        ("like = 1", 0, "in double quotes"),
        ("a. = 1", 3, "the name of a field"),
        ("x = 1; drop table documents", 5, "';' means nothing here"),
        ("exists", 6, "the name of a field"),
        ("year = 1 or", 11, "the name of a field"),
    ],
)
def test_a_mistake_is_pointed_at_with_what_was_expected(text, at, reason):
    with pytest.raises(BadFilter) as fault:
        parse(text)
    assert fault.value.at == at
    assert reason in str(fault.value)
    if text:
        assert str(fault.value).splitlines()[-1] == "  " + " " * at + "^"


def test_the_mark_stands_below_the_place_in_scripts_of_wide_characters_too():
    with pytest.raises(BadFilter) as fault:
        parse("言語 = 日本")
    assert str(fault.value).splitlines()[1:] == ["  言語 = 日本", "  \u3000\u3000   ^"]


def test_length_and_depth_are_limited_and_the_limits_themselves_are_allowed():
    assert len(parse(f"id in ({', '.join(map(repr, map(str, range(5000))))})").values) == 5000
    assert parse("(" * 50 + "a = 1" + ")" * 50) == parse("a = 1")
    for text in ("(" * 51 + "a = 1" + ")" * 51, "not " * 51 + "a = 1"):
        with pytest.raises(BadFilter, match="more than 50"):
            parse(text)
    fits = "a = '" + "x" * (filters.MAX_CHARS - 6) + "'"
    assert parse(fits)
    with pytest.raises(BadFilter, match="100,000 characters"):
        parse(fits + " ")


def test_a_filter_that_is_no_text_is_refused():
    with pytest.raises(BadInput, match="got int"):
        parse(5)


# -- whatever comes ----------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from(["a", "b", "lang", "x-y", "like", "é", "a b", 'q"', "id", "and"]), st.text(min_size=1, max_size=3)
)
fields = st.lists(names, min_size=1, max_size=3).map(lambda parts: Field(tuple(parts)))
numbers = st.one_of(
    st.integers(-3, 3), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1.5])
)
scalars = st.one_of(st.text(max_size=3), numbers, st.booleans(), st.sampled_from(["a", "1", "-1.5", "%"]))
leaves = st.one_of(
    st.builds(Compare, fields, st.just("="), scalars),
    st.builds(Compare, fields, st.sampled_from(["<", "<=", ">", ">="]), st.one_of(st.text(max_size=3), numbers)),
    st.builds(In, fields, st.lists(scalars, min_size=1, max_size=3).map(tuple)),
    st.builds(Like, fields, st.text("ab%_\\é", max_size=6)),
    st.builds(Has, fields, scalars),
    st.builds(Exists, fields),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(expressions)
def test_an_expression_written_out_reads_as_the_same(expression):
    again = parse(str(expression))
    assert again == expression
    assert str(again) == str(expression)  # 1 == True in Python, so equality alone proves too little


PIECES = ["lang", "=", "!=", "<", "'de'", "'", '"', "(", ")", ",", ".", "in", "not", "like", "and", "or", "is", "null",
          "5", "-1.5e3", "true", "exists", "has", " ", "é", "\n", "[", ";", "--", "/*", "\0", "\ud800"]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
        st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
    )
)
def test_any_text_is_an_expression_or_a_mistake_inside_of_it(text):
    try:
        found = parse(text)
    except BadFilter as fault:
        assert 0 <= fault.at <= len(text)
    else:
        assert parse(str(found)) == found


def like(pattern, text):
    """The definition, by trying everything."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return like(pattern[1:], text) or (bool(text) and like(pattern, text[1:]))
    if pattern[0] == "\\" and len(pattern) > 1:
        return bool(text) and text[0] == pattern[1] and like(pattern[2:], text[1:])
    return bool(text) and (pattern[0] == "_" or pattern[0] == text[0]) and like(pattern[1:], text[1:])


def test_like_is_its_definition_for_all_short_patterns_and_texts():
    patterns = ["".join(signs) for length in range(5) for signs in product("ab%_", repeat=length)]
    texts = ["".join(signs) for length in range(5) for signs in product("ab", repeat=length)]
    for pattern in patterns:
        test = Like(LANG, pattern)
        assert [test.accepts(text) for text in texts] == [like(pattern, text) for text in texts], pattern


@settings(deadline=None)
@given(st.text("a%_\\\n.[", max_size=6), st.text("a%_\\\n.[", max_size=6))
def test_like_is_its_definition_for_signs_that_mean_something(pattern, text):
    assert Like(LANG, pattern).accepts(text) == like(pattern, text)


def test_the_grammar_in_the_documentation_names_every_word_of_the_language():
    page = (Path(__file__).parent.parent / "docs" / "filters.md").read_text("utf-8")
    for word in filters._WORDS:
        assert re.search(rf"\b{word}\b", page), word
    assert json.dumps(filters.MAX_DEPTH) in page
