import errno
import gzip
import hashlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from polylex.errors import BadInput, BadVectors, CorruptIndex, StorageFull, UnknownFormat
from polylex.storage import load_vectors, map_arrays, read_vocab, save_vectors, write_arrays, write_file, write_vocab
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

TWO = SparseVectors(np.array([0, 2, 3]), np.array([1, 5, 2]), np.array([0.5, 2.0, 1.0]), "v")


def named(name):
    return lambda digest: name


def test_a_file_says_what_was_written(tmp_path):
    written = write_file(tmp_path, lambda digest: f"{digest[:4]}.bin", [b"ab", b"c"])
    # SHA-256 of "abc", the example of FIPS 180-2
    assert written.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (written.name, written.bytes) == ("ba78.bin", 3)
    assert (tmp_path / "ba78.bin").read_bytes() == b"abc"


def test_arrays_are_laid_out_to_the_byte_as_the_format_page_says(tmp_path):
    write_arrays(tmp_path, named("a"), {"x": np.array([7], np.uint16), "y": np.array([1, 2], np.uint32)}, {"k": "v"})
    header = (
        b'{"__metadata__":{"k":"v"},'
        b'"y":{"dtype":"U32","shape":[2],"data_offsets":[0,8]},'
        b'"x":{"dtype":"U16","shape":[1],"data_offsets":[8,10]}}'
    )
    header += b" " * (-len(header) % 8)
    expected = struct.pack("<Q", len(header)) + header + struct.pack("<IIH", 1, 2, 7)
    assert (tmp_path / "a").read_bytes() == expected


def test_arrays_are_read_by_the_safetensors_library_and_the_other_way_round(tmp_path):
    arrays = {
        "words": np.arange(5, dtype=np.uint32),
        "bytes": np.arange(3, dtype=np.uint8),
        "none": np.zeros(0, np.float32),
        "long": np.array([-1, 2**40], np.int64),
    }
    write_arrays(tmp_path, named("ours"), arrays, {"a": "b"})
    save_file(arrays, tmp_path / "theirs", {"a": "b"})
    theirs, ours = load_file(tmp_path / "ours"), map_arrays(tmp_path / "theirs")
    assert ours[1] == {"a": "b"}
    for name, array in arrays.items():
        for read in (theirs[name], ours[0][name]):
            assert read.dtype == array.dtype
            assert read.tolist() == array.tolist()


def test_mapped_arrays_cannot_be_written_to(tmp_path):
    write_arrays(tmp_path, named("a"), {"x": np.array([7], np.uint16)}, {})
    with pytest.raises(ValueError, match="read-only"):
        map_arrays(tmp_path / "a")[0]["x"][0] = 1


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_of_arrays_is_refused_or_read_within_its_bounds(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("arrays")
    write_arrays(
        folder, named("a"), {"x": np.arange(9, dtype=np.uint16), "y": np.arange(4, dtype=np.uint32)}, {"k": "v"}
    )
    whole = bytearray((folder / "a").read_bytes())
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    (folder / "a").write_bytes(whole)
    try:
        arrays, metadata = map_arrays(folder / "a")
    except CorruptIndex as fault:
        assert str(folder / "a") in str(fault)
    else:
        assert sum(array.nbytes for array in arrays.values()) <= len(whole)
        assert all(isinstance(key + value, str) for key, value in metadata.items())


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 3]}},  # shape and size differ
        {"x": {"dtype": "U8", "shape": [-4], "data_offsets": [0, -4]}},  # negative
        {"x": {"dtype": "U8", "shape": [2**62, 4], "data_offsets": [0, 2**64]}},  # beyond the end
        {"x": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}},  # a hole before
        {"x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}},  # a rest after
        {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}},  # a type we do not use
        {"x": {"shape": [4], "data_offsets": [0, 4]}},
        {"x": 1},
        {"x": {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]}},  # two dimensions
        {"__metadata__": 3, "x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}},
        [],
    ],
)
def test_a_header_that_does_not_fit_the_file_is_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(CorruptIndex, match="damaged"):
        map_arrays(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"\x01", bytes(8), struct.pack("<Q", 2**63) + b"{}", b"\xff" * 40])
