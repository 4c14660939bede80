"""Harvest: the shards of an encoding job, checked, and joined in the order of the input.

harvest = Harvest.read(["articles.job"])
harvest.require()                       # names each shard that is missing, twice, damaged or of another job
save_vectors("articles.safetensors", *harvest.vectors())
push(engine, harvest.stream())          # or past this machine's disk, to an engine
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from polylex.builder import IndexBuilder
from polylex.errors import BadInput, BadVectors, CorruptIndex, DuplicateId, UnknownFormat
from polylex.ids import Seen
from polylex.job import Block, Manifest, Plan, check_block, read_plan
from polylex.partition import Partition
from polylex.postings import rows_between
from polylex.storage import load_vectors
from polylex.stream import SIZE, Batch, Stream
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

if TYPE_CHECKING:
    from polylex.corpus import Document

Trouble = Literal["missing", "unfinished", "duplicated", "mismatched", "damaged"]

_FOLDER = re.compile(r"shard-\d{1,9}-of-\d{1,9}")
_NAMED = 10  # findings in an error


@dataclass(frozen=True, slots=True)
class Finding:
    """A shard that cannot be used. `shard` is its name, or its folder where there are several of that name."""

    kind: Trouble
    shard: str
    text: str

    def __str__(self) -> str:
        return f"{self.shard} is {self.kind}: {self.text}"


@dataclass(frozen=True, slots=True)
class Shard:
    """A complete shard."""

    folder: Path
    manifest: Manifest


class Harvest:
    """The shards of one job, from one folder or several, as far as they can be used.

    plan      Plan      what most of them agree on; its `shard` means nothing
    shards    dict      the usable ones by number
    findings  list      everything that is wrong, by shard; empty where the harvest is whole
    """

    def __init__(self, plan: Plan, shards: Mapping[int, Shard], findings: Sequence[Finding]) -> None:
        self.plan, self.shards, self.findings = plan, dict(sorted(shards.items())), list(findings)

    @classmethod
    def read(
        cls, paths: Sequence[str | os.PathLike[str]], *, on_shard: Callable[[str], object] | None = None
    ) -> Harvest:
        """Look at job folders, or at folders of single shards, and check every byte.

        on_shard  called with the name of each complete shard before its files are read

        Raises BadInput where there is no shard at all.
        """
        folders = [folder for path in paths for folder in _folders(Path(path))]
        found: list[Shard] = []
        findings: list[Finding] = []
        for folder in folders:
            shard = _open(folder, findings, on_shard)
            if shard is not None:
                found.append(shard)
        kept = _alike(found, findings)
        if not kept:
            told = f"; {findings[0]}" if findings else ""
            raise BadInput(f"there is no complete shard in {', '.join(map(str, paths))}{told}")
        plan = next(iter(kept.values())).manifest.plan
        spoken = {Path(finding.shard).name for finding in findings}
        for number in range(plan.of):
            name = Partition(number, plan.of).name
            if number not in kept and name not in spoken:
                findings.append(Finding("missing", name, f"encode it with `polylex encode --shard {number}/{plan.of}`"))
        return cls(plan, kept, findings)

    def require(self) -> None:
        """Raise BadInput, naming the shards, unless the harvest is whole."""
        if self.findings:
            more = len(self.findings) - _NAMED
            told = "; ".join(map(str, self.findings[:_NAMED])) + (f"; and {more:,} more" if more > 0 else "")
            raise BadInput(f"the shards cannot be joined: {told}")

    def __len__(self) -> int:
        """Documents in the usable shards."""
        return sum(shard.manifest.documents for shard in self.shards.values())

    @property
    def postings(self) -> int:
        """Weights in the usable shards."""
        return sum(block.postings for shard in self.shards.values() for block in shard.manifest.blocks)

    # -- joining ---------------------------------------------------------------------------------

    def stream(self) -> Stream:
        """All documents in the order of the input, batch by batch: memory does not grow with them.

        Reading it raises DuplicateId where two files have the same id, and BadVectors where ids are not those that the
        manifest has. Raises BadInput unless the harvest is whole.
        """
        self.require()
        return Stream(len(self), self.plan.vocab, self._batches)

    def vectors(self) -> tuple[SparseVectors, list[str]]:
        """All vectors and their ids, in memory. Raises as `stream` and its reading do."""
        parts, ids = [SparseVectors.empty(self.plan.vocab)], list[str]()
        for batch in self.stream():
            parts.append(batch.vectors)
            ids += batch.ids
        return SparseVectors.concat(parts), ids

    def build(
        self,
        path: str | os.PathLike[str],
        vocab: Vocab,
        documents: Iterator[Document] | None = None,
        *,
        overwrite: bool = False,
        on_rows: Callable[[int], object] | None = None,
    ) -> None:
        """Build an index, all or nothing; an interrupted build is continued.

        vocab      that of the model
        documents  the input once more, for the fields of the documents; without it the index has ids and vectors only
        on_rows    called with how many documents are in

        Raises BadInput for documents that are not those that were encoded, IndexExists, and as `stream` does.
        """
        if self.plan.kind != "document":
            raise BadInput(f"these are vectors of {self.plan.kind} texts; an index is made of documents")
        stream = self.stream()
        settings = {
            "model": self.plan.model or None,
            "text_fields": self.plan.settings.get("text_fields"),
            "pruning": self.plan.settings.get("pruning"),
        }
        with IndexBuilder(
            path,
            vocab,
            encoder=self.plan.encoder,
            weights_id=self.plan.weights_id,
            settings=settings,
            overwrite=overwrite,
        ) as builder:
            start, held = 0, len(builder)
            for batch in stream:
                fields = [{}] * len(batch) if documents is None else _fields(batch.ids, documents)
                if start + len(batch) > held:
                    rows = range(max(0, held - start), len(batch))
                    new = Batch(batch.ids, batch.vectors, fields).take(rows)
                    builder.add(new.ids, new.fields, new.vectors)
                start += len(batch)
                if on_rows is not None:
                    on_rows(start)
            if documents is not None and (extra := next(documents, None)) is not None:
                raise BadInput(f"the input has more documents than were encoded, the first {extra.id!r}")
            builder.finish()

    def _batches(self) -> Iterator[Batch]:
        cursors = {number: _Cursor(shard) for number, shard in self.shards.items()}
        seen = (
            Seen() if self.plan.split == "files" else None
        )  # else every process has seen all ids, and that they differ
        place = 0
        for owners in self._owners():
            order = np.argsort(owners, kind="stable")
            ids: list[str] = []
            parts = []
            for number, count in zip(*np.unique(owners, return_counts=True), strict=True):
                some, vectors = cursors[int(number)].take(int(count))
                ids += some
                parts.append(vectors)
            back = np.argsort(order, kind="stable")
            batch = Batch([ids[row] for row in back], SparseVectors.concat(parts).take(back), [{}] * len(ids))
            for id in batch.ids if seen is not None else ():
                if seen is not None and seen.add(hash(id) & 0xFFFF_FFFF_FFFF_FFFF, place) is not None:
                    raise DuplicateId(f"two documents of the input have the id {id!r}; every document needs its own")
                place += 1
            yield batch
        for cursor in cursors.values():
            cursor.require_end()

    def _owners(self) -> Iterator[NDArray[np.int64]]:
        """For each batch, which shard its documents are in."""
        if self.plan.split == "documents":
            for start in range(0, len(self), SIZE):
                yield np.arange(start, min(start + SIZE, len(self))) % self.plan.of
            return
        files = sorted(tuple(pair) for shard in self.shards.values() for pair in shard.manifest.files)
        for number, documents in files:
            for start in range(0, documents, SIZE):
                yield np.full(min(SIZE, documents - start), number % self.plan.of)


class _Cursor:
    """Reads the rows of one shard, in order."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._blocks = iter(shard.manifest.blocks)
        self._vectors = SparseVectors.empty(shard.manifest.plan.vocab)
        self._ids: list[str] = []
        self._at = 0
        self._digest = hashlib.sha256()

    def take(self, count: int) -> tuple[list[str], SparseVectors]:
        """The next rows, that many."""
        ids: list[str] = []
        parts = [SparseVectors.empty(self._vectors.vocab)]
        while len(ids) < count:
            if self._at == len(self._ids):
                self._open(next(self._blocks))
            stop = min(len(self._ids), self._at + count - len(ids))
            ids += self._ids[self._at : stop]
            parts.append(rows_between(self._vectors, self._at, stop))
            self._at = stop
        self._digest.update("".join(f"{id}\n" for id in ids).encode("utf-8", "surrogatepass"))
        return ids, SparseVectors.concat(parts)

    def _open(self, block: Block) -> None:
        path = self._shard.folder / block.file
        vectors, ids = load_vectors(path)
        if ids is None or len(ids) != block.rows:
            raise BadVectors(f"{path} has other rows than its manifest says; encode that shard again with --overwrite")
        self._vectors, self._ids, self._at = vectors, ids, 0

    def require_end(self) -> None:
        """Raise BadVectors unless the ids were those that the manifest has."""
        if self._digest.hexdigest() != self._shard.manifest.ids:
            raise BadVectors(
                f"{self._shard.folder} has other ids than its manifest says; encode that shard again with --overwrite"
            )


