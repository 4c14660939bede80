import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import kernels, postings
from polylex.errors import BadInput, CorruptIndex, UnknownFormat
from polylex.kernels import BLOCK
from polylex.postings import Segment, invert, rows_between, write_segment
from polylex.storage import write_arrays
from polylex.vectors import SparseVectors

#          term  1    5            2            1    9
ROWS = [({1: 0.5, 5: 2.0}), ({2: 1.0}), ({}), ({1: 1.0, 9: 0.25})]


def vectors_of(rows, vocab="v"):
    pairs = [
        (np.array(sorted(row), np.uint32), np.array([row[term] for term in sorted(row)], np.float32)) for row in rows
    ]
    return SparseVectors.from_rows(pairs, vocab)


def same(a, b):
    return (
        a.vocab == b.vocab
        and a.indptr.tolist() == b.indptr.tolist()
        and a.terms.tolist() == b.terms.tolist()
        and a.weights.tolist() == b.weights.tolist()
    )


weights = st.floats(2**-20, 2**20, width=32)
rows_of_vectors = st.lists(st.dictionaries(st.integers(0, 12) | st.just(2**32 - 1), weights, max_size=6), min_size=1)


def test_inverting_gives_one_run_a_term_sorted_by_document():
    arrays = invert(vectors_of(ROWS))
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "terms": [1, 2, 5, 9],
        "starts": [0, 2, 3, 4, 5],
        "bounds": [1.0, 1.0, 2.0, 0.25],
        "dense": [],
        "before": [0],
        "planes": [],
        "ranks": [],
        "offsets": [0, 3, 1, 0, 3],
        "weights": [0.5, 1.0, 1.0, 2.0, 0.25],
    }


def test_a_run_of_many_documents_gets_a_plane_in_place_of_offsets():
    #           run 1 of term 3 has 66 documents, the others one
    rows = [{3: 2.0 if row == 70 else 0.5} for row in range(71) if row not in (1, 64, 65)]
    rows[1:1], rows[64:64] = [{}], [{9: 4.0}, {1: 4.0}]
    arrays = invert(vectors_of(rows), dense_from=2)
    assert arrays["dense"].tolist() == [1]
    assert arrays["before"].tolist() == [0, 68]
    assert arrays["starts"].tolist() == [0, 1, 69, 70]
    assert arrays["offsets"].tolist() == [65, 64]
    plane = arrays["planes"].tolist()
    assert plane[:4] == [64, 0, 64, 64]  # 0.5 is 63.75 units of 2 / 255
    assert plane[63:72] == [64, 0, 0, 64, 64, 64, 64, 255, 0]
    assert len(plane) == 128
    assert arrays["ranks"].tolist() == [0, 63]
    assert arrays["weights"].tolist() == [4.0, *[0.5] * 67, 2.0, 4.0]
    in_bytes = invert(vectors_of(rows), "u8", dense_from=2)
    assert in_bytes["planes"].tolist() == plane  # 63.75 is 64 to nearest, too
    assert in_bytes["weights"].tolist() == [255, 255]


