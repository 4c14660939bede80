"""What a billion documents would take, from what one machine measures: encoding, reading, checking, joining.

    python benchmarks/scale_out.py                                           one minute on two cores
    python benchmarks/scale_out.py --device cuda --model my-torch-model      the encoding on a GPU, beside the rest
    python benchmarks/scale_out.py --render                                  only write the tables of docs/scale-out.md

Texts are articles of the Universal Declaration of Human Rights in all languages that come with Polylex, evenly taken.
Encoding is measured on each device once more at every run; the rest with vectors of these texts, repeated. Only the
arithmetic goes beyond what was measured: the plan says how.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import record
from report import source, table

from polylex.corpus import read_documents
from polylex.demo import load_udhr
from polylex.harvest import Harvest
from polylex.job import Plan, encode_shard
from polylex.models import DEFAULT, load, load_on
from polylex.partition import Partition, Share, Text
from polylex.throughput import measure
from polylex.vectors import SparseVectors

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scale_out.json"
PAGE = ROOT / "docs" / "scale-out.md"
BILLION = 1_000_000_000
DEVICES = (1, 8, 64, 512)
TOKENS = (32, 128, 256)  # of a text: a title, a passage, a page


class Repeated:
    """Gives the vectors of a sample again and again: encoding that costs nothing."""

    name = "repeated"
    weights_id = "0"

    def __init__(self, vocab: Any, vectors: SparseVectors) -> None:
        self.vocab, self._vectors, self._at = vocab, vectors, 0

    def encode(self, texts: Any, *, kind: str = "document") -> SparseVectors:
        """As many rows as texts."""
        rows = [(self._at + row) % len(self._vectors) for row in range(len(texts))]
        self._at += len(texts)
        return self._vectors.take(rows)


def sample(count: int) -> list[str]:
    """Articles in many languages."""
    articles = [article.text for article in load_udhr()]
    return articles[:: max(1, len(articles) // count)][:count]


def encoding(device: str, model: str, texts: list[str], threads: int | None) -> dict[str, Any]:
    """Texts and tokens a second."""
    if device == "cpu":
        encoder: Any = load(model, threads=threads)
        name = f"{record.machine()['cores']} cores of an {record.machine()['cpu']}, ONNX Runtime"
    else:
        encoder = load_on(model, device)
        name = f"{encoder.device_name}, PyTorch float32"
    found = measure(encoder, texts, device=name)
    return {
        "device": name,
        "texts": found.texts,
        "seconds": round(found.seconds, 3),
        "texts_per_second": round(found.texts_per_second, 2),
        "tokens_per_second": round(found.tokens_per_second, 1),
        "tokens_per_text": round(found.tokens / found.texts, 1),
        "terms_per_text": round(found.postings / found.texts, 1),
        "provenance": record.provenance(("torch",)),
    }


def plumbing(texts: list[str], documents: int, of: int) -> dict[str, Any]:
    """Documents a second through everything but the model, on one core."""
    encoder = load(threads=None)
    vectors = encoder.encode(texts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "corpus.jsonl"
        with corpus.open("w", encoding="utf-8") as file:
            for number in range(documents):
                file.write(json.dumps({"id": str(number), "text": texts[number % len(texts)]}) + "\n")

        def read() -> Iterator[Text]:
            return (Text(each.id, each.text) for each in read_documents(corpus))

        start = time.perf_counter()
        assert sum(1 for _ in Share(Partition(), read())) == documents
        reading = time.perf_counter() - start
        for number in range(of):
            stub, partition = Repeated(encoder.vocab, vectors), Partition(number, of)
            encode_shard(folder / "job", Share(partition, read()), Plan.make(partition, stub), stub)
        start = time.perf_counter()
        harvest = Harvest.read([folder / "job"])
        checking = time.perf_counter() - start
        start = time.perf_counter()
        assert sum(len(batch) for batch in harvest.stream()) == documents
        joining = time.perf_counter() - start
        size = sum(block.bytes for shard in harvest.shards.values() for block in shard.manifest.blocks)
    return {
        "documents": documents,
        "shards": of,
        "terms_per_text": round(vectors.nnz / len(vectors), 1),
        "read_per_second": round(documents / reading),
        "checked_bytes_per_second": round(size / checking),
        "joined_per_second": round(documents / joining),
        "bytes_per_document": round(size / documents, 1),
        "provenance": record.provenance(),
    }


# -- the page ----------------------------------------------------------------------------------------


def span(hours: float) -> str:
    """Hours, or days where they are many."""
    return f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def tables(result: dict[str, Any]) -> str:
    """What stands between the marks of the page."""
    rates = list(result["encoding"].values())
    lines = ["Encoding, measured:", ""]
    lines += table(
        ["device", "texts/s", "tokens/s", "tokens a text", "terms a text"],
        [
            [
                each["device"],
                each["texts_per_second"],
                f"{each['tokens_per_second']:,.0f}",
                each["tokens_per_text"],
                each["terms_per_text"],
            ]
            for each in rates
        ],
    )
    lines += ["", *(source(each) for each in rates)]
    lines += ["", "A billion texts by their length: tokens divided by the measured tokens a second. Calculated:", ""]
    lines += table(
        ["device", "tokens a text", "device hours", *(f"on {devices:,}" for devices in DEVICES)],
        [
            [
                each["device"],
                tokens,
                f"{(hours := BILLION * tokens / each['tokens_per_second'] / 3600):,.0f}",
                *(span(hours / devices) for devices in DEVICES),
            ]
            for each in rates
            for tokens in TOKENS
        ],
    )
    pipes = result["plumbing"]
    lines += ["", "Everything but the model, measured on one core:", ""]
    lines += table(
        ["step", "rate", "a billion, calculated"],
        [
            [
                "read, parse and hash the input",
                f"{pipes['read_per_second']:,} documents/s",
                span(BILLION / pipes["read_per_second"] / 3600),
            ],
            [
                "check every byte of the shards",
                f"{pipes['checked_bytes_per_second'] / 1e6:,.0f} MB/s",
                span(BILLION * pipes["bytes_per_document"] / pipes["checked_bytes_per_second"] / 3600),
            ],
            [
                "join the shards",
                f"{pipes['joined_per_second']:,} documents/s",
                span(BILLION / pipes["joined_per_second"] / 3600),
            ],
            [
                "vectors on disk",
                f"{pipes['bytes_per_document']:,.0f} bytes a document",
                f"{BILLION * pipes['bytes_per_document'] / 1e12:,.2f} TB",
            ],
        ],
    )
    lines += ["", source(pipes)]
    return "\n".join(lines)


def render(result: dict[str, Any]) -> None:
    """Write the tables into the page."""
    text = PAGE.read_text("utf-8")
    begin, end = "<!-- benchmarks/scale_out.py -->", "<!-- end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: f"{begin}\n{tables(result)}\n{end}", text), "utf-8")


def main() -> None:
    """Measure, keep, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--texts", type=int, default=512, help="encoded by the clock")
    parser.add_argument("--documents", type=int, default=50_000, help="read and joined")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    result = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"encoding": {}}
    if not options.render:
        texts = sample(options.texts)
        found = encoding(options.device, options.model, texts, options.threads)
        result["encoding"][found["device"]] = found
        print(json.dumps(found))
        if options.device == "cpu":
            result["plumbing"] = plumbing(texts[:256], options.documents, options.shards)
            print(json.dumps(result["plumbing"]))
        record.write(RESULTS, result)
    render(result)


if __name__ == "__main__":
    main()
