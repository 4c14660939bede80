"""One shard of an encoding job: texts in, a folder of vectors out, which a killed process goes on with.

    share = Share(Partition.parse("3/8"), (Text(each.id, each.text) for each in read_documents("articles.jsonl")))
    encode_shard(Path("articles.job"), share, Plan.make(share.partition, encoder), encoder)

The folder `articles.job/shard-3-of-8` has files of vectors, one a block of texts, each written whole; last comes
`manifest.json`, and with it the shard is complete. `polylex.harvest` checks and joins the shards. docs/scale-out.md
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from polylex.errors import BadInput, BadVectors, CorruptIndex, UnfinishedBuild, UnknownFormat
from polylex.locks import WriterLock
from polylex.partition import Partition, Share, Split, Text, digest
from polylex.prune import Pruning
from polylex.storage import Written, map_arrays, remove_unnamed, sha256_of, write_file, write_vectors
from polylex.vectors import SparseVectors

if TYPE_CHECKING:
    from polylex.retriever import Encoder

Kind = Literal["query", "document"]

BLOCK = 2_048  # texts of a file ...
BLOCK_CHARS = 2_000_000  # ... or so many characters: about a minute on two cores, whatever the length of the texts
PLAN, MANIFEST = "plan.json", "manifest.json"
_FORMAT, _VERSION = "polylex-shard", 1
_BLOCK_NAME = re.compile(r"block-\d{6}\.safetensors")


@dataclass(frozen=True, slots=True)
class Plan:
    """What all shards of one job agree on, but for `shard`.

    model     what `polylex.load` takes; "" if unknown
    listing   SHA-256 (hex) of the names and sizes of all input files where they are split by files, else ""
    settings  anything in JSON that decides what is encoded: fields, limits, pruning
    """

    shard: int
    of: int
    split: Split
    kind: Kind
    encoder: str
    weights_id: str
    vocab: str
    model: str = ""
    listing: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        partition: Partition,
        encoder: Encoder,
        *,
        kind: Kind = "document",
        listing: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> Plan:
        """The plan of a shard to be encoded with `encoder`."""
        return cls(
            partition.shard,
            partition.of,
            partition.split,
            kind,
            encoder.name,
            encoder.weights_id,
            encoder.vocab.fingerprint,
            str(getattr(encoder, "source", "")),
            listing,
            json.loads(json.dumps(settings or {})),
        )

    def differences(self, other: Plan) -> list[str]:
        """In what, other than the number of the shard, two plans differ: "weights_id is 'a', there 'b'"."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name} is {mine[name]!r}, there {theirs[name]!r}"
            for name in mine
            if name not in ("shard", "model") and mine[name] != theirs[name]
        ]


@dataclass(frozen=True, slots=True)
class Block:
    """A file of vectors, as the manifest has it. `texts` is the SHA-256 (hex) of the ids and texts behind it."""

    file: str
    rows: int
    postings: int
    bytes: int
    sha256: str
    texts: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a complete shard is.

    documents  int   in this shard
    total      int   in the whole input; split by files, in this shard
    files      [[number, documents], ...] of the shard's files, split by files; else empty
    ids        str   SHA-256 (hex) of the shard's ids, in order, each with a line end
    input      str   SHA-256 (hex) of all ids and texts that were read; equal in all shards unless split by files
    """

    plan: Plan
    documents: int
    total: int
    files: Sequence[Sequence[int]]
    ids: str
    input: str
    blocks: Sequence[Block]

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps({"format": _FORMAT, "version": _VERSION, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """That of a shard's folder; None while it is not complete. Raises CorruptIndex, UnknownFormat."""
        value = _read_json(folder / MANIFEST)
        if value is None:
            return None
        try:
            named = {each.name: value[each.name] for each in fields(cls)}
            named["plan"] = Plan(**named["plan"])
            named["blocks"] = [Block(**block) for block in named["blocks"]]
            found = cls(**named)
            if found.documents != sum(block.rows for block in found.blocks):
                raise ValueError("its blocks have other documents")
            if not all(_BLOCK_NAME.fullmatch(block.file) for block in found.blocks):
                raise ValueError("a block has a strange name")
        except (KeyError, TypeError, ValueError) as fault:
            raise _damaged(folder / MANIFEST, fault) from None
        return found


def read_plan(folder: Path) -> Plan | None:
    """The plan of a shard's folder, complete or not; None where there is none. Raises CorruptIndex, UnknownFormat."""
    value = _read_json(folder / PLAN)
    if value is None:
        return None
    try:
        return Plan(**value["plan"])
    except (KeyError, TypeError) as fault:
        raise _damaged(folder / PLAN, fault) from None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as fault:
        raise _damaged(path, fault) from None
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise _damaged(path, ValueError(f"not a {_FORMAT}"))
    if value.get("version") != _VERSION:
        raise UnknownFormat(
            f"{path} has version {value.get('version')!r}, this release reads {_VERSION}; upgrade polylex"
        )
    return value


def _damaged(path: Path, fault: Exception) -> CorruptIndex:
    return CorruptIndex(f"{path} is damaged ({fault}); encode that shard again with --overwrite")


# -- encoding ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """How far a shard has come: texts that are on disk, and of them those of an earlier run."""

    texts: int
    resumed: int


