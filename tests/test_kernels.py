import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import kernels
from polylex.errors import CorruptIndex
from polylex.kernels import BLOCK, SegmentTable, positions
from polylex.postings import Segment, invert
from polylex.vectors import SparseVectors

ENGINES = [
    pytest.param(True, id="c", marks=pytest.mark.skipif(not kernels.compiled(), reason="no C compiler built them")),
    pytest.param(False, id="numpy"),
]


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(kernels, "_library", None)


def vectors_of(rows):
    pairs = [
        (np.array(sorted(row), np.uint32), np.array([row[term] for term in sorted(row)], np.float32)) for row in rows
    ]
    return SparseVectors.from_rows(pairs, "v")


def segment_of(rows, first_row=0, precision="f32", **changed):
    arrays = {**invert(vectors_of(rows), precision), **changed}
    return Segment(Path("some-segment"), first_row, len(rows), **arrays, vocab="v")


def brute_force(rows, query, k):
    """Score every document by definition, rounding to float32 after each product and each sum, in order of terms."""
    scores = []
    for row in rows:
        score = np.float32(0)
        for term in sorted(query):
            if term in row:
                score = np.float32(score + np.float32(np.float32(query[term]) * np.float32(row[term])))
        scores.append(float(score))
    ranked = sorted(enumerate(scores), key=lambda hit: (-hit[1], hit[0]))
    return [hit for hit in ranked if hit[1] > 0][:k]


def hits(found):
    rows, scores = found
    return [
        [(row, score) for row, score in zip(some_rows, some_scores, strict=True) if row >= 0]
        for some_rows, some_scores in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def test_scores_are_inner_products_and_ties_go_to_the_earlier_document(engine):
    table = SegmentTable(
        [segment_of([{1: 0.5, 5: 2.0}, {2: 1.0}, {1: 1.0}]), segment_of([{}, {1: 1.0, 9: 0.25}], first_row=3)]
    )
    queries = vectors_of([{1: 2.0, 9: 4.0}, {2: 3.0}, {7: 1.0}, {}])
    rows, scores = table.top(queries, 3)
    # query 0: document 4 has 2 * 1 + 4 * 0.25 = 3, document 2 has 2, document 0 has 1
    assert rows.tolist() == [[4, 2, 0], [1, -1, -1], [-1] * 3, [-1] * 3]
    assert scores.tolist() == [[3, 2, 1], [3, 0, 0], [0] * 3, [0] * 3]
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)
    ties = table.top(vectors_of([{1: 1.0}]), 1)
    assert hits(ties) == [[(2, 1.0)]]  # documents 2 and 4 both have 1


small_weights = st.floats(0.0625, 4, width=32)
vectors = st.dictionaries(st.integers(0, 9), small_weights, max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    segments=st.lists(st.lists(vectors, min_size=1, max_size=8), min_size=1, max_size=4),
    queries=st.lists(vectors, max_size=3),
    k=st.integers(1, 12),
)
@pytest.mark.parametrize("compiled", ENGINES)
def test_results_are_those_of_brute_force_bit_for_bit(segments, queries, k, compiled):
    rows = [row for segment in segments for row in segment]
    firsts = np.cumsum([0, *map(len, segments)]).tolist()
    table = SegmentTable([segment_of(*pair) for pair in zip(segments, firsts[:-1], strict=True)])
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(kernels, "_library", None)
        found = hits(table.top(vectors_of(queries), k))
    assert found == [brute_force(rows, query, k) for query in queries]


@pytest.mark.skipif(not kernels.compiled(), reason="no C compiler built them")
@pytest.mark.parametrize("precision", ["f32", "u8"])
@pytest.mark.parametrize("k", [1, 10, 3000])
def test_c_and_numpy_agree_bit_for_bit_on_long_runs(monkeypatch, precision, k):
    draw = np.random.default_rng(5)
    rows = [
        dict(zip(draw.integers(0, 40, 12).tolist(), draw.exponential(1, 12).astype(np.float32).tolist(), strict=True))
        for _ in range(2500)
    ]
    table = SegmentTable([segment_of(rows[:1500], 0, precision), segment_of(rows[1500:], 1500, precision)])
    queries = vectors_of(rows[::300])
    compiled = table.top(queries, k)
    monkeypatch.setattr(kernels, "_library", None)
    plain = table.top(queries, k)
    assert compiled[0].tobytes() == plain[0].tobytes()
    assert compiled[1].tobytes() == plain[1].tobytes()


