"""Choose the tokens of the released polylex-mini: a smaller tokenizer.json from a Unigram one and the training text.

    python scripts/release_vocabulary.py TOKENIZER_JSON PAIRS.jsonl.gz GROUPS.jsonl.gz OUT.json [--size 110000]

A piece's worth is the mean over languages of its share among the language's tokens, mixed with its share in general
text, which a Unigram tokenizer states as its score. Languages with much text, and passages of encyclopaedias, count
more. Every single character stays. Trimming a Unigram tokenizer is keeping fewer pieces. No evaluation data is read.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from polylex.train.data import read_groups, read_pairs

TEXTS = 3000  # of a language at most
CHARACTERS = 800  # of a text
GENERAL = 0.15  # weight of the tokenizer's own idea of general text
ENCYCLOPAEDIA = ("jaquad", "drcd", "pquad", "arcd", "tydiqa", "iapp", "idkmrc", "heq", "amqa", "piaf", "poquad",
                 "afriqa-train-pivot", "danetqa", "medquad", "pubmedqa", "squadshifts")  # fmt: skip


def texts_by_kind(pairs: Path, groups: Path) -> dict[tuple[str, bool], list[str]]:
    """Some texts of each (language, whether of an encyclopaedia or the like)."""
    found: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for pair in read_pairs(pairs):
        found[pair.language, False].append(pair.non_english)
        found["en", False].append(pair.english)
    for group in read_groups(groups):
        if group.source.startswith(ENCYCLOPAEDIA):
            found[group.language, True].extend(group.positives)
    rng = random.Random(0)
    for texts in found.values():
        rng.shuffle(texts)
    return {kind: texts[:TEXTS] for kind, texts in found.items()}


def weight(language: str, rows: int, general: bool) -> float:
    """How much a language's text counts."""
    if general:
        return 4.0
    return 2.0 if rows >= TEXTS or language == "en" else 0.6


def shares(tokenizer: Tokenizer, texts: dict[tuple[str, bool], list[str]], size: int) -> NDArray[np.float64]:
    """Weighted mean over languages of each piece's share of the tokens."""
    total = np.zeros(size)
    for (language, general), some in texts.items():
        counts = np.zeros(size)
        for block in _blocks([text[:CHARACTERS] for text in some]):
            for encoding in tokenizer.encode_batch_fast(block, add_special_tokens=False):
                np.add.at(counts, np.array(encoding.ids, np.int64), 1)
        total += weight(language, len(some), general) * counts / max(counts.sum(), 1)
    return total / total.sum()


def _blocks(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), 1000):
        yield texts[start : start + 1000]


def main() -> None:
    """Read the command line, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("tokenizer", "pairs", "groups", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--size", type=int, default=110_000)
    options = parser.parse_args()
    table = json.loads(options.tokenizer.read_text(encoding="utf-8"))
    pieces, scores = zip(*table["model"]["vocab"], strict=True)
    tokenizer = Tokenizer.from_file(str(options.tokenizer))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    special = {token["content"] for token in table["added_tokens"]}
    ordinary = np.array([piece not in special for piece in pieces])
    general = np.exp(np.array(scores)) * ordinary
    seen = shares(tokenizer, texts_by_kind(options.pairs, options.groups), tokenizer.get_vocab_size())[: len(pieces)]
    worth = GENERAL * general / general.sum() + (1 - GENERAL) * seen
    worth[[len(piece.removeprefix("▁")) <= 1 for piece in pieces]] = np.inf
    worth[~ordinary] = np.inf
    keep = np.sort(np.argsort(-worth, kind="stable")[: options.size])

    table["model"]["vocab"] = [table["model"]["vocab"][index] for index in keep]
    place = {piece: index for index, (piece, _) in enumerate(table["model"]["vocab"])}
    table["added_tokens"] = [dict(token, id=place[token["content"]]) for token in table["added_tokens"]]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    print(f"{len(keep):,} of {len(pieces):,} pieces, which cover {seen[keep].sum():.4f} of the tokens: {options.out}")


if __name__ == "__main__":
    main()
