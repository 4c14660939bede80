"""What Polylex is measured against: BM25 with proper tokenisation, and the dense encoder that the model grew from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from cache import Encodings, identity
from numpy.typing import NDArray
from ranking import Outcome, concatenated, mean_terms, rank

from polylex.collection import Collection

# -- BM25 --------------------------------------------------------------------------------------------

# Python's \w leaves combining marks out, which would cut words of Hindi, Thai, Khmer, Hebrew, ... into pieces.
_MARKS = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code)).startswith("M"))
_WORD = re.compile(rf"[\w{_MARKS}]+")
# Written without spaces, or (Korean) with endings joined to the words.
_BIGRAMS = frozenset({"zh", "ja", "th", "ko", "km"})
_ALGORITHMS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fr": "french", "ga": "irish",
    "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian",
    "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian",
    "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
# Lucene's English stop words; the other languages keep theirs, as the reference figures do.
_STOP = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was",
    "will", "with",
})  # fmt: skip


def words(text: str, language: str) -> list[str]:
    """The terms of a text for BM25: lower-cased NFKC words, stemmed by Snowball where it knows the language.

    Chinese, Japanese, Thai, Korean and Khmer give character bigrams; words of ASCII in them stay whole.
    """
    language = language.partition("-")[0]
    found: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    if language in _BIGRAMS:
        return [term for word in found for term in _bigrams(word)]
    if language == "en":
        found = [word for word in found if word not in _STOP]
    stemmer = _stemmer(_ALGORITHMS.get(language, ""))
    return stemmer.stemWords(found) if stemmer else found


def _bigrams(word: str) -> list[str]:
    if word.isascii() or len(word) == 1:
        return [word]
    return [word[at : at + 2] for at in range(len(word) - 1)]


@cache
def _stemmer(algorithm: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(algorithm) if algorithm in Stemmer.algorithms() else None


class BM25:
    """Okapi BM25 as Lucene counts it.

    Weight of a term in a document: log(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + k1 * (1 - b + b * length / mean)).
    In a query: its count.
    """

    name = "bm25"

    def __init__(self, k1: float = 0.9, b: float = 0.4) -> None:
        self.k1, self.b = k1, b

    def search(self, collection: Collection, k: int) -> Outcome:
        """The k best documents of every query."""
        ids: dict[str, int] = {}
        texts = zip(collection.texts, collection.languages, strict=True)
        counts = _counts((words(*text) for text in texts), ids, grow=True)
        asked = _counts((words(query.text, query.language) for query in collection.queries), ids, grow=False)
        weights = self._weights(counts)
        return Outcome(rank(collection, asked, weights, k), mean_terms(weights), mean_terms(asked))

    def _weights(self, counts: sp.csr_matrix) -> sp.csr_matrix:
        documents, lengths = counts.shape[0], np.asarray(counts.sum(axis=1)).ravel()
        having = np.bincount(counts.indices, minlength=counts.shape[1])
        idf = np.log1p((documents - having + 0.5) / (having + 0.5))
        norm = self.k1 * (1 - self.b + self.b * lengths / lengths.mean())
        saturated = counts.data / (counts.data + np.repeat(norm, np.diff(counts.indptr)))
        return sp.csr_matrix(
            ((idf[counts.indices] * saturated).astype(np.float32), counts.indices, counts.indptr), shape=counts.shape
        )


def _counts(texts: Iterable[list[str]], ids: dict[str, int], *, grow: bool) -> sp.csr_matrix:
    """How often each term stands in each text. Terms not in `ids` are added to it, or left out."""
    ends, terms = [0], []
    for text in texts:
        terms += (
            [ids.setdefault(word, len(ids)) for word in text] if grow else [ids[word] for word in text if word in ids]
        )
        ends.append(len(terms))
    counts = sp.csr_matrix((np.ones(len(terms), np.float32), terms, ends), shape=(len(ends) - 1, len(ids)))
    counts.sum_duplicates()
    return counts


# -- dense -------------------------------------------------------------------------------------------


class Dense:
    """An E5 model by PyTorch: mean of the last layer over all tokens, scaled to length 1.

    "query: " or "passage: " stands before every text; 512 tokens of it are read.

    folder      a local folder in Hugging Face's layout (config.json, model.safetensors, tokenizer.json)
    cache       folder that keeps the encodings
    precision   "bfloat16" is three times as fast on CPUs that have it
    vocabulary  folder with a tokenizer.json of fewer pieces, used in place of the model's own: what trimming costs
    """

    max_length = 512
    batch_tokens = 4096

    def __init__(
        self,
        folder: Path,
        cache: Path,
        precision: Literal["bfloat16", "float32"] = "bfloat16",
        vocabulary: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self.name = f"dense:{folder.resolve().name}"
        if vocabulary is not None:
            self.name += f"+vocabulary={vocabulary.resolve().name}"
        self._folder, self._precision, self._vocabulary, self._threads = folder, precision, vocabulary, threads
        trimmed = [_digest(vocabulary / "tokenizer.json")] if vocabulary else []
        self._encodings = Encodings(identity(folder, "dense", precision, *trimmed), cache)

    def search(self, collection: Collection, k: int) -> Outcome:
        """The k best documents of every query."""
        store = self._encodings
        before = store.encoded, store.seconds
        documents = store.fetch("document", collection.texts, lambda texts: self._encode("passage: ", texts))
        queries = store.fetch(
            "query", [query.text for query in collection.queries], lambda texts: self._encode("query: ", texts)
        )
        run = rank(collection, concatenated(queries, np.float32), concatenated(documents, np.float32), k)
        return Outcome(run, encoded=store.encoded - before[0], seconds=store.seconds - before[1])

    def _encode(self, prefix: str, texts: Sequence[str]) -> list[bytes]:
        import torch

        tokenize, model = self._loaded
        tokens = tokenize([prefix + text for text in texts])
        rows: dict[int, bytes] = {}
        for batch in _batches(tokens, self.batch_tokens):
            ids, real = _padded([tokens[index] for index in batch], model.config.pad_token_id)
            with torch.inference_mode():
                hidden = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(real)).last_hidden_state
                mask = torch.from_numpy(real)[..., None]
                mean = (hidden.float() * mask).sum(1) / mask.sum(1)
                vectors = torch.nn.functional.normalize(mean, dim=1).numpy()
            rows.update((index, vector.tobytes()) for index, vector in zip(batch, vectors, strict=True))
        return [rows[index] for index in range(len(texts))]

    @cached_property
    def _loaded(self) -> tuple[Callable[[list[str]], list[list[int]]], Any]:
        """The tokenizer, as a function from texts to the model's token ids, and the model."""
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModel

        if self._threads:
            torch.set_num_threads(self._threads)
        own = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        used = Tokenizer.from_file(str(self._vocabulary / "tokenizer.json")) if self._vocabulary else own
        used.no_padding()
        used.enable_truncation(self.max_length)
        ids = own.get_vocab()
        of_model = {index: ids.get(piece, ids["<unk>"]) for piece, index in used.get_vocab().items()}
        dtype = getattr(torch, self._precision)
        model = AutoModel.from_pretrained(self._folder, dtype=dtype, add_pooling_layer=False).eval()
        return lambda texts: [[of_model[index] for index in each.ids] for each in used.encode_batch(texts)], model


def _digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _batches(tokens: Sequence[Sequence[int]], budget: int) -> Iterable[list[int]]:
    """Indices of texts of similar length, at most `budget` padded tokens together."""
    order = sorted(range(len(tokens)), key=lambda index: -len(tokens[index]))
    while order:
        size = max(1, budget // len(tokens[order[0]]))
        yield order[:size]
        order = order[size:]


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids [rows, longest], and 1 where a token is real."""
    ids = np.full((len(rows), max(map(len, rows))), pad, np.int64)
    real = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        real[row, : len(tokens)] = 1
    return ids, real
