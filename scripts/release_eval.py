"""nDCG@10 of a model on BEIR folders: all terms, 30 terms a document (by mass), and without the source view.

    python scripts/release_eval.py MODEL_FOLDER OUT.json FOLDER ... [--device cuda]

A read-out at the end of a run, with scores computed exactly on the device; nothing is chosen by it. A text is read up
to 512 tokens, in one window.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from polylex.collection import read_beir
from polylex.model import SparseModel
from polylex.prune import mass
from polylex.train.beir import best_rows, ndcg
from polylex.vectors import SparseVectors

TERMS = 30


def of_mean_length(vectors: SparseVectors, terms: float) -> SparseVectors:
    """Pruned by mass to a mean of about `terms`."""
    low, high = 0.0, 1.0
    for _ in range(12):
        share = (low + high) / 2
        low, high = (share, high) if mass(vectors, share).nnz < terms * len(vectors) else (low, share)
    return mass(vectors, high)


def measure(model: SparseModel, folder: Path, device: torch.device) -> dict[str, float]:
    """Figures of one collection."""
    collection = read_beir(folder)
    judged = [query for query in collection.queries if query.id in collection.judgments]
    options = {"batch_size": 256, "max_windows": 1}
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        documents = model.encode_document(collection.texts, **options)
        queries = model.encode_query([query.text for query in judged], **options)
    pivot = model.config.pivot_size
    figures: dict[str, float] = {
        "terms_document": documents.nnz / len(documents),
        "pivot_terms_document": float((documents.terms < pivot).sum()) / len(documents),
        "terms_query": queries.nnz / len(queries),
    }
    for name, asked, held in (
        ("all", queries, documents),
        (f"mass{TERMS}", queries, of_mean_length(documents, TERMS)),
        ("pivot", queries, documents.select(documents.terms < pivot)),
    ):
        found = best_rows(asked, held, len(model.vocab), 10, device)
        values = [
            ndcg([collection.ids[row] for row in rows], collection.judgments[query.id], 10)
            for query, rows in zip(judged, found, strict=True)
        ]
        figures[name] = float(np.mean(values))
        if name == "all":
            spoken = np.array([query.language for query in judged])
            figures |= {f"all/{x}": float(np.mean(np.array(values)[spoken == x])) for x in sorted(set(spoken)) if x}
    return figures


def main() -> None:
    """Read the command line, measure, write after every folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.backends.cuda.enable_cudnn_sdp(False)  # plans anew for every shape
    model = SparseModel.from_pretrained(options.model).to(device)
    results: dict[str, dict[str, float]] = {}
    for folder in options.folders:
        began = time.monotonic()
        results[folder.name] = measure(model, folder, device)
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        short = {key: round(value, 3) for key, value in results[folder.name].items() if "/" not in key}
        print(folder.name, f"{time.monotonic() - began:.0f} s", short, flush=True)


if __name__ == "__main__":
    main()
