"""Systems on collections: what is counted, compared and written."""

import csv
import json

import numpy as np
import pytest
from word_encoder import WordEncoder, collection

from polylex import Pruning
from polylex.assessment import assess
from polylex.errors import BadInput
from polylex.evaluation import depth, language_matrix
from polylex.systems import Outcome, Sparse
from polylex.trec import read_run

pytest.importorskip("ir_measures")
RR = "RR@10"


class Fixed:
    """A system that has its rankings already."""

    def __init__(self, name, **run):
        self.name = name
        self.run = {query.replace("_", "-"): [(d, 9.0 - i) for i, d in enumerate(ids)] for query, ids in run.items()}

    def search(self, collection, k):
        return Outcome({query: ranking[:k] for query, ranking in self.run.items()})


DOCUMENTS = {"de-1": "a", "en-1": "b", "en-2": "c"}
QUERIES = {"de-q": "x", "de-r": "x", "en-q": "x", "fr-q": "x"}
JUDGMENTS = {"de-q": {"de-1": 1, "en-1": 1}, "de-r": {"en-2": 1}, "en-q": {"en-1": 1}}
TINY = collection(DOCUMENTS, QUERIES, JUDGMENTS)
# de-q: relevant at 1; de-r: relevant at 2; en-q: nothing.
FIRST = Fixed("first", de_q=["en-1", "de-1"], de_r=["de-1", "en-2"])
SECOND = Fixed("second", de_q=["en-2", "de-1"], de_r=["en-2"], en_q=["en-1"], xx_q=["en-1"])


@pytest.fixture(scope="module")
def found():
    return assess([FIRST, SECOND], [TINY], [RR], draws=200)


def test_missing_queries_count_zero_and_are_named(found):
    result = found.result("first", "c")
    assert result.evaluation.missing == ("en-q",)
    assert result.evaluation.mean()[RR] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.result("second", "c").evaluation.unjudged == ("xx-q",)


def test_a_language_without_a_judged_query_counts_zero_in_the_macro_mean_and_is_named(found):
    result = found.result("first", "c")
    assert result.languages == ("de", "en", "fr")
    assert result.absent == ("fr",)
    assert result.macro()[RR] == pytest.approx((0.75 + 0 + 0) / 3)


def test_the_languages_of_the_macro_mean_can_be_given():
    result = assess([FIRST], [TINY], [RR], languages=["de", "sw"]).result("first", "c")
    assert result.absent == ("sw",)
    assert result.macro()[RR] == pytest.approx(0.75 / 2)


def test_the_first_system_is_compared_with_the_others(found):
    (judged,) = found.comparisons
    # de-q: 1 against 1/2; de-r: 1/2 against 1; en-q: 0 against 1
    assert judged.comparison.difference == pytest.approx((0.5 - 0.5 - 1) / 3)
    assert (judged.comparison.wins, judged.comparison.losses) == (1, 2)
    assert not judged.is_same


def test_holm_counts_all_systems_and_measures_of_a_collection():
    third = Fixed("third", de_q=["en-1"], de_r=["en-2"], en_q=["en-1"])
    found = assess([FIRST, SECOND, third], [TINY], [RR, "R@5"], draws=100)
    assert len(found.comparisons) == 4
    for judged in found.comparisons:
        assert judged.holm["p_t"] >= judged.comparison.p_t
    least = min(found.comparisons, key=lambda judged: judged.comparison.p_randomisation)
    assert least.holm["p_randomisation"] == pytest.approx(min(1.0, 4 * least.comparison.p_randomisation))


def test_the_same_run_under_another_name_is_noticed():
    (judged,) = assess([FIRST, Fixed("copy", de_q=["en-1", "de-1"], de_r=["de-1", "en-2"])], [TINY], [RR]).comparisons
    assert judged.is_same
    assert (judged.comparison.difference, judged.comparison.p_t, judged.comparison.p_randomisation) == (0.0, 1.0, 1.0)


def test_two_systems_or_collections_with_one_name_are_refused():
    with pytest.raises(BadInput, match="two systems are called 'first'"):
        assess([FIRST, FIRST], [TINY], [RR])
    with pytest.raises(BadInput, match="two collections are called 'c'"):
        assess([FIRST], [TINY, TINY], [RR])
    with pytest.raises(BadInput, match="no system given"):
        assess([], [TINY], [RR])


