"""Measures of a run, worked by hand: DCG = sum of grade / log2(rank + 1), nDCG = DCG / ideal DCG."""

import sys
from math import log2

import pytest

from polylex.errors import BadInput, MissingExtra
from polylex.evaluation import evaluate

pytest.importorskip("ir_measures")

NDCG = "nDCG@10"


def run_of(**rankings):
    """Documents named by one letter each, best first, all with the same score."""
    return {query: [(document, 1.0) for document in ranking] for query, ranking in rankings.items()}


def score(ranking, judged, measure=NDCG):
    return evaluate(run_of(q=ranking), {"q": judged}, [measure]).mean()[measure]


# -- values worked by hand ---------------------------------------------------------------------------


def test_the_one_relevant_document_counts_by_its_rank():
    assert score("a", {"a": 1}) == 1.0
    assert score("ba", {"a": 1}) == pytest.approx(1 / log2(3), abs=1e-9)  # rank 2: 0.6309
    assert score("bca", {"a": 1}) == pytest.approx(0.5, abs=1e-9)  # rank 3: 1 / log2(4)
    assert score("bcdefgha", {"a": 1}) == pytest.approx(1 / log2(9), abs=1e-9)  # rank 8: 0.3155


def test_rank_ten_counts_and_rank_eleven_does_not():
    assert score("bcdefghija", {"a": 1}) == pytest.approx(1 / log2(11), abs=1e-9)  # 0.2891
    assert score("bcdefghijka", {"a": 1}) == 0.0


def test_the_ideal_holds_all_relevant_documents_also_those_never_found():
    # found at ranks 1 and 3: 1 + 1/2 = 1.5; ideal of three: 1 + 1/log2(3) + 1/2 = 2.1309
    assert score("axb", {"a": 1, "b": 1, "c": 1}) == pytest.approx(1.5 / (1.5 + 1 / log2(3)), abs=1e-9)


def test_the_ideal_is_cut_at_ten_as_the_run_is():
    assert score("abcdefghij", dict.fromkeys("abcdefghijkl", 1)) == pytest.approx(1.0, abs=1e-9)


def test_grades_weigh_linearly():
    # grades 1 then 3: 1 + 3/log2(3) = 2.8928; ideal 3 + 1/log2(3) = 3.6309; ratio 0.7967
    assert score("ab", {"a": 1, "b": 3}) == pytest.approx((1 + 3 / log2(3)) / (3 + 1 / log2(3)), abs=1e-9)
    assert score("ab", {"a": 1, "b": 3}) == pytest.approx(0.7967, abs=5e-5)


def test_a_document_judged_not_relevant_counts_like_one_not_judged():
    assert score("ba", {"a": 1, "b": 0}) == score("xa", {"a": 1})


def test_recall_is_the_share_of_the_relevant_that_was_found():
    assert score("axb", {"a": 1, "b": 1, "c": 1, "d": 2}, "R@100") == 0.5
    assert score("axb", {"a": 1, "b": 1, "c": 1, "d": 2}, "R@2") == 0.25


# -- what is counted ---------------------------------------------------------------------------------


def test_a_query_without_documents_scores_zero_and_is_counted():
    judgments = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}, "q4": {"a": 1}}
    evaluation = evaluate(run_of(q1="a", q2="ba", q3="") | {"q9": [("a", 1.0)]}, judgments, [NDCG])
    assert evaluation.queries == ("q1", "q2", "q3", "q4")
    assert evaluation.missing == ("q3", "q4")
    assert evaluation.unjudged == ("q9",)
    assert evaluation.values[:, 0].tolist() == pytest.approx([1.0, 1 / log2(3), 0.0, 0.0])
    assert evaluation.mean()[NDCG] == pytest.approx((1 + 1 / log2(3)) / 4)


def test_an_empty_run_scores_zero():
    assert evaluate({}, {"q": {"a": 1}}).mean() == {"nDCG@10": 0.0, "R@100": 0.0}


def test_ties_stay_as_the_run_has_them():
    tied = {"q": [("a", 5.0), ("z", 5.0)]}
    assert evaluate(tied, {"q": {"a": 1}}, ["RR@10"]).mean()["RR@10"] == 1.0  # by document id, z would be first
    tied = {"q": [("z", 5.0), ("a", 5.0)]}
    assert evaluate(tied, {"q": {"z": 1}}, ["RR@10"]).mean()["RR@10"] == 1.0


def test_measures_keep_the_order_and_the_names_they_were_asked_by():
    evaluation = evaluate(run_of(q="ab"), {"q": {"b": 1}}, ["RR@10", "P@2", "R@1"])
    assert evaluation.measures == ("RR@10", "P@2", "R@1")
    assert evaluation.values.tolist() == [[0.5, 0.5, 0.0]]


# -- languages ---------------------------------------------------------------------------------------


@pytest.fixture
def two_languages():
    """German: 1, 0 and 0.5; Swahili: 1."""
    run = run_of(q1="a", q3="bca", q4="a")
    judgments = {query: {"a": 1} for query in ("q1", "q2", "q3", "q4")}
    languages = {"q1": "de", "q2": "de", "q3": "de", "q4": "sw", "q5": "fr"}
    return evaluate(run, judgments, [NDCG], languages=languages)


def test_each_language_has_the_mean_of_its_judged_queries(two_languages):
    assert two_languages.by_language() == {"de": {NDCG: pytest.approx(0.5)}, "sw": {NDCG: 1.0}}


def test_the_macro_mean_counts_languages_and_the_mean_counts_queries(two_languages):
    assert two_languages.macro()[NDCG] == pytest.approx(0.75)  # (0.5 + 1) / 2
    assert two_languages.mean()[NDCG] == pytest.approx(0.625)  # (1 + 0 + 0.5 + 1) / 4
    assert two_languages.macro(["de"])[NDCG] == pytest.approx(0.5)


def test_a_macro_mean_over_a_language_without_queries_is_refused(two_languages):
    with pytest.raises(BadInput, match="no judged query in language 'fr'"):
        two_languages.macro(["de", "fr"])
    with pytest.raises(BadInput, match="one language at least"):
        two_languages.macro([])
    with pytest.raises(BadInput, match="one language at least, each one time"):
        two_languages.macro(["de", "de"])


def test_queries_of_unknown_language_stand_together():
    evaluation = evaluate(run_of(q1="a"), {"q1": {"a": 1}, "q2": {"a": 1}}, [NDCG], languages={"q1": "de"})
    assert evaluation.by_language() == {"": {NDCG: 0.0}, "de": {NDCG: 1.0}}


# -- what cannot be measured -------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["nDGC@10", "nDCG@@10", "", "10", "nDCG@ten"])
def test_an_unknown_measure_is_named(measure):
    with pytest.raises(BadInput, match=f"no measure {measure!r}"):
        evaluate(run_of(q="a"), {"q": {"a": 1}}, [measure])


def test_no_judgments_no_measures_and_repeated_measures_are_refused():
    with pytest.raises(BadInput, match="no query is judged"):
        evaluate(run_of(q="a"), {})
    for measures in ([], [NDCG, NDCG]):
        with pytest.raises(BadInput, match="one at least and none twice"):
            evaluate(run_of(q="a"), {"q": {"a": 1}}, measures)


def test_a_document_ranked_twice_is_refused():
    with pytest.raises(BadInput, match="'q' ranks a document twice"):
        evaluate(run_of(q="aba"), {"q": {"a": 1}})


def test_without_ir_measures_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtra, match=r'pip install "polylex\[eval\]"'):
        evaluate(run_of(q="a"), {"q": {"a": 1}})
