import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import builder as builder_module
from polylex.errors import (
    BadFilter,
    BadInput,
    DocumentNotFound,
    DuplicateId,
    IndexNotFound,
    ModelMismatch,
    VocabMismatch,
)
from polylex.index import Index
from polylex.retriever import Retriever
from polylex.shards import Shards
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab([f"word{i}" for i in range(6)], [])


def vectors_of(rows, vocab=VOCAB):
    return SparseVectors.from_dicts([{f"e_word{term}": weight for term, weight in row.items()} for row in rows], vocab)


def make(path, documents, vocab=VOCAB, **identity):
    """An index of (id, fields, terms)."""
    ids, fields, rows = zip(*documents, strict=True) if documents else ((), (), ())
    Index.build(path, vectors_of(rows, vocab), ids, fields, vocab=vocab, **identity).close()
    return path


@pytest.fixture
def two(tmp_path):
    """Two shards; documents b and d are equally good for word 1."""
    first = make(tmp_path / "1", [("a", {"lang": "de"}, {1: 1.0}), ("b", {"lang": "fr"}, {1: 3.0, 2: 1.0})])
    second = make(tmp_path / "2", [("c", {"lang": "de"}, {2: 2.0}), ("d", {"lang": "de"}, {1: 3.0}), ("e", {}, {})])
    with Shards.open([first, second]) as shards:
        yield shards


def ids(hits):
    return [hit.id for hit in hits]


def test_hits_of_all_shards_come_best_first_ties_to_the_earlier_shard(two):
    [found] = two.search(vectors_of([{1: 1.0}]))
    assert [(hit.id, hit.score, hit.row) for hit in found] == [("b", 3.0, 1), ("d", 3.0, 3), ("a", 1.0, 0)]
    assert found[1].fields == {"lang": "de"}
    assert ids(two.search(vectors_of([{1: 1.0}]), 2, where="lang = 'de'")[0]) == ["d", "a"]
    assert two.search(vectors_of([{1: 1.0}]), 1, with_fields=False)[0][0].fields == {}


def test_rows_count_on_from_shard_to_shard(two):
    assert (len(two), [two.document(id).row for id in "abcde"]) == (5, [0, 1, 2, 3, 4])
    assert two.vectors([3, 0, 2, 3]).decode(VOCAB) == vectors_of([{1: 3.0}, {1: 1.0}, {2: 2.0}, {1: 3.0}]).decode(VOCAB)
    assert len(two.vectors([])) == 0
    for row in (5, -1):
        with pytest.raises(BadInput, match=rf"row {row} is not in \[0, 5\)"):
            two.vectors([0, row])
    with pytest.raises(DocumentNotFound, match=r"'z' in .*1, .*2;"):
        two.document("z")


def test_counts_and_sizes_add_up(two):
    info, parts = two.info(), [index.info() for index in two.indexes]
    assert (info.documents, info.segments, info.postings, info.terms_per_document) == (5, 2, 5, 1.0)
    assert info.bytes == sum(part.bytes for part in parts)
    assert two.facets(["lang"]) == {"lang": [("de", 3), ("fr", 1)]}
    assert two.facets(["lang"], where="id > 'b'") == {"lang": [("de", 2)]}
    assert two.facets(["lang"], rows=[0, 1, 4]) == {"lang": [("de", 1), ("fr", 1)]}
    assert two.facets(["lang"], rows=[]) == {"lang": []}


terms = st.dictionaries(st.integers(0, 5), st.sampled_from([0.5, 1.0, 3.0]), max_size=3)
fields = st.fixed_dictionaries({}, optional={"lang": st.sampled_from(["de", "fr"]), "year": st.integers(1, 3)})


@settings(max_examples=8, deadline=None)
@given(
    parts=st.lists(st.lists(st.tuples(fields, terms), max_size=9), min_size=1, max_size=4),
    queries=st.lists(terms, min_size=1, max_size=3),
)
def test_shards_answer_as_one_index_of_all_documents(tmp_path_factory, parts, queries):
    folder, count = tmp_path_factory.mktemp("shards"), 0
    shards = []
    for part in parts:
        shards.append([(f"d{count + at}", *document) for at, document in enumerate(part)])
        count += len(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder_module, "BLOCK", 4)
        paths = [make(folder / str(at), shard) for at, shard in enumerate(shards)]
        make(folder / "one", [document for shard in shards for document in shard])
    with Shards.open(paths) as several, Index.open(folder / "one") as one:
        asked = vectors_of(queries)
        for where in (None, "lang = 'de'", "year > 1 and not lang = 'fr'"):
            for k in (1, 2, 5, 50):
                expected = one.search(asked, k, where=where)
                for threads in (1, 2, 5):
                    assert several.search(asked, k, where=where, threads=threads) == expected
            assert several.facets(["lang", "year"], where=where) == one.facets(["lang", "year"], where=where)
            rows = [hit.row for hit in expected[0]]
            assert several.vectors(rows).decode(VOCAB) == one.vectors(rows).decode(VOCAB)
            assert [several.document(hit.id) for hit in expected[0]] == [one.document(hit.id) for hit in expected[0]]