def _fields(ids: Sequence[str], documents: Iterator[Document]) -> list[Mapping[str, object]]:
    some = list(islice(documents, len(ids)))
    for id, document in zip(ids, some, strict=False):
        if document.id != id:
            raise BadInput(f"the input has document {document.id!r} where {id!r} was encoded; give the same input")
    if len(some) < len(ids):
        raise BadInput(f"the input ends before document {ids[len(some)]!r}, which was encoded; give the same input")
    return [document.fields for document in some]


# -- checking ----------------------------------------------------------------------------------------


def _folders(path: Path) -> list[Path]:
    """Folders of shards: the path itself, or those in it."""
    if _FOLDER.fullmatch(path.name):
        return [path]
    if not path.is_dir():
        raise BadInput(f"there is no folder {path}; give what `polylex encode --shard ... --out` was given")
    return sorted(each for each in path.iterdir() if each.is_dir() and _FOLDER.fullmatch(each.name))


def _open(folder: Path, findings: list[Finding], on_shard: Callable[[str], object] | None) -> Shard | None:
    """A shard whose files are all as they were written."""
    try:
        manifest = Manifest.read(folder)
        if manifest is None:
            begun = read_plan(folder) is not None
            text = "its last texts are not encoded; run the same command again" if begun else "it holds nothing"
            findings.append(Finding("unfinished", folder.name, text))
            return None
        if on_shard is not None:
            on_shard(folder.name)
        for block in manifest.blocks:
            check_block(folder, block)
    except (CorruptIndex, UnknownFormat, BadVectors) as fault:
        findings.append(Finding("damaged", folder.name, f"{fault}"))
        return None
    plan = manifest.plan
    if Partition(plan.shard, plan.of).name != folder.name:
        findings.append(Finding("mismatched", folder.name, f"its manifest says shard {plan.shard} of {plan.of}"))
        return None
    return Shard(folder, manifest)


