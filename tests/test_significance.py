"""Paired tests, worked by hand or read from printed tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylex.errors import BadInput
from polylex.evaluation import Evaluation
from polylex.significance import bootstrap, compare, holm, randomisation, student_tail, t_test


def evaluation(values, measure="nDCG@10", queries=None):
    queries = queries or tuple(f"q{row}" for row in range(len(values)))
    column = np.array(values, np.float64)[:, None]
    return Evaluation((measure,), queries, ("",) * len(queries), column, (), ())


# -- Student's t -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "t"),
    # Two-sided 5 % points as every printed table has them, to four digits.
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (29, 2.0452), (120, 1.9799)],
)
def test_the_five_per_cent_points_are_those_of_the_tables(freedom, t):
    assert student_tail(t, freedom) == pytest.approx(0.05, abs=1e-5)


def test_one_and_two_degrees_of_freedom_have_closed_forms():
    assert student_tail(1.0, 1) == pytest.approx(0.5)  # 1 - 2/pi atan(1)
    assert student_tail(1.0, 2) == pytest.approx(1 - 1 / 3**0.5)  # 1 - t / sqrt(2 + t^2)


def test_many_degrees_of_freedom_are_the_normal_distribution():
    assert student_tail(1.959964, 1_000_000) == pytest.approx(0.05, abs=1e-6)
    assert student_tail(0.0, 14_279) == 1.0


def test_a_t_far_out_is_zero_and_nonsense_is_refused():
    assert student_tail(1e9, 30) == 0.0
    with pytest.raises(BadInput, match="degrees of freedom"):
        student_tail(1.0, 0)
    with pytest.raises(BadInput, match="at least 0"):
        student_tail(float("nan"), 3)


def test_the_t_test_of_five_differences_worked_by_hand():
    # mean 3, squared distances 4 + 1 + 0 + 1 + 4 = 10, variance 2.5, error sqrt(2.5 / 5) = .7071, t = 4.2426;
    # for 4 degrees p = 1 - sin(1 + cos^2 / 2) with tan = t / 2: cos^2 = 1 / 5.5, sin = sqrt(4.5 / 5.5) -> 0.01324
    expected = 1 - (4.5 / 5.5) ** 0.5 * (1 + 1 / 11)
    assert t_test(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(expected)
    assert expected == pytest.approx(0.0132, abs=5e-5)


def test_no_difference_says_nothing_and_a_constant_one_everything():
    assert t_test(np.zeros(9)) == 1.0
    assert t_test(np.array([0.5])) == 1.0
    assert t_test(np.full(9, 0.25)) == 0.0


# -- randomisation -----------------------------------------------------------------------------------


def test_few_differences_try_every_sign():
    # |sum| = 6 only for +++ and ---: 2 of 8
    assert randomisation(np.array([1.0, 2.0, 3.0])) == 0.25
    # sums: 3 1 1 -1 1 -1 -1 -3; |sum| >= 1 always
    assert randomisation(np.array([1.0, 1.0, -1.0])) == 1.0
    # queries without a difference change nothing
    assert randomisation(np.array([1.0, 0.0, 2.0, 0.0, 3.0])) == 0.25


def test_signs_at_random_come_near_to_all_signs():
    differences = np.array([0.4, -0.1, 0.3, 0.2, 0.25, -0.05, 0.1, 0.5, 0.05, 0.3, -0.2, 0.15, 0.1, 0.02, 0.2, -0.3])
    exact = randomisation(differences)
    more = np.concatenate([differences, [1e-9]])  # one more that moves: now drawn at random
    assert randomisation(more, draws=20_000, seed=3) == pytest.approx(exact, abs=0.01)


def test_a_random_p_is_never_zero_and_the_seed_fixes_it():
    sure = np.full(40, 1.0)
    assert randomisation(sure, draws=999) == pytest.approx(1 / 1000)
    mixed = np.random.default_rng(5).normal(0.1, 1, 60)
    assert randomisation(mixed, seed=1) == randomisation(mixed, seed=1)
    with pytest.raises(BadInput, match="draws"):
        randomisation(sure, draws=0)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=10))
def test_swapping_the_systems_changes_no_p(values):
    differences = np.array(values)
    assert randomisation(differences) == pytest.approx(randomisation(-differences))
    assert t_test(differences) == pytest.approx(t_test(-differences))


# -- bootstrap ---------------------------------------------------------------------------------------


def test_equal_differences_leave_the_interval_no_width():
    low, high, p = bootstrap(np.full(20, 0.125), draws=499)
    assert (low, high) == (0.125, 0.125)
    assert p == pytest.approx(1 / 500)


def test_two_differences_are_drawn_in_four_ways():
    # means 0, .5, .5, 1 with the same chance: the middle half is around .5, the ends are the ends
    low, high, p = bootstrap(np.array([0.0, 1.0]), draws=20_000)
    assert (low, high) == (0.0, 1.0)
    assert p == pytest.approx(0.5, abs=0.02)  # |mean - .5| >= .5 for 0 and 1


def test_the_interval_narrows_with_the_level():
    differences = np.random.default_rng(0).normal(0.2, 0.3, 100)
    low, high, _ = bootstrap(differences)
    inner_low, inner_high, _ = bootstrap(differences, level=0.5)
    assert low < inner_low < differences.mean() < inner_high < high


# -- Holm --------------------------------------------------------------------------------------------


def test_holm_worked_by_hand():
    # sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04 -> never falling: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(values):
    adjusted = holm(values)
    assert all(value <= corrected <= 1 for value, corrected in zip(values, adjusted, strict=True))
    assert sorted(range(len(values)), key=lambda at: (values[at], at)) == sorted(
        range(len(values)), key=lambda at: (adjusted[at], values[at], at)
    )


# -- two evaluations ---------------------------------------------------------------------------------


def test_queries_are_paired_by_id_whatever_their_order():
    first = evaluation([1.0, 0.0, 0.5], queries=("a", "b", "c"))
    second = evaluation([0.5, 0.5, 0.0], queries=("c", "a", "b"))
    found = compare(first, second, "nDCG@10", draws=99)
    assert found.difference == pytest.approx((0.5 + 0.0 + 0.0) / 3)  # a 1 - .5, b 0 - 0, c .5 - .5
    assert (found.wins, found.losses, found.queries) == (1, 0, 3)


def test_other_queries_or_measures_are_refused():
    with pytest.raises(BadInput, match="'q2'"):
        compare(evaluation([1.0, 0.0, 0.0]), evaluation([1.0, 0.0]), "nDCG@10")
    with pytest.raises(BadInput, match="AP was not measured; there are nDCG@10"):
        compare(evaluation([1.0]), evaluation([1.0]), "AP")
