"""Render benchmarks/results/*.json as docs/benchmarks.md and as the table of README.md. Prints nothing that is not in them.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: benchmarks/report.py -->", "<!-- end of figures -->"
STEERING = ("xquad-x-en", "xquad-en-x-pooled", "xquadr-pooled", "omosqa-pooled", "afriqa-test-crosslingual",
            "mkqa-q2q-x-en", "debfaq-x-en")  # fmt: skip
NOT_LATIN = ("amqa-test-am", "danetqa-test-ru", "debfaq-ja", "drcd-test-zh-hant", "heq-test-he", "iapp-test-th",
             "jaquad-dev-ja", "omosqa-ar", "omosqa-uk", "pquad-test-fa", "xquad-ar", "xquad-hi", "xquad-ru", "xquad-th",
             "xquad-zh")  # fmt: skip
HEADLINE = ("xquad-x-en", "xquadr-pooled", "omosqa-pooled", "afriqa-test-crosslingual", "scifact-en")
ABOUT = {
    "xquad-x-en": "questions in 12 languages → English paragraphs",
    "xquadr-pooled": "11 languages ↔ 11 languages, sentences",
    "omosqa-pooled": "advice in 5 languages, pooled",
    "afriqa-test-crosslingual": "questions in 9 African languages → English and French",
    "scifact-en": "English claims → English abstracts",
}


def load(name: str) -> dict[str, Any]:
    """One result file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def row(*cells: object) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(head: list[str], lines: list[list[object]]) -> list[str]:
    """A Markdown table."""
    return [row(*head), row(*("---" for _ in head)), *(row(*line) for line in lines)]


def source(result: dict[str, Any]) -> str:
    """Where a figure is from: command, commit, machine, date."""
    made = result.get("provenance", result)
    machine = made["machine"]
    cores = f"{machine['cores']} cores of an {machine['cpu']}" if "cores" in machine else machine["device"]
    commit = made.get("commit", "")[:12]
    said = f"`{made['command']}`, {cores}"
    return said + (f", commit {commit}" if commit else "") + (f", {made['date'][:10]}" if "date" in made else "") + "."


def system_names(quality: dict[str, Any]) -> list[str]:
    """Systems that were run on every set."""
    names = [list(each["systems"]) for each in quality["sets"].values()]
    return [name for name in names[0] if all(name in other for other in names)]


def shown(system: str) -> str:
    """A system as a column."""
    if system.startswith("dense:"):
        return "dense e5-small"
    names = {
        "bm25": "BM25", "polylex": "polylex-mini (int8)", "polylex+terms=30": "pruned to 30 terms (mass)",
        "polylex+view=pivot": "without LexEcho", "polylex+top_k=128": "128 terms at most",
    }  # fmt: skip
    return names.get(system, system)


def score(figures: dict[str, Any]) -> str:
    """nDCG@10 with three digits."""
    return f"{figures['nDCG@10']:.3f}".lstrip("0")


def quality_pages(quality: dict[str, Any]) -> list[str]:
    """nDCG@10 on every set, and per query language where there are several."""
    systems = system_names(quality)
    lines = [
        [name, each["kind"], each["queries"], *(score(each["systems"][s]) for s in systems),
         each["systems"]["polylex"]["document_terms"]]
        for name, each in sorted(quality["sets"].items(), key=lambda item: (item[1]["kind"], item[0]))
    ]  # fmt: skip
    page = ["## Quality: nDCG@10", "", source(quality), ""]
    page += [
        "Dense multilingual-e5-small is what polylex-mini grew from. Part of the distance is the vocabulary, trimmed from 250,000",
        "pieces to 110,000; so much e5 itself lost when it had to do with the 100,000 pieces of an earlier model:",
        "",
        *vocabulary_table(load("vocabulary")),
        "",
        *steering(quality, systems),
    ]
    page += table(["set", "kind", "queries", *map(shown, systems), "terms per document"], lines)
    for name, each in quality["sets"].items():
        if name not in HEADLINE or len(each["languages"]) < 2:
            continue
        page += ["", f"### {name} by query language", ""]
        page += table(
            ["system", *each["languages"]],
            [
                [shown(s), *(score(each["systems"][s]["by_language"][lang]) for lang in each["languages"])]
                for s in systems
            ],
        )
    return page