def _alike(found: Sequence[Shard], findings: list[Finding]) -> dict[int, Shard]:
    """The shards that fit together, by number: those like the most frequent kind."""
    if not found:
        return {}
    usual = Counter(map(_likeness, found)).most_common(1)[0][0]
    model = next(shard for shard in found if _likeness(shard) == usual)
    kept: dict[int, Shard] = {}
    for shard in found:
        if _likeness(shard) != usual:
            findings.append(Finding("mismatched", str(shard.folder), _difference(shard, model)))
        elif (number := shard.manifest.plan.shard) in kept:
            other = kept[number].folder
            findings.append(Finding("duplicated", str(shard.folder), f"{other} is the same shard; give one of them"))
        elif not _is_whole(shard.manifest):
            findings.append(
                Finding("mismatched", shard.folder.name, "its documents are not those its number stands for")
            )
        else:
            kept[number] = shard
    return kept


def _likeness(shard: Shard) -> str:
    """Equal for shards of one job."""
    plan = {name: value for name, value in asdict(shard.manifest.plan).items() if name not in ("shard", "model")}
    same = (shard.manifest.input, shard.manifest.total) if plan["split"] == "documents" else ()
    return json.dumps([plan, same], sort_keys=True)


def _difference(shard: Shard, model: Shard) -> str:
    other = shard.manifest.plan.differences(model.manifest.plan)
    if not other:
        other = [
            f"its input has {shard.manifest.total:,} texts with digest {shard.manifest.input[:12]}, there "
            f"{model.manifest.total:,} with {model.manifest.input[:12]}"
        ]
    return f"held against {model.folder}: {'; '.join(other)}"


def _is_whole(manifest: Manifest) -> bool:
    """Whether a shard has as many documents as its number stands for."""
    partition = Partition(manifest.plan.shard, manifest.plan.of)
    if manifest.plan.split == "documents":
        return manifest.documents == len(range(partition.shard, manifest.total, partition.of))
    return manifest.documents == manifest.total == sum(count for _, count in manifest.files) and all(
        partition.has(number) for number, _ in manifest.files
    )
