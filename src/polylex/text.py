"""Every change that Polylex makes to a text before the tokenizer sees it.

All of it keeps the text's length in characters, so that spans found by the tokenizer are spans of the original.
The Unicode form (NFKC) is the tokenizer's own business: it tracks offsets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What no tokenizer can take (lone surrogates are not UTF-8) or what means nothing in a text (control characters).
_UNUSABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """Replace lone surrogates, NULs and other control characters by U+FFFD, one for one; the length never changes."""
    return _UNUSABLE.sub(REPLACEMENT, text)


def lower(text: str) -> str:
    """Lower-case character by character; the few that would grow (such as İ) stay, so that spans hold."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


@dataclass(frozen=True, slots=True)
class Preparation:
    """How one model wants its texts: cleaned, lower-cased if it was trained so, behind its prompt.

    prompt     str   put before the text; its tokens take part like any other
    lowercase  bool
    """

    prompt: str = ""
    lowercase: bool = False

    def __call__(self, text: str) -> str:
        """The text as the tokenizer gets it. Character i of `text` stands at i + len(prompt)."""
        text = clean(text)
        return self.prompt + (lower(text) if self.lowercase else text)
