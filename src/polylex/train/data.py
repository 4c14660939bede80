"""Training data on disk: pairs and groups from JSONL, tokenised once, then mapped into memory.

tokenizer = Tokenization(model.tokens, Preparation(lowercase=model.config.lowercase))
pairs = Pairs.write("cache/pairs", read_pairs("pairs.jsonl"), tokenizer, teacher=Tokenization(teacher.tokens))
groups = Groups.write("cache/groups", read_groups("groups.jsonl"), query=tokenizer, document=tokenizer)
Pairs.open("cache/pairs").english[0]            # content token ids of the first English text

The formats are written down in docs/training.md.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.compression import open_bytes
from polylex.errors import BadInput, BadRecord, VocabMismatch
from polylex.lines import Lines
from polylex.runtime.tokens import Tokens
from polylex.storage import map_arrays, write_arrays
from polylex.text import Preparation

FORMAT = "polylex-tokens"
VERSION = "1"

PathLike = str | os.PathLike[str]

_LINE_LIMIT = 1 << 24  # bytes of one JSON line
_BLOCK = 4096  # texts tokenised at one time
_PARAGRAPH_LIMIT = 1 << 20  # characters: what no line of training text has by intention


@dataclass(frozen=True, slots=True)
class Pair:
    """One sentence or passage in English and in another language; `source` is where it was taken from."""

    english: str
    non_english: str
    language: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A query with documents that answer it and documents that do not; scores are a teacher's, empty when unknown."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    positive_scores: tuple[float, ...] = ()
    negative_scores: tuple[float, ...] = ()
    language: str = ""
    source: str = ""


# -- JSONL -------------------------------------------------------------------------------------------


def read_pairs(path: PathLike) -> Iterator[Pair]:
    """Pairs of a JSONL file, packed or not: `{"english", "non_english"[, "lang", "source"]}`.

    A record without "lang" has the language that the file is named after ("de.jsonl.xz" holds "de"). Raises BadRecord
    (file:line) for a line that is no such record.
    """
    path = Path(path)
    default = path.name.split(".")[0]
    for line, record in _objects(path):
        yield Pair(
            _text(path, line, record, "english"),
            _text(path, line, record, "non_english"),
            _optional(path, line, record, "lang") or default,
            _optional(path, line, record, "source"),
        )


def read_groups(path: PathLike) -> Iterator[Group]:
    """Groups of a JSONL file: `{"query", "pos", "neg"[, "pos_scores", "neg_scores", "lang", "source"]}`.

    Raises BadRecord (file:line) for a line that is no such record, has no positive, or not one score a document.
    """
    path = Path(path)
    for line, record in _objects(path):
        positives, negatives = _texts(path, line, record, "pos"), _texts(path, line, record, "neg")
        if not positives:
            raise BadRecord(str(path), line, "'pos' is empty; a group needs a document that answers its query")
        yield Group(
            _text(path, line, record, "query"),
            positives,
            negatives,
            _scores(path, line, record, "pos_scores", len(positives)),
            _scores(path, line, record, "neg_scores", len(negatives)),
            _optional(path, line, record, "lang"),
            _optional(path, line, record, "source"),
        )


def _objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with open_bytes(path) as stream:
            lines = Lines(stream, str(path), _LINE_LIMIT)
            for text in lines:
                if not text.strip():
                    continue
                try:
                    record = json.loads(text)
                except ValueError as fault:
                    raise BadRecord(str(path), lines.number, f"not JSON: {fault}") from None
                if not isinstance(record, dict):
                    raise BadRecord(str(path), lines.number, f"expected an object, got {type(record).__name__}")
                yield lines.number, record
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; name a JSONL file or a folder written by `polylex data`") from None


def _text(path: Path, line: int, record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or len(value) > _PARAGRAPH_LIMIT:
        told = f"{len(value):,} characters" if isinstance(value, str) else json.dumps(value)[:80]
        raise BadRecord(
            str(path), line, f"{key!r} must be a text of at most {_PARAGRAPH_LIMIT:,} characters, got {told}"
        )
    return value


def _optional(path: Path, line: int, record: Mapping[str, Any], key: str) -> str:
    return "" if record.get(key) is None else _text(path, line, record, key)


def _texts(path: Path, line: int, record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = record.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRecord(str(path), line, f"{key!r} must be a list of texts, got {json.dumps(value)[:80]}")
    return tuple(value)


def _scores(path: Path, line: int, record: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    value = record.get(key) or []
    numbers = isinstance(value, list) and all(isinstance(x, int | float) and np.isfinite(x) for x in value)
    if not numbers or len(value) not in (0, count):
        raise BadRecord(
            str(path), line, f"{key!r} must hold one finite number for each of {count} documents, or be left out"
        )
    return tuple(map(float, value))


# -- tokens ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tokenization:
    """How texts become token ids: a tokenizer, and what is done to a text before it."""

    tokens: Tokens
    prepare: Preparation = field(default_factory=Preparation)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Content token ids of each text, uncut, without special tokens. Runs on all cores."""
        return self.tokens.content(texts, self.prepare)

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenisations that give the same ids for every text."""
        told = f"{self.tokens.to_json()}\0{self.prepare.prompt}\0{self.prepare.lowercase}"
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, eq=False)
class TokenCache:
    """Tokenised texts in one mapped file.

    ids      uint32 [tokens]     content tokens of all texts one after the other; no special tokens
    offsets  int64  [texts + 1]  text i is ids[offsets[i]:offsets[i + 1]]
    head     token ids that the tokenizer puts before a text, and `tail` those after it
    made_by  Tokenization.fingerprint of what wrote it
    """

    ids: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    head: tuple[int, ...]
    tail: tuple[int, ...]
    made_by: str

    @classmethod
    def write(
        cls,
        path: PathLike,
        texts: Iterable[str],
        tokenization: Tokenization,
        *,
        order: NDArray[np.int64] | None = None,
        on_texts: Callable[[int], None] | None = None,
    ) -> TokenCache:
        """Tokenise texts into a file and open it. The file appears whole or not at all.

        order     rows in which the texts are stored; as they come by default
        on_texts  called with the number of texts tokenised so far
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        parts: list[NDArray[np.uint32]] = []
        lengths: list[int] = []
        for block in _blocks(texts):
            encoded = tokenization(block)
            lengths.extend(map(len, encoded))
            parts.append(np.fromiter((token for ids in encoded for token in ids), np.uint32, sum(map(len, encoded))))
            if on_texts is not None:
                on_texts(len(lengths))
        ids = np.concatenate([np.zeros(0, np.uint32), *parts])
        offsets = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)
        if order is not None:
            ids, offsets = _reordered(ids, offsets, order)
        head, tail = tokenization.tokens.frame
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "head": json.dumps(head),
            "tail": json.dumps(tail),
            "tokenizer": tokenization.fingerprint,
        }
        write_arrays(path.parent, lambda _: path.name, {"ids": ids, "offsets": offsets}, metadata)
        return cls.open(path)

    @classmethod
    def open(cls, path: PathLike) -> TokenCache:
        """Map a file of `write`. Raises BadInput naming what is wrong with it."""
        arrays, metadata = _open_arrays(Path(path))
        ids, offsets = arrays["ids"], arrays["offsets"]
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
            raise BadInput(f"{path} is damaged: its offsets do not fit {len(ids)} tokens; write it again")
        return cls(
            ids,
            offsets,
            tuple(json.loads(metadata["head"])),
            tuple(json.loads(metadata["tail"])),
            metadata["tokenizer"],
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> NDArray[np.uint32]:
        """Content token ids of one text."""
        return self.ids[self.offsets[text] : self.offsets[text + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Content tokens of each text."""
        return np.diff(self.offsets)

    def require(self, tokenization: Tokenization, where: str) -> None:
        """Raise VocabMismatch unless `tokenization` would write the same ids."""
        if self.made_by != tokenization.fingerprint:
            raise VocabMismatch(
                f"{where} was tokenised by {self.made_by[:8]}, the model tokenises by {tokenization.fingerprint[:8]}: "
                "its ids mean other tokens. Write the cache again with this model's tokenizer."
            )


# -- pairs and groups --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Parallel texts of stage 1, rows of one (language, source) next to each other and in the order they came in.

    Texts that follow one another in a stratum are thus contiguous in the token files, so that a longer text made of
    consecutive rows is one slice.

    english    TokenCache [rows]  English side, the model's tokens
    other      TokenCache [rows]  other side, the model's tokens
    teacher    TokenCache [rows]  English side, the teacher's tokens; None without a teacher
    stratum    uint32 [rows]      index into `strata`, never decreasing
    strata     (language, source) of each stratum
    """

    english: TokenCache
    other: TokenCache
    teacher: TokenCache | None
    stratum: NDArray[np.uint32]
    strata: tuple[tuple[str, str], ...]

    @classmethod
    def write(
        cls,
        folder: PathLike,
        pairs: Iterable[Pair],
        tokenization: Tokenization,
        *,
        teacher: Tokenization | None = None,
        on_texts: Callable[[int], None] | None = None,
    ) -> Pairs:
        """Tokenise pairs into a folder and open it. Raises BadInput when there is none."""
        folder = Path(folder)
        rows = list(pairs)
        if not rows:
            raise BadInput(f"no pairs for {folder}; training needs one at least, check the files")
        stratum, strata = _stratified([(row.language, row.source) for row in rows])
        order = np.argsort(stratum, kind="stable")
        columns = {"english": tokenization, "other": tokenization} | ({"teacher": teacher} if teacher else {})
        for name, by in columns.items():
            texts = (row.non_english if name == "other" else row.english for row in rows)
            TokenCache.write(folder / f"{name}.tokens", texts, by, order=order, on_texts=on_texts)
        _write_arrays(folder / "pairs.rows", {"stratum": stratum[order]}, {"strata": json.dumps(strata)})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: PathLike) -> Pairs:
        """Map a folder of `write`. Raises BadInput naming what is wrong with it."""
        folder = Path(folder)
        arrays, metadata = _open_arrays(folder / "pairs.rows")
        teacher = folder / "teacher.tokens"
        pairs = cls(
            TokenCache.open(folder / "english.tokens"),
            TokenCache.open(folder / "other.tokens"),
            TokenCache.open(teacher) if teacher.exists() else None,
            arrays["stratum"],
            tuple((language, source) for language, source in json.loads(metadata["strata"])),
        )
        columns = [pairs.english, pairs.other] + ([pairs.teacher] if pairs.teacher else [])
        if any(len(column) != len(pairs.stratum) for column in columns):
            raise BadInput(f"{folder} mixes files of {[len(column) for column in columns]} rows; write it again")
        return pairs

    def __len__(self) -> int:
        return len(self.stratum)


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Queries of stage 2 with their documents. A text that stands in several groups is stored one time.

    queries          TokenCache [distinct queries]
    documents        TokenCache [distinct documents]
    query            uint32 [rows]      index of each group's query in `queries`
    positive_indptr  int64  [rows + 1]  group r has positives[positive_indptr[r]:positive_indptr[r + 1]]
    positives        uint32             indices in `documents`; positive_scores float32, not-a-number where unknown
    negative_indptr, negatives, negative_scores   the same for the negatives
    stratum          uint32 [rows]      index into `strata`: (language, source)
    query_vectors    float16 [distinct queries, D] of a dense teacher, mapped; None without it
    document_vectors float16 [distinct documents, D]; cosines are their inner products (rows have length 1)
    """

    queries: TokenCache
    documents: TokenCache
    query: NDArray[np.uint32]
    positive_indptr: NDArray[np.int64]
    positives: NDArray[np.uint32]
    positive_scores: NDArray[np.float32]
    negative_indptr: NDArray[np.int64]
    negatives: NDArray[np.uint32]
    negative_scores: NDArray[np.float32]
    stratum: NDArray[np.uint32]
    strata: tuple[tuple[str, str], ...]
    query_vectors: NDArray[np.float16] | None
    document_vectors: NDArray[np.float16] | None

    @classmethod
    def write(
        cls,
        folder: PathLike,
        groups: Iterable[Group],
        *,
        query: Tokenization,
        document: Tokenization,
        on_texts: Callable[[int], None] | None = None,
    ) -> Groups:
        """Tokenise groups into a folder and open it. Raises BadInput when there is none.

        queries.jsonl and documents.jsonl in the folder hold the distinct texts, one JSON string a line: what a dense
        teacher encodes for `write_vectors`.
        """
        folder = Path(folder)
        rows = list(groups)
        if not rows:
            raise BadInput(f"no groups for {folder}; training needs one at least, check the files")
        queries, documents = _Numbered(), _Numbered()
        stratum, strata = _stratified([(row.language, row.source) for row in rows])
        arrays = {
            "query": np.array([queries[row.query] for row in rows], np.uint32),
            "stratum": stratum,
            **_ragged("positive", [(row.positives, row.positive_scores) for row in rows], documents),
            **_ragged("negative", [(row.negatives, row.negative_scores) for row in rows], documents),
        }
        for name, texts, by in (("queries", queries, query), ("documents", documents, document)):
            TokenCache.write(folder / f"{name}.tokens", texts.numbers, by, on_texts=on_texts)
            lines = "".join(json.dumps(text) + "\n" for text in texts.numbers)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
            (folder / f"{name}.npy").unlink(missing_ok=True)  # vectors of other texts
        _write_arrays(folder / "groups.rows", arrays, {"strata": json.dumps(strata)})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: PathLike) -> Groups:
        """Map a folder of `write`. Raises BadInput naming what is wrong with it."""
        folder = Path(folder)
        arrays, metadata = _open_arrays(folder / "groups.rows")
        queries, documents = (TokenCache.open(folder / f"{name}.tokens") for name in ("queries", "documents"))
        return cls(
            queries,
            documents,
            strata=tuple((language, source) for language, source in json.loads(metadata["strata"])),
            query_vectors=_open_vectors(folder / "queries.npy", len(queries)),
            document_vectors=_open_vectors(folder / "documents.npy", len(documents)),
            **arrays,
        )

    @staticmethod
    def write_vectors(folder: PathLike, *, queries: NDArray[Any], documents: NDArray[Any]) -> None:
        """Keep a dense teacher's vectors of queries.jsonl and documents.jsonl: any float, rows scaled to length 1."""
        for name, vectors in (("queries", queries), ("documents", documents)):
            path = Path(folder) / f"{name}.npy"
            scaled = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            temporary = path.with_suffix(".writing.npy")
            np.save(temporary, scaled.astype(np.float16))
            os.replace(temporary, path)

    @staticmethod
    def texts(folder: PathLike, which: str) -> Iterator[str]:
        """The distinct "queries" or "documents" of a folder, in the order of their vectors."""
        with open(Path(folder) / f"{which}.jsonl", encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def __len__(self) -> int:
        return len(self.query)


class _Numbered:
    """Numbers texts in the order of their first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def _ragged(
    name: str, rows: Sequence[tuple[tuple[str, ...], tuple[float, ...]]], numbered: _Numbered
) -> dict[str, NDArray[Any]]:
    lengths = np.array([len(texts) for texts, _ in rows], np.int64)
    scores = [scores or (np.nan,) * len(texts) for texts, scores in rows]
    return {
        f"{name}_indptr": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        f"{name}s": np.array([numbered[text] for texts, _ in rows for text in texts], np.uint32),
        f"{name}_scores": np.array([score for row in scores for score in row], np.float32),
    }


def _stratified(keys: Sequence[tuple[str, str]]) -> tuple[NDArray[np.uint32], tuple[tuple[str, str], ...]]:
    strata = tuple(sorted(set(keys)))
    number = {key: index for index, key in enumerate(strata)}
    return np.array([number[key] for key in keys], np.uint32), strata


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    stream = iter(texts)
    while block := list(islice(stream, _BLOCK)):
        yield block


def _reordered(
    ids: NDArray[np.uint32], offsets: NDArray[np.int64], order: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    lengths = np.diff(offsets)[order]
    fresh = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    source = np.repeat(offsets[order] - fresh[:-1], lengths) + np.arange(len(ids))
    return ids[source], fresh


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    write_arrays(path.parent, lambda _: path.name, arrays, {"format": FORMAT, "version": VERSION, **metadata})


def _open_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    arrays, metadata = map_arrays(path, BadInput)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise BadInput(
            f"{path} has format {metadata.get('format')!r} version {metadata.get('version')!r}, this release reads "
            f"{FORMAT!r} version {VERSION!r}; write it again"
        )
    return arrays, metadata


def _open_vectors(path: Path, rows: int) -> NDArray[np.float16] | None:
    if not path.exists():
        return None
    vectors: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    if vectors.ndim != 2 or len(vectors) != rows or vectors.dtype != np.float16:
        raise BadInput(f"{path} holds {vectors.dtype} {vectors.shape}, expected float16 [{rows}, D]; write it again")
    return vectors
