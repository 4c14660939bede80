import errno
import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import bm25 as bm25_module
from polylex.bm25 import BM25
from polylex.errors import (
    BadInput,
    CorruptIndex,
    DuplicateId,
    IndexExists,
    IndexNotFound,
    MissingExtra,
    StorageFull,
    UnknownFormat,
)

TEXTS = ["red fish blue fish", "one fish", "red red red car", "", "!"]
IDS = ["f", "o", "c", "e", "p"]


@pytest.fixture
def fish():
    return BM25.build(IDS, TEXTS)


def by_definition(texts, query, k1=0.9, b=0.4):
    """The score of every document, straight from the formula."""
    split = [text.split() for text in texts]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for document in split:
        score = 0.0
        for word in query.split():
            having, count = sum(word in other for other in split), document.count(word)
            idf = math.log(1 + (len(split) - having + 0.5) / (having + 0.5))
            score += idf * count / (count + k1 * (1 - b + b * len(document) / mean)) if count else 0
        scores.append(score)
    return scores


def test_scores_are_those_worked_by_hand():
    # N = 2, mean length 1.5. fish: df 2, idf = ln(1 + .5 / 2.5) = .18232; tf 1 in both
    # a, two words: .18232 / (1 + .9 * (.6 + .4 * 2 / 1.5)) = .18232 / 2.02; b: .18232 / (1 + .9 * (.6 + .4 / 1.5))
    found = BM25.build(["a", "b"], ["one fish", "fish"]).search("fish")
    assert [id for id, _ in found] == ["b", "a"]
    assert [score for _, score in found] == pytest.approx([0.18232156 / 1.78, 0.18232156 / 2.02], rel=1e-6)


def test_a_query_counts_a_word_as_often_as_it_says_it(fish):
    once, twice = dict(fish.search("fish car")), dict(fish.search("fish fish car"))
    assert twice["o"] == pytest.approx(2 * once["o"])
    assert twice["c"] == pytest.approx(once["c"])


def test_only_documents_that_share_a_word_are_hits_ties_in_order_of_building():
    bm25 = BM25.build("abcdef", ["x y", "x y", "z", "x y", "x y", "x y"])
    assert [id for id, _ in bm25.search("x", k=3)] == ["a", "b", "d"]
    assert [id for id, _ in bm25.search("x", k=99)] == ["a", "b", "d", "e", "f"]
    assert bm25.search("nobody") == bm25.search("") == bm25.search("?!") == []


def test_allowed_says_which_may_be_hits(fish):
    assert [id for id, _ in fish.search("red fish", allowed=np.array([False, True, True, True, True]))] == ["c", "o"]
    assert fish.search("red fish", allowed=np.zeros(5, bool)) == []
    with pytest.raises(BadInput, match="each of 5 documents"):
        fish.search("red", allowed=np.ones(4, bool))


def test_languages_stem_documents_and_queries():
    german = BM25.build(["1", "2"], ["Die Männer heirateten", "Der Fisch"], "de")
    assert german.search("heiraten") == []
    assert [id for id, _ in german.search("heiraten", language="de")] == ["1"]
    mixed = BM25.build(["1", "2"], ["men married", "Männer heirateten"], ["en", "de"])
    assert [id for id, _ in mixed.search("marrying", language="en")] == ["1"]


def test_pairs_of_characters_find_words_inside_of_unspaced_text():
    bm25 = BM25.build(["ja", "zh"], ["誰が結婚できますか", "任何人都有权接受教育"])
    assert [id for id, _ in bm25.search("結婚")] == ["ja"]
    assert [id for id, _ in bm25.search("教育权")] == ["zh"]


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(words, min_size=1, max_size=12), query=words, k=st.integers(1, 12))
def test_a_ranking_is_that_of_the_definition(texts, query, k):
    bm25 = BM25.build([str(row) for row in range(len(texts))], texts)
    scores = by_definition(texts, query) if any(texts) else [0.0] * len(texts)
    assert bm25.scores(query).tolist() == pytest.approx(scores, rel=1e-5)
    found = bm25.search(query, k)
    assert len(found) == min(k, sum(score > 0 for score in scores))
    assert [score for _, score in found] == pytest.approx(sorted(scores, reverse=True)[: len(found)], rel=1e-5)
    float32 = bm25.scores(query)
    assert [id for id, _ in found] == [str(r) for r in sorted(range(len(texts)), key=lambda r: (-float32[r], r))][
        : len(found)
    ]


