"""TermNames: terms by the names that an engine takes, there and back."""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadVectors
from polylex.vocab import Vocab

_ESCAPED = re.compile("%([0-9A-F]{2})")


class TermNames:
    """The names of all terms of a vocabulary, with some characters written as %XX (UTF-8, as in URLs).

    names = TermNames(vocab, forbids=".")
    names.of([4424, 1])                                # ["e_music", "m_%2E"]
    names.id("m_%2E")                                  # 1

    No two terms get one name: % itself is escaped too, where anything is. Without `forbids` names are as they are.
    """

    def __init__(self, vocab: Vocab, forbids: str = "") -> None:
        """Take the vocabulary and the characters that may not stand in a name."""
        self.vocab = vocab
        self.forbids = forbids

    @cached_property
    def all(self) -> list[str]:
        """Of every term, in id order."""
        found = self.vocab.names(range(len(self.vocab)))
        return [escape(name, self.forbids) for name in found] if self.forbids else found

    def of(self, terms: NDArray[np.uint32]) -> list[str]:
        """Names of term ids."""
        every = self.all
        return [every[term] for term in terms.tolist()]

    def id(self, name: str) -> int:
        """Id of a name. Raises BadVectors for one that is not here."""
        if not isinstance(name, str):
            raise BadVectors(f"a term is called by its name, got {name!r:.80}")
        return self.vocab.id(unescape(name) if self.forbids else name)


def escape(name: str, forbids: str) -> str:
    """`name` with the characters of `forbids`, and %, as %XX."""
    return "".join(
        "".join(f"%{byte:02X}" for byte in sign.encode("utf-8")) if sign == "%" or sign in forbids else sign
        for sign in name
    )


def unescape(name: str) -> str:
    """What `escape` was given. Raises BadVectors for bytes that are no UTF-8."""
    if "%" not in name:
        return name
    parts = _ESCAPED.split(name)  # text, hex, text, hex, ..., text
    data = b"".join(bytes.fromhex(part) if at % 2 else part.encode("utf-8") for at, part in enumerate(parts))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadVectors(f"the name {name!r} has %XX that are no UTF-8; it was not written by Polylex") from None
