import bz2
import contextlib
import gzip
import io
import lzma
import sys

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from polylex.compression import READ_ERRORS, open_bytes
from polylex.errors import MissingExtra

PACK = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
TEXT = ("Alle Menschen sind frei. 人人生而自由。\n" * 20_000).encode()  # larger than every buffer on the way


def read(path):
    with open_bytes(path) as stream:
        return stream.read()


@pytest.mark.parametrize("ending", PACK)
def test_packed_files_read_as_what_was_packed(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(PACK[ending](TEXT))
    assert read(path) == TEXT


@pytest.mark.parametrize("ending", PACK)
def test_packed_files_in_a_row_read_as_one(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(PACK[ending](TEXT) + PACK[ending](b"") + PACK[ending](b"end"))
    assert read(path) == TEXT + b"end"


@pytest.mark.parametrize("ending", PACK)
def test_the_contents_decide_and_not_the_name(tmp_path, ending):
    (tmp_path / "packed.jsonl").write_bytes(PACK[ending](b"text"))
    (tmp_path / f"plain{ending}").write_bytes(b"text")
    assert read(tmp_path / "packed.jsonl") == read(tmp_path / f"plain{ending}") == b"text"


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("lost", [1, 5, 100])
def test_a_truncated_file_is_never_taken_for_a_complete_one(tmp_path, ending, lost):
    path = tmp_path / f"a{ending}"
    path.write_bytes(PACK[ending](TEXT)[:-lost])
    with pytest.raises(READ_ERRORS):
        read(path)


@pytest.mark.parametrize("ending", PACK)
def test_an_empty_file_with_the_name_of_a_packed_one_is_truncated(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.touch()
    with pytest.raises(EOFError, match="the file is empty"):
        read(path)


@pytest.mark.parametrize("ending", PACK)
def test_a_flipped_byte_gives_other_text_or_a_read_error_and_nothing_else(tmp_path, ending):
    packed = bytearray(PACK[ending](TEXT[:3000]))
    path = tmp_path / f"a{ending}"
    raised = 0
    for at in range(0, len(packed), 7):
        packed[at] ^= 0x55
        path.write_bytes(packed)
        try:
            read(path)
        except READ_ERRORS:
            raised += 1
        packed[at] ^= 0x55
    assert raised


def test_a_text_that_begins_like_bzip2_is_a_text(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"BZh9 is how bzip2 files begin")
    assert read(path) == b"BZh9 is how bzip2 files begin"


@pytest.mark.parametrize("ending", ["", *PACK])
def test_standard_input_is_unpacked_too_and_stays_open(monkeypatch, ending):
    data = PACK[ending](b"text") if ending else b"text"
    stdin = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read("-") == b"text"
    assert not stdin.buffer.closed


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the standard library reads Zstandard")
def test_zstandard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.zst"
    path.write_bytes(PACK[".zst"](b"text"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtra, match=r'pip install "polylex\[zstd\]"'):
        read(path)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"BZh91AY&SY", b"\x28\xb5\x2f\xfd"]),
)
def test_any_bytes_read_or_raise_a_read_error(tmp_path_factory, data, magic):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(magic + data)
    with contextlib.suppress(*READ_ERRORS):
        assert isinstance(read(path), bytes)


def test_a_small_zstandard_file_that_unpacks_to_much_is_read_in_pieces(tmp_path):
    path = tmp_path / "bomb.zst"
    path.write_bytes(PACK[".zst"](bytes(1 << 26)))
    with open_bytes(path) as stream:
        assert len(stream.read(1000)) == 1000
