import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex.errors import BadInput
from polylex.fusion import fuse, reciprocal_rank, weighted_sum

A = [("x", 9.0), ("y", 5.0), ("z", 1.0)]
B = [("z", 0.4), ("w", 0.2)]


def ids(ranking):
    return [document for document, _ in ranking]


# -- by ranks ----------------------------------------------------------------------------------------


def test_reciprocal_ranks_add_up():
    # x: 1/61, y: 1/62, z: 1/63 + 1/61, w: 1/62
    fused = reciprocal_rank([A, B])
    assert ids(fused) == ["z", "x", "y", "w"]  # y and w are equal; the first ranking goes first
    assert dict(fused) == pytest.approx({"z": 1 / 63 + 1 / 61, "x": 1 / 61, "y": 1 / 62, "w": 1 / 62}, rel=1e-15)


def test_a_smaller_constant_favours_the_first_ranks():
    # constant 0: x 1, y 1/2, z 1/3 + 1, w 1/2; with 1: x 1/2, z 1/4 + 1/2
    assert dict(reciprocal_rank([A, B], constant=0)) == pytest.approx({"z": 4 / 3, "x": 1, "y": 0.5, "w": 0.5})
    assert dict(reciprocal_rank([A, B], constant=1))["z"] == pytest.approx(3 / 4)


def test_weights_scale_what_a_ranking_adds():
    # x: 3/61 = .0492; z: 3/63 + 1/61 = .0640; y: 3/62 = .0484; w: 1/62 = .0161
    fused = reciprocal_rank([A, B], weights=[3, 1])
    assert ids(fused) == ["z", "x", "y", "w"]
    assert dict(fused)["z"] == pytest.approx(3 / 63 + 1 / 61)
    assert ids(reciprocal_rank([A, B], weights=[1, 0])) == ["x", "y", "z"]  # what weighs nothing brings nothing


def test_scores_do_not_matter_to_ranks():
    assert reciprocal_rank([[("x", 0.0), ("y", math.inf)], [("y", math.nan)]]) == reciprocal_rank(
        [[("x", 2.0), ("y", 1.0)], [("y", 1.0)]]
    )


# -- by scores ---------------------------------------------------------------------------------------


def test_minmax_spreads_each_ranking_from_0_to_1():
    # A: x (9 - 1) / 8 = 1, y 4 / 8 = .5, z 0; B: z 1, w 0
    assert weighted_sum([A, B], "minmax") == [("x", 1.0), ("z", 1.0), ("y", 0.5), ("w", 0.0)]
    assert weighted_sum([A, B], "minmax", weights=[1, 2])[0] == ("z", 2.0)


def test_sum_shares_1_out_over_what_is_above_the_lowest():
    # A: x 8 / 12, y 4 / 12, z 0; B: z 1, w 0
    fused = weighted_sum([A, B], "sum")
    assert ids(fused) == ["z", "x", "y", "w"]
    assert dict(fused) == pytest.approx({"z": 1, "x": 2 / 3, "y": 1 / 3, "w": 0})


def test_zscore_counts_standard_deviations_and_a_missing_document_like_the_lowest():
    # A: mean 5, variance (16 + 0 + 16) / 3, so x = 4 / sqrt(32 / 3) = 1.2247, y = 0, z = -1.2247; B: z 1, w -1
    fused = weighted_sum([A, B], "zscore")
    assert ids(fused) == ["x", "z", "y", "w"]
    assert dict(fused) == pytest.approx({"x": 1.5**0.5 - 1, "z": 1 - 1.5**0.5, "y": -1, "w": -1 - 1.5**0.5})


def test_equal_scores_of_one_ranking_stay_equal():
    same = [("x", 3.0), ("y", 3.0)]
    assert weighted_sum([same], "minmax") == [("x", 1.0), ("y", 1.0)]
    assert weighted_sum([same], "sum") == [("x", 0.5), ("y", 0.5)]
    assert weighted_sum([same], "zscore") == [("x", 0.0), ("y", 0.0)]
    assert weighted_sum([[], same], "zscore") == [("x", 0.0), ("y", 0.0)]


# -- runs --------------------------------------------------------------------------------------------


def test_runs_are_fused_query_by_query_and_one_may_lack_a_query():
    fused = fuse([{"q2": A, "q1": A}, {"q1": B, "q3": B}], k=2)
    assert list(fused) == ["q2", "q1", "q3"]
    assert {query: ids(ranking) for query, ranking in fused.items()} == {
        "q2": ["x", "y"],
        "q1": ["z", "x"],
        "q3": ["z", "w"],
    }
    assert ids(fuse([{"q1": A}, {"q1": B}], "minmax", weights=[0.1, 1])["q1"]) == ["z", "x", "y", "w"]
    assert fuse([{}, {}]) == {}


rankings = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.floats(-1e6, 1e6).map(lambda x: round(x, 3))),
        max_size=6,
        unique_by=lambda pair: pair[0],
    ).map(lambda pairs: sorted(pairs, key=lambda pair: -pair[1])),
    min_size=1,
    max_size=3,
)


@settings(deadline=None)
@given(rankings=rankings, method=st.sampled_from(["rrf", "minmax", "sum", "zscore"]))
def test_every_document_comes_out_once_by_falling_score(rankings, method):
    [(_, fused)] = fuse([{"q": ranking} for ranking in rankings], method).items()
    assert sorted(ids(fused)) == sorted({document for ranking in rankings for document, _ in ranking})
    assert all(first >= second for (_, first), (_, second) in pairwise(fused))


@settings(deadline=None)
@given(rankings=rankings, method=st.sampled_from(["minmax", "sum"]))
def test_scores_of_another_unit_fuse_the_same(rankings, method):
    scaled = [[(document, 8 * score + 1024) for document, score in ranking] for ranking in rankings]
    assert dict(weighted_sum(scaled, method)) == pytest.approx(dict(weighted_sum(rankings, method)), abs=1e-6)


def test_one_run_fused_alone_keeps_its_order():
    for method in ("rrf", "minmax", "sum", "zscore"):
        assert ids(fuse([{"q": A}], method)["q"]) == ["x", "y", "z"]


# -- what cannot be fused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fuse([{"q": A}], "borda"), "no method 'borda'; there are rrf, minmax, zscore, sum"),
        (lambda: fuse([{"q": A}], k=0), "k must be at least 1, got 0"),
        (lambda: fuse([{"q": A}, {"q": B}], weights=[1]), "1 weights for 2 runs"),
        (lambda: reciprocal_rank([A], weights=[-1]), r"weights must be numbers >= 0, not all of them 0, got \[-1\]"),
        (lambda: reciprocal_rank([A], weights=[0]), "not all of them 0"),
        (lambda: reciprocal_rank([A], weights=[math.nan]), "numbers >= 0"),
        (lambda: reciprocal_rank([A], constant=-1), "rank constant must be a number >= 0, got -1"),
        (lambda: reciprocal_rank([]), "one run at least"),
        (lambda: reciprocal_rank([[("x", 1.0), ("x", 0.5)]]), "ranks a document twice"),
        (lambda: weighted_sum([[("x", math.nan)]]), "cannot be normalised"),
        (lambda: weighted_sum([[("x", math.inf), ("y", 1.0)]], "zscore"), "cannot be normalised"),
        (lambda: weighted_sum([[("x", 1e308), ("y", -1e308)]], "sum"), "cannot be normalised"),
        (lambda: weighted_sum([A], "rrf"), "no normalisation 'rrf'; there are minmax, sum, zscore"),
    ],
)
def test_what_cannot_be_fused_is_told(call, message):
    with pytest.raises(BadInput, match=message):
        call()
