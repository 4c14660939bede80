"""Write the golden indexes of the format version that this checkout writes: python tests/golden/make.py

Run once for each version, when it is frozen: what lies here is never written again, and every release reads all of it.
"""

import json
import sys
from pathlib import Path

import numpy as np

from polylex import builder
from polylex.database import VERSION
from polylex.index import Index
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab([f"word{i}" for i in range(8)], ["▁字", "▁x", "y", "z"])
IDS = ["a", "b'", "ça", "文", "e", "f", "g", "h", "i", "j", "k", "l"]
FIELDS = [{"text": f"text {row} 字", "year": 2000 + row, "tags": ["x", "y"][: row % 3]} for row in range(12)]
ROWS = [{row % 8: 0.5 + row / 4, 8 + row % 4: 1.0, (row * 5) % 7: 0.125} for row in range(11)] + [{}]
QUERIES = [{0: 1.0, 8: 0.5}, {term: 1.0 for term in range(12)}, {3: 2.0}, {}]


def vectors_of(rows):
    pairs = [(np.array(sorted(row), np.uint32), np.array([row[t] for t in sorted(row)], np.float32)) for row in rows]
    return SparseVectors.from_rows(pairs, VOCAB.fingerprint)


def change(path):
    """Leave deletions, a segment with gaps and one of two rows; b' and g come last, with what they had."""
    from polylex import compaction, writer

    writer.BLOCK = compaction.BLOCK = 5
    with writer.IndexWriter(path, merge=False) as index:
        index.delete(["ça", "e"])
        index.commit()
        index.compact()
        index.upsert(["b'", "g"], [FIELDS[1], FIELDS[6]], vectors_of([ROWS[1], ROWS[6]]))
        index.add(["ça", "e"], [FIELDS[2], FIELDS[4]], vectors_of([ROWS[2], ROWS[4]]))


def main(folder):
    builder.BLOCK = 5
    for precision in ("f32", "u8"):
        path = folder / f"version-{VERSION}-{precision}"
        Index.build(
            path, vectors_of(ROWS), IDS, FIELDS, vocab=VOCAB, encoder="golden", weights_id="w",
            settings={"text_fields": ["text"]}, precision=precision,
        ).close()  # fmt: skip
        if VERSION >= 2:
            change(path)
        with Index.open(path) as index:
            found = [[[hit.id, hit.score] for hit in hits] for hits in index.search(vectors_of(QUERIES), 12)]
        (folder / f"{path.name}.json").write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
