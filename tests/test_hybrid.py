import shutil

import pytest

from polylex.bm25 import BM25
from polylex.errors import BadInput, IndexNotFound
from polylex.hybrid import FOLDER, Hybrid, add_bm25
from polylex.index import Index
from polylex.retriever import Retriever
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

DOCUMENTS = [
    {"id": "a", "text": "cat dog", "year": 1},
    {"id": "b", "text": "dog dog iso8601", "year": 2},
    {"id": "c", "text": "cat fish", "year": 3},
    {"id": "d", "text": "iso8601", "year": 4},
    {"id": "e", "text": "bird", "year": 5},
]


class Animals:
    """Knows three words, and that a puppy is a dog."""

    name, weights_id = "animals", "w1"
    vocab = Vocab(["bird", "cat", "dog"], [])

    def encode(self, texts, *, kind="document"):
        rows = []
        for text in texts:
            words = text.replace("puppy", "dog").split()
            rows.append({f"e_{w}": float(words.count(w)) for w in self.vocab.pivot if w in words})
        return SparseVectors.from_dicts(rows, self.vocab)


@pytest.fixture
def path(tmp_path):
    Retriever.build(tmp_path / "i", DOCUMENTS, Animals()).close()
    return tmp_path / "i"


@pytest.fixture
def hybrid(path):
    add_bm25(path)
    with Hybrid.open(path, Animals()) as opened:
        yield opened


def ids(hits):
    return [hit.id for hit in hits]


def test_hits_are_those_of_both_halves_by_reciprocal_ranks(hybrid):
    # learned "puppy": b (2 dogs), a; words "iso8601": d (short), b
    found = hybrid.search("puppy iso8601")
    assert [(hit.id, hit.row) for hit in found] == [("b", 1), ("d", 3), ("a", 0)]
    assert [hit.score for hit in found] == pytest.approx([1 / 61 + 1 / 62, 1 / 61, 1 / 62])
    assert found[1].fields == DOCUMENTS[3]
    assert ids(hybrid.search("puppy")) == ["b", "a"]
    assert ids(hybrid.search("iso8601")) == ["d", "b"]
    assert hybrid.search("nothing") == hybrid.search("") == []
    assert [ids(hits) for hits in hybrid.search_batch(["bird", "iso8601"], 1)] == [["e"], ["d"]]


def test_weights_say_which_half_counts_more(hybrid):
    learned = Hybrid(hybrid.retriever, hybrid.bm25, weights=(1, 0))
    assert ids(learned.search("puppy iso8601")) == ids(hybrid.retriever.search("puppy iso8601")) == ["b", "a"]
    assert ids(Hybrid(hybrid.retriever, hybrid.bm25, weights=(0, 1)).search("puppy iso8601")) == ["d", "b"]


def test_a_filter_holds_for_both_halves(hybrid):
    assert ids(hybrid.search("puppy iso8601", where="year > 1")) == ["b", "d"]
    assert ids(hybrid.search("puppy iso8601", where="year in (1, 4)")) == ["a", "d"]
    assert hybrid.search("puppy iso8601", where="year > 9") == []


def test_an_index_without_bm25_says_how_to_add_it(path):
    with pytest.raises(IndexNotFound, match="polylex bm25"):
        Hybrid.open(path, Animals())


def test_bm25_of_another_state_is_refused_and_can_be_renewed(path):
    add_bm25(path)
    newer = [*DOCUMENTS, {"id": "f", "text": "dog 4711"}]
    Retriever.build(path, newer, Animals(), overwrite=True).close()
    with pytest.raises(BadInput, match=r"another state of the index; run `polylex bm25"):
        Hybrid.open(path, Animals())
    assert len(add_bm25(path)) == 6
    with Hybrid.open(path, Animals()) as hybrid:
        assert ids(hybrid.search("4711")) == ["f"]


def test_bm25_of_another_index_is_refused(path, tmp_path):
    add_bm25(path)
    Retriever.build(tmp_path / "j", DOCUMENTS[:2], Animals()).close()
    shutil.copytree(path / FOLDER, tmp_path / "j" / FOLDER)
    with pytest.raises(BadInput, match="another state"):
        Hybrid.open(tmp_path / "j", Animals())


def test_shards_are_not_hybrid(path, tmp_path):
    Retriever.build(tmp_path / "j", [{"id": "z", "text": "dog"}], Animals()).close()
    with Retriever.open([path, tmp_path / "j"], Animals()) as retriever, pytest.raises(BadInput, match="one index"):
        Hybrid(retriever, BM25.build([], []))


def test_the_index_lists_its_documents_and_rows_in_order(path):
    with Index.open(path) as index:
        assert [(record.row, record.id, record.fields) for record in index.documents()] == [
            (row, document["id"], document) for row, document in enumerate(DOCUMENTS)
        ]
        assert index.rows().tolist() == [0, 1, 2, 3, 4]
        assert index.rows("year >= 4 or id = 'a'").tolist() == [0, 3, 4]


def test_documents_without_a_usual_text_have_no_words(tmp_path):
    index = Index.build(
        tmp_path / "i", SparseVectors.from_dicts([{}, {}], Animals.vocab), ["x", "y"], [{}, {"text": "fish"}],
        vocab=Animals.vocab,
    )  # fmt: skip
    index.close()
    assert ids_of(add_bm25(tmp_path / "i").search("fish")) == ["y"]


def ids_of(pairs):
    return [id for id, _ in pairs]
