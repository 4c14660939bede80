"""BM25: ranking by the words that query and document share. The lexical half of hybrid search, by bm25s.

    bm25 = BM25.build(["de", "zh"], ["Wer darf heiraten?", "誰可以結婚"])
    bm25.search("heiraten", k=10)                                # [("de", 0.61)]: id and score, best first
    bm25.save("articles.bm25")
    bm25 = BM25.load("articles.bm25")

Needs the extra polylex[hybrid]. Words come from polylex.words: pairs of characters in Chinese, Japanese, Thai, Khmer,
Korean, ...; stems where a language is given.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput, CorruptIndex, DuplicateId, IndexExists, IndexNotFound, MissingExtra, UnknownFormat
from polylex.storage import full_disk_named, sync_folder
from polylex.words import words

FORMAT, VERSION = "polylex-bm25", 1
_MANIFEST = "polylex.json"


class BM25:
    """Okapi BM25 as Lucene counts it, over documents that do not change.

    Weight of a word in a document: log(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + k1 * (1 - b + b * length / mean)).
    A query counts each of its words as often as it stands there.

    ids       of the documents, in the order of `build`
    settings  what the caller stored when building
    """

    def __init__(self, ids: Sequence[str], engine: Any, settings: Mapping[str, Any]) -> None:  # noqa: ANN401
        """Take parts; call `build` or `load`. `engine` is a bm25s.BM25, or None where no document has a word."""
        self.ids = ids
        self.settings = settings
        self._engine = engine

    @classmethod
    def build(
        cls,
        ids: Sequence[str],
        texts: Iterable[str],
        languages: str | Iterable[str] = "",
        *,
        k1: float = 0.9,
        b: float = 0.4,
        settings: Mapping[str, Any] | None = None,
    ) -> BM25:
        """Count the words of documents. Memory: some 12 bytes a word while building, then 8 for each distinct one.

        ids        one a text, each new; they come back in results
        languages  of each text, or one for all: a tag such as "de"; "" where unknown (polylex.words)
        k1         how soon repeats of a word count no more, >= 0; 0.9 and b 0.4 are the usual reference
        b          how much long documents are held back, in [0, 1]
        settings   any JSON object, kept with the rest

        Raises BadInput, DuplicateId, MissingExtra.
        """
        if not (k1 >= 0 and 0 <= b <= 1):
            raise BadInput(f"k1 must be >= 0 and b in [0, 1], got {k1} and {b}; 0.9 and 0.4 are usual")
        _check_ids(ids)
        spoken = repeat(languages) if isinstance(languages, str) else languages
        vocabulary: dict[str, int] = {}
        rows = [
            array("i", [vocabulary.setdefault(word, len(vocabulary)) for word in words(text, language)])
            for text, language in zip(texts, spoken)  # noqa: B905 - `spoken` may be endless
        ]
        if len(rows) != len(ids):
            raise BadInput(f"{len(ids)} ids for {len(rows)} texts; give one id and one language a text")
        return cls(list(ids), _index(rows, vocabulary, k1, b), dict(settings or {}))

    def __len__(self) -> int:
        """Documents."""
        return len(self.ids)

    def search(
        self, query: str, k: int = 10, *, language: str = "", allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[str, float]]:
        """Id and score of the `k` best documents, best first; ties in the order of `build`. Only scores > 0 are hits.

        language  of the query; give it where the documents were built with languages, so that stems meet
        allowed   bool [documents]: which may be hits; None: all

        Raises BadInput, MissingExtra, CorruptIndex.
        """
        if k < 1:
            raise BadInput(f"k must be at least 1, got {k}")
        scores = self.scores(query, language=language)
        if allowed is not None:
            if allowed.shape != scores.shape:
                raise BadInput(
                    f"allowed has shape {allowed.shape}; give one truth value for each of {len(self)} documents"
                )
            scores = np.where(allowed, scores, np.float32(0))
        return [(self.ids[row], float(scores[row])) for row in _best(scores, k).tolist()]

    def scores(self, query: str, *, language: str = "") -> NDArray[np.float32]:
        """Score of every document, float32 [documents], >= 0. Raises as `search` does."""
        known = [] if self._engine is None else [w for w in words(query, language) if w in self._engine.vocab_dict]
        if not known:
            return np.zeros(len(self), np.float32)
        try:
            found: NDArray[np.float32] = self._engine.get_scores(known)
        except (IndexError, ValueError, TypeError) as fault:
            raise CorruptIndex(f"the BM25 index is damaged ({fault}); build it again") from None
        return found

    # -- on disk ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a folder, whole or not at all: the files of `bm25s.BM25.save`, and polylex.json with ids and settings.

        Raises IndexExists, StorageFull.
        """
        path = Path(path)
        if path.exists() and not (overwrite and (path / _MANIFEST).is_file()):
            raise IndexExists(f"{path} exists; give another path, or pass overwrite=True to replace a BM25 index")
        partial = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
        with full_disk_named(path):
            try:
                partial.mkdir(parents=True)
                if self._engine is not None:
                    self._engine.save(partial)
                sizes = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
                manifest = {"format": FORMAT, "version": VERSION, "files": sizes}
                text = json.dumps({**manifest, "settings": dict(self.settings), "ids": list(self.ids)})
                (partial / _MANIFEST).write_text(text, encoding="ascii")
                for file in (*partial.iterdir(), partial):
                    _sync(file)
                _replace(path, partial)
                sync_folder(path.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BM25:
        """Open a folder of `save`; its arrays are mapped, not read.

        Raises IndexNotFound, CorruptIndex naming the file, UnknownFormat, MissingExtra.
        """
        path = Path(path)
        manifest = _manifest(path)
        for name, size in manifest["files"].items():
            if not (path / name).is_file() or (path / name).stat().st_size != size:
                raise CorruptIndex(f"{path / name} is missing or has not its {size} bytes; build the BM25 index again")
        if not manifest["files"]:
            return cls(manifest["ids"], None, manifest["settings"])
        try:
            engine = _bm25s().BM25.load(path, mmap=True)
            documents = int(engine.scores["num_docs"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as fault:
            raise CorruptIndex(f"{path} is damaged ({fault}); build the BM25 index again") from None
        if documents != len(manifest["ids"]):
            raise CorruptIndex(f"{path} has {len(manifest['ids'])} ids for {documents} documents; build it again")
        return cls(manifest["ids"], engine, manifest["settings"])


def _bm25s() -> Any:  # noqa: ANN401 - the package is optional
    try:
        import bm25s
    except ImportError:
        raise MissingExtra("bm25s", "hybrid", "BM25") from None
    return bm25s


def _index(rows: list[array[int]], vocabulary: dict[str, int], k1: float, b: float) -> Any:  # noqa: ANN401
    """A bm25s.BM25 of these documents; None without a word."""
    engine = _bm25s().BM25(k1=k1, b=b, method="lucene")
    if not vocabulary:
        return None
    engine.index((rows, vocabulary), create_empty_token=False, show_progress=False)
    return engine


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows of the k highest scores > 0, ties by row."""
    hits = np.flatnonzero(scores > 0)
    if len(hits) > k:
        least = np.partition(scores[hits], len(hits) - k)[len(hits) - k]
        hits = hits[scores[hits] >= least]
    return hits[np.argsort(-scores[hits], kind="stable")][:k]


def _check_ids(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            raise DuplicateId(f"two documents have the id {id!r}; every document needs its own")
        seen.add(id)


def _replace(path: Path, new: Path) -> None:
    """Put a folder in place of another, which is removed last."""
    old = new.with_suffix(".old")
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    if path.is_dir():
        return sync_folder(path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return None


def _manifest(path: Path) -> dict[str, Any]:
    """What polylex.json says."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="ascii"))
        kind, version = manifest["format"], manifest["version"]
    except FileNotFoundError:
        raise IndexNotFound(f"no BM25 index at {path}; make one with BM25.build(...).save(path)") from None
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise CorruptIndex(f"{path / _MANIFEST} is damaged ({fault}); build the BM25 index again") from None
    if (kind, version) != (FORMAT, VERSION):
        raise UnknownFormat(
            f"{path} has format {kind!r} {version!r}, this release reads {FORMAT!r} {VERSION}; upgrade polylex, or "
            "build it again"
        )
    shape = {name: type(manifest.get(name)) for name in ("ids", "files", "settings")}
    if shape != {"ids": list, "files": dict, "settings": dict}:
        raise CorruptIndex(f"{path / _MANIFEST} is damaged; build the BM25 index again")
    return dict(manifest)
