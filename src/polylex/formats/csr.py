"""CSR: one .npz file that `scipy.sparse.load_npz` reads as documents x terms, with ids and fields inside."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadVectors
from polylex.storage import full_disk_named, sync_folder
from polylex.stream import Batch, Stream
from polylex.vectors import SparseVectors

_FAULTS = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError)


def write_csr(path: Path, stream: Stream, terms: int) -> None:
    """Write `data` float32, `indices` int32 (int64 where ids need it), `indptr` int64, `shape`, `format`.

    terms  columns of the matrix

    Besides stand `ids` and `fields` (uint8: JSON arrays in UTF-8) and `vocab` (uint8: fingerprint). The documents are
    read three times, so that memory holds one batch. Whole or not at all. Raises StorageFull.
    """
    lengths = [np.zeros(1, np.int64), *(np.diff(batch.vectors.indptr) for batch in stream)]
    indptr = np.cumsum(np.concatenate(lengths))
    nnz, wide = int(indptr[-1]), np.int64 if terms >= 1 << 31 else np.int32
    partial = path.with_name(f".writing-{secrets.token_hex(8)}")
    with full_disk_named(path):
        try:
            with zipfile.ZipFile(partial, "x", zipfile.ZIP_STORED) as file:
                _add(file, "indptr", np.dtype(np.int64), len(indptr), iter([indptr]))
                _add(file, "indices", np.dtype(wide), nnz, (batch.vectors.terms.astype(wide) for batch in stream))
                _add(file, "data", np.dtype(np.float32), nnz, (batch.vectors.weights for batch in stream))
                for name, value in (("shape", np.array([len(indptr) - 1, terms])), ("format", np.array(b"csr"))):
                    with file.open(f"{name}.npy", "w") as entry:
                        np.lib.format.write_array(entry, value, allow_pickle=False)
                for name, text in _texts(stream):
                    _add(file, name, np.dtype(np.uint8), len(text), iter([np.frombuffer(text, np.uint8)]))
            with open(partial, "rb+") as whole:
                os.fsync(whole.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(path.absolute().parent)


def _add(
    file: zipfile.ZipFile, name: str, dtype: np.dtype[Any], length: int, parts: Iterator[NDArray[np.generic]]
) -> None:
    """One array, piece by piece."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array_header_1_0(entry, header)
        for part in parts:
            entry.write(np.ascontiguousarray(part).view(np.uint8).data)


def _texts(stream: Stream) -> Iterator[tuple[str, bytes]]:
    def listed(values: Iterator[Any]) -> bytes:
        return json.dumps(list(values), separators=(",", ":")).encode("ascii")

    def each(batch: Batch) -> Iterator[Mapping[str, Any]]:
        return map(dict, batch.fields)

    yield "vocab", stream.vocab.encode("ascii")
    yield "ids", listed(stream.ids())
    yield "fields", listed(fields for batch in stream for fields in each(batch))


def read_csr(path: Path, vocab: str | None = None) -> tuple[SparseVectors, list[str], list[dict[str, Any]]]:
    """Vectors, ids and fields of such a file; of one of SciPy, ids are row numbers and there are no fields.

    vocab  fingerprint of the id space, for a file that does not tell

    Raises BadVectors, naming the file.
    """
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        if bytes(found["format"].item()) != b"csr":
            raise ValueError(f"a matrix in the format {found['format']}, not csr")
        rows = int(found["shape"][0])
        fingerprint = found["vocab"].tobytes().decode("ascii") if "vocab" in found else vocab
        if fingerprint is None:
            raise ValueError("it does not tell its vocabulary; give the model")
        ids = json.loads(found["ids"].tobytes()) if "ids" in found else list(map(str, range(rows)))
        fields = json.loads(found["fields"].tobytes()) if "fields" in found else [{}] * rows
        vectors = SparseVectors(found["indptr"], found["indices"], found["data"], fingerprint)
        if not len(vectors) == len(ids) == len(fields) == rows:
            raise ValueError(f"{rows} rows, {len(vectors)} vectors, {len(ids)} ids, {len(fields)} fields")
    except _FAULTS as fault:
        raise BadVectors(f"{path} cannot be read as CSR ({fault})") from None
    return vectors, ids, fields
