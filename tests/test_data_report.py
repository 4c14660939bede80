import json

from polylex.train.data import Group, Pair
from polylex.train.report import Lengths, report

PAIRS = [Pair("aa", "bbbb", "sw", "news-2020"), Pair("aaaa", "b", "zu", "news-2021"), Pair("a", "b", "sw", "web")]
GROUPS = [Group("q", ("pp", "ppp"), ("n",), language="sw", source="web")]


def test_lengths_are_in_characters():
    assert Lengths.of(["a", "bb", "cccc"]) == Lengths(texts=3, median=2, p95=3, longest=4)
    assert Lengths.of([]) == Lengths(0, 0, 0, 0)


def test_rows_are_counted_by_language_source_and_licence():
    part = report({"pairs": PAIRS}, licences={"news-*": "CC-BY-4.0", "*-2021": "never reached"}).parts["pairs"]
    assert part.rows == 3
    assert list(part.languages.items()) == [("sw", 2), ("zu", 1)]
    assert part.licences == {"CC-BY-4.0": 2, "unstated": 1}
    assert part.lengths["english"].longest == 4


def test_groups_count_their_kinds_of_texts_apart():
    lengths = report({"groups": GROUPS}).parts["groups"].lengths
    assert {kind: found.texts for kind, found in lengths.items()} == {"query": 1, "positive": 2, "negative": 1}


def test_the_report_is_markdown_and_json_and_names_what_was_dropped():
    told = report(
        {"pairs": PAIRS}, dropped={"pairs": {"gone": {"source": 5}, "web": {"exact": 2}}}, licences={"*": "CC0"}
    )
    markdown = told.as_markdown()
    assert "| web | 1 | 2 exact | CC0 |" in markdown and "| gone | 0 | 5 source |  |" in markdown
    assert "Languages: sw 2, zu 1" in markdown
    assert json.loads(json.dumps(told.as_json()))["parts"]["pairs"]["rows"] == 3
    assert told.summary() == "pairs: 3 rows, 2 languages, 3 sources, 7 dropped, 0 of unstated licence"
