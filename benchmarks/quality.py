"""How well Polylex finds: nDCG@10 and Recall@100 beside BM25 and the dense encoder that it grew from.

    python benchmarks/quality.py --data EVAL --systems bm25,dense:multilingual-e5-small,polylex

EVAL is a folder of BEIR folders (corpus.jsonl, queries.jsonl, qrels/test.tsv; meta.json with `kind`, `doc_langs` and
`query_langs`). A document is its title, a space and its text. All systems rank all documents exactly.

Systems, parted by commas:
    bm25             k1 0.9, b 0.4; Snowball stemming; character bigrams for Chinese, Japanese, Thai, Korean and Khmer
    dense:FOLDER     an E5 model in a local Hugging Face folder; behind it may stand +vocabulary=FOLDER, whose tokenizer
                     it then uses: what trimming its vocabulary costs
    polylex[:MODEL]  the int8 runtime; the bundled model by default
    torch:FOLDER     the float model
Behind the last two may stand options, such as polylex+terms=30 or polylex+view=pivot: see sparse.py.

Encodings are kept in --cache, so that a second run takes minutes. The 45 sets of the project have 8.4 M tokens in
137,000 texts: on one core of an AMD EPYC (Zen 5) dense in bfloat16 takes half an hour, polylex 40 minutes, BM25 one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baselines import Dense
from record import provenance, write
from sparse import Model

from polylex.baselines import Lexical
from polylex.collection import read_beir
from polylex.evaluation import Evaluation, evaluate
from polylex.systems import Outcome, System

CACHE = Path(__file__).resolve().parent / ".cache"
MEASURES = ("nDCG@10", "R@100")
# Across languages: what a change to the model is steered by. A mean over fewer of them is no such mean.
STEERING = (
    "xquad-x-en",
    "xquad-en-x-pooled",
    "xquadr-pooled",
    "omosqa-pooled",
    "afriqa-test-crosslingual",
    "mkqa-q2q-x-en",
    "debfaq-x-en",
)


def main() -> None:
    """Measure every system on every set, and write after each set."""
    options = _options()
    names = options.sets.split(",") if options.sets else _all_sets(options.data)
    systems = [_system(spec, options) for spec in options.systems.split(",")]
    result = provenance(("torch", "transformers", "ir-measures", "bm25s", "PyStemmer"))
    result |= {"measures": MEASURES, "precision_of_dense": options.precision, "sets": {}}
    for name in names:
        result["sets"][name] = _measure(options.data / name, systems)
        write(options.out, result)
    print(tables(result))


def _measure(folder: Path, systems: Sequence[System]) -> dict[str, Any]:
    collection = read_beir(folder)
    measured = {}
    for system in systems:
        print(f"\n{collection.name} {system.name} ", end="", file=sys.stderr)
        start = time.perf_counter()
        outcome = system.search(collection, 100)
        evaluation = evaluate(outcome.run, collection.judgments, MEASURES, languages=collection.query_languages)
        measured[system.name] = _summary(evaluation, outcome) | {"seconds": round(time.perf_counter() - start, 1)}
    return {
        "kind": _kind(folder),
        "documents": len(collection.ids),
        "queries": len(collection.judgments),
        "languages": {
            language: sum(
                query.language == language and query.id in collection.judgments for query in collection.queries
            )
            for language in sorted(set(collection.query_languages.values()))
        },
        "systems": measured,
    }


def _summary(evaluation: Evaluation, outcome: Outcome) -> dict[str, Any]:
    """What a results file keeps of a run."""
    return _rounded(evaluation.mean()) | {
        "mean_over_languages": _rounded(evaluation.macro()),
        "by_language": {language: _rounded(means) for language, means in evaluation.by_language().items()},
        "missing_queries": len(evaluation.missing),
        "document_terms": outcome.document_terms and round(outcome.document_terms, 1),
        "query_terms": outcome.query_terms and round(outcome.query_terms, 1),
        "texts_encoded_now": outcome.encoded,
        "seconds_encoding": round(outcome.encoding_seconds, 1),
        "index_bytes": outcome.index_bytes,
        "seconds_searching": outcome.search_seconds and round(outcome.search_seconds, 3),
    }


def _rounded(means: dict[str, float]) -> dict[str, float]:
    return {measure: round(value, 4) for measure, value in means.items()}


def _kind(folder: Path) -> str:
    meta = folder / "meta.json"
    return str(json.loads(meta.read_text(encoding="utf-8")).get("kind", "")) if meta.is_file() else ""


# -- tables ------------------------------------------------------------------------------------------


def tables(result: dict[str, Any]) -> str:
    """The results as Markdown: nDCG@10 by set, by query language, and the sizes of the vectors."""
    sets = result["sets"]
    systems = list(dict.fromkeys(name for entry in sets.values() for name in entry["systems"]))
    return "\n\n".join(
        [
            _table("nDCG@10", "set", systems, _by_set(sets, systems, "nDCG@10")),
            _table("Recall@100", "set", systems, _by_set(sets, systems, "R@100")),
            *_by_language(sets, systems),
            _table("terms per document / query", "set", systems, _terms(sets, systems)),
        ]
    )


def _table(title: str, first: str, systems: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = [f"| {first} | " + " | ".join(systems) + " |", "|---" * (len(systems) + 1) + "|"]
    return "\n".join([f"**{title}**", "", *head, *("| " + " | ".join(row) + " |" for row in rows)])


def _by_set(sets: dict[str, Any], systems: Sequence[str], measure: str) -> list[list[str]]:
    rows = [[name, *_cells([entry["systems"][system][measure] for system in systems])] for name, entry in sets.items()]
    monolingual = [name for name, entry in sets.items() if entry["kind"] == "monolingual"]
    for title, members in (
        ("mean of the 7 across languages", STEERING),
        (f"mean of {len(monolingual)} monolingual", monolingual),
    ):
        if members and all(name in sets for name in members):
            means = [
                sum(sets[name]["systems"][system][measure] for name in members) / len(members) for system in systems
            ]
            rows.append([f"*{title}*", *_cells(means)])
    return rows


def _by_language(sets: dict[str, Any], systems: Sequence[str]) -> list[str]:
    """A table for every set with queries in several languages."""
    found = []
    for name, entry in sets.items():
        means = [entry["systems"][system]["by_language"] for system in systems]
        rows = [
            [f"{language} ({queries})", *_cells([each[language]["nDCG@10"] for each in means])]
            for language, queries in entry["languages"].items()
        ]
        if len(rows) > 1:
            found.append(_table(f"nDCG@10 on {name} by query language", "language (queries)", systems, rows))
    return found


def _terms(sets: dict[str, Any], systems: Sequence[str]) -> list[list[str]]:
    def cell(found: dict[str, Any]) -> str:
        if found["document_terms"] is None:
            return "-"
        return f"{found['document_terms']:.0f} / {found['query_terms']:.0f}"

    return [[name, *(cell(entry["systems"][system]) for system in systems)] for name, entry in sets.items()]


def _cells(values: Sequence[float]) -> list[str]:
    """Three digits, the best in bold."""
    best = f"{max(values):.3f}"
    return [f"**{cell}**" if cell == best else cell for cell in (f"{value:.3f}" for value in values)]


# -- command line ------------------------------------------------------------------------------------


def _all_sets(data: Path) -> list[str]:
    """Those that steer, then the others by name."""
    found = sorted(path.parent.name for path in data.glob("*/corpus.jsonl"))
    if not found:
        raise SystemExit(f"{data} has no BEIR folder (no */corpus.jsonl)")
    return [name for name in STEERING if name in found] + [name for name in found if name not in STEERING]


def _system(spec: str, options: argparse.Namespace) -> System:
    if spec == "bm25":
        return Lexical()
    if spec.startswith("dense:"):
        folder, _, vocabulary = spec.removeprefix("dense:").partition("+vocabulary=")
        trimmed = Path(vocabulary) if vocabulary else None
        return Dense(Path(folder), options.cache, options.precision, trimmed, options.threads)
    return Model(spec, options.cache, options.threads)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of BEIR folders")
    parser.add_argument("--sets", help="names of sets, parted by commas; all by default")
    parser.add_argument("--systems", default="bm25,polylex", help="see above")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quality.json")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder that keeps the encodings")
    parser.add_argument("--threads", type=int, help="cores to encode on; all by default")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of the dense model")
    return parser.parse_args()


if __name__ == "__main__":
    main()
