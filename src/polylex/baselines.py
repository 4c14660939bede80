"""What models are measured against: BM25 over a collection, and by name the peers of polylex.interop.peers.

outcome = Lexical().search(read_beir("scifact"), 100)
system = open_baseline("dense:all-MiniLM-L6-v2")
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from polylex.bm25 import BM25
from polylex.collection import Collection
from polylex.encodings import Encodings, identity_of
from polylex.errors import BadInput
from polylex.systems import Outcome, Sparse, System
from polylex.trec import PathName, Run
from polylex.words import words

_SPEC = re.compile(
    r"(?P<kind>dense|sparse-encoder):(?P<folder>.+?)(?P<prompts>(?:\+(?:query|document)=.*)?)", re.DOTALL
)
_PROMPT = re.compile(r"\+(query|document)=((?:(?!\+(?:query|document)=).)*)", re.DOTALL)


class Lexical:
    """BM25, every document in its own language: `polylex.bm25`, k1 0.9 and b 0.4, as Lucene counts.

    Chinese, Japanese, Thai, Khmer, Korean, ... by pairs of characters, other languages by words, stemmed by Snowball
    where it knows them; English without stop words.
    """

    def __init__(self, name: str = "bm25", *, k1: float = 0.9, b: float = 0.4) -> None:
        self.name = name
        self._k1, self._b = k1, b

    def search(self, collection: Collection, k: int) -> Outcome:
        """The `k` best documents of every query, of those that share a word with it. Encoding is counting words."""
        start = time.perf_counter()
        bm25 = BM25.build(collection.ids, collection.texts, collection.languages, k1=self._k1, b=self._b)
        built = time.perf_counter()
        run: Run = {query.id: bm25.search(query.text, k, language=query.language) for query in collection.queries}
        done = time.perf_counter()
        return Outcome(
            run,
            document_terms=_distinct(zip(collection.texts, collection.languages, strict=True)),
            query_terms=_distinct((query.text, query.language) for query in collection.queries),
            index_bytes=_bytes(bm25),
            encoded=len(collection.ids),
            encoding_seconds=built - start,
            search_seconds=done - built,
        )


def open_baseline(
    what: str, name: str = "", *, cache: PathName | None = None, on_texts: Callable[[int], None] | None = None
) -> System | None:
    """The baseline that a word stands for, None where it stands for none.

        bm25
        dense:FOLDER            a dense model of sentence-transformers; behind it +query=PROMPT and +document=PROMPT
        sparse-encoder:FOLDER   a SparseEncoder, encoded by sentence-transformers

    name   what tables call it
    cache  folder that keeps vectors

    Raises BadModel, also for `dense:` before a sparse model, and MissingExtra.
    """
    if what == "bm25":
        return Lexical(name or what)
    found = _SPEC.fullmatch(what)
    if found is None:
        return None
    folder = Path(found["folder"])
    if not folder.is_dir():
        raise BadInput(f"{what!r}: {folder} is no folder; a peer is measured from a local folder")
    from polylex.interop.peers import Dense, SparsePeer

    encodings = Encodings(identity_of(folder, found["kind"]), cache)
    if found["kind"] == "sparse-encoder":
        return Sparse(SparsePeer(folder, name), name, encodings=encodings, on_texts=on_texts)
    prompts = {f"{kind}_prompt": text for kind, text in _PROMPT.findall(found["prompts"])}
    return Dense(folder, name, encodings=encodings, on_texts=on_texts, **prompts)


def _distinct(texts: Iterable[tuple[str, str]]) -> float | None:
    """Mean number of distinct words of (text, language) pairs."""
    counts = [len(set(words(text, language))) for text, language in texts]
    return sum(counts) / len(counts) if counts else None


def _bytes(bm25: BM25) -> int:
    """Size of the index on disk."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bm25"
        bm25.save(path)
        return sum(file.stat().st_size for file in path.iterdir())
