"""Bytes on disk: files that appear whole or not at all, named arrays that are mapped, checksums.

Arrays are stored in the safetensors layout (docs/format.md), so that any language can read them:

    write_arrays(path, {"terms": terms, "weights": weights}, {"format": "polylex-vectors"})
    arrays, metadata = map_arrays(path)
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import mmap
import os
import re
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput, BadVectors, CorruptIndex, PolylexError, StorageFull, UnknownFormat
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VECTORS_FORMAT = "polylex-vectors"
VECTORS_VERSION = "1"

_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
_DTYPES = {"F32": "<f4", "I64": "<i8", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1"}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_HEADER_LIMIT = 1 << 20  # bytes; a header of ours has a few hundred
_TEMPORARY = ".writing-"
_OURS = re.compile(r"(chunk|segment|rows|vocab)-[0-9a-f]{16}\.(safetensors|json\.gz)")
_CHUNK = 1 << 22  # bytes read at once for a checksum


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was written: what a reader checks it against.

    name    str  file name, without folder
    bytes   int  size
    sha256  str  hex
    """

    name: str
    bytes: int
    sha256: str


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn 'no space left' of anything inside into StorageFull that names `path`."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in _FULL or isinstance(fault, StorageFull):
            raise
        raise storage_full(path) from fault


def storage_full(path: Path) -> StorageFull:
    """The error for a full disk, with what to do next."""
    return StorageFull(
        errno.ENOSPC,
        "the disk is full; what was there before is untouched. Free some space and run the same again",
        str(path),
    )


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut; nothing on systems that cannot open folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(folder: Path, name: Callable[[str], str], parts: Iterable[bytes | memoryview]) -> Written:
    """Write `parts` under the name that `name` makes of their SHA-256 (hex); whole and durable on return, or absent.

    Raises StorageFull.
    """
    temporary = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
    digest, size = hashlib.sha256(), 0
    with full_disk_named(folder):
        try:
            with open(temporary, "xb") as file:
                for part in parts:
                    file.write(part)
                    digest.update(part)
                    size += len(part)
                file.flush()
                os.fsync(file.fileno())
            written = Written(name(digest.hexdigest()), size, digest.hexdigest())
            os.replace(temporary, folder / written.name)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(folder)
    return written


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()


def is_ours(name: str) -> bool:
    """Whether a file of this name is one that belongs to an index where its catalog names it."""
    return _OURS.fullmatch(name) is not None


def remove_unnamed(folder: Path, named: Set[str]) -> None:
    """Remove the files of `folder` that a writer wrote and that are not `named`; nothing of anybody else."""
    for file in folder.iterdir():
        if file.name.startswith(_TEMPORARY) or (is_ours(file.name) and file.name not in named):
            with suppress(PermissionError):  # Windows, where somebody reads it; a later writer will
                file.unlink(missing_ok=True)


# -- named arrays --------------------------------------------------------------------------------


