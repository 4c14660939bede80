"""Caches, sampling, batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import toy_training as toy  # noqa: E402

from polylex.errors import BadInput, BadRecord, VocabMismatch  # noqa: E402
from polylex.text import Preparation  # noqa: E402
from polylex.train.batches import (  # noqa: E402
    Feed,
    Frame,
    Position,
    Sampler,
    Texts,
    chunked,
    cut_by_tokens,
    slices,
    stratum_weights,
)
from polylex.train.data import (  # noqa: E402
    Group,
    Groups,
    Pair,
    Pairs,
    TokenCache,
    Tokenization,
    read_groups,
    read_pairs,
)

ENGLISH = [f"en{i}" for i in range(toy.WORDS)]


# -- JSONL -------------------------------------------------------------------------------------------


def test_pairs_take_their_language_from_the_record_or_the_file(tmp_path):
    path = toy.write_jsonl(
        tmp_path / "de.jsonl",
        [{"english": "a", "non_english": "b"}, {"english": "c", "non_english": "d", "lang": "fr", "source": "s"}],
    )
    assert list(read_pairs(path)) == [Pair("a", "b", "de", ""), Pair("c", "d", "fr", "s")]


def test_groups_keep_scores_where_there_are_some(tmp_path):
    path = toy.write_jsonl(
        tmp_path / "g.jsonl",
        [{"query": "q", "pos": ["a"], "neg": ["b", "c"], "pos_scores": [2], "neg_scores": [1, 0.5]},
         {"query": "q", "pos": ["a"], "neg": []}],
    )  # fmt: skip
    scored, bare = read_groups(path)
    assert scored == Group("q", ("a",), ("b", "c"), (2.0,), (1.0, 0.5))
    assert bare == Group("q", ("a",))


@pytest.mark.parametrize(
    ("read", "line", "told"),
    [
        (read_pairs, "{", r"x.jsonl:2: not JSON"),
        (read_pairs, "[1]", r"x.jsonl:2: expected an object, got list"),
        (read_pairs, '{"english": null, "non_english": "a"}', "'english' must be a text"),
        (read_groups, '{"query": "q", "pos": []}', "'pos' is empty"),
        (read_groups, '{"query": "q", "pos": "a"}', "'pos' must be a list"),
        (
            read_groups,
            '{"query": "q", "pos": ["a"], "neg": ["b"], "neg_scores": [1, 2]}',
            "one finite number for each of 1",
        ),
        (read_groups, '{"query": "q", "pos": ["a"], "neg": ["b"], "neg_scores": [NaN]}', "one finite number"),
    ],
)
def test_a_bad_line_is_named(tmp_path, read, line, told):
    path = tmp_path / "x.jsonl"
    good = '{"english": "a", "non_english": "b"}' if read is read_pairs else '{"query": "q", "pos": ["a"]}'
    path.write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(BadRecord, match=told):
        list(read(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no\.jsonl does not exist"):
        list(read_pairs(tmp_path / "no.jsonl"))


# -- token caches ------------------------------------------------------------------------------------


@given(texts=st.lists(st.lists(st.sampled_from(ENGLISH), max_size=5).map(" ".join), max_size=8))
def test_a_cache_gives_back_the_tokens_of_every_text(tmp_path_factory, texts):
    by = Tokenization(toy.english_tokens())
    cache = TokenCache.write(tmp_path_factory.mktemp("c") / "x.tokens", texts, by)
    assert len(cache) == len(texts)
    assert [cache[i].tolist() for i in range(len(texts))] == by(texts)
    assert cache.lengths.tolist() == [len(text.split()) for text in texts]
    assert (cache.head, cache.tail) == ((1,), (2,))


def test_a_cache_of_another_tokenizer_or_prompt_is_refused(tmp_path):
    by = Tokenization(toy.english_tokens())
    cache = TokenCache.write(tmp_path / "x.tokens", ["en1"], by)
    cache.require(by, "x")
    for other in (Tokenization(toy.student_tokens()), Tokenization(toy.english_tokens(), Preparation(lowercase=True))):
        with pytest.raises(VocabMismatch, match="x was tokenised by"):
            cache.require(other, "x")


def test_a_damaged_cache_is_named(tmp_path):
    path = tmp_path / "x.tokens"
    TokenCache.write(path, ["en1 en2"], Tokenization(toy.english_tokens()))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadInput, match=r"x\.tokens is damaged"):
        TokenCache.open(path)


def test_pairs_are_stored_by_stratum_in_their_order(tmp_path):
    rows = [Pair("en1", "zh1", "zh", "b"), Pair("en2", "de2", "de", "a"), Pair("en3", "zh3", "zh", "b")]
    pairs = toy.pairs(tmp_path / "p", rows)
    assert pairs.strata == (("de", "a"), ("zh", "b"))
    assert pairs.stratum.tolist() == [0, 1, 1]
    assert [pairs.english[i].tolist() for i in range(3)] == [[4 + 2], [4 + 1], [4 + 3]]
    assert [pairs.teacher[i].tolist() for i in range(3)] == [[4 + 2], [4 + 1], [4 + 3]]
    assert pairs.other[0].tolist() == [4 + toy.WORDS + 2]


def test_groups_store_each_text_one_time_and_vectors_beside_it(tmp_path):
    rows = [Group("de1", ("zh1",), ("zh2",)), Group("de1", ("zh2",), ("zh1", "zh3"), (), (1.0, 2.0))]
    groups = toy.groups(tmp_path / "g", rows)
    assert list(Groups.texts(tmp_path / "g", "queries")) == ["de1"]
    assert list(Groups.texts(tmp_path / "g", "documents")) == ["zh1", "zh2", "zh3"]
    assert groups.query.tolist() == [0, 0]
    assert groups.positives.tolist() == [0, 1] and groups.negatives.tolist() == [1, 0, 2]
    assert groups.negative_indptr.tolist() == [0, 1, 3]
    assert np.isnan(groups.negative_scores[0]) and groups.negative_scores[1:].tolist() == [1.0, 2.0]
    assert groups.document_vectors.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(groups.document_vectors.astype(float), axis=1), 1, atol=1e-3)


def test_no_rows_at_all_are_refused(tmp_path):
    by = Tokenization(toy.student_tokens())
    with pytest.raises(BadInput, match="no pairs"):
        Pairs.write(tmp_path, [], by)
    with pytest.raises(BadInput, match="no groups"):
        Groups.write(tmp_path, [], query=by, document=by)


# -- sampling ----------------------------------------------------------------------------------------

STRATA = (("de", "a"), ("de", "b"), ("zh", "a"))


def test_stratum_weights_by_hand():
    sizes = [60, 30, 10]
    assert stratum_weights(sizes, STRATA) == pytest.approx([0.6, 0.3, 0.1])
    # languages 90 and 10 at temperature 2: 9.487 and 3.162, i.e. 3 : 1
    assert stratum_weights(sizes, STRATA, language_temperature=2) == pytest.approx([0.5, 0.25, 0.25])
    flat = stratum_weights([64, 16, 20], STRATA, source_temperature=2)
    assert flat == pytest.approx([0.8 * 8 / 12, 0.8 * 4 / 12, 0.2])
    without = stratum_weights(sizes, STRATA, source_weights={"b": 0})
    assert without == pytest.approx([60 / 70, 0, 10 / 70])
    with pytest.raises(BadInput, match="'c', no source"):
        stratum_weights(sizes, STRATA, source_weights={"c": 1})
    with pytest.raises(BadInput, match="no row to train on"):
        stratum_weights(sizes, STRATA, source_weights={"a": 0, "b": 0})


def test_a_stratum_repeats_no_row_before_it_is_used_up():
    stratum = np.repeat([0, 1, 2], [60, 30, 10]).astype(np.uint32)
    sampler = Sampler(stratum, np.array([0.25, 0.25, 0.5]), seed=1)
    drawn = np.concatenate([sampler.window(w, 16) for w in range(20)])
    for number, (first, last, share) in enumerate([(0, 60, 0.25), (60, 90, 0.25), (90, 100, 0.5)]):
        mine = drawn[stratum[drawn] == number]
        assert abs(len(mine) - 320 * share) <= 1
        for start in range(0, len(mine) - (last - first) + 1, last - first):
            assert len(set(mine[start : start + last - first])) == last - first


def test_a_window_depends_on_its_number_and_the_seed_only():
    stratum = np.repeat([0, 1], [50, 7]).astype(np.uint32)
    weights = np.array([0.5, 0.5])
    walked = Sampler(stratum, weights, 3)
    passed = [walked.window(w, 20).tolist() for w in range(6)]
    assert Sampler(stratum, weights, 3).window(5, 20).tolist() == passed[5]
    assert Sampler(stratum, weights, 4).window(5, 20).tolist() != passed[5]


@given(
    lengths=st.lists(st.integers(1, 60), max_size=40).map(sorted),
    tokens=st.integers(0, 200),
    most=st.integers(1, 12),
    world=st.integers(1, 3),
)
def test_batches_keep_the_token_budget_and_lose_no_row(lengths, tokens, most, world):
    lengths = np.array(lengths, np.int64)
    batches = cut_by_tokens(lengths, tokens, max(most, world), world)
    assert [a for a, _ in batches] == [0, *(b for _, b in batches)][: len(batches)]  # one after the other
    assert len(lengths) - (batches[-1][1] if batches else 0) < world  # at most a rank's share is left over
    for a, b in batches:
        assert (b - a) % world == 0 and 0 < b - a <= max(most, world)
        if tokens and b - a > world:
            assert (b - a) * lengths[a:b].max() <= tokens


# -- padding -----------------------------------------------------------------------------------------

FRAME = Frame((1,), (2,), 0)


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=30), budget=st.integers(1, 200))
def test_chunks_hold_every_text_one_time_framed_and_within_budget(lengths, budget):
    ids = np.arange(100, 100 + sum(lengths), dtype=np.uint32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    chunks = chunked(Texts(ids, np.array(lengths, np.int64)), FRAME, budget)
    assert sorted(torch.cat([c.rows for c in chunks]).tolist()) == list(range(len(lengths)))
    for chunk in chunks:
        batch = chunk.batch
        assert len(chunk.rows) == 1 or batch.ids.numel() <= budget
        assert batch.ids.shape[1] % 8 == 0
        for row, text in enumerate(chunk.rows.tolist()):
            expected = ids[starts[text] : starts[text + 1]].tolist()
            assert batch.ids[row][batch.real[row]].tolist() == [1, *expected, 2]
            assert batch.ids[row][batch.content[row]].tolist() == expected
            assert (batch.ids[row][~batch.real[row]] == 0).all()


def test_a_slice_over_several_rows_is_one_longer_text(tmp_path):
    cache = TokenCache.write(tmp_path / "x", ["en1 en2", "en3", "en4 en5"], Tokenization(toy.english_tokens()))
    texts = slices(cache, np.array([0, 2, 1]), np.array([2, 3, 1]), 3)
    assert texts.lengths.tolist() == [3, 2, 0]
    assert texts.ids.tolist() == [5, 6, 7, 8, 9]
    assert slices(cache, np.array([0]), np.array([3]), 2).ids.tolist() == [5, 6]


# -- background --------------------------------------------------------------------------------------


def plan(window):
    return [] if window % 3 == 2 else [(window, i) for i in range(window % 3 + 2)]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_feed_continues_exactly_where_it_stood(threads):
    feed = iter(Feed(plan, lambda item: item, Position(), threads))
    seen = [next(feed) for _ in range(12)]
    feed.close()
    assert [item for _, item in seen][:6] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (3, 0)]
    for index in range(11):
        again = iter(Feed(plan, lambda item: item, seen[index][0], threads))
        assert next(again)[1] == seen[index + 1][1]
        again.close()


def test_a_feed_that_never_gives_a_batch_says_so():
    with pytest.raises(BadInput, match="fewer rows than processes"):
        next(iter(Feed(lambda window: [], lambda item: item, Position(), 1)))


def test_a_fault_in_a_thread_reaches_the_caller():
    def build(item):
        raise BadInput("broken row")

    with pytest.raises(BadInput, match="broken row"):
        next(iter(Feed(plan, build, Position(), 2)))
