"""Text to windows of token ids, each token with its span of characters in the text."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from polylex.config import ModelConfig
from polylex.errors import BadInput, BadModel
from polylex.text import Preparation

Kind = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a text that fits the model.

    ids      int64 [L]     token ids, the tokenizer's special tokens included
    content  bool  [L]     False for special tokens
    spans    int64 [L, 2]  characters [start, end) of each token in the text as the caller gave it (0, 0 for special
                           tokens and for those of a prompt)
    """

    ids: NDArray[np.int64]
    content: NDArray[np.bool_]
    spans: NDArray[np.int64]


class Tokens:
    """A tokenizer.json and the way its texts are cut into windows."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take a tokenizer; its own truncation and padding are switched off."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # a "</s>" that stands in a text is text
        self._tokenizer = tokenizer
        frame = tokenizer.encode("", add_special_tokens=True)
        middle = tokenizer.encode("a", add_special_tokens=True)
        first = middle.special_tokens_mask.index(0) if 0 in middle.special_tokens_mask else len(frame.ids)
        self._head = list(frame.ids[:first])
        self._tail = list(frame.ids[first:])

    @classmethod
    def read(cls, folder: Path) -> Tokens:
        """Read tokenizer.json (or tokenizer.json.gz) of a model folder. Raises BadModel."""
        plain, packed = folder / "tokenizer.json", folder / "tokenizer.json.gz"
        try:
            if plain.exists():
                return cls(Tokenizer.from_file(str(plain)))
            return cls(Tokenizer.from_buffer(gzip.decompress(packed.read_bytes())))
        except FileNotFoundError:
            raise BadModel(f"{folder} has no tokenizer.json; a model folder needs one") from None
        except Exception as fault:  # tokenizers raises bare Exception for whatever is wrong with a file
            raise BadModel(f"the tokenizer of {folder} cannot be read ({fault}); copy the model again") from None

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every token, in id order: the source view of the vocabulary."""
        vocab = self._tokenizer.get_vocab(with_added_tokens=True)
        names = [""] * (max(vocab.values()) + 1)
        for name, index in vocab.items():
            names[index] = name
        return tuple(name or f"<unused{index}>" for index, name in enumerate(names))

    def to_json(self) -> str:
        """The text of tokenizer.json."""
        return str(self._tokenizer.to_str())

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """Special tokens that stand before and after the content of every window."""
        return list(self._head), list(self._tail)

    def content(self, texts: Sequence[str], prepare: Preparation) -> list[list[int]]:
        """Token ids of whole texts, uncut and without special tokens; a blank text has none."""
        prepared = [prepare(text) if text.strip() else "" for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prepared, add_special_tokens=False)]

    def windows(self, texts: Sequence[str], prepare: Preparation, max_length: int, stride: int) -> list[list[Window]]:
        """Cut every text into windows of at most `max_length` tokens, neighbours sharing `stride` of them.

        A short text is one window; a blank one is a window of special tokens only. `max_length` counts special tokens.
        """
        room = max_length - len(self._head) - len(self._tail)
        if room <= stride:
            raise BadModel(f"max_length {max_length} leaves {room} tokens, which must be more than the stride {stride}")
        skip = len(prepare.prompt)
        cut = []
        # Of a blank text nothing is left to the tokenizer: most of them would make a token of the space.
        prepared = [prepare(text) if text.strip() else "" for text in texts]
        for encoding in self._tokenizer.encode_batch(prepared, add_special_tokens=False):
            ids = np.array(encoding.ids, np.int64)
            spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            spans = np.maximum(spans - skip, 0)
            cut.append([self._frame(ids[a:b], spans[a:b]) for a, b in _pieces(len(ids), room, stride)])
        return cut

    def model_windows(
        self,
        texts: Sequence[str],
        config: ModelConfig,
        kind: Kind,
        max_length: int | None = None,
        max_windows: int | None = None,
    ) -> list[list[Window]]:
        """`windows` as a model wants them: its prompt, its case, its length and stride.

        max_length   tokens a window may have; the model's own by default
        max_windows  windows of a text that are kept; all by default

        Raises BadInput for a length or number that cannot be.
        """
        limit = config.max_length if max_length is None else max_length
        if not 8 <= limit <= config.max_length:
            raise BadInput(f"max_length must be between 8 and the model's {config.max_length} tokens, got {limit}")
        if max_windows is not None and max_windows < 1:
            raise BadInput(f"max_windows must be at least 1, got {max_windows}")
        prompt = config.query_prompt if kind == "query" else config.document_prompt
        prepare = Preparation(prompt, config.lowercase)
        cut = self.windows(texts, prepare, limit, min(config.stride, limit // 4))
        return [windows[:max_windows] for windows in cut]

    def _frame(self, ids: NDArray[np.int64], spans: NDArray[np.int64]) -> Window:
        """Put the special tokens around a piece."""
        head, tail = len(self._head), len(self._tail)
        content = np.zeros(head + len(ids) + tail, bool)
        content[head : head + len(ids)] = True
        framed = np.zeros((len(content), 2), np.int64)
        framed[content] = spans
        return Window(np.concatenate([self._head, ids, self._tail]).astype(np.int64), content, framed)


def _pieces(length: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Ranges [start, end) that cover `length` tokens, each at most `room` long, overlapping by `stride`."""
    start = 0
    while True:
        yield start, min(start + room, length)
        if start + room >= length:
            return
        start += room - stride
