"""Encoder: text to SparseVectors with ONNX Runtime, on a CPU, without PyTorch.

encoder = polylex.load()
encoder.encode_query(["¿Quién puede casarse?"]).decode(encoder.vocab, top_k=5)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from polylex.config import ModelConfig
from polylex.errors import BadModel
from polylex.explanation import best_tokens
from polylex.pooling import Row, merge, window_row
from polylex.runtime.tokens import Kind, Tokens, Window
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab, pivot_names

# Tokens whose logits exist at one time: 64 x 30,522 float32 are 8 MB, which stays in a CPU's cache.
BLOCK = 64


class Encoder:
    """A model exported by `polylex.model.export`, ready to encode.

    One text is one run of the graph, with no padding and no batch dimension: a text's vector depends on nothing but
    the text. Texts are spread over `threads`.

    source  str  what `polylex.load` takes to open this model again; an index keeps it
    """

    def __init__(self, folder: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Open an exported folder. `threads` defaults to the cores this process may use.

        Raises BadModel when the folder is incomplete or cannot be read.
        """
        self.folder = Path(folder)
        self.source = str(self.folder.resolve())
        self.config = ModelConfig.read(self.folder)
        self.threads = threads or _cores()
        self.tokens = Tokens.read(self.folder)
        self._encoder = _session(self.folder / "encoder.onnx")
        self._head = _session(self.folder / "head.onnx")

    @property
    def name(self) -> str:
        """The model's name, kept in every index made with it."""
        return self.config.name

    @property
    def weights_id(self) -> str:
        """Identity of the weights; see ModelConfig."""
        return self.config.weights_id

    @cached_property
    def vocab(self) -> Vocab:
        """The term space of the vectors."""
        return Vocab(pivot_names(self.config.pivot_vocabulary, self.folder), self.tokens.names)

    def encode_query(self, texts: str | Sequence[str], **options: object) -> SparseVectors:
        """`encode(texts, kind="query", ...)`."""
        return self.encode(texts, kind="query", **options)  # type: ignore[arg-type]

    def encode_document(self, texts: str | Sequence[str], **options: object) -> SparseVectors:
        """`encode(texts, kind="document", ...)`."""
        return self.encode(texts, kind="document", **options)  # type: ignore[arg-type]

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        kind: Kind = "document",
        max_length: int | None = None,
        max_windows: int | None = None,
        prune: Callable[[SparseVectors], SparseVectors] | None = None,
        on_text: Callable[[int], None] | None = None,
    ) -> SparseVectors:
        """Encode texts, one row each, in order.

        kind         which prompt of the model stands before each text
        max_length   tokens a window may have; the model's own by default
        max_windows  windows of a long text that are read; all by default, 1 truncates
        prune        applied to the result, e.g. Pruning(mass=0.9)
        on_text      called after each text, in the order in which they finish, with its number of windows

        A text with nothing to say (empty, white space) is the empty vector. A text longer than a window is cut
        into windows that overlap by `config.stride` tokens; their vectors are merged (`polylex.pooling.merge`).
        """
        batch = [texts] if isinstance(texts, str) else list(texts)
        cut = self.windows(batch, kind=kind, max_length=max_length, max_windows=max_windows)

        def one(index: int) -> Row:
            row = merge([self._encode_window(window) for window in cut[index]])
            if on_text is not None:
                on_text(len(cut[index]))
            return row

        # The longest first: no thread is left alone with a long text at the end.
        order = sorted(range(len(batch)), key=lambda index: -sum(len(window.ids) for window in cut[index]))
        rows = dict(zip(order, self._spread(one, order), strict=True))
        vectors = SparseVectors.from_rows((rows[index] for index in range(len(batch))), self.vocab.fingerprint)
        return prune(vectors) if prune else vectors

    def windows(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "document",
        max_length: int | None = None,
        max_windows: int | None = None,
    ) -> list[list[Window]]:
        """The windows of each text as the model gets them."""
        return self.tokens.model_windows(texts, self.config, kind, max_length, max_windows)

    def term_spans(
        self, text: str, terms: Sequence[int], *, kind: Kind = "document"
    ) -> dict[int, list[tuple[int, int]]]:
        """Per term the character ranges [start, end) of `text` that carry it.

        A pivot term has the range of the one token whose score was the maximum, or none where that is a special token:
        then the text as a whole says it. A source term has the ranges of all its occurrences.
        """
        windows = self.windows([text], kind=kind)[0]
        pivot = np.array([term for term in terms if term < self.config.pivot_size], np.int64)
        found: dict[int, list[tuple[int, int]]] = {}
        if len(pivot):
            winners = best_tokens([self._logits(window, pivot) for window in windows])
            for term, (window, token) in zip(pivot.tolist(), winners, strict=True):
                spoken = windows[window].content[token]
                found[term] = [_span(windows[window], token)] if spoken else []
        for term in terms:
            if term >= self.config.pivot_size:
                token_id = term - self.config.pivot_size
                at = [(w, int(t)) for w in windows for t in np.flatnonzero((w.ids == token_id) & w.content)]
                found[term] = sorted({_span(w, t) for w, t in at})
        return found

    def _logits(self, window: Window, terms: NDArray[np.int64]) -> NDArray[np.float32]:
        """Raw scores [L, len(terms)] of pivot terms at every token; -inf where a token may not speak."""
        hidden, _ = self._hidden(window)
        scores: NDArray[np.float32] = hidden @ self._decoder(terms).T + self._tensor("decoder.bias")[terms]
        scores[~self._speaks(window, self.config.pivot_speakers)] = -np.inf
        return scores

    # -- one window ------------------------------------------------------------------------------

    def _encode_window(self, window: Window) -> Row:
        """Terms and weights of one window (method: MILCO Eq. 1-3, docs/method.md)."""
        if not (window.content.any() or self.config.empty_speaks):
            return window_row(np.zeros(0, np.float32), window.ids, None, self.config.pivot_size)
        hidden, echo = self._hidden(window)
        speaking = hidden[self._speaks(window, self.config.pivot_speakers)]
        peaks = self._head.run(None, {"hidden": speaking[:BLOCK]})[0]
        for start in range(BLOCK, len(speaking), BLOCK):
            np.maximum(peaks, self._head.run(None, {"hidden": speaking[start : start + BLOCK]})[0], out=peaks)
        if self.config.echo_placement == "none":
            return window_row(peaks, window.ids, None, self.config.pivot_size)
        echo = np.where(self._speaks(window, self.config.source_speakers), echo, 0)
        return window_row(peaks, window.ids, echo, self.config.pivot_size)

    def _hidden(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        hidden, echo = self._encoder.run(["hidden", "echo"], {"ids": window.ids})
        return hidden, echo

    @staticmethod
    def _speaks(window: Window, speakers: str) -> NDArray[np.bool_]:
        return window.content if speakers == "content" else np.ones(len(window.ids), bool)

    # -- tensors of the head, for explanations ---------------------------------------------------

    @cached_property
    def _tensors(self) -> dict[str, NDArray[np.generic]]:
        from safetensors import safe_open

        with safe_open(self.folder / "model.safetensors", "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith("decoder.")}  # noqa: SIM118

    def _tensor(self, name: str) -> NDArray[np.float32]:
        return np.asarray(self._tensors[name], np.float32)

    def _decoder(self, terms: NDArray[np.integer]) -> NDArray[np.float32]:
        """Rows of the decoder [len(terms), De] as float32."""
        rows: NDArray[np.float32] = self._tensors["decoder.weight"][terms].astype(np.float32)
        if "decoder.scale" in self._tensors:
            rows *= self._tensor("decoder.scale")[terms][:, None]
        return rows

    def _spread(self, work: Callable[[int], Row], items: Sequence[int]) -> Iterable[Row]:
        if self.threads == 1 or len(items) < 2:
            return map(work, items)
        with ThreadPoolExecutor(min(self.threads, len(items))) as pool:
            return list(pool.map(work, items))


def _span(window: Window, token: int) -> tuple[int, int]:
    """Characters of one token."""
    start, end = window.spans[token]
    return int(start), int(end)


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _session(path: Path) -> ort.InferenceSession:
    """Open a graph for single-threaded runs: texts, not operators, are spread over the cores."""
    if not path.exists():
        raise BadModel(
            f"{path.parent} has no {path.name}: it is not an exported model. "
            "Export a PyTorch model with `polylex.model.export(model, folder)`."
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as fault:  # onnxruntime's error classes are private and share only Exception
        raise BadModel(f"ONNX Runtime cannot open {path} ({fault}); export or copy the model again") from None
