import gzip

import pytest
from word_encoder import WordEncoder, collection

from polylex import Index, Pruning
from polylex.encodings import Encodings
from polylex.errors import BadInput, BadRecord
from polylex.systems import Indexed, RunFile, Sparse, open_system

DOCUMENTS = {"d1": "sun sun sun moon", "d2": "moon star", "d3": "star", "d4": "nothing known"}
TINY = collection(DOCUMENTS, {"q1": "sun moon", "q2": "star", "q3": "comet"}, {"q1": {"d1": 1}, "q2": {"d3": 1}})


@pytest.fixture
def encoder():
    return WordEncoder("sun moon star")


# -- models ------------------------------------------------------------------------------------------


def test_a_model_ranks_by_inner_product_and_breaks_ties_in_document_order(encoder):
    outcome = Sparse(encoder).search(TINY, 10)
    assert outcome.run == {"q1": [("d1", 4.0), ("d2", 1.0)], "q2": [("d2", 1.0), ("d3", 1.0)], "q3": []}


def test_a_model_says_what_it_cost(encoder):
    outcome = Sparse(encoder).search(TINY, 10)
    assert outcome.document_terms == pytest.approx((2 + 2 + 1 + 0) / 4)
    assert outcome.query_terms == pytest.approx((2 + 1 + 0) / 3)
    assert outcome.encoded == 7
    assert outcome.index_bytes > 0
    assert outcome.search_seconds >= 0


def test_no_more_hits_than_asked_for(encoder):
    assert Sparse(encoder).search(TINY, 1).run["q2"] == [("d2", 1.0)]


def test_pruning_drops_terms_of_documents_and_encodes_nothing_again(encoder):
    whole = Sparse(encoder, "words")
    whole.search(TINY, 10)
    small = whole.pruned(Pruning(top_k=1))
    outcome = small.search(TINY, 10)
    assert small.name == "words+top_k=1"
    assert outcome.run["q1"] == [("d1", 3.0), ("d2", 1.0)]  # sun of d1 and moon of d2 are left
    assert outcome.encoded == 0
    assert encoder.encoded == 7
    assert small.pruned(Pruning(mass=0.5)).name == "words+mass=0.5"  # in place of the other, not on top of it


def test_a_model_needs_the_documents(encoder):
    without = collection({}, {"q1": "sun"}, {"q1": {"d1": 1}})
    with pytest.raises(BadInput, match="without its documents"):
        Sparse(encoder).search(without, 10)


# -- encodings on disk -------------------------------------------------------------------------------


def test_vectors_are_found_again_by_text_and_kind(encoder, tmp_path):
    texts = ["sun", "moon moon", "", "sun"]
    with Encodings("words", tmp_path) as encodings:
        first = encodings.vectors("document", texts, encoder)
        assert encodings.encoded == 3  # "sun" stands there twice
    with Encodings("words", tmp_path) as encodings:
        again = encodings.vectors("document", texts, encoder)
        assert encodings.encoded == 0
        encodings.vectors("query", ["sun"], encoder)
        assert encodings.encoded == 1
    assert again.decode(encoder.vocab) == first.decode(encoder.vocab)
    assert first.decode(encoder.vocab) == [[("e_sun", 1.0)], [("e_moon", 2.0)], [], [("e_sun", 1.0)]]
    assert (tmp_path / ".gitignore").read_text() == "*\n"


def test_other_weights_find_nothing(encoder, tmp_path):
    with Encodings("words", tmp_path) as one, Encodings("other", tmp_path) as other:
        one.vectors("document", ["sun"], encoder)
        other.vectors("document", ["sun"], encoder)
        assert (one.encoded, other.encoded) == (1, 1)


def test_an_interrupted_run_goes_on_where_it_stopped(encoder, tmp_path):
    texts = [f"sun {number}" for number in range(600)]

    class Interrupted(WordEncoder):
        def encode(self, texts, *, kind="document"):
            if self.encoded >= 256:
                raise KeyboardInterrupt
            return super().encode(texts, kind=kind)

    with Encodings("words", tmp_path) as encodings, pytest.raises(KeyboardInterrupt):
        encodings.vectors("document", texts, Interrupted("sun"))
    counted = []
    with Encodings("words", tmp_path) as encodings:
        assert len(encodings.vectors("document", texts, encoder, counted.append)) == 600
        assert encodings.encoded == 600 - 256
    assert sum(counted) == 600


