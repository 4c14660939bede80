"""Each reason of a failed query, in a collection of words where it can be seen with the naked eye."""

import pytest
from word_encoder import WordEncoder, collection

from polylex.diagnosis import MEANINGS, REASONS, diagnose
from polylex.errors import BadInput
from polylex.systems import Sparse

WORDS = "sun moon star sea sand salt"


def failures(documents, queries, judgments, *, k=1, encoder=None):
    found = diagnose(Sparse(encoder or WordEncoder(WORDS)), collection(documents, queries, judgments), k)
    return {failure.query: failure for failure in found.failures}


def test_a_query_whose_relevant_document_is_among_the_first_hits_does_not_fail():
    documents = {"a": "sun", "b": "sun sun"}
    assert failures(documents, {"q": "sun"}, {"q": {"a": 1}}, k=2) == {}
    assert set(failures(documents, {"q": "sun"}, {"q": {"a": 1}}, k=1)) == {"q"}
    assert failures(documents, {"q": "sun"}, {"q": {"a": 1, "b": 1}}, k=1) == {}


def test_an_outranked_document_names_what_is_in_front_and_the_terms_that_put_it_there():
    documents = {"wrong": "sun sun sun moon", "right": "sun moon moon"}
    failure = failures(documents, {"q": "sun moon"}, {"q": {"right": 1}})["q"]
    # wrong 3 + 1 = 4, right 1 + 2 = 3: sun gives 3 against 1; moon speaks for the right one
    assert (failure.reason, failure.outranked_by, failure.relevant) == ("outranked", "wrong", "right")
    assert (failure.ahead, failure.score, failure.rank) == (4.0, 3.0, 2)
    assert [(reach.term, reach.ahead, reach.relevant) for reach in failure.terms] == [("e_sun", 3.0, 1.0)]


def test_no_shared_term():
    failure = failures({"a": "moon", "b": "sun"}, {"q": "sun"}, {"q": {"a": 1}})["q"]
    assert (failure.reason, failure.rank, failure.score) == ("no shared term", None, 0.0)


def test_an_empty_query_and_an_empty_document():
    documents, judgments = {"a": "sun", "b": "unknown words"}, {"q": {"a": 1}, "r": {"b": 1}}
    found = failures(documents, {"q": "unknown", "r": "sun"}, judgments)
    assert {query: failure.reason for query, failure in found.items()} == {"q": "empty query", "r": "empty document"}
    assert found["q"].outranked_by is None


def test_a_relevant_document_that_is_not_there():
    found = failures({"a": "sun"}, {"q": "sun"}, {"q": {"gone": 1}, "lost": {"a": 1}})
    assert found["q"].reason == "not in the collection"
    assert found["lost"].reason == "empty query"  # judged, but no query has that id


def test_texts_that_differ_and_vectors_that_do_not_have_collapsed():
    documents = {"a": "sun sea", "b": "sun sea unheard", "c": "sun sun sea"}
    failure = failures(documents, {"q": "sun"}, {"q": {"a": 1}})["q"]
    assert (failure.reason, failure.twin) == ("collapsed document", "b")
    queries = {"q": "sun", "r": "sun please"}
    failure = failures({"a": "sun", "b": "sun sun"}, queries, {"q": {"a": 1}})["q"]
    assert (failure.reason, failure.twin) == ("collapsed query", "r")


def test_equal_texts_are_no_collapse():
    documents = {"a": "sun sea", "b": "sun sea", "c": "sun sun salt"}
    assert failures(documents, {"q": "sun"}, {"q": {"a": 1}})["q"].reason == "outranked"


def test_a_model_that_cuts_texts_off_says_so():
    class Cutting(WordEncoder):
        def truncates(self, texts, *, kind):
            return [kind == "document" and len(text) > 20 for text in texts]

    documents = {"long": "sun sand sand sand salt salt", "b": "sun sun sun"}
    assert failures(documents, {"q": "sun"}, {"q": {"long": 1}}, encoder=Cutting(WORDS))["q"].reason == "truncated"
    assert failures(documents, {"q": "sun"}, {"q": {"long": 1}})["q"].reason == "outranked"


def test_failures_are_counted_by_language_and_every_language_is_there():
    documents = {"a": "sun sand", "b": "sun sun sea"}
    queries = {"de-1": "sun", "de-2": "sun", "en-1": "sun", "fr-1": "sun"}
    judgments = {"de-1": {"a": 1}, "de-2": {"b": 1}, "en-1": {"b": 1}, "fr-1": {"a": 0}}
    found = diagnose(Sparse(WordEncoder(WORDS)), collection(documents, queries, judgments), 1)
    assert found.queries == 3  # fr-1 has no relevant document
    assert found.counts == {"de": 2, "en": 1}
    counted = found.by_language()
    assert (counted["de"]["outranked"], sum(counted["en"].values())) == (1, 0)
    assert found.by_reason() == dict.fromkeys(REASONS, 0) | {"outranked": 1}
    table = found.to_dict()
    assert table["by_language"]["de"]["failed"] == table["failed"] == 1
    assert table["failures"][0]["terms"][0]["term"] == "e_sun"


def test_every_reason_is_explained():
    assert set(MEANINGS) == set(REASONS)


def test_what_cannot_be_diagnosed():
    system = Sparse(WordEncoder(WORDS))
    with pytest.raises(BadInput, match="k must be at least 1"):
        diagnose(system, collection({"a": "sun"}, {"q": "sun"}, {"q": {"a": 1}}), 0)
    with pytest.raises(BadInput, match="without its documents"):
        diagnose(system, collection({}, {"q": "sun"}, {"q": {"a": 1}}))
    with pytest.raises(BadInput, match="no query of c has a relevant document"):
        diagnose(system, collection({"a": "sun"}, {"q": "sun"}, {"q": {"a": 0}}))
