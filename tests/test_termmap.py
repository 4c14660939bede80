import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylex.errors import BadVectors, UnknownFormat, VocabMismatch
from polylex.storage import write_arrays
from polylex.termmap import MappedEncoder, TermMap
from polylex.vectors import SparseVectors

SPACE = "a" * 64
ROWS = st.lists(st.dictionaries(st.integers(0, 2**32 - 1), st.floats(0.125, 8, width=32), max_size=6), max_size=6)


def vectors(*rows: dict[int, float], vocab=SPACE) -> SparseVectors:
    pairs = [(np.array(sorted(row), "u4"), np.array([row[term] for term in sorted(row)], "f4")) for row in rows]
    return SparseVectors.from_rows(pairs, vocab)


def as_dicts(found: SparseVectors) -> list[dict[int, float]]:
    return [dict(zip(*(column.tolist() for column in found.row(row)), strict=True)) for row in range(len(found))]


def test_dense_ids_count_from_zero_in_the_order_of_terms():
    terms = TermMap(SPACE, np.array([3, 70_000, 2**32 - 1], "u4"))
    dense = terms.to_dense(vectors({70_000: 1.0, 2**32 - 1: 2.0}, {}, {3: 4.0}))
    assert as_dicts(dense) == [{1: 1.0, 2: 2.0}, {}, {0: 4.0}]
    assert dense.vocab == terms.fingerprint != SPACE


def test_growth_keeps_old_ids_and_new_terms_come_behind():
    small = TermMap(SPACE, np.array([10, 20], "u4"))
    old = small.to_dense(vectors({10: 1.0, 20: 2.0}))
    grown = small.grown(np.array([5, 20, 30], "u4"))
    assert grown.terms.tolist() == [10, 20, 5, 30]
    assert grown.sizes == (2, 4)
    assert grown.grown(np.array([5, 10], "u4")) is grown
    assert as_dicts(grown.to_terms(old)) == [{10: 1.0, 20: 2.0}]  # what was mapped before the growth is still right
    assert as_dicts(grown.to_dense(vectors({5: 1.0, 10: 2.0}))) == [{2: 1.0, 0: 2.0}]


def test_maps_that_grew_apart_are_not_taken_for_each_other():
    small = TermMap(SPACE, np.array([10], "u4"))
    one, other = small.grown(np.array([1], "u4")), small.grown(np.array([2], "u4"))
    with pytest.raises(VocabMismatch, match="use the map that was made with them"):
        other.to_terms(one.to_dense(vectors({1: 1.0})))
    with pytest.raises(VocabMismatch):
        small.to_terms(one.to_dense(vectors({1: 1.0})))  # a map does not know what it will grow to


@given(ROWS, ROWS)
def test_mapped_vectors_come_back_and_scores_do_not_change(documents, queries):
    stock, asked = vectors(*documents), vectors(*queries)
    terms = TermMap(SPACE, np.unique(stock.terms))
    dense = terms.to_dense(stock)
    assert as_dicts(terms.to_terms(dense)) == as_dicts(stock)
    assert dense.nnz == stock.nnz and (not dense.nnz or dense.terms.max() < len(terms))
    np.testing.assert_allclose(terms.to_dense(asked, "drop").dot(dense), asked.dot(stock), rtol=1e-6)


def test_a_term_that_is_not_there_is_refused_in_documents_and_dropped_from_queries():
    terms = TermMap(SPACE, np.array([10], "u4"))
    with pytest.raises(BadVectors, match="lacks term 11"):
        terms.to_dense(vectors({10: 1.0, 11: 1.0}))
    assert as_dicts(terms.to_dense(vectors({10: 1.0, 11: 1.0}), "drop")) == [{0: 1.0}]


def test_vectors_of_another_model_are_refused():
    with pytest.raises(VocabMismatch):
        TermMap(SPACE, np.array([1], "u4")).to_dense(vectors({1: 1.0}, vocab="b" * 64))


def test_a_map_with_a_repeated_term_or_wrong_sizes_cannot_be_made():
    with pytest.raises(BadVectors, match="twice"):
        TermMap(SPACE, np.array([1, 1], "u4"))
    with pytest.raises(BadVectors, match="sizes"):
        TermMap(SPACE, np.array([1, 2], "u4"), (2, 1))


def test_a_saved_map_is_the_same_with_its_history(tmp_path):
    grown = TermMap(SPACE, np.array([9, 4], "u4")).grown(np.array([1], "u4"))
    grown.save(tmp_path / "articles.map")
    loaded = TermMap.load(tmp_path / "articles.map")
    assert (loaded.terms.tolist(), loaded.sizes, loaded.fingerprint) == ([9, 4, 1], (2, 3), grown.fingerprint)
    assert [file.name for file in tmp_path.iterdir()] == ["articles.map"]


def test_other_files_and_other_versions_are_refused(tmp_path):
    with pytest.raises(BadVectors, match="missing"):
        TermMap.load(tmp_path / "none.map")
    arrays = {"terms": np.zeros(1, "u4"), "sizes": np.ones(1, "i8")}
    for metadata, error in (
        ({"format": "polylex-vectors", "version": "1"}, BadVectors),
        ({"format": "polylex-term-map", "version": "2", "vocab": SPACE}, UnknownFormat),
        ({"format": "polylex-term-map", "version": "1"}, BadVectors),
    ):
        write_arrays(tmp_path, lambda _: "other.map", arrays, metadata)
        with pytest.raises(error, match=r"other\.map"):
            TermMap.load(tmp_path / "other.map")


def test_a_mapped_encoder_drops_what_no_document_has():
    class Stub:
        def encode(self, texts, *, kind="document"):
            assert kind == "query"
            return vectors(*({10: 1.0, 99: 3.0} for _ in texts))

    encode = MappedEncoder(Stub(), TermMap(SPACE, np.array([10], "u4")))
    assert as_dicts(encode(["a", "b"])) == [{0: 1.0}, {0: 1.0}]