def test_what_is_no_file_of_arrays_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CorruptIndex, match="damaged"):
        map_arrays(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorruptIndex, match="gone is missing"):
        map_arrays(tmp_path / "gone")


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, monkeypatch, step):
    (tmp_path / "a").write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def parts():
        yield b"new"
        full()

    if step != "write":
        monkeypatch.setattr(os, step, full)
    with pytest.raises(StorageFull, match="disk is full") as caught:
        write_file(tmp_path, named("a"), parts() if step == "write" else [b"new"])
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


# -- vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [None, ["a", "字\ud800\0"]])
def test_vectors_and_ids_come_back_as_they_were_saved(tmp_path, ids):
    save_vectors(tmp_path / "v.safetensors", TWO, ids)
    vectors, read_ids = load_vectors(tmp_path / "v.safetensors")
    assert read_ids == ids
    assert vectors.vocab == "v"
    assert vectors.indptr.tolist() == [0, 2, 3]
    assert vectors.terms.tolist() == [1, 5, 2]
    assert vectors.weights.tolist() == [0.5, 2.0, 1.0]


def test_saving_vectors_replaces_an_older_file(tmp_path):
    save_vectors(tmp_path / "v", SparseVectors.empty("v", 3))
    save_vectors(str(tmp_path / "v"), TWO)
    assert len(load_vectors(str(tmp_path / "v"))[0]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["v"]


def test_ids_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match="1 ids for 2 vectors"):
        save_vectors(tmp_path / "v", TWO, ["a"])
    assert not list(tmp_path.iterdir())


def test_files_that_hold_no_vectors_are_refused(tmp_path):
    with pytest.raises(BadVectors, match="gone is missing"):
        load_vectors(tmp_path / "gone")
    write_arrays(tmp_path, named("other"), {}, {"format": "something"})
    with pytest.raises(BadVectors, match="'something'"):
        load_vectors(tmp_path / "other")
    write_arrays(tmp_path, named("new"), {}, {"format": "polylex-vectors", "version": "2"})
    with pytest.raises(UnknownFormat, match="'2'"):
        load_vectors(tmp_path / "new")
    good = {"indptr": TWO.indptr, "terms": TWO.terms, "weights": TWO.weights}
    metadata = {"format": "polylex-vectors", "version": "1", "vocab": "v"}
    for change in (
        {"weights": -TWO.weights},
        {"indptr": TWO.indptr[:2]},
        {"ids": np.frombuffer(b'["a"]', np.uint8)},
        {"ids": np.frombuffer(b'{"a"', np.uint8)},
    ):
        write_arrays(tmp_path, named("bad"), {**good, **change}, metadata)
        with pytest.raises(BadVectors, match="bad is damaged"):
            load_vectors(tmp_path / "bad")
    write_arrays(tmp_path, named("bad"), {"indptr": TWO.indptr}, metadata)
    with pytest.raises(BadVectors, match="bad is damaged"):
        load_vectors(tmp_path / "bad")


# -- vocabulary ----------------------------------------------------------------------------------


def test_the_file_of_the_vocabulary_is_the_text_whose_checksum_is_the_fingerprint(tmp_path):
    vocab = Vocab(["a", "b"], ["▁陌", "\ud800"])
    written = write_vocab(tmp_path, vocab)
    text = gzip.decompress((tmp_path / written.name).read_bytes())
    assert text == b'[["a","b"],["\\u2581\\u964c","\\ud800"]]'
    assert hashlib.sha256(text).hexdigest() == vocab.fingerprint
    assert read_vocab(tmp_path / written.name, vocab.fingerprint) == vocab


def test_a_damaged_vocabulary_is_refused_whatever_byte_is_hit(tmp_path):
    vocab = Vocab(["a", "b"], ["c"])
    path = tmp_path / write_vocab(tmp_path, vocab).name
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(CorruptIndex, match="damaged"):
            read_vocab(path, vocab.fingerprint)
    for at in range(10, len(whole)):  # the ten bytes before hold a time stamp and flags that change no name
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptIndex, match="damaged"):
            read_vocab(path, vocab.fingerprint)
    path.unlink()
    with pytest.raises(CorruptIndex, match="missing"):
        read_vocab(path, vocab.fingerprint)
