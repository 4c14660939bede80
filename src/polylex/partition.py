"""Partition: which texts of one input a process encodes, so that many processes encode all of them, each text once.

Partition.parse("3/8")                         the fourth of eight shards
Partition.of_environment(os.environ)           what torchrun or Slurm says this process is
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from polylex.errors import BadInput

Split = Literal["documents", "files"]
# Launchers: the variables with the number of a process, from 0, and with how many there are.
_LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
_LOCAL = ("LOCAL_RANK", "SLURM_LOCALID")


@dataclass(frozen=True, slots=True)
class Partition:
    """One of several shards of an input, and the rule that deals the input out.

    shard  int  counted from 0
    of     int  how many shards there are
    split  "documents": document p of the input, counted from 0 without those that were skipped, is in shard p % of.
           Every process reads the whole input; shards have equal sizes.
           "files": file f of the input, counted from 0 in the order of `find_files`, is in shard f % of. A process
           reads its own files only.

    Raises BadInput for numbers that make no sense.
    """

    shard: int = 0
    of: int = 1
    split: Split = "documents"

    def __post_init__(self) -> None:
        if not 0 <= self.shard < self.of:
            raise BadInput(
                f"there is no shard {self.shard} of {self.of}; shards are counted from 0, so that the last of "
                f"{self.of} is {self.of - 1}/{self.of}"
            )
        if self.split not in get_args(Split):
            raise BadInput(f"split must be one of {', '.join(get_args(Split))}, got {self.split!r}")

    @classmethod
    def parse(cls, text: str, split: Split = "documents") -> Partition:
        """From text such as "0/8". Raises BadInput."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None:
            raise BadInput(f"{text!r} is no shard; write its number, counted from 0, and how many there are: 0/8")
        return cls(int(match[1]), int(match[2]), split)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str], split: Split = "documents") -> Partition | None:
        """What torchrun (RANK, WORLD_SIZE), else Slurm (SLURM_PROCID, SLURM_NTASKS), says; None for a lone process.

        Raises BadInput where a variable is no number, or the number is too large.
        """
        for names in _LAUNCHERS:
            if all(name in environment for name in names):
                shard, of = (_number(environment, name) for name in names)
                return cls(shard, of, split) if of > 1 else None
        return None

    def has(self, number: int) -> bool:
        """Whether a document, or a file, of that number is in this shard."""
        return number % self.of == self.shard

    @property
    def name(self) -> str:
        """What the shard's folder is called."""
        return f"shard-{self.shard}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.shard}/{self.of}"


def local_rank(environment: Mapping[str, str]) -> int:
    """Which of the processes on its machine this one is, by torchrun or Slurm; 0 for a lone one. Raises BadInput."""
    return next((_number(environment, name) for name in _LOCAL if name in environment), 0)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment[name]
    if not re.fullmatch(r"\d{1,9}", value):
        raise BadInput(f"the variable {name} is {value!r}, not a number; set it, or unset it and give --shard")
    return int(value)


# -- the input, as it is read ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the input.

    file  int  number of the file it came from, from 0; 0 where nobody asks
    """

    id: str
    text: str
    file: int = 0


class Share:
    """The texts of one shard, and what was seen of the input on the way to them.

    total  int                of texts, of the whole input or, split by files, of this shard
    files  {number: texts}    of each file that had one
    """

    def __init__(self, partition: Partition, texts: Iterable[Text]) -> None:
        """Take a shard and the texts: all of the input; or, split by files, those of the shard's files."""
        self.partition = partition
        self.total = 0
        self.files: Counter[int] = Counter()
        self._texts = texts
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[Text]:
        """Once."""
        by_document = self.partition.split == "documents"
        for text in self._texts:
            self._digest.update(digest(text))
            mine = not by_document or self.partition.has(self.total)
            self.total += 1
            self.files[text.file] += 1
            if mine:
                yield text

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all ids and texts that were read, in order."""
        return self._digest.hexdigest()


def digest(text: Text) -> bytes:
    """SHA-256 of an id and a text."""
    return hashlib.sha256(f"{text.id}\0{text.text}".encode("utf-8", "surrogatepass")).digest()
