"""How fast documents become sparse vectors: our int8 runtime beside sentence-transformers on a model of the same size.

    python benchmarks/encoding.py --data EVAL --float TORCH_FOLDER

EVAL is a folder of BEIR folders (see quality.py), TORCH_FOLDER the float model (`SparseModel.save_pretrained`).

The peer is a SPLADE model for sentence-transformers' SparseEncoder: BertForMaskedLM and SpladePooling, made of the very
weights of TORCH_FOLDER (backbone, connector, English head), behind the same tokenizer. It does the same arithmetic on
the same tokens and keeps as many terms; it lacks the echo, which is one number a token. In float32, as it comes, and
in bfloat16, which it offers as an option. Our PyTorch model stands beside them.

Every system encodes the same documents on the same cores in turns, round after round, after a warm-up; a PyTorch system
does so at the best of several batch sizes. Reported are medians over the rounds, and ratios of rounds, not of medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from record import provenance, write
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

import polylex
from polylex.collection import read_beir
from polylex.model import SparseModel

BATCHES = (8, 32)
OURS = "polylex int8"


def main() -> None:
    """Measure, write the results file, print a table."""
    options = _options()
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    documents = _documents(options)
    encoder = polylex.load(options.model, threads=options.threads)
    model = SparseModel.from_pretrained(options.float)
    tokens = sum(len(windows[0].ids) for windows in encoder.windows(documents, max_windows=1))
    peers = {"float32": peer_of(model, torch.float32), "bfloat16": peer_of(model, torch.bfloat16)}
    _require_equal(model, peers["float32"], documents[:4])
    systems: dict[str, Callable[[Sequence[str]], Any]] = {OURS: lambda texts: encoder.encode(texts, max_windows=1)}
    for size in BATCHES:
        for precision, peer in peers.items():
            systems[f"sentence-transformers {precision}, batch {size}"] = _by(peer.encode, size)
        systems[f"polylex torch float32, batch {size}"] = _by(model.encode, size)
    seconds = _rounds(systems, documents, options.rounds)
    result = provenance(("torch", "transformers", "sentence-transformers")) | {
        "sets": options.sets,
        "threads": options.threads,
        "documents": len(documents),
        "tokens": tokens,
        "terms_per_document": {
            OURS: encoder.encode(documents, max_windows=1).nnz / len(documents),
            "sentence-transformers": _active(peers["float32"], documents),
        },
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "systems": _summary(seconds, len(documents), tokens),
    }
    write(options.out, result)
    print(_table(result))


def _by(encode: Callable[..., Any], size: int) -> Callable[[Sequence[str]], Any]:
    return lambda texts: encode(list(texts), batch_size=size)


def _documents(options: argparse.Namespace) -> list[str]:
    """As many documents of each set, drawn with a fixed seed and mixed."""
    random, names = np.random.default_rng(0), options.sets.split(",")
    texts: list[str] = []
    for name in names:
        found = read_beir(options.data / name).texts
        texts += [found[index] for index in random.permutation(len(found))[: options.documents // len(names)]]
    return [texts[index] for index in random.permutation(len(texts))]


# -- the peer ----------------------------------------------------------------------------------------


def peer_of(model: SparseModel, precision: torch.dtype) -> SparseEncoder:
    """The float model as a SPLADE model of sentence-transformers."""
    settings = {name: value for name, value in model.config.encoder.items() if name != "model_type"}
    with TemporaryDirectory() as folder:
        BertForMaskedLM(BertConfig(**settings)).save_pretrained(folder)
        Path(folder, "tokenizer.json").write_text(model.tokens.to_json(), encoding="utf-8")
        PreTrainedTokenizerFast(
            tokenizer_file=f"{folder}/tokenizer.json",
            model_max_length=model.config.max_length,
            pad_token="<pad>",
            mask_token="<mask>",
            unk_token="<unk>",
        ).save_pretrained(folder)
        transformer = Transformer(folder, transformer_task="fill-mask", model_kwargs={"dtype": precision})
    head = model.pivot_head
    english = nn.Sequential(model.connector, head.dense, nn.GELU(), head.norm, head.decoder)
    transformer.model.bert = _copy(model.encoder.transformer, precision)
    transformer.model.cls = _copy(english, precision)
    return SparseEncoder(modules=[transformer, SpladePooling("max")], device="cpu")


def _require_equal(model: SparseModel, peer: SparseEncoder, documents: Sequence[str]) -> None:
    """Stop unless the peer computes our pivot view: only then do both do the same work."""
    ours = np.zeros((len(documents), model.config.pivot_size), np.float32)
    vectors = model.encode(documents, max_windows=1)
    for row in range(len(vectors)):
        terms, weights = vectors.row(row)
        pivot = terms < model.config.pivot_size
        ours[row, terms[pivot]] = weights[pivot]
    difference = float(np.abs(peer.encode(list(documents)).to_dense().numpy() - ours).max())
    if difference > 1e-3:
        raise SystemExit(f"the peer's weights differ from ours by {difference}; the comparison would mean nothing")


def _copy(module: nn.Module, precision: torch.dtype) -> nn.Module:
    return deepcopy(module).to(precision).eval()


def _active(peer: SparseEncoder, documents: Sequence[str]) -> float:
    return float(peer.sparsity(peer.encode(list(documents), batch_size=8))["active_dims"])


# -- timing ------------------------------------------------------------------------------------------


def _rounds(
    systems: dict[str, Callable[[Sequence[str]], Any]], documents: Sequence[str], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each system in each round; the order turns by one every round."""
    for encode in systems.values():
        encode(documents[:16])
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    names = list(systems)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            systems[name](documents)
            seconds[name].append(time.perf_counter() - start)
            print(f"round {turn + 1}: {name}: {len(documents) / seconds[name][-1]:.1f} documents/s", flush=True)
    return seconds


def _summary(seconds: dict[str, list[float]], documents: int, tokens: int) -> dict[str, Any]:
    """Of each kind of system the best batch size."""
    best: dict[str, str] = {}
    for name in seconds:
        kind = name.partition(", batch")[0]
        if kind not in best or median(seconds[name]) < median(seconds[best[kind]]):
            best[kind] = name
    return {
        kind: {
            "as": name,
            "documents_per_second": round(documents / median(seconds[name]), 2),
            "tokens_per_second": round(tokens / median(seconds[name])),
            "polylex_is_times_as_fast": round(
                median(theirs / ours for theirs, ours in zip(seconds[name], seconds[OURS], strict=True)), 2
            ),
        }
        for kind, name in best.items()
    }


def _table(result: dict[str, Any]) -> str:
    rows = [
        f"| {entry['as']} | {entry['documents_per_second']} | {entry['tokens_per_second']} "
        f"| {entry['polylex_is_times_as_fast']} |"
        for entry in result["systems"].values()
    ]
    head = ["| system | documents/s | tokens/s | polylex int8 is x times as fast |", "|---|---|---|---|"]
    return "\n".join(["", *head, *rows])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of BEIR folders")
    parser.add_argument("--float", type=Path, required=True, help="folder of the float model")
    parser.add_argument("--model", default="polylex-mini", help="the int8 model, exported from it")
    parser.add_argument("--sets", default="xquad-en,xquad-ar,xquad-zh,xquad-hi,xquad-de,omosqa-uk")
    parser.add_argument("--documents", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "encoding.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
