"""Choose how far the English head's bias is lowered after training: nDCG@10 and terms a text on development sets.

    python scripts/release_calibrate.py EXPORTED_FOLDER OUT.json FOLDER ...

Training leaves thousands of raw maxima just below 0, where the rounding of int8 or bfloat16 lets them speak: vectors
full of noise. A bias lowered by `shift` silences them. No text is encoded twice: a weight w = log(1 + r) of the pivot
view becomes log(1 + max(r - shift, 0)), which is what the model with the lower bias gives.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from release_eval import TERMS, of_mean_length

import polylex
from polylex.collection import read_beir
from polylex.train.beir import best_rows, ndcg
from polylex.vectors import SparseVectors

SHIFTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)


def lowered(vectors: SparseVectors, shift: float, pivot_size: int) -> SparseVectors:
    """The vectors of a model whose English head has a bias lower by `shift`."""
    raw = np.expm1(vectors.weights.astype(np.float64)) - shift
    pivot = vectors.terms < pivot_size
    weights = np.where(pivot, np.log1p(np.maximum(raw, 0)), vectors.weights).astype(np.float32)
    kept = vectors.select(weights > 0)
    return SparseVectors(kept.indptr, kept.terms, weights[weights > 0], kept.vocab)


def main() -> None:
    """Read the command line, encode, measure every shift."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    encoder = polylex.load(options.model)
    pivot, device = len(encoder.vocab.pivot), torch.device("cpu")
    table: dict[str, dict[str, dict[str, float]]] = {}
    for folder in options.folders:
        collection = read_beir(folder)
        judged = [query for query in collection.queries if query.id in collection.judgments]
        documents = encoder.encode(collection.texts, kind="document")
        queries = encoder.encode([query.text for query in judged], kind="query")
        for shift in SHIFTS:
            asked, held = lowered(queries, shift, pivot), lowered(documents, shift, pivot)
            figures = {"terms_document": held.nnz / len(held), "terms_query": asked.nnz / len(asked)}
            for name, kept in (("all", held), (f"mass{TERMS}", of_mean_length(held, TERMS))):
                found = best_rows(asked, kept, len(encoder.vocab), 10, device)
                figures[name] = float(np.mean([
                    ndcg([collection.ids[row] for row in rows], collection.judgments[query.id], 10)
                    for query, rows in zip(judged, found, strict=True)
                ]))  # fmt: skip
            table.setdefault(f"{shift:g}", {})[folder.name] = figures
        options.out.write_text(json.dumps(table, indent=1), encoding="utf-8")
    for name, sets in table.items():
        mean = {key: round(float(np.mean([figures[key] for figures in sets.values()])), 4) for key in figures}
        print(name, mean)


if __name__ == "__main__":
    main()
