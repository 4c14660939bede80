"""Pruning to a budget: what `polylex tune` finds, and whether what it predicts comes true in the index that it writes.

    python benchmarks/tuning.py                          the declaration of human rights in 41 languages, two minutes
    python benchmarks/tuning.py --documents 1000000      synthetic vectors besides: cost of tuning, and the prediction

Queries are the first words of articles in the 98 languages that the index does not hold; the same article in any of its
41 languages is relevant. Writes benchmarks/results/tuning.json.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import record
import synthetic

import polylex
from polylex.allotment import Labels
from polylex.demo import DEMO_LANGUAGES, load_udhr
from polylex.index import Index
from polylex.latency import measure
from polylex.rules import as_prune
from polylex.trials import Grades, Subject
from polylex.tuning import Candidate, Target, Tuning, tune
from polylex.vectors import SparseVectors

RESULTS = Path(__file__).resolve().parent / "results" / "tuning.json"
_WORDS = 12
_TARGETS = {"declaration": ("ndcg>=0.98", "ndcg>=0.95", "terms<=50"), "synthetic": ("ndcg>=0.98", "ndcg>=0.9")}


def questions(count: int) -> tuple[list[str], list[int]]:
    """Beginnings of articles in languages that the demo does not hold, and which article each is."""
    others = [each for each in load_udhr(preamble=False) if each.fields["lang"] not in DEMO_LANGUAGES]
    some = np.random.default_rng(0).permutation(len(others))[:count]
    texts = [" ".join(others[at].text.split()[:_WORDS])[:100] for at in some]
    return texts, [int(str(others[at].fields["article"])) for at in some]


def declaration(folder: Path, count: int) -> dict[str, Any]:
    """Tune the demo's index, with judgments and without, all languages alike and each by itself."""
    encoder = polylex.load()
    documents = load_udhr(DEMO_LANGUAGES)
    texts, articles = questions(count)
    with polylex.Retriever.build(folder / "udhr", documents, encoder) as retriever:
        index = retriever.index
        queries = encoder.encode(texts, kind="query")
        of_article: dict[int, dict[int, int]] = {}
        for row, document in enumerate(documents):
            of_article.setdefault(int(str(document.fields["article"])), {})[row] = 1
        grades = [of_article[article] for article in articles]
        labels = Labels("lang", index.values("lang"))
        return {
            "judged": run(index, queries, folder, _TARGETS["declaration"], grades=grades),
            "judged, by language": run(index, queries, folder, _TARGETS["declaration"], grades=grades, labels=labels),
            "pseudo": run(index, queries, folder, _TARGETS["declaration"]),
        }


def made_up(folder: Path, documents: int, count: int) -> dict[str, Any]:
    """Tune an index of random vectors with the statistics of real ones."""
    vocab = synthetic.vocabulary()
    vectors = synthetic.vectors(documents, synthetic.DOCUMENT, vocab, 1)
    queries = synthetic.vectors(count, synthetic.QUERY, vocab, 2)
    with Index.build(folder / "synthetic", vectors, [str(row) for row in range(documents)], vocab=vocab) as index:
        del vectors
        return run(index, queries, folder, _TARGETS["synthetic"])


def run(
    index: Index,
    queries: SparseVectors,
    folder: Path,
    targets: Sequence[str],
    *,
    grades: Grades | None = None,
    labels: Labels | None = None,
) -> dict[str, Any]:
    """Tune, and write and measure what each target chooses."""
    start = time.perf_counter()
    tuning = tune(Subject.of_index(index), queries, grades, labels=labels)
    seconds = time.perf_counter() - start
    choices = {}
    for number, target in enumerate(targets):
        choice = tuning.choose([Target.parse(target)])
        choices[target] = {
            **choice.to_dict(),
            "written": written(index, queries, tuning, choice, folder / f"{number}", labels),
        }
    whole = tuning.candidates[0].to_dict()
    return {
        "documents": len(index),
        "rules": len(tuning.candidates),
        "seconds": round(seconds, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "unpruned": {**whole, "measured_ms": timed(index, queries.take(tuning.held))},
        "choices": choices,
        "tuning": tuning.to_dict(),
    }


def written(
    index: Index, queries: SparseVectors, tuning: Tuning, choice: Candidate, path: Path, labels: Labels | None
) -> dict[str, Any]:
    """What the pruned index has in bytes and milliseconds, and by how much that was mispredicted."""
    prune = as_prune(choice.rule, len(index.vocab.pivot), labels and labels.values.values())
    with index.rewrite(path, prune, overwrite=True) as pruned:
        size, latency = pruned.info().bytes, timed(pruned, queries.take(tuning.held))
    return {
        "bytes": size,
        "bytes_error": choice.bytes - size,
        "measured_ms": latency,
        "latency_error": round(choice.held_latency_ms / latency - 1, 4),
    }


def timed(index: Index, queries: SparseVectors) -> float:
    """Milliseconds a query, mean over queries of the best of three."""
    return round(float(measure(index.top, queries, 10, rounds=3).mean()) * 1e3, 4)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=600)
    parser.add_argument("--documents", type=int, default=0, help="synthetic ones, besides (0)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = declaration(Path(name), options.queries)
        if options.documents:
            runs["synthetic"] = made_up(Path(name), options.documents, options.queries)
    record.write(options.out, {"provenance": record.provenance(), "queries": options.queries, "runs": runs})
    for name, each in runs.items():
        print(name, each["rules"], "rules in", each["seconds"], "s; unpruned", each["unpruned"]["bytes"], "bytes")
        for target, choice in each["choices"].items():
            keys = (
                "name",
                "terms_per_document",
                "bytes",
                "held_latency_ms",
                "kept",
                "held_kept",
                "held_kept_95",
                "written",
            )
            print(f"  {target:12}", {key: choice[key] for key in keys})


if __name__ == "__main__":
    main()