def test_runs_are_dense_from_a_seventh_of_the_documents_of_a_segment_that_is_not_small():
    rows = [{1: 1.0} if row <= 4096 // 7 else {} for row in range(4096)]
    assert invert(vectors_of(rows))["dense"].tolist() == [0]
    assert invert(vectors_of([{2: 1.0}, *rows[1:]]))["dense"].tolist() == []
    assert invert(vectors_of(rows[:4095]))["dense"].tolist() == []


def test_sixteen_bits_are_those_of_a_float_after_its_sign():
    halves = invert(
        vectors_of([{1: 1.0}, {1: 1.5}, {1: 1 + 2**-9}, {1: 1 + 3 * 2**-9}, {1: 3.4e38}, {1: 1e-44}]), "u16"
    )
    # exponent 127 and 8 bits of mantissa; half a step is rounded up; the greatest stays finite, the least above 0
    assert halves["weights"].tolist() == [127 << 8, 127 << 8 | 128, 127 << 8 | 1, 127 << 8 | 2, 254 << 8 | 255, 1]
    assert halves["bounds"].tolist() == [float(np.float32((2 - 2**-8) * 2.0**127))]


def test_bytes_are_255ths_of_the_greatest_weight_of_the_run_and_never_zero():
    arrays = invert(vectors_of([{1: 2.0}, {1: 1.0}, {1: 0.001}, {1: 0.012}]), "u8")
    # 1.0 is 127.5 of 255 units of 2/255, a half is rounded to even; 0.001 is 0.13 units; 0.012 is 1.53
    assert arrays["weights"].tolist() == [255, 128, 1, 2]
    assert arrays["weights"].dtype == np.uint8
    assert arrays["bounds"].tolist() == [2.0]


def test_a_segment_is_laid_out_to_the_byte_as_the_format_page_says(tmp_path):
    written = write_segment(tmp_path, vectors_of(ROWS[:2]))
    header = (
        b'{"__metadata__":{"format":"polylex-segment","version":"1","rows":"2","vocab":"v"},'
        b'"bounds":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},'
        b'"starts":{"dtype":"U32","shape":[4],"data_offsets":[12,28]},'
        b'"terms":{"dtype":"U32","shape":[3],"data_offsets":[28,40]},'
        b'"weights":{"dtype":"F32","shape":[3],"data_offsets":[40,52]},'
        b'"offsets":{"dtype":"U16","shape":[3],"data_offsets":[52,58]}}'
    )
    header += b" " * (-len(header) % 8)
    body = struct.pack("<3f4I3I3f3H", 0.5, 1.0, 2.0, 0, 1, 2, 3, 1, 2, 5, 0.5, 1.0, 2.0, 0, 1, 0)
    content = struct.pack("<Q", len(header)) + header + body
    digest = hashlib.sha256(content).hexdigest()
    assert written.name == f"segment-{digest[:16]}.safetensors"
    assert (tmp_path / written.name).read_bytes() == content
    assert (written.bytes, written.sha256) == (len(content), digest)


def test_a_segment_with_planes_is_laid_out_to_the_byte_as_the_format_page_says(tmp_path, monkeypatch):
    monkeypatch.setattr(postings, "_DENSE_ROWS", 1)  # of two documents, one is more than a seventh
    written = write_segment(tmp_path, vectors_of(ROWS[:2]), "u16")
    header = (
        b'{"__metadata__":{"format":"polylex-segment","version":"2","rows":"2","vocab":"v"},'
        b'"before":{"dtype":"U32","shape":[4],"data_offsets":[0,16]},'
        b'"bounds":{"dtype":"F32","shape":[3],"data_offsets":[16,28]},'
        b'"dense":{"dtype":"U32","shape":[3],"data_offsets":[28,40]},'
        b'"starts":{"dtype":"U32","shape":[4],"data_offsets":[40,56]},'
        b'"terms":{"dtype":"U32","shape":[3],"data_offsets":[56,68]},'
        b'"offsets":{"dtype":"U16","shape":[0],"data_offsets":[68,68]},'
        b'"ranks":{"dtype":"U16","shape":[3],"data_offsets":[68,74]},'
        b'"weights":{"dtype":"U16","shape":[3],"data_offsets":[74,80]},'
        b'"planes":{"dtype":"U8","shape":[192],"data_offsets":[80,272]}}'
    )
    header += b" " * (-len(header) % 8)
    body = struct.pack("<4I3f3I4I3I", *[0, 1, 2, 3], 0.5, 1.0, 2.0, *[0, 1, 2], *[0, 1, 2, 3], *[1, 2, 5])
    body += struct.pack("<3H3H", *[0, 0, 0], *[126 << 8, 127 << 8, 128 << 8])  # of 0.5, 1 and 2
    body += b"\xff".ljust(64, b"\0") + b"\0\xff".ljust(64, b"\0") + b"\xff".ljust(64, b"\0")
    assert (tmp_path / written.name).read_bytes() == struct.pack("<Q", len(header)) + header + body


def open_dense(folder, vectors, precision, dense_from, first_row=0):
    """A segment from disk whose runs are dense from so many documents on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postings, "_dense_from", lambda rows: dense_from)
        return Segment.open(folder / write_segment(folder, vectors, precision).name, first_row)


@settings(max_examples=100, deadline=None)
@given(
    rows=rows_of_vectors,
    first_row=st.integers(0, 2**40),
    compiled=st.booleans(),
    dense_from=st.sampled_from([1, 2, BLOCK + 1]),
)
def test_vectors_come_back_from_a_segment_exactly(tmp_path_factory, rows, first_row, compiled, dense_from):
    folder, vectors = tmp_path_factory.mktemp("segment"), vectors_of(rows)
    segment = open_dense(folder, vectors, "f32", dense_from, first_row)
    assert segment.faults() == []
    assert segment.postings == vectors.nnz
    assert same(segment.vectors(), vectors)
    library = kernels._library
    kernels._library = library if compiled else None
    try:
        some = np.array([len(rows) - 1, 0, 0]) + first_row
        assert same(segment.vectors(some), vectors.take([len(rows) - 1, 0, 0]))
    finally:
        kernels._library = library


def test_vectors_come_back_from_long_planes(tmp_path):
    draw = np.random.default_rng(3)
    rows = [{int(term): float(term + row % 9 + 1) for term in draw.choice(6, 3, replace=False)} for row in range(900)]
    vectors = vectors_of(rows)
    segment = open_dense(tmp_path, vectors, "f32", 440)
    assert 0 < len(segment.dense) < 6
    assert same(segment.vectors(), vectors)
    for some in ([0, 899], range(5, 800, 3)):  # a few documents, and more
        assert same(segment.vectors(np.array(some)), vectors.take(some))


@settings(max_examples=50, deadline=None)
@given(rows=rows_of_vectors, dense_from=st.sampled_from([1, BLOCK + 1]))
def test_sixteen_bits_are_off_by_a_512th_at_most(tmp_path_factory, rows, dense_from):
    folder, vectors = tmp_path_factory.mktemp("segment"), vectors_of(rows)
    segment = open_dense(folder, vectors, "u16", dense_from)
    assert (segment.precision, segment.faults()) == ("u16", [])
    read = segment.vectors()
    assert read.terms.tolist() == vectors.terms.tolist()
    assert (np.abs(read.weights - vectors.weights) <= vectors.weights * 2**-9).all()


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_vectors, dense_from=st.sampled_from([1, BLOCK + 1]))
def test_bytes_are_off_by_half_a_unit_at_most_and_keep_every_term(tmp_path_factory, rows, dense_from):
    folder, vectors = tmp_path_factory.mktemp("segment"), vectors_of(rows)
    segment = open_dense(folder, vectors, "u8", dense_from)
    assert segment.faults() == []
    read = segment.vectors()
    assert read.indptr.tolist() == vectors.indptr.tolist()
    assert read.terms.tolist() == vectors.terms.tolist()
    greatest = {term: max(row[term] for row in rows if term in row) for term in {term for row in rows for term in row}}
    for term, got, given_weight in zip(
        read.terms.tolist(), read.weights.tolist(), vectors.weights.tolist(), strict=True
    ):
        unit = greatest[term] / 255
        assert abs(got - given_weight) <= unit * (0.5001 if given_weight > unit / 2 else 1.0001)


def test_the_tiniest_weights_stay_above_zero_as_bytes(tmp_path):
    segment = Segment.open(tmp_path / write_segment(tmp_path, vectors_of([{1: 1e-44}]), "u8").name, 0)
    assert segment.vectors().weights[0] > 0


def test_a_segment_takes_one_to_65536_documents(tmp_path):
    full = SparseVectors(
        np.arange(BLOCK + 1), np.full(BLOCK, 3, np.uint32), np.arange(1, BLOCK + 1, dtype=np.float32), "v"
    )
    segment = Segment.open(tmp_path / write_segment(tmp_path, full).name, 0)
    assert np.flatnonzero(segment.planes).tolist() == list(range(BLOCK))
    assert same(segment.vectors(), full)
    assert same(segment.vectors(np.array([BLOCK - 1])), full.take([BLOCK - 1]))
    for count in (0, BLOCK + 1):
        with pytest.raises(BadInput, match=f"got {count} "):
            write_segment(tmp_path, SparseVectors.empty("v", count))


def test_rows_between_are_the_rows():
    vectors = vectors_of(ROWS)
    assert same(rows_between(vectors, 1, 4), vectors.take([1, 2, 3]))
    assert same(rows_between(vectors, 0, 0), SparseVectors.empty("v"))


# -- what is not a segment -----------------------------------------------------------------------

METADATA = {"format": "polylex-segment", "version": "2", "rows": "4", "vocab": "v"}


def write(folder, arrays=(), metadata=(), dense_from=None):
    changed = {**METADATA, **dict(metadata)}
    changed = {key: value for key, value in changed.items() if value is not None}
    write_arrays(folder, lambda _: "s", {**invert(vectors_of(ROWS), dense_from=dense_from), **dict(arrays)}, changed)
    return folder / "s"


@pytest.mark.parametrize(
    "arrays",
    [
        {"extra": np.zeros(1, np.uint8)},
        {"starts": np.zeros(4, np.uint32)},
        {"bounds": np.ones(3, np.float32)},
        {"weights": np.ones(4, np.float32)},
        {"offsets": np.zeros(5, np.uint32)},
        {"weights": np.ones(5, np.uint32)},
        {"weights": np.ones(6, np.uint16)},
        {"before": np.zeros(2, np.uint32)},
        {"before": np.ones(1, np.uint32)},
        {"planes": np.zeros(64, np.uint8)},
        {"ranks": np.zeros(1, np.uint16)},
        {"dense": np.zeros(1, np.uint32)},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, arrays):
    with pytest.raises(CorruptIndex, match="is damaged"):
        Segment.open(write(tmp_path, arrays), 0)


@pytest.mark.parametrize("rows", [None, "", "0", "65537", "-1", "²", "999999999999", "x"])
def test_a_count_of_documents_that_cannot_be_is_refused(tmp_path, rows):
    with pytest.raises(CorruptIndex, match="documents"):
        Segment.open(write(tmp_path, metadata={"rows": rows}), 0)


def test_another_format_or_version_is_refused(tmp_path):
    with pytest.raises(CorruptIndex, match="not a segment"):
        Segment.open(write(tmp_path, metadata={"format": "x"}), 0)
    with pytest.raises(CorruptIndex, match="vocabulary"):
        Segment.open(write(tmp_path, metadata={"vocab": None}), 0)
    with pytest.raises(UnknownFormat, match="version '3'"):
        Segment.open(write(tmp_path, metadata={"version": "3"}), 0)
    with pytest.raises(CorruptIndex, match="damaged"):
        Segment.open(write(tmp_path, metadata={"version": "1"}, dense_from=1), 0)  # which has no planes


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"terms": np.array([1, 5, 2, 9], np.uint32)}, "terms"),
        ({"starts": np.array([0, 2, 2, 4, 5], np.uint32)}, "runs"),
        ({"starts": np.array([0, 2, 3, 4, 6], np.uint32)}, "runs"),
        ({"starts": np.array([1, 2, 3, 4, 5], np.uint32)}, "runs"),
        ({"offsets": np.array([3, 0, 1, 0, 3], np.uint16)}, "documents"),
        ({"offsets": np.array([0, 0, 1, 0, 3], np.uint16)}, "documents"),
        ({"offsets": np.array([0, 4, 1, 0, 3], np.uint16)}, "documents"),
        ({"weights": np.array([0.5, 1, 1, 2, -1], np.float32)}, "weights"),
        ({"weights": np.array([0.5, 1, np.nan, 2, 0.25], np.float32)}, "weights"),
        ({"bounds": np.array([1, 1, np.inf, 0.25], np.float32)}, "weights"),
        ({"bounds": np.array([1, 1, 2, 0.5], np.float32)}, "bounds"),
    ],
)
def test_faults_names_what_breaks_the_contract(tmp_path, arrays, fault):
    faults = Segment.open(write(tmp_path, arrays), 0).faults()
    assert len(faults) == 1
    assert fault in faults[0]


PLANES = np.zeros((2, 64), np.uint8)  # as they should be, of terms 1 and 2
PLANES[0, [0, 3]], PLANES[1, 1] = [128, 255], 255


def changed(array, at, value):
    copy = array.copy()
    copy[at] = value
    return copy.ravel()


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"planes": PLANES.ravel()}, None),
        ({"dense": np.array([1, 0], np.uint32)}, "dense runs"),
        ({"dense": np.array([0, 4], np.uint32)}, "dense runs"),
        ({"before": np.array([0, 1, 3], np.uint32)}, "miscounted"),
        ({"planes": changed(PLANES, (0, 0), 127)}, "planes"),
        ({"planes": changed(PLANES, (0, 1), 1)}, "planes"),
        ({"planes": changed(PLANES, (1, 60), 1)}, "planes"),
        ({"ranks": np.array([0, 1], np.uint16)}, "planes"),
    ],
)
def test_faults_names_what_is_wrong_with_planes(tmp_path, arrays, fault):
    dense = {
        "dense": np.array([0, 1], np.uint32),
        "before": np.array([0, 2, 3], np.uint32),
        "planes": PLANES.ravel(),
        "ranks": np.zeros(2, np.uint16),
        "offsets": np.array([0, 3], np.uint16),
    }
    faults = Segment.open(write(tmp_path, dense | arrays), 0).faults()
    assert [fault in each for each in faults] == ([True] if fault else [])


def test_postings_that_make_no_vectors_are_named_when_read(tmp_path):
    segment = Segment.open(write(tmp_path, {"weights": np.array([0.5, 1, np.nan, 2, 0.25], np.float32)}), 0)
    with pytest.raises(CorruptIndex, match="s is damaged"):
        segment.vectors()
    assert same(segment.vectors(np.array([0])), vectors_of(ROWS[:1]))  # the others can still be read