def encode_shard(
    job: Path,
    share: Share,
    plan: Plan,
    encoder: Encoder,
    *,
    prune: Pruning | None = None,
    overwrite: bool = False,
    on_step: Callable[[Step], None] | None = None,
) -> Manifest:
    """Encode the texts of one shard into the folder `job / share.partition.name`; its manifest.

    overwrite  begin anew where there is something else, or the same
    on_step    called after each block, those of an earlier run included

    A complete shard of the same plan is left as it is. An unfinished one is continued, with the same texts: each block
    that is there is held against them. Raises BadInput for other texts, UnfinishedBuild for another plan, IndexLocked
    where another process encodes this shard, StorageFull.
    """
    folder = job / share.partition.name
    folder.mkdir(parents=True, exist_ok=True)
    with WriterLock(folder):
        remove_unnamed(folder, set())  # what a killed process was writing
        done = None if overwrite else Manifest.read(folder)
        _begin(folder, plan, overwrite)
        if done is not None:
            return done
        work = _Work(folder, plan, encoder, prune)
        for number, texts in enumerate(_blocks(share)):
            work.take(number, texts)
            if on_step is not None:
                on_step(Step(work.rows, work.resumed))
        work.require_no_more()
        files = sorted(share.files.items()) if plan.split == "files" else []
        manifest = Manifest(
            plan,
            work.rows,
            share.total,
            [list(pair) for pair in files],
            work.ids.hexdigest(),
            share.digest,
            work.blocks,
        )
        write_file(folder, lambda _: MANIFEST, [manifest.to_json().encode()])
        return manifest


def _begin(folder: Path, plan: Plan, overwrite: bool) -> None:
    """Make the plan that of the folder, or see that it is. Raises UnfinishedBuild."""
    stored = None if overwrite else read_plan(folder)
    if stored is not None:
        other = plan.differences(stored)
        if other:
            raise UnfinishedBuild(
                f"{folder} was begun with another plan: {'; '.join(other)}. Give the same to continue it, another "
                "folder, or overwrite=True (--overwrite) to begin anew"
            )
        return
    (folder / MANIFEST).unlink(missing_ok=True)  # first: without it nothing here counts
    for file in folder.iterdir():
        if _BLOCK_NAME.fullmatch(file.name):
            file.unlink()
    text = json.dumps({"format": _FORMAT, "version": _VERSION, "plan": asdict(plan)}, indent=1, sort_keys=True)
    write_file(folder, lambda _: PLAN, [text.encode()])


def _blocks(share: Iterable[Text]) -> Iterator[list[Text]]:
    """Texts in blocks whose ends depend on nothing but the texts."""
    block: list[Text] = []
    chars = 0
    for text in share:
        block.append(text)
        chars += len(text.text)
        if len(block) == BLOCK or chars >= BLOCK_CHARS:
            yield block
            block, chars = [], 0
    if block:
        yield block


class _Work:
    """A shard while it is encoded."""

    def __init__(self, folder: Path, plan: Plan, encoder: Encoder, prune: Pruning | None) -> None:
        self.blocks: list[Block] = []
        self.rows = self.resumed = 0
        self.ids = hashlib.sha256()
        self._folder, self._plan, self._encoder, self._prune = folder, plan, encoder, prune

    def take(self, number: int, texts: Sequence[Text]) -> None:
        """Encode a block, or find it."""
        name = f"block-{number:06d}.safetensors"
        key = hashlib.sha256(b"".join(map(digest, texts))).hexdigest()
        block = self._found(name, key)
        found = block is not None
        if block is None:
            block = self._encoded(name, key, texts)
        self.blocks.append(block)
        self.rows += block.rows
        self.resumed += block.rows if found else 0
        self.ids.update("".join(f"{text.id}\n" for text in texts).encode("utf-8", "surrogatepass"))

    def _found(self, name: str, key: str) -> Block | None:
        path = self._folder / name
        if not path.exists():
            return None
        arrays, metadata = map_arrays(path)
        if metadata.get("texts") != key:
            raise BadInput(
                f"{path} was encoded from other texts than the input has there now; give the same input again, or "
                "overwrite=True (--overwrite) to begin anew"
            )
        rows, postings = len(arrays["indptr"]) - 1, len(arrays["terms"])
        return Block(name, rows, postings, path.stat().st_size, sha256_of(path), key)

    def _encoded(self, name: str, key: str, texts: Sequence[Text]) -> Block:
        vectors = self._encoder.encode([text.text for text in texts], kind=self._plan.kind)
        kept: SparseVectors = self._prune(vectors) if self._prune else vectors
        ids = [text.id for text in texts]
        written: Written = write_vectors(self._folder, lambda _: name, kept, ids, {"texts": key})
        return Block(name, len(kept), kept.nnz, written.bytes, written.sha256, key)

    def require_no_more(self) -> None:
        """Raise BadInput where an earlier run had more texts."""
        name = next(f"block-{number:06d}.safetensors" for number in count(len(self.blocks)))
        if (self._folder / name).exists():
            raise BadInput(
                f"{self._folder / name} is there, but the input now ends before it; give the same input again, or "
                "overwrite=True (--overwrite) to begin anew"
            )


def check_block(folder: Path, block: Block) -> None:
    """Raise BadVectors, naming the file, unless it is what the manifest says. Reads it whole."""
    path = folder / block.file
    if not path.is_file():
        raise BadVectors(f"{path} is missing")
    if path.stat().st_size != block.bytes or sha256_of(path) != block.sha256:
        raise BadVectors(f"{path} is damaged: it is not the file that was written")
