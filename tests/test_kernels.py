import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import kernels
from polylex.errors import BadInput, CorruptIndex
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


NEVER = BLOCK + 1


def segment_of(rows, first_row=0, precision="f32", dense_from=None, **changed):
    arrays = {**invert(vectors_of(rows), precision, dense_from=dense_from), **changed}
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
    dense_from=st.sampled_from([1, 2, 4, NEVER]),
)
@pytest.mark.parametrize("compiled", ENGINES)
def test_results_are_those_of_brute_force_bit_for_bit(segments, queries, k, dense_from, compiled):
    rows = [row for segment in segments for row in segment]
    firsts = np.cumsum([0, *map(len, segments)]).tolist()
    table = SegmentTable([segment_of(*pair, dense_from=dense_from) for pair in zip(segments, firsts[:-1], strict=True)])
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(kernels, "_library", None)
        found = hits(table.top(vectors_of(queries), k))
    assert found == [brute_force(rows, query, k) for query in queries]


def zipf_rows(count, seed):
    """Documents of a dozen terms; term 0 is in most of them, term 40 in few."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        terms = np.minimum(draw.geometric(0.12, 12) - 1, 40).tolist()
        rows.append(dict(zip(terms, draw.lognormal(0, 0.7, 12).astype(np.float32).tolist(), strict=True)))
    return rows


LONG = zipf_rows(6000, 5)


def long_table(precision, dense_from):
    return SegmentTable(
        [segment_of(LONG[:4100], 0, precision, dense_from), segment_of(LONG[4100:], 4100, precision, dense_from)]
    )


def same(a, b):
    return all(one.tobytes() == other.tobytes() for one, other in zip(a, b, strict=True))


@pytest.mark.skipif(not kernels.compiled(), reason="no C compiler built them")
@pytest.mark.parametrize("precision", ["f32", "u16", "u8"])
@pytest.mark.parametrize("dense_from", [1, 600, NEVER])
def test_c_and_numpy_agree_bit_for_bit_on_long_runs(monkeypatch, precision, dense_from):
    table, queries = long_table(precision, dense_from), vectors_of(LONG[::700])
    allowed = [np.packbits(np.arange(4100) % 3 > 0, bitorder="little"), packed(*range(0, 1900, 40), count=1900)]
    cases = [(k, bits) for k in (1, 10, 3000, 6000) for bits in (None, allowed)]
    compiled = [table.top(queries, k, allowed=bits) for k, bits in cases]
    monkeypatch.setattr(kernels, "_library", None)
    plain = [table.top(queries, k, allowed=bits) for k, bits in cases]
    assert all(map(same, compiled, plain))
    assert (compiled[-2][0] >= 0).sum() > 20_000  # most documents share a term with each query


@pytest.mark.parametrize("precision", ["f32", "u16", "u8"])
@pytest.mark.parametrize("factor", [1e-38, 1e-25, 1.0, 1e18, 3e37])
def test_planes_change_no_result_however_small_or_great_the_weights(engine, precision, factor):
    queries = SparseVectors.concat([vectors_of([{0: 1.0}]), vectors_of(LONG[:3])])
    queries = SparseVectors(queries.indptr, queries.terms, queries.weights * np.float32(factor), "v")
    for k in (3, 100):
        sparse = long_table(precision, NEVER).top(queries, k)
        assert same(long_table(precision, 500).top(queries, k), sparse)
    assert np.isinf(sparse[1]).any() == (factor > 1e37)


def test_documents_with_equal_scores_come_in_the_order_of_rows_from_planes_too(engine):
    rows = [{1: 1.5, 2: 0.25} if row % 2 else {1: 1.5} for row in range(300)]
    table = SegmentTable([segment_of(rows, 0, dense_from=1), segment_of(rows, 300, dense_from=1)])
    assert hits(table.top(vectors_of([{1: 2.0}]), 4)) == [[(row, 3.0) for row in range(4)]]
    assert hits(table.top(vectors_of([{1: 2.0, 2: 4.0}]), 3)) == [[(row, 4.0) for row in (1, 3, 5)]]


def test_a_query_may_have_more_dense_terms_than_plane_sums_can_hold(engine):
    row = {term: 1.0 + term % 3 for term in range(300)}
    rows = [{term: weight for term, weight in row.items() if (term + at) % 5} for at in range(70)]
    dense = SegmentTable([segment_of(rows, dense_from=1)])
    assert same(dense.top(vectors_of([row]), 9), SegmentTable([segment_of(rows)]).top(vectors_of([row]), 9))


def test_a_part_of_the_segments_can_be_searched(engine):
    table = SegmentTable([segment_of([{1: 1.0}], row) for row in range(4)])
    query = vectors_of([{1: 1.0}])
    assert hits(table.top(query, 9, slice(1, 3))) == [[(1, 1.0), (2, 1.0)]]
    assert hits(table.top(query, 9, slice(2, 2))) == [[]]


def packed(*rows, count):
    mask = np.zeros(count, bool)
    mask[list(rows)] = True
    return np.packbits(mask, bitorder="little")


def test_only_allowed_documents_are_hits(engine):
    rows = [{1: 1.0}, {1: 5.0}, {1: 3.0}, {1: 4.0}]
    table = SegmentTable([segment_of(rows), segment_of(rows, 4), segment_of(rows, 8)])
    query = vectors_of([{1: 1.0}])
    allowed = [packed(0, 2, count=4), None, packed(count=4)]
    assert hits(table.top(query, 9, allowed=allowed)) == [[(5, 5.0), (7, 4.0), (2, 3.0), (6, 3.0), (0, 1.0), (4, 1.0)]]
    assert hits(table.top(query, 1, slice(0, 1), allowed)) == [[(2, 3.0)]]
    assert hits(table.top(query, 1, slice(2, 3), allowed)) == [[]]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(vectors, st.booleans()), min_size=1, max_size=80),
    query=vectors,
    k=st.integers(1, 9),
    dense_from=st.sampled_from([1, NEVER]),
)
@pytest.mark.parametrize("compiled", ENGINES)
def test_filtered_results_are_those_of_brute_force_over_the_allowed(rows, query, k, dense_from, compiled):
    rows, mask = zip(*rows, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(kernels, "_library", None)
        found = hits(
            SegmentTable([segment_of(rows, 3, dense_from=dense_from)]).top(
                vectors_of([query]), k, allowed=[np.packbits(mask, bitorder="little")]
            )
        )
    expected = brute_force([row if wanted else {} for row, wanted in zip(rows, mask, strict=True)], query, k)
    assert found == [[(row + 3, score) for row, score in expected]]


def test_bits_beyond_the_last_document_mean_nothing(engine):
    table = SegmentTable([segment_of([{1: 1.0}] * 3)])
    assert hits(table.top(vectors_of([{1: 1.0}]), 9, allowed=[np.array([0xFC], np.uint8)])) == [[(2, 1.0)]]


@pytest.mark.parametrize(
    "allowed",
    [
        [],
        [None, None],
        [np.zeros(1, np.uint8)],
        [np.zeros(3, np.uint8)],
        [np.zeros(9, bool)],
        [np.zeros((1, 2), np.uint8)],
        [np.zeros(4, np.uint8)[::2]],
    ],
)
def test_bitmaps_that_do_not_fit_the_segments_are_refused(engine, allowed):
    table = SegmentTable([segment_of([{1: 1.0}] * 9)])
    with pytest.raises(BadInput, match="allowed"):
        table.top(vectors_of([{1: 1.0}]), 1, allowed=allowed)


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


@pytest.mark.parametrize("others", [[], range(1000, 1010)])  # a few documents, and more
def test_positions_finds_the_postings_of_some_documents(engine, others):
    documents = np.array([2, BLOCK - 1, *others])
    offsets = np.zeros(200, np.uint16)
    offsets[[0, 70, 150, 199]] = [2, 3, BLOCK - 1, 2]
    assert positions(offsets, documents).tolist() == [0, 150, 199]
    assert positions(offsets, documents[:1]).tolist() == [0, 199]
    assert positions(offsets[:0], documents).tolist() == []


# -- hostile segments ----------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [[0, 1, 9], [0, 2, 1], [2**32 - 1, 2, 2], [0, 1, 2**32 - 1]])
def test_a_run_outside_of_the_postings_is_an_error_that_names_the_file(engine, starts):
    rows = [{1: 1.0, 2: 1.0}]
    table = SegmentTable([segment_of(rows), segment_of(rows, 1, starts=np.array(starts, np.uint32))])
    with pytest.raises(CorruptIndex, match="some-segment"):
        table.top(vectors_of([{1: 1.0, 2: 1.0}]), 3)


numbers = st.integers(0, 6) | st.integers(0, 2**32 - 1)


@settings(max_examples=300, deadline=None)
@given(
    terms=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    starts=st.lists(numbers, min_size=4, max_size=4),
    bounds=st.lists(st.floats(width=32), min_size=3, max_size=3),
    dense=st.lists(numbers, max_size=2),
    before=st.lists(numbers, min_size=3, max_size=3),
    planes=st.binary(min_size=128, max_size=128),
    ranks=st.lists(st.integers(0, BLOCK - 1), min_size=2, max_size=2),
    offsets=st.lists(st.integers(0, BLOCK - 1), min_size=5, max_size=5),
    weights=st.lists(st.floats(width=32), min_size=5, max_size=5) | st.binary(min_size=5, max_size=5),
    query=st.dictionaries(st.integers(0, 9) | st.integers(0, 2**32 - 1), small_weights, max_size=8),
)
def test_no_content_of_a_segment_leads_out_of_bounds(
    terms, starts, bounds, dense, before, planes, ranks, offsets, weights, query
):
    query = {**query, **dict.fromkeys(terms, 1.0)}
    arrays = {
        "terms": np.array(terms, np.uint32),
        "starts": np.array(starts, np.uint32),
        "bounds": np.array(bounds, np.float32),
        "dense": np.array(dense, np.uint32),
        "before": np.array(before[: len(dense) + 1], np.uint32),
        "planes": np.frombuffer(planes, np.uint8)[: 64 * len(dense)],
        "ranks": np.array(ranks[: len(dense)], np.uint16),
        "offsets": np.array(offsets, np.uint16),
        "weights": np.frombuffer(weights, np.uint8) if isinstance(weights, bytes) else np.array(weights, np.float32),
    }
    table = SegmentTable([Segment(Path("some-segment"), 7, 3, **arrays, vocab="v")])
    try:
        rows, _ = table.top(vectors_of([query]), 4)
    except CorruptIndex:
        return
    assert set(rows.ravel().tolist()) <= {-1, 7, 8, 9}


@pytest.mark.parametrize("weight", [np.inf, np.nan, 3e38, -1.0])
def test_weights_that_contradict_their_bounds_stay_inside_of_arrays(engine, weight):
    rows = [{1: 1.0, 2: 1.0} if row < 3 else {1: 2.0} for row in range(200)]
    weights = invert(vectors_of(rows), dense_from=100)["weights"]
    weights[-3:] = weight  # of term 2, whose run is sparse and has bound 1
    table = SegmentTable([segment_of(rows, dense_from=100, weights=weights)])
    with np.errstate(all="ignore"):
        found, _ = table.top(vectors_of([{1: 1.0, 2: 5.0}]), 5)
    assert ((found >= -1) & (found < 200)).all()


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