def steering(quality: dict[str, Any], systems: list[str]) -> list[str]:
    """Means over the sets that a change to the model is steered by; nothing where one is missing."""
    groups = {
        "the 7 sets across languages": STEERING,
        "monolingual sets not in Latin script": [name for name in NOT_LATIN if name in quality["sets"]],
    }
    lines = []
    for title, names in groups.items():
        if not names or not all(name in quality["sets"] for name in names):
            continue
        figures = [[quality["sets"][name]["systems"][s]["nDCG@10"] for name in names] for s in systems]
        lines.append([f"{title} ({len(names)})", *(f"{sum(f) / len(f):.3f}".lstrip("0") for f in figures)])
    return [*table(["mean of", *map(shown, systems)], lines), ""] if lines else []


def cost_page(quality: dict[str, Any]) -> list[str]:
    """Terms, bytes and time of every system and set, where the results hold them."""
    lines = []
    for name, each in sorted(quality["sets"].items()):
        for s in system_names(quality):
            found = each["systems"][s]
            if found.get("index_bytes") and found.get("seconds_searching"):
                queries = sum(each["languages"].values()) or each["queries"]
                lines.append([
                    name, shown(s), found["document_terms"] or "-", found["query_terms"] or "-",
                    f"{found['index_bytes'] / each['documents']:,.0f}", f"{found['seconds_searching'] / queries * 1e3:.3f}",
                ])  # fmt: skip
    if not lines:
        return []
    head = ["set", "system", "terms per document", "per query", "bytes per document", "ms per query"]
    page = [
        "## What it costs",
        "",
        "Size and time of searching vectors at hand (encoding: below), all queries in one batch.",
        "",
    ]
    return [*page, *table(head, lines)]


def vocabulary_table(trimmed: dict[str, Any]) -> list[str]:
    """What trimming the vocabulary costs the dense backbone."""
    lines = []
    for name, each in trimmed["sets"].items():
        _, whole, cut = each["systems"].values()
        lines.append([name, score(whole), score(cut)])
    return table(["set", "dense e5-small", "with 100,000 pieces"], lines)


def encoding_page(encoding: dict[str, Any]) -> list[str]:
    """Documents per second."""
    page = ["## Encoding on a CPU", "", source(encoding), ""]
    page += [
        f"{encoding['documents']} documents, {encoding['tokens'] / encoding['documents']:.0f} tokens each, of "
        f"{encoding['sets'].replace(',', ', ')}; the same tokens for all. The peer is sentence-transformers' SparseEncoder "
        "with a SPLADE model of the same encoder, tokens and head width.",
        "",
    ]
    return page + table(
        ["system", "documents/s", "tokens/s", "polylex int8 is faster by"],
        [
            [
                each["as"],
                each["documents_per_second"],
                each["tokens_per_second"],
                f"{each['polylex_is_times_as_fast']}×",
            ]
            for each in encoding["systems"].values()
        ],
    )


def search_page(search: dict[str, Any], kernel: dict[str, Any]) -> list[str]:
    """Milliseconds per query."""
    vectors, times = search["vectors"], search["search"]
    page = ["## Exact search", "", source(search), ""]
    page += [
        f"{vectors['documents']:,} {vectors['source']} documents of {vectors['terms_per_document']} terms, queries of "
        f"{vectors['terms_per_query']} terms; one thread unless said otherwise.",
        "",
    ]
    page += table(
        ["engine", "ms k=10", "p99", "ms k=100"],
        [
            [name, f"{each['mean_ms']:.2f}", f"{each['p99_ms']:.2f}", f"{times['k=100'][name]['mean_ms']:.2f}"]
            for name, each in times["k=10"].items()
        ],
    )
    faster, build = search["times_faster_than"], search["build"]
    page += [
        "",
        f"That is {faster['naive']}× a term-at-a-time scorer with a heap, {faster['naive, partition']}× the same with a "
        f"partial sort, {faster['scipy']}× SciPy's CSR product. Built in {build['cpu_seconds']} CPU seconds, "
        f"{build['segment_bytes_per_posting']} bytes per posting, opened in {search['open_ms']} ms; recall against brute "
        f"force {search['exactness']['recall']}.",
        "",
        "### Why the kernel is C",
        "",
        source(kernel),
        "",
    ]
    return page + table(
        ["kernel", "process start to first result, s", "ms per query"],
        [[name, each["first_result_s"], each["ms_per_query"]] for name, each in kernel["kernels"].items()],
    )


