import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import postings
from polylex.errors import BadInput
from polylex.index import Index
from polylex.previews import Previews
from polylex.prune import Pruning
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab
from polylex.writer import IndexWriter

VOCAB = Vocab([f"word{i}" for i in range(20)], [f"token{i}" for i in range(20)])


def vectors_of(rows):
    pairs = [
        (np.array(sorted(row), np.uint32), np.array([row[term] for term in sorted(row)], np.float32)) for row in rows
    ]
    return SparseVectors.from_rows(pairs, VOCAB.fingerprint)


def make(path, rows, precision="f32"):
    ids = [f"d{number}" for number in range(len(rows))]
    fields = [{"even": number % 2 == 0} for number in range(len(rows))]
    return Index.build(path, vectors_of(rows), ids, fields, vocab=VOCAB, precision=precision)


def random_rows(seed, count=300):
    random = np.random.default_rng(seed)
    weights = [0.25, 0.5, 0.5, 1.0, 1.5, 2.0]  # with many ties
    return [
        {
            int(term): float(random.choice(weights))
            for term in random.choice(40, int(random.integers(0, 25)), replace=False)
        }
        for _ in range(count)
    ]


QUERIES = vectors_of(random_rows(9, 12))
rules = st.builds(
    Pruning,
    top_k=st.none() | st.integers(1, 30),
    mass=st.none() | st.sampled_from([0.01, 0.3, 0.5, 0.75, 0.9, 1.0]),
    max_ratio=st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    threshold=st.none() | st.sampled_from([0.0, 0.5, 1.0, 9.0]),
)


@pytest.fixture(scope="module", params=["f32", "u16", "u8"])
def index(request, tmp_path_factory):
    """With planes; a document was deleted, another replaced, and there are two segments."""
    path = tmp_path_factory.mktemp("previews") / request.param
    usual = postings._dense_from
    postings._dense_from = lambda rows: rows // 7 + 1  # as in a large segment
    try:
        make(path, random_rows(1), request.param).close()
        with IndexWriter(path, merge=False) as writer:
            writer.delete(["d3", "d200"])
            writer.upsert(["d7", "new"], None, vectors_of([{0: 1.0, 1: 2.0}, {1: 0.5}]))
    finally:
        postings._dense_from = usual
    index = Index.open(path)
    assert any(len(segment.dense) for segment in index.snapshot.table.segments)
    yield index
    index.close()


def dense(vectors):
    table = np.zeros((len(vectors), 40))
    table[np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr)), vectors.terms] = vectors.weights
    return table


@settings(max_examples=40, deadline=None)
@given(rule=rules)
def test_a_preview_finds_what_the_pruned_vectors_say(index, rule):
    preview = Previews().of(index.snapshot, rule)
    live = index.rows()
    pruned = rule(index.vectors(live))
    assert preview.terms_per_document == pytest.approx(pruned.nnz / len(live))
    expected = dense(QUERIES) @ dense(pruned).T
    rows, scores = preview.top(QUERIES, 400)
    for query in range(len(QUERIES)):
        count = int((expected[query] > 0).sum())
        assert sorted(rows[query, :count]) == live[expected[query] > 0].tolist()
        assert (rows[query, count:] == -1).all()
        of_row = dict(zip(live.tolist(), expected[query], strict=True))
        np.testing.assert_allclose(scores[query, :count], [of_row[row] for row in rows[query, :count]], rtol=1e-5)
        assert (np.lexsort((rows[query, :count], -scores[query, :count])) == np.arange(count)).all()


def test_a_preview_is_what_rewriting_the_index_gives(tmp_path):
    rule = Pruning(mass=0.6, top_k=9)
    with make(tmp_path / "i", random_rows(4)) as index, index.rewrite(tmp_path / "pruned", rule) as pruned:
        preview = Previews().of(index.snapshot, rule)
        for mine, theirs in zip(preview.top(QUERIES, 50), pruned.top(QUERIES, 50), strict=True):
            assert (mine == theirs).all()
        assert preview.terms_per_document == pruned.info().terms_per_document


def test_a_preview_obeys_filters(index):
    preview = Previews().of(index.snapshot, Pruning(top_k=5))
    allowed = index.matching("even = true")
    rows, _ = preview.top(QUERIES, 400, allowed=allowed)
    assert (rows[rows >= 0] % 2 == 0).all()
    assert (rows >= 0).any()


def test_a_preview_tells_the_size_of_what_it_leaves(tmp_path):
    with make(tmp_path / "i", [{0: 1.0, 1: 3.0}, {1: 1.0}]) as index:
        preview = Previews().of(index.snapshot, Pruning(top_k=1))
    # 3 postings of 6 bytes and 2 terms of 12 before; 2 postings and one term after; 4 bytes end the list of starts
    assert (preview.bytes_before, preview.bytes) == (3 * 6 + 2 * 12 + 4, 2 * 6 + 12 + 4)
    assert (preview.terms_per_document_before, preview.terms_per_document) == (1.5, 1.0)


def test_an_index_without_postings_can_be_previewed(tmp_path):
    with make(tmp_path / "i", [{}, {}]) as index:
        rows, _ = Previews().of(index.snapshot, Pruning(mass=0.5)).top(QUERIES, 3)
        assert (rows == -1).all()
    with make(tmp_path / "none", []) as index:
        preview = Previews().of(index.snapshot, Pruning(mass=0.5))
        assert (preview.bytes, preview.terms_per_document) == (0, 0.0)


def test_previews_follow_the_index_and_keep_what_they_know_of_old_segments(tmp_path):
    make(tmp_path / "i", random_rows(2)).close()
    with Index.open(tmp_path / "i") as index:
        previews, rule = Previews(), Pruning(top_k=3)
        first = previews.of(index.snapshot, rule)
        assert previews.of(index.snapshot, Pruning(top_k=3)) is first
        sources = set(map(id, previews._sources.values()))
        with IndexWriter(tmp_path / "i", merge=False) as writer:
            writer.upsert(["d0"], None, vectors_of([{5: 1.0}]))
        index.refresh()
        second = previews.of(index.snapshot, rule)
        assert second is not first
        assert sources < set(map(id, previews._sources.values()))
        assert len(second.snapshot.catalog) == 300


def test_memory_is_bounded(tmp_path):
    with make(tmp_path / "i", random_rows(3)) as index:
        postings_ = index.info().postings
        with pytest.raises(BadInput, match=r"previewing a pruning takes [\d,]+ bytes"):
            Previews(postings_ * 17).of(index.snapshot, Pruning(top_k=3))
        previews = Previews(postings_ * 18)
        for k in range(1, 12):
            previews.of(index.snapshot, Pruning(top_k=k))
        assert 1 <= len(previews._kept) < 11
        assert sum(size for _, size in previews._kept.values()) <= postings_ * 6