def test_a_file_that_is_no_store_says_so(tmp_path):
    (tmp_path / "words.sqlite").write_text("this is no database, and long enough to be taken for one" * 20)
    with pytest.raises(BadInput, match=r"words.sqlite is no store of encodings .*; remove it"):
        Encodings("words", tmp_path)


# -- indexes -----------------------------------------------------------------------------------------


@pytest.fixture
def index(encoder, tmp_path):
    names = ["d3", "d1"]  # another order than the collection's, and not all of it
    vectors = encoder.encode([DOCUMENTS[name] for name in names])
    with Index.build(tmp_path / "i.plx", vectors, names, vocab=encoder.vocab) as index:
        yield index


def test_an_index_is_asked_as_it_is(encoder, index):
    outcome = Indexed(encoder, index).search(TINY, 10)
    assert outcome.run == {"q1": [("d1", 4.0)], "q2": [("d3", 1.0)], "q3": []}
    assert outcome.document_terms == pytest.approx(1.5)


def test_an_index_can_be_pruned_for_a_trial_and_stays_as_it_is(encoder, index):
    system = Indexed(encoder, index).pruned(Pruning(top_k=1))
    assert system.name == "i.plx+top_k=1"
    assert system.search(TINY, 10).run["q1"] == [("d1", 3.0)]
    assert index.info().postings == 3


def test_vectors_of_an_index_stand_in_the_order_of_the_collection(encoder, index):
    _, documents = Indexed(encoder, index).vectors(TINY)
    assert documents.decode(encoder.vocab) == [[("e_sun", 3.0), ("e_moon", 1.0)], [], [("e_star", 1.0)], []]


# -- runs --------------------------------------------------------------------------------------------


def test_a_run_file_is_cut_at_k_and_sorted_by_score_then_rank(tmp_path):
    path = tmp_path / "bm25.run"
    path.write_text("q1 Q0 d2 2 5.0 t\nq1 Q0 d1 1 5.0 t\nq1 Q0 d3 3 7.0 t\n")
    system = RunFile(path)
    assert system.name == "bm25"
    assert system.search(TINY, 2).run == {"q1": [("d3", 7.0), ("d1", 5.0)]}


def test_a_folder_holds_a_run_for_each_collection(tmp_path):
    (tmp_path / "c.run.gz").write_bytes(gzip.compress(b"q1 Q0 d1 1 5.0 t\n"))
    assert open_system(f"old={tmp_path}").name == "old"
    assert open_system(str(tmp_path)).search(TINY, 9).run == {"q1": [("d1", 5.0)]}
    with pytest.raises(BadInput, match=r"has no other.run, plain or packed"):
        RunFile(tmp_path).search(collection({}, {}, {}, name="other"), 9)


def test_a_run_of_another_collection_is_refused(tmp_path):
    path = tmp_path / "wrong.run"
    path.write_text("x1 Q0 d1 1 5.0 t\n")
    with pytest.raises(BadInput, match="none of its queries, such as 'x1', is in c"):
        RunFile(path).search(TINY, 9)
    path.write_text("q1 Q0 e1 1 5.0 t\n")
    with pytest.raises(BadInput, match="none of its documents, such as 'e1', is in c"):
        RunFile(path).search(TINY, 9)
    with pytest.raises(BadInput, match="no such run"):
        RunFile(tmp_path / "none.run")


def test_two_runs_in_one_file_are_named_with_their_line(tmp_path):
    path = tmp_path / "twice.run"
    path.write_text("q1 Q0 d1 1 5.0 a\nq1 Q0 d1 1 4.0 b\n")
    with pytest.raises(BadRecord, match=r"twice.run:2: .*twice; does the file hold two runs"):
        RunFile(path).search(TINY, 9)