def test_refreshing_shows_what_a_shard_became(two):
    assert not two.refresh()
    path = two.indexes[0].path
    make(path, [("x", {}, {1: 1.0}), ("y", {}, {}), ("z", {}, {})], overwrite=True)
    assert ids(two.search(vectors_of([{1: 1.0}]))[0]) == ["b", "d", "a"]
    assert two.refresh()
    assert [(hit.id, hit.row) for hit in two.search(vectors_of([{1: 1.0}]))[0]] == [("d", 4), ("x", 0)]


# -- what does not go together -----------------------------------------------------------------------


def test_shards_of_other_terms_or_other_weights_are_refused_by_name(tmp_path):
    plain = make(tmp_path / "plain", [("a", {}, {1: 1.0})])
    ours = make(tmp_path / "ours", [("b", {}, {1: 1.0})], encoder="mini", weights_id="w1")
    theirs = make(tmp_path / "theirs", [("c", {}, {1: 1.0})], encoder="maxi", weights_id="w2")
    with pytest.raises(ModelMismatch, match=r"ours was made with mini \(w1\), .*theirs with maxi \(w2\)"):
        Shards.open([plain, ours, theirs])
    with Shards.open([plain, ours]) as shards:  # nobody says that they differ
        assert (shards.info().encoder, shards.info().weights_id) == ("mini", "w1")
    other = make(tmp_path / "other", [("d", {}, {1: 1.0})], Vocab([f"word{i}" for i in range(7)], []))
    with pytest.raises(VocabMismatch, match=r"plain has vocabulary .*other has"):
        Shards.open([plain, other])


def test_one_id_in_two_shards_is_an_error_when_both_are_met(tmp_path):
    first = make(tmp_path / "1", [("a", {}, {1: 1.0}), ("b", {}, {1: 2.0})])
    second = make(tmp_path / "2", [("a", {}, {1: 1.0}), ("c", {}, {2: 1.0})])
    with Shards.open([first, second]) as shards:
        with pytest.raises(DuplicateId, match=r"both .*1 and .*2 have a document 'a'"):
            shards.search(vectors_of([{1: 1.0}]))
        with pytest.raises(DuplicateId, match="'a'"):
            shards.document("a")
        assert ids(shards.search(vectors_of([{1: 1.0}]), 1)[0]) == ["b"]
        assert shards.document("c").row == 3


def test_what_cannot_be_opened_or_asked_is_told(tmp_path, two):
    path = two.indexes[0].path
    with pytest.raises(BadInput, match="one index at least"):
        Shards.open([])
    with pytest.raises(BadInput, match="given twice"):
        Shards.open([path, tmp_path / "x" / ".." / path.name])
    with pytest.raises(IndexNotFound):
        Shards.open([path, tmp_path / "none"])
    with pytest.raises(BadInput, match="threads must be at least 1, got 0"):
        two.search(vectors_of([{1: 1.0}]), threads=0)
    with pytest.raises(BadInput, match="at least 1, got 0"):
        two.search(vectors_of([{1: 1.0}]), 0)
    with pytest.raises(BadFilter):
        two.search(vectors_of([{1: 1.0}]), where="lang")
    two.close()
    with pytest.raises(BadInput, match="is closed"):
        two.search(vectors_of([{1: 1.0}]))


def test_a_retriever_searches_and_explains_over_shards(tmp_path):
    documents = [
        {"id": "de", "text": "Männer und Frauen haben das Recht zu heiraten."},
        {"id": "fr", "headline": "Toute personne a droit à l'éducation."},
    ]
    Retriever.build(tmp_path / "1", documents[:1]).close()
    Retriever.build(tmp_path / "2", documents[1:], text_fields=["headline"]).close()
    with Retriever.open([tmp_path / "1", tmp_path / "2"]) as retriever:
        assert retriever.search("Who may marry?")[0].id == "de"
        assert retriever.search("free education", where="exists headline")[0].id == "fr"
        for id in ("de", "fr"):
            why = retriever.explain("Who may marry? Is education free?", id)
            assert why.document == " ".join(str(v) for k, v in documents[id == "fr"].items() if k != "id")
            assert why.score == pytest.approx(sum(match.product for match in why.matches))
