"""Exports and imports: documents with their vectors to and from the files of other programs.

with Index.open("articles.plx") as index:
    stream = Stream.of_index(index)
    fit = inspect(stream, profile("opensearch"), index.vocab)
    fit.require()
    export(stream, Path("articles.ndjson"), "opensearch", index.vocab)

vectors, ids, fields = restore(Path("articles.ndjson"), "opensearch", vocab)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput
from polylex.fit import Fit
from polylex.formats.bulk import Bulk, ElasticBulk
from polylex.formats.ciff import read_ciff, write_ciff
from polylex.formats.csr import read_csr, write_csr
from polylex.formats.impacts import ANSERINI, SEISMIC
from polylex.formats.parquet import read_parquet, write_parquet
from polylex.formats.points import MilvusRows, Points
from polylex.formats.rows import Layout, gather, read_lines, write_lines
from polylex.names import TermNames
from polylex.profiles import Profile
from polylex.stream import Stream
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

FileFormat = Literal["csr", "anserini", "seismic", "ciff", "opensearch", "elasticsearch", "qdrant", "milvus", "parquet"]
FILE_FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)

_LAYOUTS: Mapping[str, Layout] = {
    "anserini": ANSERINI,
    "seismic": SEISMIC,
    "opensearch": Bulk(),
    "elasticsearch": ElasticBulk(),
    "qdrant": Points(),
    "milvus": MilvusRows(),
}

Restored = tuple[SparseVectors, list[str], list[Mapping[str, Any]]]


def inspect(
    stream: Stream, profile: Profile, vocab: Vocab | None, *, mapped: bool = False, queries: bool = False
) -> Fit:
    """What a profile would do to these documents, or queries; `Fit` says more."""
    fit = Fit(profile, vocab, mapped=mapped, queries=queries)
    for batch in stream:
        fit.add(batch.ids, batch.vectors)
    return fit


def terms_of(stream: Stream) -> NDArray[np.uint32]:
    """The terms that documents use, uint32, increasing."""
    used = np.zeros(0, np.uint32)
    for batch in stream:
        used = np.union1d(used, batch.vectors.terms)
    return used


def export(
    stream: Stream, path: Path, to: FileFormat, vocab: Vocab | None, *, terms: int = 0, queries: bool = False
) -> None:
    """Write a file: whole, or not at all. Nothing is checked here that only changes results: `inspect` first.

    vocab    names of the terms, for formats that call them by name
    terms    size of the id space, for CSR: len(vocab), or of the TermMap that made the ids
    queries  write them as the engine wants queries, where that differs

    Raises BadInput where the format cannot hold these, MissingExtra, StorageFull.
    """
    if to == "csr":
        write_csr(path, stream, terms or len(_needed(vocab, to)))
    elif to == "parquet":
        write_parquet(path, stream)
    elif to == "ciff":
        if queries:
            raise BadInput("CIFF holds documents, no queries; export queries to anserini, whose weights are the same")
        write_ciff(path, stream, TermNames(_needed(vocab, to), _forbidden(to)))
    else:
        layout = _LAYOUTS[to]
        names = TermNames(_needed(vocab, to), _forbidden(to)) if layout.profile.terms == "names" else None
        write_lines(path, stream, layout, names, queries=queries)


def restore(path: Path, form: FileFormat, vocab: Vocab | None, space: str | None = None) -> Restored:
    """Vectors, ids and fields of a file of `export`, or of another program; all in memory.

    vocab  names of the terms, for formats that call them by name
    space  fingerprint of the id space where a file has numbers: that of the TermMap, or by default of `vocab`

    Raises BadVectors or BadRecord, naming file and line; BadInput, MissingExtra.
    """
    space = space or (vocab.fingerprint if vocab is not None else None)
    if form == "csr":
        vectors, ids, fields = read_csr(path, space)
        return vectors, ids, list(fields)
    if form == "parquet":
        return read_parquet(path, space)
    if form == "ciff":
        vectors, ids = read_ciff(path, TermNames(_needed(vocab, form), _forbidden(form)))
        return vectors, ids, [{}] * len(ids)
    layout = _LAYOUTS[form]
    rows = read_lines(path, layout)
    if layout.profile.terms == "names":
        names = TermNames(_needed(vocab, form), layout.profile.forbids)
        divisor = 100 if layout.profile.precision == "hundredths" else 1
        return gather(rows, names.id, names.vocab.fingerprint, divisor=divisor, source=str(path))
    if space is None:
        raise BadInput(f"{path} has numbers for terms; name the model, or the map, that they are of")
    return gather(rows, int, space, source=str(path))


def _forbidden(form: str) -> str:
    from polylex.profiles import PROFILES

    return PROFILES[form].forbids


def _needed(vocab: Vocab | None, form: str) -> Vocab:
    if vocab is None:
        raise BadInput(f"{form} needs the names of the terms; give the vocabulary, or the model that has it")
    return vocab