def cold_page(cold: dict[str, Any]) -> list[str]:
    """Seconds to the first hit."""
    stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in cold["stages_median_seconds"].items())
    return [
        "## Cold start",
        "",
        source(cold),
        "",
        f"`polylex search` on the demo index ({cold['documents']:,} documents), process start to the end of its output: "
        f"median {cold['median_seconds']} s of {len(cold['seconds'])} runs (first run {cold['first_run_seconds']} s). Of "
        f"that: {stages}.",
    ]


def head_page(head: dict[str, Any]) -> list[str]:
    """The training head."""
    lines = []
    for each in head["rows"]:
        texts, tokens, width, terms = each["shape"]
        eager, fused, plain = (each["forms"][form] for form in ("eager", "fused", "pytorch"))
        lines.append([
            f"B{texts} L{tokens} D{width} V{terms:,}",
            *(f"{form['seconds'] * 1e3:.1f} ms, {form['peak_bytes'] / 2**20:,.0f} MiB" for form in (eager, plain, fused)),
            f"{eager['seconds'] / fused['seconds']:.1f}×",
            f"{eager['peak_bytes'] / fused['peak_bytes']:.1f}×",
        ])  # fmt: skip
    page = ["## The head in training (forward and backward, bf16)", "", source(head), ""]
    return page + table(["shape", "eager", "sparse, PyTorch", "sparse, fused", "faster", "less memory"], lines)


def headline(quality: dict[str, Any]) -> list[str]:
    """The table of the README."""
    systems = [
        s for s in system_names(quality) if s == "bm25" or s == "polylex" or (s.startswith("dense:") and "+" not in s)
    ]
    lines = [
        [ABOUT[name], *(score(quality["sets"][name]["systems"][s]) for s in systems)]
        for name in HEADLINE
    ]  # fmt: skip
    return table(["nDCG@10", *map(shown, systems)], lines)


def main() -> None:
    """Write both files."""
    quality, encoding, search = load("quality"), load("encoding"), load("search")
    kernel, cold, head = load("kernel_choice"), load("cold_start"), load("head")
    page = [
        "# Benchmarks",
        "",
        "Every figure here was printed by the command above it; `benchmarks/report.py` renders the results, which are in",
        '`benchmarks/results`. `pip install -e ".[bench]"` installs the peers. The evaluation sets are BEIR folders made',
        "from public collections; `benchmarks/quality.py --help` says what it expects.",
        "",
    ]
    for part in (
        quality_pages(quality),
        cost_page(load("quality_cost")),
        encoding_page(encoding),
        search_page(search, kernel),
        cold_page(cold),
        head_page(head),
    ):
        page += [*part, ""]
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(page), encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    st = encoding["systems"]["sentence-transformers float32"]
    words = [
        f"On {encoding['machine']['cores']} CPU cores it encodes {st['polylex_is_times_as_fast']}× as fast as "
        "sentence-transformers runs a model of the same size, searches "
        f"{search['vectors']['documents']:,} documents exactly in {search['search']['k=10']['polylex']['mean_ms']:.2f} ms on "
        f"one thread, and `polylex search` answers {cold['median_seconds']:.1f} s after its process starts. Commands, all "
        "sets, and where it loses: [docs/benchmarks.md](docs/benchmarks.md).",
    ]
    block = "\n".join([BEGIN, "", *headline(quality), "", *words, "", END])
    (ROOT / "README.md").write_text(before + block + after, encoding="utf-8")


if __name__ == "__main__":
    main()