# -- on disk -----------------------------------------------------------------------------------------


def test_a_loaded_index_answers_as_the_one_that_was_saved(fish, tmp_path):
    fish.settings = {"of": "fish"}
    fish.save(tmp_path / "b")
    loaded = BM25.load(tmp_path / "b")
    assert (list(loaded.ids), loaded.settings, len(loaded)) == (IDS, {"of": "fish"}, 5)
    for query in ("red fish", "car", "", "unknown"):
        assert loaded.search(query) == fish.search(query)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_bm25s_itself_opens_the_folder(fish, tmp_path):
    import bm25s

    fish.save(tmp_path / "b")
    scores = bm25s.BM25.load(tmp_path / "b").get_scores(["red", "fish"])
    assert scores.tolist() == fish.scores("red fish").tolist()


@pytest.mark.parametrize("texts", [[], [""], ["?", "!"]])
def test_documents_without_a_word_are_indexed_too(texts, tmp_path):
    bm25 = BM25.build([str(row) for row in range(len(texts))], texts)
    bm25.save(tmp_path / "b")
    for each in (bm25, BM25.load(tmp_path / "b")):
        assert (each.search("fish"), len(each)) == ([], len(texts))


def test_a_folder_is_replaced_only_if_asked_and_only_if_it_is_one_of_ours(fish, tmp_path):
    fish.save(tmp_path / "b")
    with pytest.raises(IndexExists):
        fish.save(tmp_path / "b")
    BM25.build(["x"], ["new"]).save(tmp_path / "b", overwrite=True)
    assert BM25.load(tmp_path / "b").search("new")[0][0] == "x"
    (tmp_path / "other").mkdir()
    with pytest.raises(IndexExists):
        fish.save(tmp_path / "other", overwrite=True)


def test_a_save_on_a_full_disk_leaves_what_was_there(fish, tmp_path, monkeypatch):
    BM25.build(["x"], ["new"]).save(tmp_path / "b")

    def full(handle):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(bm25_module.os, "fsync", full)
    with pytest.raises(StorageFull):
        fish.save(tmp_path / "b", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert BM25.load(tmp_path / "b").ids == ["x"]


def test_damage_is_told_on_loading_or_searching(fish, tmp_path):
    with pytest.raises(IndexNotFound, match="no BM25 index"):
        BM25.load(tmp_path / "none")
    fish.save(tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        whole = file.read_bytes()
        for damaged in (b"", whole[:-1], whole + b"x", b"\xff" * len(whole), None):
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            with pytest.raises((CorruptIndex, IndexNotFound)):
                BM25.load(tmp_path / "b").search("red fish")
        file.write_bytes(whole)
    manifest = tmp_path / "b" / "polylex.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 2}))
    with pytest.raises(UnknownFormat, match="'polylex-bm25' 2"):
        BM25.load(tmp_path / "b")


# -- what cannot be indexed --------------------------------------------------------------------------


def test_arguments_that_cannot_be_used_are_told(fish):
    with pytest.raises(DuplicateId, match="'x'"):
        BM25.build(["x", "x"], ["a", "b"])
    with pytest.raises(BadInput, match="2 ids for 1 texts"):
        BM25.build(["x", "y"], ["a"])
    with pytest.raises(BadInput, match="1 texts"):
        BM25.build(["x", "y"], ["a", "b"], ["de"])
    with pytest.raises(BadInput, match="k1 must be >= 0"):
        BM25.build(["x"], ["a"], b=2)
    with pytest.raises(BadInput, match="k must be at least 1"):
        fish.search("red", k=0)


def test_without_its_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtra, match=r"polylex\[hybrid\]"):
        BM25.build(["x"], ["a"])
