import gzip
import json

import pytest

from polylex.collection import read_beir
from polylex.errors import BadInput
from polylex.train.data import Group, Pair, read_groups, read_pairs
from polylex.train.exclusion import Exclusion
from polylex.train.prepare import (
    groups_of_collection,
    groups_of_pairs,
    pairs_of_parallel_text,
    screen,
    texts_of,
    write_rows,
)


def beir(folder):
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        '{"_id": "a", "title": "Nairobi", "text": "is the capital."}\n{"_id": "b", "text": "Mombasa is a port."}\n'
        '{"_id": "c", "title": null, "text": "Kisumu lies at a lake."}\n'
    )
    (folder / "queries.jsonl").write_text(
        '{"_id": "1", "text": "capital of Kenya", "lang": "en"}\n{"_id": "2", "text": "unjudged"}\n'
        '{"_id": "3", "text": "nothing answers"}\n'
    )
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t0\n1\tc\t1\n3\tb\t0\n")
    return folder


def test_line_aligned_files_become_pairs_without_blank_and_lopsided_lines(tmp_path):
    (tmp_path / "en").write_text("Good morning.\n\nYes\nFour words stand here.\n")
    with gzip.open(tmp_path / "sw.gz", "wt") as file:
        file.write("Habari za asubuhi.\nkitu\nNdiyo, bila shaka yoyote ile\nManeno manne yako hapa.\n")
    made = list(pairs_of_parallel_text(tmp_path / "en", tmp_path / "sw.gz", language="sw", source="news"))
    assert made == [
        Pair("Good morning.", "Habari za asubuhi.", "sw", "news"),
        Pair("Four words stand here.", "Maneno manne yako hapa.", "sw", "news"),
    ]


def test_files_of_different_lengths_are_not_parallel(tmp_path):
    (tmp_path / "en").write_text("one\ntwo\n")
    (tmp_path / "sw").write_text("moja\n")
    with pytest.raises(BadInput, match=r"en has more lines than .*sw, which ends before line 2"):
        list(pairs_of_parallel_text(tmp_path / "en", tmp_path / "sw", language="sw"))


def test_a_missing_file_and_an_impossible_ratio_are_refused(tmp_path):
    (tmp_path / "en").write_text("one\n")
    with pytest.raises(BadInput, match="sw does not exist"):
        list(pairs_of_parallel_text(tmp_path / "en", tmp_path / "sw", language="sw"))
    with pytest.raises(BadInput, match=r"max_ratio must be at least 1, got 0\.5"):
        list(pairs_of_parallel_text(tmp_path / "en", tmp_path / "sw", language="sw", max_ratio=0.5))


def test_a_collection_becomes_groups_of_graded_documents(tmp_path):
    collection = read_beir(beir(tmp_path / "kenya"), "train")
    first = Group(
        "capital of Kenya", ("Nairobi is the capital.", "Kisumu lies at a lake."), ("Mombasa is a port.",),
        language="en", source="kenya",
    )  # fmt: skip
    assert list(groups_of_collection(collection)) == [first]  # query 3 has no answer, query 2 no judgment
    (strict,) = groups_of_collection(collection, source="s", min_grade=2)
    assert (strict.positives, strict.negatives, strict.source) == (first.positives[:1], first.negatives, "s")


def test_every_text_of_a_collection_is_excluded(tmp_path):
    texts = list(texts_of(read_beir(beir(tmp_path / "kenya"), "train")))
    assert texts[0] == "Nairobi is the capital." and texts[-1] == "nothing answers" and len(texts) == 6


def test_a_pair_is_a_group_whose_document_is_the_english_side():
    assert list(groups_of_pairs([Pair("Yes.", "Ndiyo.", "sw", "x")])) == [
        Group("Ndiyo.", ("Yes.",), language="sw", source="x")
    ]


LEAK = "a question of the test set"


def test_screening_drops_rows_and_says_why():
    pairs = [
        Pair("fine", "sawa", "sw", "good"),
        Pair(LEAK, "swali", "sw", "good"),
        Pair("word", f"{LEAK}!", "sw", "good"),
        Pair("fine", "sawa", "sw", "good"),
        Pair(" ", "tupu", "sw", "good"),
        Pair("free", "bure", "sw", "unlicensed"),
    ]
    screened = screen(pairs, Exclusion.of([LEAK]), without=["unlicensed"])
    assert screened.rows == pairs[:1]
    assert screened.dropped == {"good": {"exact": 2, "twice": 1, "empty": 1}, "unlicensed": {"source": 1}}


def test_a_leaking_negative_goes_alone_and_takes_its_score_along():
    group = Group("q", ("p",), ("n", LEAK, "m"), (1.0,), (0.3, 0.2, 0.1), "en", "s")
    screened = screen([group], Exclusion.of([LEAK]))
    assert screened.rows == [Group("q", ("p",), ("n", "m"), (1.0,), (0.3, 0.1), "en", "s")]
    assert screened.dropped == {"s": {"negative": 1}}


def test_a_leaking_query_or_positive_drops_the_group():
    groups = [Group(LEAK, ("p",), source="s"), Group("q", ("p", LEAK), source="s")]
    assert screen(groups, Exclusion.of([LEAK])).dropped == {"s": {"exact": 2}}


def test_without_an_exclusion_only_empty_and_repeated_rows_go():
    rows = [Group("q", ("p",)), Group("q", ("p",)), Group("q", ("",))]
    assert screen(rows, None).rows == rows[:1]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2"])
def test_rows_that_are_written_are_read_again(tmp_path, suffix):
    pairs = [Pair("Straße", "вулиця", "uk", "s"), Pair("no source", "bila", "x", "")]
    assert write_rows(tmp_path / f"x.jsonl{suffix}", pairs) == 2
    assert list(read_pairs(tmp_path / f"x.jsonl{suffix}")) == pairs
    groups = [Group("q", ("p",), ("n",), (1.5,), (-2.0,), "en", "s"), Group("r", ("p",), (), (), (), "", "")]
    write_rows(tmp_path / f"g.jsonl{suffix}", groups)
    assert list(read_groups(tmp_path / f"g.jsonl{suffix}")) == groups


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    def broken():
        yield Pair("a", "b")
        raise BadInput("the source broke off")

    (tmp_path / "rows.jsonl").write_text(json.dumps({"english": "old", "non_english": "kale"}) + "\n")
    with pytest.raises(BadInput, match="broke off"):
        write_rows(tmp_path / "rows.jsonl", broken())
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert next(read_pairs(tmp_path / "rows.jsonl")).english == "old"
