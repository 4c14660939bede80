"""A reader of an index written from docs/format.md alone: it must find in the files what polylex put there."""

import gzip
import hashlib
import json
import re
import sqlite3
import struct
import zlib
from array import array
from pathlib import Path

import numpy as np
import pytest

from polylex import builder as builder_module
from polylex import compaction as compaction_module
from polylex import postings as postings_module
from polylex import writer as writer_module
from polylex.index import Index
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab
from polylex.writer import IndexWriter

VOCAB = Vocab(["a", "b", "字"], ["▁c", "d"])
ROWS = [{0: 0.5, 3: 2.0}, {1: 1.0}, {}, {0: 1.0, 2: 0.25, 4: 3.0}, {4: 0.125}]
TYPES = {"F32": "f", "I64": "q", "U32": "I", "U16": "H", "U8": "B"}


def read_arrays(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length].decode("ascii"))
    assert length % 8 == 0
    metadata, arrays, body = header.pop("__metadata__"), {}, data[8 + length :]
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        arrays[name] = array(TYPES[entry["dtype"]], body[begin:end])
        assert [len(arrays[name])] == entry["shape"]
        assert (8 + length + begin) % arrays[name].itemsize == 0
    return arrays, metadata


def f32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def postings_of(arrays, run):
    """(document, weight) of a run; a weight of U8 in its unit."""
    dense, weights = list(arrays.get("dense", ())), arrays["weights"]
    start, end = arrays["starts"][run], arrays["starts"][run + 1]
    if run in dense:
        width = len(arrays["planes"]) // len(dense)
        plane = arrays["planes"][dense.index(run) * width :][:width]
        documents = [document for document, byte in enumerate(plane) if byte]
        found = [plane[document] for document in documents] if weights.typecode == "B" else weights[start:end]
    else:
        before = arrays["before"][sum(other < run for other in dense)] if dense else 0
        documents = arrays["offsets"][start - before : end - before]
        found = weights[start - before : end - before] if weights.typecode == "B" else weights[start:end]
    assert len(documents) == len(found) == end - start
    if weights.typecode == "H":
        found = [struct.unpack("<f", struct.pack("<I", half << 15))[0] for half in found]
    return zip(documents, found, strict=True)


class Reader:
    def __init__(self, folder):
        head = (folder / "index.sqlite").read_bytes()[:100]
        assert head[68:72] == b"PLX1"
        assert struct.unpack(">I", head[60:64]) == (2,)
        database = sqlite3.connect(folder / "index.sqlite")
        meta = database.execute("SELECT key, value FROM meta WHERE key <> 'digest' ORDER BY key").fetchall()
        entries = database.execute("SELECT * FROM segments ORDER BY first_row").fetchall()
        deleted = database.execute("SELECT first_row, documents, crc32 FROM deleted ORDER BY first_row").fetchall()
        places = database.execute("SELECT first_row, file, bytes, sha256 FROM places ORDER BY first_row").fetchall()
        text = json.dumps([meta, entries, deleted, places], separators=(",", ":"), ensure_ascii=True)
        (digest,) = database.execute("SELECT value FROM meta WHERE key = 'digest'").fetchone()
        assert digest == hashlib.sha256(text.encode("ascii")).hexdigest()
        self.meta, self.segments, self.documents = dict(meta), [], {}
        for row, id, fields, crc32 in database.execute("SELECT row, id, fields, crc32 FROM documents"):
            assert crc32 == zlib.crc32(id.encode() + b"\0" + fields.encode())
            self.documents[row] = (id, json.loads(fields))
        self.deleted = {}
        for first_row, count, crc32, bits in database.execute("SELECT * FROM deleted"):
            assert (zlib.crc32(bits), sum(byte.bit_count() for byte in bits)) == (crc32, count)
            self.deleted[first_row] = {d for d in range(8 * len(bits)) if bits[d // 8] >> d % 8 & 1}
        database.close()
        self.places = {}
        for first_row, file, size, sha256 in places:
            content = (folder / file).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha256)
            assert file == f"rows-{sha256[:16]}.safetensors"
            arrays, metadata = read_arrays(folder / file)
            assert metadata == {"format": "polylex-rows", "version": "1"}
            self.places[first_row] = arrays["rows"]
            assert arrays["rows"][0] == first_row
        for first_row, rows, postings, file, size, sha256 in entries:
            content = (folder / file).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha256)
            assert file == f"segment-{sha256[:16]}.safetensors"
            arrays, metadata = read_arrays(folder / file)
            version = "2" if "dense" in arrays else "1"
            assert metadata == {
                "format": "polylex-segment", "version": version, "rows": str(rows), "vocab": self.meta["vocab"]
            }  # fmt: skip
            assert arrays["starts"][-1] == postings
            self.segments.append((first_row, arrays))
        packed = (folder / f"vocab-{self.meta['vocab'][:16]}.json.gz").read_bytes()
        assert len(packed) == int(self.meta["vocab_bytes"])
        assert hashlib.sha256(packed).hexdigest() == self.meta["vocab_sha256"]
        names = gzip.decompress(packed)
        assert hashlib.sha256(names).hexdigest() == self.meta["vocab"]
        self.pivot, self.source = json.loads(names)

    def search(self, query):
        scores = {}
        for first_row, arrays in self.segments:
            for term, weight in sorted(query.items()):
                if term not in arrays["terms"]:
                    continue
                run = arrays["terms"].index(term)
                if arrays["weights"].typecode == "B":
                    weight = f32(weight * f32(arrays["bounds"][run] / 255))
                for document, value in postings_of(arrays, run):
                    if document in self.deleted.get(first_row, ()):
                        continue
                    row = self.places[first_row][document] if first_row in self.places else first_row + document
                    scores[row] = f32(scores.get(row, 0.0) + f32(value * weight))
        return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))