def test_what_cannot_be_measured_is_refused_before_anything_is_searched():
    class Never:
        name = "never"

        def search(self, collection, k):
            raise AssertionError("searched")

    with pytest.raises(BadInput, match="no measure 'nDGC@10'"):
        assess([Never()], [TINY], ["nDGC@10"], k=10)
    with pytest.raises(BadInput, match="two languages are called 'de'"):
        assess([Never()], [TINY], [RR], languages=["de", "de"])
    with pytest.raises(BadInput, match="no query of none is judged"):
        assess([Never()], [collection({"d": "a"}, {"q": "x"}, {}, name="none")], [RR])


def test_the_mean_over_collections_counts_each_the_same():
    other = collection({"d": "a"}, {"q": "x"}, {"q": {"d": 1}}, name="other")
    both = Fixed("both", **{"q": ["d"], "de_q": ["en-1"]})
    found = assess([both], [TINY, other], [RR])
    assert found.mean("both")[RR] == pytest.approx((1 / 3 + 1) / 2)


def test_judgments_of_unknown_ids_that_were_kept_count_as_not_found():
    kept = collection({"d": "a"}, {"q": "x"}, {"q": {"d": 1, "gone": 1}, "lost": {"d": 1}})
    found = assess([Fixed("s", q=["d"])], [kept], ["R@10"])
    assert found.result("s", "c").evaluation.mean()["R@10"] == pytest.approx((0.5 + 0) / 2)
    assert found.to_dict()["collections"]["c"]["unknown_judgments"] == 2


# -- by language of query and document ---------------------------------------------------------------


def test_a_cell_holds_the_ranking_of_one_document_language_alone():
    matrix = language_matrix(SECOND.run, TINY, [RR])[RR]
    assert (matrix.queries, matrix.documents) == (("de", "en"), ("de", "en"))
    # de -> de: only de-q has a relevant one, first among the German ones; de -> en: de-q 0, de-r 1
    assert matrix.cell("de", "de") == 1.0
    assert matrix.cell("de", "en") == pytest.approx(0.5)
    assert matrix.cell("en", "en") == 1.0
    assert np.isnan(matrix.cell("en", "de"))
    assert matrix.counts.tolist() == [[1, 2], [0, 1]]
    assert matrix.to_dict()["values"][1] == [None, 1.0]


def test_a_query_without_hits_counts_in_every_cell_where_it_has_a_relevant_document():
    matrix = language_matrix({}, TINY, [RR])[RR]
    assert matrix.cell("de", "de") == matrix.cell("de", "en") == matrix.cell("en", "en") == 0.0


def test_the_depth_of_a_run_follows_the_measures():
    assert depth(["nDCG@10"]) == 100
    assert depth(["nDCG@10", "R@250"]) == 250
    assert depth(["AP"]) == 1000


# -- written -----------------------------------------------------------------------------------------


def test_what_is_written_can_be_read_and_checked(found, tmp_path):
    found.write(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert (results["format"], results["version"]) == ("polylex-evaluation", 1)
    assert results["collections"]["c"]["judged_by_language"] == {"de": 2, "en": 1, "fr": 0}
    entry = results["collections"]["c"]["systems"]["first"]
    assert entry["mean"] == {RR: pytest.approx(0.5)}
    assert entry["missing_queries"] == ["en-q"]
    assert results["collections"]["c"]["comparisons"][0]["second"] == "second"
    assert read_run(tmp_path / "runs" / "second" / "c.run")["de-q"] == [("en-2", 9.0), ("de-1", 8.0)]
    with (tmp_path / "per-query.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    values = [float(row[RR]) for row in rows if row["system"] == "first"]
    assert sum(values) / len(values) == pytest.approx(entry["mean"][RR])
    assert not list(tmp_path.rglob("*.partial"))


def test_runs_of_an_earlier_assessment_do_not_stay(found, tmp_path):
    found.write(tmp_path)
    assess([FIRST], [TINY], [RR]).write(tmp_path)
    assert [path.parent.name for path in tmp_path.rglob("*.run")] == ["first"]


def test_pruned_systems_say_their_limits():
    encoder = WordEncoder("a b c x")
    system = Sparse(encoder)
    found = assess([system, system.pruned(Pruning(mass=0.5))], [TINY], [RR], draws=50)
    assert [result.limits for result in found.results] == [{}, {"mass": 0.5}]
    assert [bool(result.matrix) for result in found.results] == [True, False]
