"""Parquet: columns id, terms (list of uint32), weights (list of float32) and fields (JSON text). Needs pyarrow."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from polylex.errors import BadVectors, MissingExtra
from polylex.storage import full_disk_named, sync_folder
from polylex.stream import Batch, Stream
from polylex.vectors import SparseVectors


def write_parquet(path: Path, stream: Stream) -> None:
    """Write one row group a batch; the fingerprint of the vocabulary is in the metadata `polylex.vocab`.

    Whole or not at all. Raises MissingExtra, StorageFull.
    """
    pyarrow, parquet = _packages("Writing")
    schema = pyarrow.schema(
        [
            pyarrow.field("id", pyarrow.string()),
            pyarrow.field("terms", pyarrow.list_(pyarrow.uint32())),
            pyarrow.field("weights", pyarrow.list_(pyarrow.float32())),
            pyarrow.field("fields", pyarrow.string()),
        ],
        metadata={"polylex.vocab": stream.vocab},
    )
    partial = path.with_name(f".writing-{secrets.token_hex(8)}")
    with full_disk_named(path):
        try:
            with parquet.ParquetWriter(partial, schema) as file:
                for batch in stream:
                    file.write_table(pyarrow.table(_columns(pyarrow, batch), schema))
            with open(partial, "rb+") as whole:
                os.fsync(whole.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(path.absolute().parent)


def _columns(pyarrow: Any, batch: Batch) -> list[Any]:  # noqa: ANN401 - the package is optional
    vectors = batch.vectors
    ends = pyarrow.array(vectors.indptr.astype(np.int32))
    return [
        pyarrow.array(list(batch.ids), pyarrow.string()),
        pyarrow.ListArray.from_arrays(ends, pyarrow.array(vectors.terms)),
        pyarrow.ListArray.from_arrays(ends, pyarrow.array(vectors.weights)),
        pyarrow.array([json.dumps(dict(fields)) for fields in batch.fields], pyarrow.string()),
    ]


def read_parquet(path: Path, vocab: str | None = None) -> tuple[SparseVectors, list[str], list[Mapping[str, Any]]]:
    """Vectors, ids and fields of such a file, all in memory.

    vocab  fingerprint of the id space, for a file that does not tell

    Raises BadVectors naming the file, MissingExtra.
    """
    pyarrow, parquet = _packages("Reading")
    try:
        table = parquet.read_table(path)
        stored = (table.schema.metadata or {}).get(b"polylex.vocab")
        fingerprint = stored.decode("ascii") if stored else vocab
        if fingerprint is None:
            raise ValueError("it does not tell its vocabulary; give the model")
        ids = table["id"].to_pylist()
        rows = zip(table["terms"].to_pylist(), table["weights"].to_pylist(), strict=True)
        vectors = SparseVectors.from_rows(
            ((np.array(terms, np.uint32), np.array(weights, np.float32)) for terms, weights in rows), fingerprint
        )
        texts = table["fields"].to_pylist() if "fields" in table.column_names else [None] * len(ids)
        return vectors, ids, [json.loads(text or "{}") for text in texts]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as fault:
        raise BadVectors(f"{path} cannot be read as vectors in Parquet ({fault})") from None


def _packages(purpose: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("pyarrow", "parquet", f"{purpose} Parquet files") from None
    return pyarrow, parquet