@pytest.mark.parametrize("precision", ["f32", "u16", "u8"])
@pytest.mark.parametrize("dense_from", [1, 2, 9])
def test_an_index_reads_as_the_format_page_says(tmp_path, monkeypatch, precision, dense_from):
    monkeypatch.setattr(builder_module, "BLOCK", 2)
    monkeypatch.setattr(postings_module, "_dense_from", lambda rows: dense_from)
    pairs = [(np.array(sorted(row), np.uint32), np.array([row[t] for t in sorted(row)], np.float32)) for row in ROWS]
    vectors = SparseVectors.from_rows(pairs, VOCAB.fingerprint)
    ids = ["zero", "ein", "двa", "三", "a'b"]
    fields = [{"n": row, "text": "字\ud800" if row == 3 else "x"} for row in range(5)]
    query = {0: 0.7, 3: 0.3, 4: 1.1}
    settings = {"fields": ["text"], "name": "ü"}
    with Index.build(
        tmp_path / "i", vectors, ids, fields, vocab=VOCAB, encoder="é", settings=settings, precision=precision
    ) as index:
        terms, weights = zip(*sorted(query.items()), strict=True)
        ours = index.search(SparseVectors.from_rows([(np.uint32(terms), np.float32(weights))], VOCAB.fingerprint))[0]
    reader = Reader(tmp_path / "i")
    assert reader.documents == {row: (ids[row], fields[row]) for row in range(5)}
    assert (reader.pivot, reader.source) == (["a", "b", "字"], ["▁c", "d"])
    assert (reader.meta["encoder"], reader.meta["precision"], reader.meta["weights_id"]) == ("é", precision, "")
    assert json.loads(reader.meta["settings"]) == settings
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", reader.meta["created"])
    assert [first_row for first_row, _ in reader.segments] == [0, 2, 4]
    assert reader.search({term: f32(weight) for term, weight in query.items()}) == [
        (hit.row, hit.score) for hit in ours
    ]
    assert {hit.row for hit in ours} == {0, 3, 4}


def test_an_index_that_was_changed_reads_as_the_format_page_says(tmp_path, monkeypatch):
    for module in (builder_module, compaction_module, writer_module):
        monkeypatch.setattr(module, "BLOCK", 4)
    rows = [{0: 1.0 + row, 3: 0.5} for row in range(12)]
    pairs = [(np.array(sorted(row), np.uint32), np.array([row[t] for t in sorted(row)], np.float32)) for row in rows]
    vectors = SparseVectors.from_rows(pairs, VOCAB.fingerprint)
    Index.build(tmp_path / "i", vectors, [f"d{row}" for row in range(12)], vocab=VOCAB).close()
    with IndexWriter(tmp_path / "i", merge=False) as writer:
        writer.delete(["d1", "d2", "d5", "d6"])
        writer.commit()
        writer.compact()  # rows 0, 3, 4 and 7 in one segment
        writer.upsert(["d3"], None, vectors.take([3]))
        writer.delete(["d9"])
    reader = Reader(tmp_path / "i")
    assert reader.places.keys() == {0}
    assert reader.places[0].tolist() == [0, 3, 4, 7]
    assert reader.deleted == {0: {1}, 8: {1}}
    assert list(reader.documents) == [0, 4, 7, 8, 10, 11, 12]
    assert (reader.meta["generation"], reader.meta["next_row"], reader.meta["terms"]) == ("3", "13", "5")
    with Index.open(tmp_path / "i") as index:
        ours = index.search(SparseVectors.from_rows([(np.uint32([0, 3]), np.float32([0.5, 1]))], VOCAB.fingerprint))[0]
    assert reader.search({0: 0.5, 3: 1.0}) == [(hit.row, hit.score) for hit in ours]
    assert len(ours) == 7


def test_the_pages_tables_are_those_of_the_catalog(tmp_path):
    Index.build(tmp_path / "i", SparseVectors.empty(VOCAB.fingerprint), [], vocab=VOCAB).close()
    database = sqlite3.connect(tmp_path / "i" / "index.sqlite")
    made = [" ".join(sql.split()) for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    database.close()
    page = (Path(__file__).parent.parent / "docs" / "format.md").read_text("utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert sorted(made) == sorted(" ".join(sql.split()) for sql in block.split(";") if sql.strip())
