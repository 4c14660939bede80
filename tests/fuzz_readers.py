"""Fuzzing of everything that reads bytes from outside: valid files, damaged in every way, must be refused or read well.

    python tests/fuzz_readers.py --inputs 1000000 --seed 1              all readers, some minutes a core
    python tests/fuzz_readers.py --inputs 100000 --reader segment --sanitize
    python tests/fuzz_readers.py --reader catalog --seed 1 --only 4711     one input again, with its traceback

For every input a valid file is damaged (flipped bits, cuts, splices, edited headers, odd numbers) or replaced by noise.
Allowed: the reader raises a PolylexError, or gives something that keeps its contract. Everything else is a finding:
another exception, a crash, more than 10 seconds, more than 4 GB. Input n of a reader follows from the seed alone.

--sanitize compiles the kernels with gcc's address and undefined-behaviour sanitizers, runs in a process that has them
loaded, and gives the kernels copies of the arrays, so that a read one byte outside of an array is seen.
tests/test_fuzz_readers.py runs some thousand inputs in the test suite.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import lzma
import mmap
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
SECONDS, BYTES = 10, 4 << 30  # an input may take
CHUNK = 2_000  # inputs of one process

# -- damage --------------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
PIECES = (
    *(b'"', b"'", b"{", b"}", b"[", b"]", b",", b":", b"\t", b"\n", b"\r", b"\r\n", b"\0", b" ", b"\\", b"\\u0000"),
    *(b"\\ud800", b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"1e-999", b"9" * 30, b"9" * 5000),
    *(b"\xff", b"\xc3", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xff\xfe", b"[" * 3000, b'{"a":' * 3000, b"id", b"text"),
    *(b"F32", b"U8", b"BF16", b"__metadata__", b"data_offsets", b"shape", b"1", b"2", b"-0", b"0.5", b"lang", b"_id"),
)

ODD_CELLS = (
    *(None, 0, 1, -1, 2, 39, 40, 41, 65536, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 0.5, -1e300, b"", b"\xff\xfe"),
    *("", "x", "0", "-1", "null", "{}", "[]", '{"a":1}', "NaN", "9" * 30, "9" * 5000, "[" * 3000, "\0", "../x", "/"),
    *("u8", "f32", "1e9", "segment-0000000000000000.safetensors", "vocab", "index.sqlite", "d3", "字", "²"),
)


def damage(data: bytes, draw: random.Random) -> bytes:
    """A valid file made worse, mostly a little."""
    if draw.random() < 0.02:
        return draw.randbytes(draw.choice((0, 1, 7, 8, 9, 16, 64, 300, 5000)))
    head = header_size(data)
    if head and draw.random() < 0.4:  # a header that is right, arrays of the right length that hold anything
        return data[:head] + in_place(data[head:], draw)
    if head and draw.random() < 0.3:
        return edit_array(data, draw)
    if head and draw.random() < 0.5:
        data = edit_header(data, draw)
    if data.startswith(b"SQLite format 3") and draw.random() < 0.6 and sys.version_info >= (3, 11):
        return edit_table(data, draw)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 8))):
        data = draw.choice((flip, flip, number, piece, cut, splice, noise))(bytearray(data), draw)
    return data


def header_size(data: bytes) -> int:
    """Bytes of a safetensors header with the length before it; 0 for another file."""
    size = 8 + int.from_bytes(data[:8], "little")
    return size if size < len(data) and data[8:9] == b"{" else 0


def in_place(data: bytes, draw: random.Random) -> bytes:
    """Damage that leaves the length as it is."""
    damaged = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        damaged = bytearray(draw.choice((flip, number, noise))(damaged, draw)[: len(data)])
    return bytes(damaged).ljust(len(data), b"\0")


def flip(data: bytearray, draw: random.Random) -> bytes:
    """Some bits turned over."""
    for _ in range(draw.choice((1, 1, 2, 5, 20)) if data else 0):
        data[place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(data)


def number(data: bytearray, draw: random.Random) -> bytes:
    """A number at a limit, in some width and byte order."""
    width = draw.choice((1, 2, 4, 8))
    at = place(data, draw)
    at -= draw.choice((0, at % width))
    data[at : at + width] = (draw.choice(NUMBERS) % 256**width).to_bytes(width, draw.choice(("little", "big")))
    return bytes(data)


def piece(data: bytearray, draw: random.Random) -> bytes:
    """Something with a meaning in some format, inserted or written over."""
    new, at = draw.choice(PIECES), place(data, draw)
    data[at : at + (len(new) if draw.random() < 0.5 else 0)] = new
    return bytes(data)


def cut(data: bytearray, draw: random.Random) -> bytes:
    """The end, or a part, missing."""
    at = place(data, draw)
    return bytes(data[:at] if draw.random() < 0.5 else data[:at] + data[at + draw.choice((1, 2, 8, 100, 4096)) :])


def splice(data: bytearray, draw: random.Random) -> bytes:
    """A part repeated elsewhere."""
    start, at = place(data, draw), place(data, draw)
    part = data[start : start + draw.choice((1, 4, 16, 200, 4096))]
    data[at : at + draw.choice((0, len(part)))] = part
    return bytes(data)


def noise(data: bytearray, draw: random.Random) -> bytes:
    """Random bytes written over, or behind the end."""
    at = place(data, draw) if draw.random() < 0.7 else len(data)
    new = draw.randbytes(draw.choice((1, 2, 8, 64)))
    data[at : at + len(new)] = new
    return bytes(data)


def place(data: bytearray, draw: random.Random) -> int:
    """A position; the beginning, where headers are, as often as all the rest."""
    limit = max(1, len(data))
    return draw.randrange(min(limit, 400) if draw.random() < 0.5 else limit)


def edit_header(data: bytes, draw: random.Random) -> bytes:
    """One value of a safetensors header changed, in a header that is otherwise valid."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        holders = [header, *(entry for entry in header.values() if isinstance(entry, dict))]
        holder = draw.choice([each for each in holders if each])
    except (ValueError, AttributeError, IndexError, RecursionError):
        return data
    key = draw.choice(list(holder))
    holder[key] = odd_value(holder[key], draw)
    if draw.random() < 0.1:
        del holder[key]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % draw.choice((8, 8, 8, 1)))
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def edit_array(data: bytes, draw: random.Random) -> bytes:
    """One array of a safetensors file replaced by another of any length, in a file that fits together."""
    head = header_size(data)
    header = json.loads(data[8:head])
    names = [name for name in header if name != "__metadata__"]
    chosen, body = draw.choice(names), b""
    for name in sorted(names, key=lambda name: header[name]["data_offsets"]):
        begin, end = header[name]["data_offsets"]
        part, width = (
            data[head + begin : head + end],
            {"F32": 4, "I64": 8, "U32": 4, "U16": 2, "U8": 1}[header[name]["dtype"]],
        )
        if name == chosen:
            part = draw.choice((flip, number, piece, piece, cut, splice, noise))(bytearray(part), draw)
            part += bytes(-len(part) % width)
        header[name].update(data_offsets=[len(body), len(body) + len(part)], shape=[len(part) // width])
        body += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def edit_table(data: bytes, draw: random.Random) -> bytes:
    """A value of a database changed, or a row or a table removed; mostly with a digest that fits again."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(data)
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for _ in range(draw.choice((1, 1, 2, 4))):
            table = draw.choice(tables)
            columns = [line[1] for line in connection.execute(f"PRAGMA table_info({table})")]
            column, value = draw.choice(columns), draw.choice(ODD_CELLS)
            keys = [key for (key,) in connection.execute(f"SELECT {columns[0]} FROM {table} ORDER BY 1")]
            where, key = f"{columns[0]} = ?", draw.choice([*keys, None])
            with suppress(sqlite3.Error):
                if draw.random() < 0.9:
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value, key))
                else:
                    connection.execute(f"DELETE FROM {table} WHERE {where}", (key,))
        if draw.random() < 0.05:
            connection.execute(f"DROP TABLE {draw.choice(tables)}")
        if draw.random() < 0.8:
            from polylex.tables import write_digest

            with suppress(sqlite3.Error):
                write_digest(connection)
        return connection.serialize()


def odd_value(value: object, draw: random.Random) -> object:
    """Something else in the place of a JSON value."""
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], odd_value(value[at], draw), *value[at + 1 :]]
    if isinstance(value, int) and draw.random() < 0.7:
        return value + draw.choice((-8, -4, -2, -1, 1, 2, 4, 8, -value, 2**32, 2**63, 2**64))
    if isinstance(value, str) and draw.random() < 0.5:
        return draw.choice(
            ("F32", "I64", "U32", "U16", "U8", "F16", "", "0", "-1", "1", "65536", "99999999", "²", "x" * 99)
        )
    return draw.choice(
        (None, True, 0, -1, 1.5, "", [], {}, [0], 2**70, {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]})
    )


# -- readers -------------------------------------------------------------------------------------------


MODULES = ("catalog", "collection", "compression", "corpus", "filters", "index", "postings", "trec", "writer")


@dataclass(frozen=True)
class Reader:
    """Something that reads a file.

    samples  valid files: name -> content
    read     takes the folder of the samples and the name of the damaged one; raises PolylexError, or uses what it got
    share    of all inputs
    """

    samples: dict[str, bytes]
    read: Callable[[Path, str], None]
    share: int = 1


def build_readers(sanitized: bool = False) -> dict[str, Reader]:
    """All readers, with their samples."""
    for name in MODULES:
        import_module(f"polylex.{name}")  # once, not in every process
    with tempfile.TemporaryDirectory() as folder:
        files, segments = sample_index(Path(folder)), sample_segments(Path(folder))
        vectors = sample_vectors(Path(folder))
    texts = sample_texts()
    packed = {f"{name}.{ending}": pack(data) for name, data in texts.items() for ending, pack in PACKERS.items()}
    beir = {
        "corpus.jsonl": texts["documents.jsonl"],
        "queries.jsonl": texts["queries.jsonl"],
        "test.tsv": texts["qrels.tsv"],
        "meta.json": b'{"doc_langs": ["en"], "query_langs": ["de", "fr"]}',
    }
    tables = {name: data for name, data in texts.items() if name.startswith("documents.")}
    trec = {name: texts[name] for name in ("qrels.tsv", "trec.qrels", "trec.run")}
    readers = {
        "segment": Reader(segments, read_segment_copied if sanitized else read_segment, 8),
        "vectors": Reader(vectors, read_vectors, 3),
        "catalog": Reader({"index.sqlite": files["index.sqlite"]}, read_catalog, 3),
        "index": Reader(files, read_index, 2),
        "vocabulary": Reader(
            {name: data for name, data in files.items() if name.startswith("vocab")}, read_vocabulary, 2
        ),
        "documents": Reader(tables, read_documents_of, 4),
        "packed": Reader(packed, read_packed, 3),
        "queries": Reader(
            {"queries.jsonl": texts["queries.jsonl"], "queries.txt": texts["documents.txt"]}, read_queries_of, 2
        ),
        "beir": Reader(beir, read_beir_of, 2),
        "trec": Reader(trec, read_trec, 3),
        "filter": Reader(texts_of_filters(), read_filter, 2),
    }
    if sanitized:
        readers = {name: readers[name] for name in ("segment", "index")}
    return readers


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
with suppress(ImportError):
    import zstandard

    PACKERS["zst"] = zstandard.ZstdCompressor().compress

ROWS = [{term: 0.5 + (7 * term + row) % 5 for term in range(row % 4, 20, 1 + row % 3)} for row in range(40)]


def sample_vocab():
    """Ten terms of each view."""
    from polylex.vocab import Vocab

    return Vocab([f"word{i}" for i in range(10)], [f"字{i}" for i in range(10)])


def vectors_of(rows: list[dict[int, float]]):
    """Vectors of these terms and weights."""
    import numpy as np

    from polylex.vectors import SparseVectors

    pairs = [(np.array(sorted(row), "u4"), np.array([row[term] for term in sorted(row)], "f4")) for row in rows]
    return SparseVectors.from_rows(pairs, sample_vocab().fingerprint)


def sample_segments(folder: Path) -> dict[str, bytes]:
    """Segments of every precision, with dense runs and without."""
    from polylex import postings

    samples = {}
    for precision in ("f32", "u16", "u8"):
        for dense in (False, True):
            with dense_runs(dense):
                written = postings.write_segment(folder, vectors_of(ROWS), precision)  # type: ignore[arg-type]
            samples[f"segment-{precision}{'-dense' * dense}"] = (folder / written.name).read_bytes()
    assert len(set(samples.values())) == 6
    return samples


@contextmanager
def dense_runs(dense: bool = True) -> Iterator[None]:
    """Few documents are enough for runs that are stored as planes."""
    from polylex import postings

    with mock.patch.object(postings, "_DENSE_ROWS", 8 if dense else 4096):
        yield


def sample_index(folder: Path) -> dict[str, bytes]:
    """The files of an index that was changed since it was built."""
    from polylex.index import Index
    from polylex.writer import IndexWriter

    ids = [f"d{row}" for row in range(len(ROWS))]
    stored = [{"text": "字" * row, "lang": "de", "year": 2000 + row} for row in range(len(ROWS))]
    path = folder / "index"
    with dense_runs():
        Index.build(path, vectors_of(ROWS), ids, stored, vocab=sample_vocab()).close()
        with IndexWriter(path, merge=False) as writer:  # leaves gaps between rows, which a file then lists
            writer.delete(["d1", "d2", "d17"])
            writer.commit()
            writer.compact()
            writer.upsert(["d5", "new"], stored[:2], vectors_of(ROWS[:2]))
            writer.delete(["d9"])
    return {file.name: file.read_bytes() for file in path.iterdir()}


def sample_vectors(folder: Path) -> dict[str, bytes]:
    """Files of vectors, with ids and without."""
    from polylex.storage import save_vectors

    save_vectors(folder / "with", vectors_of(ROWS), [f"d{row}" for row in range(len(ROWS))])
    save_vectors(folder / "without", vectors_of(ROWS[:3]))
    return {name: (folder / name).read_bytes() for name in ("with", "without")}


def sample_texts() -> dict[str, bytes]:
    """Documents, queries, judgments and a run, in every format of text."""
    documents = [
        {"_id": f"d{i}", "title": "T" if i % 2 else None, "text": f'字 text, "{i}"', "lang": "en"} for i in range(6)
    ]
    lines = "".join(json.dumps(each, ensure_ascii=i % 2 == 0) + "\n" for i, each in enumerate(documents))
    return {
        "documents.jsonl": lines.encode(),
        "documents.tsv": "".join(f"d{i}\tsome text {i}\n" for i in range(6)).encode(),
        "documents.csv": (
            "id,title,text\n" + "".join(f'd{i},"a ""b"", c","line\nline {i}"\n' for i in range(6))
        ).encode(),
        "documents.txt": "first line\nsecond line 字\n\nthird\n".encode(),
        "queries.jsonl": b'{"_id": "q1", "text": "who may marry", "lang": "en"}\n{"_id": "q2", "text": "wer"}\n',
        "qrels.tsv": b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td3\t2\n",
        "trec.qrels": b"q1 0 d1 1\nq1 0 d2 0\nq2 0 d3 -2\n",
        "trec.run": b"q1 Q0 d1 1 12.5 tag\nq1 Q0 d2 2 1e-3 tag\nq2 Q0 d1 1 3 tag\n",
    }


def texts_of_filters() -> dict[str, bytes]:
    """Filters of every form."""
    return {
        "filter1": b"lang = 'de' and (year >= 2020 or not title like 'a%') and x.y != 3 and tags has 'law'",
        "filter2": "\"own name\" in ('字', 'it''s', 2.5e3) or author.name is not null or id in ('d1')".encode(),
        "filter3": b"open = true and not (exists old or c < -1 or d is null)",
    }


def read_segment(folder: Path, name: str) -> None:
    """Open, search, recover the vectors, verify."""
    from polylex.postings import Segment

    use_segment(Segment.open(folder / name, 7))


def read_segment_copied(folder: Path, name: str) -> None:
    """The same on copies of the arrays: the sanitizer knows where they end."""
    from polylex.postings import Segment

    segment = Segment.open(folder / name, 7)
    arrays = ("terms", "starts", "bounds", "dense", "before", "planes", "ranks", "offsets", "weights")
    use_segment(replace(segment, **{each: getattr(segment, each).copy() for each in arrays}))


def use_segment(segment) -> None:
    """What a search and a check do with a segment."""
    import numpy as np

    from polylex.errors import PolylexError
    from polylex.kernels import SegmentTable

    queries = vectors_of([ROWS[0], {3: 1.0}, {}, {0: 1.0, 19: 2.0}])
    with suppress(PolylexError):
        rows, scores = SegmentTable([segment, segment]).top(queries, 5)
        assert ((rows == -1) | ((rows >= 7) & (rows < 7 + segment.rows))).all(), f"rows {rows}"
        assert (scores[rows >= 0] > 0).all() and (scores[rows < 0] == 0).all(), f"scores {scores}"
    with suppress(PolylexError):
        assert len(segment.vectors()) == segment.rows
    with suppress(PolylexError):
        assert len(segment.vectors(np.array([7, 7 + segment.rows - 1]))) == 2
    assert all(isinstance(fault, str) for fault in segment.faults())


def read_vectors(folder: Path, name: str) -> None:
    """Load; a SparseVectors keeps its contract by itself, and its ids are texts, one a row."""
    from polylex.storage import load_vectors

    vectors, ids = load_vectors(folder / name)
    for row in range(len(vectors)):
        terms, weights = vectors.row(row)
        assert len(terms) == len(weights)
    assert ids is None or (len(ids) == len(vectors) and all(isinstance(each, str) for each in ids)), f"ids {ids}"


def read_catalog(folder: Path, name: str) -> None:
    """Open, read all documents, verify."""
    import numpy as np

    from polylex.catalog import Catalog
    from polylex.errors import PolylexError

    catalog = Catalog.read(folder / name)
    try:
        with suppress(PolylexError):
            assert len(catalog.records([0, 5, 39])) == 3
        with suppress(PolylexError):
            catalog.record("d7")
        with suppress(PolylexError):
            assert all(isinstance(record.fields, dict) for record in catalog.records_between(0, 40))
        assert all(isinstance(fault, str) for fault in catalog.faults([np.arange(40)]))
    finally:
        catalog.close()


def read_index(folder: Path, name: str) -> None:
    """Open a folder with one damaged file, search it, verify it."""
    from polylex.errors import PolylexError
    from polylex.index import Index

    with Index.open(folder) as index:
        queries = vectors_of([ROWS[1], ROWS[2]])
        with suppress(PolylexError):
            for hits in index.search(queries, 3):
                assert all(isinstance(hit.id, str) and hit.score > 0 for hit in hits)
        with suppress(PolylexError):
            index.vocab.name(3)
        with suppress(PolylexError):
            index.vectors([0, 39])
        with suppress(PolylexError):
            index.document("d3")
        with suppress(PolylexError):
            index.info()
        assert all(isinstance(fault, str) for fault in index.check())


def read_vocabulary(folder: Path, name: str) -> None:
    """Names that have the fingerprint, or an error."""
    from polylex.storage import read_vocab

    assert read_vocab(folder / name, sample_vocab().fingerprint) == sample_vocab()


def read_documents_of(folder: Path, name: str) -> None:
    """Every format; faulty records are skipped, so that reading goes on behind them."""
    from polylex.corpus import read_documents

    for format in ("lines", None) if name.endswith(".txt") else (None,):
        seen = set()
        for document in read_documents(folder / name, format=format, on_error="skip"):
            assert document.text.strip() and document.id not in seen, f"document {document}"
            assert isinstance(json.dumps(dict(document.fields), allow_nan=False), str)
            document.id.encode("utf-8")
            seen.add(document.id)


def read_packed(folder: Path, name: str) -> None:
    """Unpack all of it, a part at a time."""
    from polylex.compression import READ_ERRORS, open_bytes
    from polylex.errors import PolylexError

    with suppress(*READ_ERRORS), open_bytes(folder / name) as stream:  # readers name the file in a PolylexError
        total = 0
        while (part := stream.read(1 << 16)) and total < 1 << 26:
            total += len(part)
    (folder / "again.jsonl").unlink(missing_ok=True)
    (folder / name).rename(folder / "again.jsonl")
    with suppress(PolylexError):
        read_documents_of(folder, "again.jsonl")


def read_queries_of(folder: Path, name: str) -> None:
    """Queries with an id and a text each."""
    from polylex.corpus import read_queries

    for query in read_queries(folder / name):
        assert query.id and query.text.strip() and isinstance(query.language, str), f"query {query}"


def read_beir_of(folder: Path, name: str) -> None:
    """A folder with one damaged file."""
    from polylex.collection import read_beir

    (folder / "qrels").mkdir(exist_ok=True)
    shutil.copyfile(folder / "test.tsv", folder / "qrels" / "test.tsv")
    collection = read_beir(folder)
    assert len(collection.ids) == len(collection.texts) == len(collection.languages)
    assert collection.judgments.keys() <= {query.id for query in collection.queries}


def read_trec(folder: Path, name: str) -> None:
    """Judgments or a run."""
    from polylex.trec import read_judgments, read_run

    if name.endswith(".run"):
        for ranking in read_run(folder / name).values():
            assert len({document for document, _ in ranking}) == len(ranking)
    else:
        for grades in read_judgments(folder / name).values():
            assert all(grade >= 0 for grade in grades.values())


def read_filter(folder: Path, name: str) -> None:
    """An expression over fields: asked of a document, written and read again."""
    from polylex.filters import holds, parse

    wanted = parse((folder / name).read_bytes().decode("utf-8", "replace"))
    assert holds(wanted, "d1", {"lang": "de", "year": 2021, "x": {"y": 3}, "tags": ["law", 1], "title": None}) in (
        True,
        False,
    )
    assert parse(str(wanted)) == wanted, str(wanted)


# -- running -------------------------------------------------------------------------------------------


class Hang(BaseException):
    """An input took too long; no Exception, so that no reader catches it."""


def stop(number: int, frame: object) -> None:
    """What the alarm clock does."""
    raise Hang(f"more than {SECONDS} seconds")


@contextmanager
def folder_for(reader: Reader) -> Iterator[Path]:
    """A folder in memory with the reader's samples."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        for file, data in reader.samples.items():
            (folder / file).write_bytes(data)
        yield folder


def run_input(reader: Reader, folder: Path, name: str, seed: str) -> str:
    """Damage one sample and read it: "read" or "refused"; whatever is a finding is raised."""
    from polylex.errors import PolylexError

    draw = random.Random(f"{name}/{seed}")
    file = draw.choice(sorted(reader.samples))
    (folder / file).write_bytes(damage(reader.samples[file], draw))
    try:
        reader.read(folder, file)
        return "read"
    except PolylexError:
        return "refused"
    finally:
        (folder / file).write_bytes(reader.samples[file])


def run_chunk(reader: Reader, name: str, seed: int, numbers: range, at: mmap.mmap) -> dict[str, Any]:
    """Run some inputs in this process; `at` holds the number of the one that is running."""
    outcomes: Counter[str] = Counter()
    findings = []
    signal.signal(signal.SIGALRM, stop)
    warnings.simplefilter("error")  # a library is silent
    with folder_for(reader) as folder:
        for number in numbers:
            at[:8] = number.to_bytes(8, "little")
            signal.alarm(SECONDS)
            try:
                outcomes[run_input(reader, folder, name, f"{seed}/{number}")] += 1
            except (Exception, Hang) as fault:
                outcomes["found"] += 1
                findings.append([number, f"{type(fault).__name__}: {fault}"[:300], place_of(fault)])
            finally:
                signal.alarm(0)
    return {"outcomes": dict(outcomes), "findings": findings}


def place_of(fault: BaseException) -> str:
    """File and line that raised."""
    frame = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def in_child(work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    """Run in a process of its own: the result, or None and how it ended."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(receive)
            with os.fdopen(send, "wb") as stream:
                stream.write(json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(send)
    with os.fdopen(receive, "rb") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if status == 0 and text:
        return json.loads(text), ""
    return None, f"signal {status & 0x7F}" if status & 0x7F else f"exit code {status >> 8}"


def run_reader(reader: Reader, name: str, seed: int, inputs: int) -> dict[str, Any]:
    """All inputs of one reader, going on behind one that kills its process."""
    outcomes: Counter[str] = Counter()
    findings: list[object] = []
    at = mmap.mmap(-1, 8)
    started = time.monotonic()
    waiting = [range(start, min(start + CHUNK, inputs)) for start in range(0, inputs, CHUNK)]
    while waiting:
        numbers = waiting.pop()
        result, ending = in_child(lambda numbers=numbers: run_chunk(reader, name, seed, numbers, at))
        if result is None:
            killer = int.from_bytes(at[:8], "little")
            findings.append([killer, f"the process died: {ending}", ""])
            outcomes["found"] += 1
            waiting += [some for some in (range(numbers.start, killer), range(killer + 1, numbers.stop)) if some]
            continue
        outcomes.update(result["outcomes"])
        findings += result["findings"]
    return {
        "inputs": inputs,
        **{outcome: outcomes[outcome] for outcome in ("read", "refused", "found")},
        "seconds": round(time.monotonic() - started, 1),
        "findings": findings[:50],
    }


# -- sanitizers ----------------------------------------------------------------------------------------


def sanitizer_libraries() -> list[str]:
    """The libraries that a sanitized kernel needs loaded first; none where gcc has none."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        try:
            path = subprocess.run(
                ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            return []
        if not Path(path.strip()).is_absolute():
            return []
        found.append(path.strip())
    return found


def sanitized_kernels(folder: Path) -> Path:
    """The kernels, compiled so that every access outside of an array ends the process."""
    out = folder / "_kernels_sanitized.so"
    source = ROOT / "src" / "polylex" / "_kernels.c"
    flags = ["-O1", "-g", "-std=c11", "-ffp-contract=off", "-shared", "-fPIC", "-fsanitize=address,undefined"]
    subprocess.run(
        ["gcc", *flags, "-fno-sanitize-recover=all", f"-I{sysconfig.get_path('include')}", str(source), "-o", str(out)],
        check=True,
    )
    return out


def use_kernels(library: Path) -> None:
    """Have polylex.kernels load this library; before it is imported."""
    module = ModuleType("polylex._kernels")
    module.__file__ = str(library)
    sys.modules["polylex._kernels"] = module


def run_sanitized(arguments: list[str]) -> int:
    """Run this script again, with the sanitizers loaded."""
    libraries = sanitizer_libraries()
    if not libraries:
        raise SystemExit("gcc with libasan and libubsan is needed for --sanitize")
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",  # Python itself leaks at its end
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
            "POLYLEX_SANITIZED": str(sanitized_kernels(Path(folder))),
        }
        return subprocess.run([sys.executable, __file__, *arguments], env=environment, check=False).returncode


# -- command -------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="of all readers together (10000)")
    parser.add_argument("--reader", action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this one input of --reader and show what it raises")
    parser.add_argument("--sanitize", action="store_true", help="kernels under gcc's sanitizers")
    parser.add_argument("--out", type=Path, help=f"results file, e.g. {RESULTS.relative_to(ROOT)}")
    return parser.parse_args()


def main() -> int:
    """Run and report; 1 where something was found."""
    options = parse()
    sanitized = os.environ.get("POLYLEX_SANITIZED", "")
    if options.sanitize and not sanitized:
        return run_sanitized(sys.argv[1:])
    if sanitized:
        use_kernels(Path(sanitized))
    else:
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    readers = build_readers(bool(sanitized))
    readers = {name: readers[name] for name in options.reader or readers}
    if options.only is not None:
        [(name, reader)] = readers.items()
        with folder_for(reader) as folder:
            print(run_input(reader, folder, name, f"{options.seed}/{options.only}"))  # noqa: T201
        return 0
    record, provenance = provenance_now()
    shares = sum(reader.share for reader in readers.values())
    results = {}
    for name, reader in readers.items():
        results[name] = run_reader(reader, name, options.seed, -(-options.inputs * reader.share // shares))
        print(name, json.dumps(results[name]), flush=True)  # noqa: T201
    total = {key: sum(result[key] for result in results.values()) for key in ("inputs", "read", "refused", "found")}
    if options.out:
        told = {"provenance": provenance, "seed": options.seed, "sanitized": bool(sanitized), "total": total}
        record.write(options.out, {**told, "readers": results})
    return 1 if total["found"] else 0


def provenance_now() -> tuple[ModuleType, dict[str, Any]]:
    """What the benchmarks write beside their figures; asked before the run, as the code may change meanwhile."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import record

    found = record.provenance()
    found["command"] = found["command"].replace("benchmarks/", "tests/", 1)
    return record, found


if __name__ == "__main__":
    sys.exit(main())