def write_arrays(
    folder: Path, name: Callable[[str], str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> Written:
    """Write named one-dimensional arrays as one safetensors file. Raises StorageFull.

    arrays    float32, int64, uint64, uint32, uint16 or uint8
    metadata  str -> str, kept in the header
    """
    # Wide items first: everything is then aligned to its own size, as the header is padded to 8 bytes.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for key, array in ordered:
        begin, end = end, end + array.nbytes
        header[key] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    parts = [len(text).to_bytes(8, "little"), text]
    return write_file(folder, name, [*parts, *(np.ascontiguousarray(a).view(np.uint8).data for _, a in ordered)])


def map_arrays(path: Path, fault: type[PolylexError] = CorruptIndex) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays (read-only, mapped, not yet read) and metadata of a file of write_arrays.

    Raises `fault`, naming the file, where it is missing or breaks the layout.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        raise fault(f"{path} is missing") from None
    try:
        return _parse(memoryview(data))
    except (ValueError, KeyError, TypeError, RecursionError) as reason:
        raise fault(f"{path} is damaged or not a file of this kind ({reason}); restore it from a copy") from None


def _parse(data: memoryview) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Split a safetensors file. Raises ValueError, KeyError or TypeError on anything unexpected."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_HEADER_LIMIT, len(data) - 8):
        raise ValueError(f"a header of {length} bytes in a file of {len(data)}")
    header = json.loads(bytes(data[8 : 8 + length]))
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    metadata = header.pop("__metadata__", {})
    body = data[8 + length :]
    arrays, covered = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        dtype, (begin, end), shape = np.dtype(_DTYPES[entry["dtype"]]), entry["data_offsets"], entry["shape"]
        if begin != covered or not begin <= end <= len(body) or shape != [(end - begin) / dtype.itemsize]:
            raise ValueError(f"array {name} of shape {shape} at {begin}..{end} of {len(body)} bytes")
        arrays[name] = np.frombuffer(body[begin:end], dtype)
        covered = end
    if covered != len(body):
        raise ValueError(f"arrays hold {covered} of {len(body)} bytes")
    return arrays, {str(key): str(value) for key, value in dict(metadata).items()}


# -- vectors -------------------------------------------------------------------------------------


def save_vectors(path: Path | str, vectors: SparseVectors, ids: Sequence[str] | None = None) -> None:
    """Write vectors, and the ids of their rows where given, as one file. An old file there is replaced at the end.

    Raises BadInput unless there is one id a row, StorageFull.
    """
    path = Path(path)
    write_vectors(path.parent, lambda _: path.name, vectors, ids)


def write_vectors(
    folder: Path,
    name: Callable[[str], str],
    vectors: SparseVectors,
    ids: Sequence[str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Written:
    """What `save_vectors` does, under a name made of the content's SHA-256 (hex); `notes` go into the metadata."""
    if ids is not None and len(ids) != len(vectors):
        raise BadInput(f"{len(ids)} ids for {len(vectors)} vectors; give one id a row, or none at all")
    arrays: dict[str, NDArray[Any]] = {
        "indptr": vectors.indptr,
        "terms": vectors.terms,
        "weights": vectors.weights,
    }
    if ids is not None:
        arrays["ids"] = np.frombuffer(json.dumps(list(ids), separators=(",", ":")).encode("ascii"), np.uint8)
    metadata = {**(notes or {}), "format": VECTORS_FORMAT, "version": VECTORS_VERSION, "vocab": vectors.vocab}
    return write_arrays(folder, name, arrays, metadata)


def load_vectors(path: Path | str) -> tuple[SparseVectors, list[str] | None]:
    """Vectors of a file of save_vectors (mapped, so memory is used as rows are read) and the ids of their rows, if any.

    Raises BadVectors naming the file where it is missing, damaged or something else; UnknownFormat for another version.
    """
    path = Path(path)
    arrays, metadata = map_arrays(path, BadVectors)
    if metadata.get("format") != VECTORS_FORMAT:
        raise BadVectors(f"{path} holds {metadata.get('format')!r}, not {VECTORS_FORMAT!r}; give a file of `encode`")
    if metadata.get("version") != VECTORS_VERSION:
        raise UnknownFormat(
            f"{path} has format version {metadata.get('version')!r}, this release reads {VECTORS_VERSION!r}; "
            "upgrade polylex"
        )
    try:
        vectors = SparseVectors(arrays["indptr"], arrays["terms"], arrays["weights"], metadata["vocab"])
        ids = json.loads(arrays["ids"].tobytes()) if "ids" in arrays else None
    except (ValueError, KeyError, RecursionError) as fault:
        raise BadVectors(f"{path} is damaged ({fault}); encode again") from None
    if ids is not None and not (isinstance(ids, list) and len(ids) == len(vectors) and set(map(type, ids)) <= {str}):
        raise BadVectors(f"{path} is damaged (its ids do not fit {len(vectors)} rows); encode again")
    return vectors, ids


# -- vocabulary ----------------------------------------------------------------------------------


def vocab_name(fingerprint: str) -> str:
    """Name of the file that holds the vocabulary of that fingerprint."""
    return f"vocab-{fingerprint[:16]}.json.gz"


def write_vocab(folder: Path, vocab: Vocab) -> Written:
    """Write the names of all terms: the very text whose SHA-256 is the fingerprint, compressed. Raises StorageFull."""
    text = json.dumps([vocab.pivot, vocab.source], ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return write_file(folder, lambda _: vocab_name(vocab.fingerprint), [gzip.compress(text, 6, mtime=0)])


def read_vocab(path: Path, fingerprint: str) -> Vocab:
    """The vocabulary of a file of write_vocab. Raises CorruptIndex unless its names have that fingerprint."""
    try:
        text = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise CorruptIndex(f"{path} is missing; restore the index from a copy") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as fault:
        raise CorruptIndex(f"{path} is damaged ({fault}); restore the index from a copy") from None
    if hashlib.sha256(text).hexdigest() != fingerprint:
        raise CorruptIndex(f"{path} is damaged: its names fail their checksum; restore the index from a copy")
    return Vocab(*json.loads(text))
