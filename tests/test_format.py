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
from polylex.index import Index
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab(["a", "b", "字"], ["▁c", "d"])
ROWS = [{0: 0.5, 3: 2.0}, {1: 1.0}, {}, {0: 1.0, 2: 0.25, 4: 3.0}, {4: 0.125}]
TYPES = {"F32": "f", "U32": "I", "U16": "H", "U8": "B"}


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


class Reader:
    def __init__(self, folder):
        head = (folder / "index.sqlite").read_bytes()[:100]
        assert head[68:72] == b"PLX1"
        assert struct.unpack(">I", head[60:64]) == (1,)
        database = sqlite3.connect(folder / "index.sqlite")
        meta = database.execute("SELECT key, value FROM meta WHERE key <> 'digest' ORDER BY key").fetchall()
        entries = database.execute("SELECT * FROM segments ORDER BY first_row").fetchall()
        text = json.dumps([meta, entries], separators=(",", ":"), ensure_ascii=True)
        (digest,) = database.execute("SELECT value FROM meta WHERE key = 'digest'").fetchone()
        assert digest == hashlib.sha256(text.encode("ascii")).hexdigest()
        self.meta, self.segments, self.documents = dict(meta), [], {}
        for row, id, fields, crc32 in database.execute("SELECT row, id, fields, crc32 FROM documents"):
            assert crc32 == zlib.crc32(id.encode() + b"\0" + fields.encode())
            self.documents[row] = (id, json.loads(fields))
        database.close()
        for first_row, rows, postings, file, size, sha256 in entries:
            content = (folder / file).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha256)
            assert file == f"segment-{sha256[:16]}.safetensors"
            arrays, metadata = read_arrays(folder / file)
            assert metadata == {
                "format": "polylex-segment", "version": "1", "rows": str(rows), "vocab": self.meta["vocab"]
            }  # fmt: skip
            assert len(arrays["offsets"]) == postings
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
                for position in range(arrays["starts"][run], arrays["starts"][run + 1]):
                    row = first_row + arrays["offsets"][position]
                    scores[row] = f32(scores.get(row, 0.0) + f32(arrays["weights"][position] * weight))
        return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))


@pytest.mark.parametrize("precision", ["f32", "u8"])
def test_an_index_reads_as_the_format_page_says(tmp_path, monkeypatch, precision):
    monkeypatch.setattr(builder_module, "BLOCK", 2)
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


def test_the_pages_tables_are_those_of_the_catalog(tmp_path):
    Index.build(tmp_path / "i", SparseVectors.empty(VOCAB.fingerprint), [], vocab=VOCAB).close()
    database = sqlite3.connect(tmp_path / "i" / "index.sqlite")
    made = [" ".join(sql.split()) for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    database.close()
    page = (Path(__file__).parent.parent / "docs" / "format.md").read_text("utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert sorted(made) == sorted(" ".join(sql.split()) for sql in block.split(";") if sql.strip())