def test_a_part_of_the_segments_can_be_searched(engine):
    table = SegmentTable([segment_of([{1: 1.0}], row) for row in range(4)])
    query = vectors_of([{1: 1.0}])
    assert hits(table.top(query, 9, slice(1, 3))) == [[(1, 1.0), (2, 1.0)]]
    assert hits(table.top(query, 9, slice(2, 2))) == [[]]


def test_documents_at_both_ends_of_a_full_segment_are_found(engine):
    ends = [{1: 1.0}, *[{2: 1.0}] * (BLOCK - 2), {1: 2.0}]
    assert hits(SegmentTable([segment_of(ends, 100)]).top(vectors_of([{1: 1.0}]), 5)) == [
        [(100 + BLOCK - 1, 2.0), (100, 1.0)]
    ]


def test_scores_that_overflow_or_vanish_keep_their_order(engine):
    table = SegmentTable([segment_of([{1: 1e-30}, {1: 1.0}, {1: 3e38, 2: 3e38}])])
    assert hits(table.top(vectors_of([{1: 2.0, 2: 2.0}]), 3)) == [
        [(2, float("inf")), (1, 2.0), (0, float(np.float32(1e-30) * 2))]
    ]
    assert hits(table.top(vectors_of([{1: 1e-30}]), 3))[0][-1][0] == 1  # 1e-60 is 0 in float32: no hit


def test_positions_finds_the_postings_of_wanted_documents(engine):
    wanted = np.zeros(BLOCK, bool)
    wanted[[2, BLOCK - 1]] = True
    assert positions(np.array([2, 3, BLOCK - 1, 2], np.uint16), wanted).tolist() == [0, 2, 3]
    assert positions(np.zeros(0, np.uint16), wanted).tolist() == []


# -- hostile segments ----------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [[0, 1, 9], [0, 2, 1], [2**32 - 1, 2, 2], [0, 1, 2**32 - 1]])
def test_a_run_outside_of_the_postings_is_an_error_that_names_the_file(engine, starts):
    rows = [{1: 1.0, 2: 1.0}]
    table = SegmentTable([segment_of(rows), segment_of(rows, 1, starts=np.array(starts, np.uint32))])
    with pytest.raises(CorruptIndex, match="some-segment"):
        table.top(vectors_of([{1: 1.0, 2: 1.0}]), 3)


@settings(max_examples=300, deadline=None)
@given(
    terms=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    starts=st.lists(st.integers(0, 6) | st.integers(0, 2**32 - 1), min_size=4, max_size=4),
    offsets=st.lists(st.integers(0, BLOCK - 1), min_size=5, max_size=5),
    weights=st.lists(st.floats(width=32), min_size=5, max_size=5),
    query=st.dictionaries(st.integers(0, 9) | st.integers(0, 2**32 - 1), small_weights, max_size=8),
)
def test_no_content_of_a_segment_leads_out_of_bounds(terms, starts, offsets, weights, query):
    query = {**query, **dict.fromkeys(terms, 1.0)}
    arrays = {
        "terms": np.array(terms, np.uint32),
        "starts": np.array(starts, np.uint32),
        "bounds": np.ones(3, np.float32),
        "offsets": np.array(offsets, np.uint16),
        "weights": np.array(weights, np.float32),
    }
    table = SegmentTable([Segment(Path("some-segment"), 7, 3, **arrays, vocab="v")])
    try:
        rows, _ = table.top(vectors_of([query]), 4)
    except CorruptIndex:
        return
    assert set(rows.ravel().tolist()) <= {-1, 7, 8, 9}


def test_many_threads_get_what_one_gets(engine):
    draw = np.random.default_rng(7)
    rows = [{int(term): 1.0 + (term % 3) for term in draw.integers(0, 30, 6)} for _ in range(300)]
    table = SegmentTable([segment_of(rows[:200]), segment_of(rows[200:], 200)])
    queries = [vectors_of([row]) for row in rows[:60]]
    alone = [hits(table.top(query, 7)) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: hits(table.top(query, 7)), queries * 3))
    assert together == alone * 3


def test_without_the_compiled_module_numpy_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "polylex._kernels", None)  # importing it now raises ImportError
    assert kernels._load() is None
