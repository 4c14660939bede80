import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylex.errors import BadInput
from polylex.prune import Pruning, mass, max_ratio, per_view, threshold, top_k
from polylex.vectors import SparseVectors


def one(terms: list[int], weights: list[float]) -> SparseVectors:
    return SparseVectors(np.array([0, len(terms)]), np.array(terms, "u4"), np.array(weights, "f4"), "v")


DOCUMENT = one([2, 5, 7, 9], [2, 1, 4, 3])


def test_mass_keeps_the_fewest_terms_that_reach_the_share():
    assert mass(DOCUMENT, 0.40).terms.tolist() == [7]  # 4 of 10 is exactly the share
    assert mass(DOCUMENT, 0.50).terms.tolist() == [7, 9]  # 4 + 3 = 7 of 10; 4 alone is short of 5
    assert mass(DOCUMENT, 0.75).terms.tolist() == [2, 7, 9]  # needs 7.5; 4 + 3 + 2 = 9
    assert mass(DOCUMENT, 1.00).terms.tolist() == [2, 5, 7, 9]


def test_top_k_keeps_the_heaviest_and_breaks_ties_by_the_smaller_id():
    assert top_k(DOCUMENT, 2).terms.tolist() == [7, 9]
    assert top_k(one([1, 2, 3], [1, 1, 1]), 2).terms.tolist() == [1, 2]
    assert top_k(DOCUMENT, 99).terms.tolist() == [2, 5, 7, 9]


def test_max_ratio_compares_with_the_heaviest_of_the_row():
    assert max_ratio(DOCUMENT, 0.5).terms.tolist() == [2, 7, 9]  # 2 is exactly half of 4
    assert max_ratio(DOCUMENT, 0.51).terms.tolist() == [7, 9]
    assert max_ratio(DOCUMENT, 1).terms.tolist() == [7]


def test_threshold_keeps_the_heaviest_of_a_row_that_lies_below():
    assert threshold(DOCUMENT, 3).terms.tolist() == [7, 9]
    assert threshold(DOCUMENT, 100).terms.tolist() == [7]


def test_rows_are_pruned_one_by_one_and_empty_rows_stay_empty():
    rows = SparseVectors(np.array([0, 0, 2, 2, 3]), np.array([1, 4, 0], "u4"), np.array([1, 9, 5], "f4"), "v")
    for pruned in (top_k(rows, 1), mass(rows, 0.5), max_ratio(rows, 0.9), threshold(rows, 4)):
        assert pruned.indptr.tolist() == [0, 0, 1, 1, 2]
        assert pruned.terms.tolist() == [4, 0]


def test_several_limits_keep_what_all_of_them_keep():
    assert Pruning(mass=0.75, top_k=2)(DOCUMENT).terms.tolist() == [7, 9]  # mass alone keeps three
    assert Pruning(mass=0.4, top_k=3)(DOCUMENT).terms.tolist() == [7]
    two = SparseVectors(
        np.array([0, 2, 6]), np.array([1, 2, 2, 5, 7, 9], "u4"), np.array([1, 1, 2, 1, 4, 3], "f4"), "v"
    )
    # row 0: mass keeps both, top_k one; row 1: mass keeps one, top_k one
    assert Pruning(mass=0.4, top_k=1)(two).terms.tolist() == [1, 7]
    # row 0: threshold 1 keeps both, mass .4 keeps one; row 1: threshold keeps four, mass one
    assert Pruning(mass=0.4, threshold=1.0)(two).terms.tolist() == [1, 7]
    # the stricter rule may differ by row: top_k 1 on row 0, max_ratio .9 on row 1 gives one; top_k 3 leaves row 0 whole
    assert Pruning(max_ratio=0.9, top_k=3)(two).terms.tolist() == [1, 2, 7]


def test_no_limit_changes_nothing_and_is_false():
    assert not Pruning()
    assert Pruning()(DOCUMENT) is DOCUMENT
    assert Pruning(top_k=3)


def test_views_have_their_own_budgets():
    pruned = per_view(DOCUMENT, 6, pivot=Pruning(top_k=1), source=Pruning(top_k=1))  # pivot ids 2 5, source ids 7 9
    assert pruned.terms.tolist() == [2, 7]
    assert per_view(DOCUMENT, 6, source=Pruning(top_k=1)).terms.tolist() == [2, 5, 7]


@pytest.mark.parametrize(
    ("rule", "limit", "legal"),
    [
        (top_k, 0, "at least 1"),
        (mass, 0, r"\(0, 1\]"),
        (mass, 1.5, r"\(0, 1\]"),
        (mass, float("nan"), r"\(0, 1\]"),
        (max_ratio, -0.1, r"\[0, 1\]"),
        (max_ratio, 1.1, r"\[0, 1\]"),
        (threshold, -1, "0 or more"),
        (threshold, float("nan"), "0 or more"),
    ],
)
def test_an_illegal_limit_is_refused_with_the_legal_range(rule, limit, legal):
    with pytest.raises(BadInput, match=legal):
        rule(DOCUMENT, limit)
    with pytest.raises(BadInput, match=legal):
        Pruning(**{rule.__name__: limit})


rows = st.lists(
    st.dictionaries(st.integers(0, 50), st.floats(0.0078125, 1000, width=32), max_size=20), min_size=1, max_size=6
)


def build(rows: list[dict[int, float]]) -> SparseVectors:
    return SparseVectors.from_rows(
        ((np.array(sorted(row), "u4"), np.array([row[t] for t in sorted(row)], "f4")) for row in rows), "v"
    )


@given(rows, st.floats(0.01, 1))
def test_mass_holds_its_share_and_one_term_fewer_would_not(rows, share):
    vectors = build(rows)
    pruned = mass(vectors, share)
    for index in range(len(vectors)):
        whole, kept = vectors.row(index)[1].astype("f8"), np.sort(pruned.row(index)[1].astype("f8"))
        if len(whole):
            assert kept.sum() >= share * whole.sum() * (1 - 1e-9)
            assert len(kept) == 1 or kept[1:].sum() < share * whole.sum() * (1 + 1e-9)


@given(rows, st.integers(1, 30), st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1e3))
def test_no_rule_ever_empties_a_vector_or_changes_a_weight(rows, k, share, ratio, weight):
    vectors = build(rows)
    for pruned in (
        top_k(vectors, k),
        mass(vectors, share),
        max_ratio(vectors, ratio),
        threshold(vectors, weight),
        Pruning(top_k=k, mass=share, max_ratio=ratio, threshold=weight)(vectors),
    ):
        for index in range(len(vectors)):
            before = dict(zip(*(a.tolist() for a in vectors.row(index)), strict=True))
            after = dict(zip(*(a.tolist() for a in pruned.row(index)), strict=True))
            assert bool(after) == bool(before)
            assert after.items() <= before.items()
            if after:  # what stays is never lighter than what goes
                gone = [w for t, w in before.items() if t not in after]
                assert min(after.values()) >= max(gone, default=0)
