import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import kernels
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
        "offsets": [0, 3, 1, 0, 3],
        "weights": [0.5, 1.0, 1.0, 2.0, 0.25],
    }


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


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_vectors, first_row=st.integers(0, 2**40), compiled=st.booleans())
def test_vectors_come_back_from_a_segment_exactly(tmp_path_factory, rows, first_row, compiled):
    folder, vectors = tmp_path_factory.mktemp("segment"), vectors_of(rows)
    segment = Segment.open(folder / write_segment(folder, vectors).name, first_row)
    assert segment.faults() == []
    assert same(segment.vectors(), vectors)
    library = kernels._library
    kernels._library = library if compiled else None
    try:
        some = np.array([len(rows) - 1, 0, 0]) + first_row
        assert same(segment.vectors(some), vectors.take([len(rows) - 1, 0, 0]))
    finally:
        kernels._library = library


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_vectors)
def test_bytes_are_off_by_half_a_unit_at_most_and_keep_every_term(tmp_path_factory, rows):
    folder, vectors = tmp_path_factory.mktemp("segment"), vectors_of(rows)
    segment = Segment.open(folder / write_segment(folder, vectors, "u8").name, 0)
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
    assert segment.offsets.tolist() == list(range(BLOCK))
    assert same(segment.vectors(np.array([BLOCK - 1])), full.take([BLOCK - 1]))
    for count in (0, BLOCK + 1):
        with pytest.raises(BadInput, match=f"got {count} "):
            write_segment(tmp_path, SparseVectors.empty("v", count))


def test_rows_between_are_the_rows():
    vectors = vectors_of(ROWS)
    assert same(rows_between(vectors, 1, 4), vectors.take([1, 2, 3]))
    assert same(rows_between(vectors, 0, 0), SparseVectors.empty("v"))


# -- what is not a segment -----------------------------------------------------------------------

METADATA = {"format": "polylex-segment", "version": "1", "rows": "4", "vocab": "v"}


def write(folder, arrays=(), metadata=()):
    changed = {**METADATA, **dict(metadata)}
    changed = {key: value for key, value in changed.items() if value is not None}
    write_arrays(folder, lambda _: "s", {**invert(vectors_of(ROWS)), **dict(arrays)}, changed)
    return folder / "s"


@pytest.mark.parametrize(
    "arrays",
    [
        {"extra": np.zeros(1, np.uint8)},
        {"starts": np.zeros(4, np.uint32)},
        {"bounds": np.ones(3, np.float32)},
        {"weights": np.ones(4, np.float32)},
        {"offsets": np.zeros(5, np.uint32)},
        {"weights": np.ones(5, np.uint16)},
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
    with pytest.raises(UnknownFormat, match="version '2'"):
        Segment.open(write(tmp_path, metadata={"version": "2"}), 0)


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


def test_postings_that_make_no_vectors_are_named_when_read(tmp_path):
    segment = Segment.open(write(tmp_path, {"weights": np.array([0.5, 1, np.nan, 2, 0.25], np.float32)}), 0)
    with pytest.raises(CorruptIndex, match="s is damaged"):
        segment.vectors()
    assert same(segment.vectors(np.array([0])), vectors_of(ROWS[:1]))  # the others can still be read
