"""Throughput of both training stages against an eager `transformers` implementation, in the same run.

    python benchmarks/training.py --out results/training.json        # a GPU; on a CPU a toy size, to see that it runs

A model of polylex-mini's shape with random weights and random token ids whose lengths are log-normal (mean about 28, as
in the parallel data); what is timed does not depend on what the tokens mean. The eager form is what a competent user
would write: padded batches in random order, logits [B, L, V] by autograd under bf16 autocast, fused AdamW.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from head import ceilings, machine
from record import command
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM

from polylex.config import ModelConfig
from polylex.model.model import SparseModel
from polylex.model.tokens import TokenBatch
from polylex.runtime.tokens import Tokens
from polylex.text import Preparation
from polylex.train import losses
from polylex.train.align import Align
from polylex.train.batches import Frame, slices
from polylex.train.data import Group, Groups, Pair, Pairs, Tokenization
from polylex.train.distill import Distill
from polylex.train.estimate import flops_per_token
from polylex.train.loop import Loop
from polylex.train.ranks import Ranks
from polylex.train.recipe import AlignConfig, DistillConfig
from polylex.train.teacher import Teacher, _Masked, _Through

SIZES = {
    "cuda": {"layers": 12, "width": 384, "vocabulary": 100_000, "terms": 30_522, "rows": 100_000, "tokens": 65_536},
    "cpu": {"layers": 1, "width": 32, "vocabulary": 500, "terms": 500, "rows": 2_000, "tokens": 2_048},
}
WORDS = 400


def tokens() -> Tokens:
    """A tokenizer of WORDS words."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return Tokens(tokenizer)


def build(size: dict[str, int]) -> SparseModel:
    """A model with random weights, sparse from the start."""
    torch.manual_seed(0)
    encoder = {
        "model_type": "bert", "vocab_size": size["vocabulary"], "hidden_size": size["width"], "pad_token_id": 0,
        "num_hidden_layers": size["layers"], "num_attention_heads": max(1, size["width"] // 32),
        "intermediate_size": 4 * size["width"], "max_position_embeddings": 512,
    }  # fmt: skip
    config = ModelConfig(
        name="bench", encoder=encoder, pivot_size=size["terms"], pivot_width=size["width"],
        pivot_vocabulary="pivot.txt", pivot_speakers="content",
    )  # fmt: skip
    model = SparseModel(config, tokens(), [f"t{i}" for i in range(size["terms"])])
    torch.nn.init.normal_(model.pivot_head.decoder.weight, std=0.5 / size["width"] ** 0.5)
    torch.nn.init.constant_(model.pivot_head.decoder.bias, -1.6)  # a few hundred active terms a text, as in training
    return model


def teacher(size: dict[str, int]) -> Teacher:
    """A random masked language model of splade-tiny's shape."""
    settings = BertConfig(vocab_size=size["terms"], hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
                          intermediate_size=512)  # fmt: skip
    model = BertForMaskedLM(settings)
    decoder = model.get_output_embeddings()
    torch.nn.init.constant_(decoder.bias, -1.0)
    model.set_output_embeddings(_Through())
    return Teacher(_Masked(model), decoder, tokens(), 0, "all")


def texts(rng: np.random.Generator, lengths: np.ndarray) -> list[str]:
    """Random texts of the given numbers of words."""
    names = np.array([f"w{i}" for i in range(WORDS)])
    return [" ".join(names[rng.integers(0, WORDS, length)]) for length in lengths]


def some_lengths(rng: np.random.Generator, count: int, mean: float) -> np.ndarray:
    """Log-normal numbers of words, 2 to 250."""
    return np.clip(rng.lognormal(np.log(mean) - 0.32, 0.8, count), 2, 250).astype(int)


def steps_per_second(loop: Loop, warm: int, steps: int) -> tuple[float, float, float]:
    """(seconds a step, rows a step, real tokens a step) after `warm` steps."""
    loop.model.train()
    stream = loop.steps()
    for _ in itertools.islice(stream, warm):
        pass
    synchronize(loop.ranks)
    rows, read = loop._tally["rows"], loop._tally["tokens"]
    start = time.perf_counter()
    for _ in itertools.islice(stream, steps):
        pass
    synchronize(loop.ranks)
    took = time.perf_counter() - start
    done = loop._tally
    stream.close()
    return took / steps, (done["rows"] - rows) / steps, (done["tokens"] - read) / steps


def profile(loop: Loop, path: Path) -> None:
    """Write what two steps spend their time on."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    stream = loop.steps()
    next(stream)
    with profiled(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in itertools.islice(stream, 2):
            pass
        synchronize(loop.ranks)
    stream.close()
    averages = seen.key_averages()
    told = [averages.table(sort_by=key, row_limit=25) for key in ("self_cuda_time_total", "self_cpu_time_total")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(told), encoding="utf-8")


def synchronize(ranks: Ranks) -> None:
    """Let the device finish."""
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()


def eager_align(
    model: SparseModel, master: Teacher, pairs: Pairs, ranks: Ranks, rows: int, steps: int
) -> tuple[float, float]:
    """(seconds a step, real tokens a step) of stage 1 as eager code on random batches of `rows` pairs."""
    device = ranks.device
    model, master = model.to(device).train(), master.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    decoder, frame = model.pivot_head.decoder, Frame((1,), (2,), 0)
    rng = np.random.default_rng(0)
    seen, start = 0, 0.0

    def batch(column: Any, chosen: np.ndarray) -> TokenBatch:
        text = slices(column, chosen, chosen + 1, 254)
        width = int(text.lengths.max()) + 2
        ids = torch.zeros(rows, width, dtype=torch.long)
        ends = np.cumsum(text.lengths)
        for row, (end, length) in enumerate(zip(ends, text.lengths, strict=True)):
            ids[row, : length + 2] = torch.tensor([*frame.head, *text.ids[end - length : end].tolist(), *frame.tail])
        return TokenBatch(ids, ids != 0, ids > 2).to(device)

    for step in range(steps + 3):
        if step == 3:
            synchronize(ranks)
            start, seen = time.perf_counter(), 0
        chosen = rng.integers(0, len(pairs), rows)
        sides = [batch(column, chosen) for column in (pairs.other, pairs.english)]
        english = batch(pairs.teacher, chosen)
        seen += sum(int(side.real.sum()) for side in sides)
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                logits = master.decoder(master.body(english))
                reference = logits.float().masked_fill(~english.real[..., None], -torch.inf).amax(dim=1)
            loss = torch.zeros((), device=device)
            for side in sides:
                logits = decoder(model.hidden(side).pivot)
                found = logits.float().masked_fill(~side.content[..., None], -torch.inf).amax(dim=1)
                error, terms = losses.align_mse(found, reference)
                loss = loss + error / terms
                loss = loss + 1e-3 * losses.flops(found.relu().log1p().mean(dim=0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    synchronize(ranks)
    return (time.perf_counter() - start) / steps, seen / steps


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--chunk", type=int, nargs="*", default=[16_384, 32_768, 65_536], help="chunk_tokens to try")
    parser.add_argument("--profile", type=Path, help="file for the kernels of an align step, by time")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile of the backbone")
    arguments = parser.parse_args()
    ranks = Ranks.start()
    # As our loop does: with cuDNN's attention, which plans anew for every shape, eager code is slower still.
    torch.backends.cuda.enable_cudnn_sdp(False)
    size = SIZES[ranks.device.type]
    limits = ceilings(ranks.device.type)
    rng = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp())
    by = Tokenization(tokens(), Preparation())
    english = some_lengths(rng, size["rows"], 23)
    # A translation is as long as its source, give or take a fifth, in more pieces.
    other = np.clip(english * 31 / 23 * rng.normal(1, 0.2, len(english)), 2, 250).astype(int)
    pairs = Pairs.write(
        folder / "pairs",
        map(Pair, texts(rng, english), texts(rng, other), itertools.repeat("xx")), by, teacher=by,
    )  # fmt: skip
    table: list[dict[str, Any]] = []

    def record(name: str, seconds: float, rows: float, read: float, model: SparseModel) -> None:
        row = {
            "name": name, "seconds_per_step": seconds, "rows_per_second": rows / seconds,
            "tokens_per_second": read / seconds,
            # Model operations of real tokens only, as if the head's backward pass cost nothing.
            "mfu": read / seconds * flops_per_token(model) / limits["flops_per_second"],
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if ranks.device.type == "cuda" else None,
        }  # fmt: skip
        table.append(row)
        print(
            f"{name:>34}  {seconds * 1e3:8.1f} ms/step  {rows / seconds:10,.0f} rows/s  "
            f"{read / seconds:12,.0f} tokens/s  MFU {row['mfu']:.1%}  {row['peak_gib'] or 0:.1f} GiB",
            flush=True,
        )
        if ranks.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    shared: dict[str, Any] = {
        "model": "bench", "train_files": ("bench",), "output_dir": str(folder / "run"), "logging_steps": 0,
        "save_steps": 0, "max_steps": 10**6, "tokens_per_batch": size["tokens"],
    }  # fmt: skip
    rows = max(8, size["tokens"] // 8 // 58)
    model = build(size)
    took, read = eager_align(model, teacher(size), pairs, ranks, rows, max(3, arguments.steps // 2))
    record(f"align, eager, {rows} pairs", took, rows, read, model)
    settings = [(chunk, False) for chunk in arguments.chunk] + [(arguments.chunk[-1], True)] * arguments.compile
    for chunk, compiled in settings:
        model = build(size)
        config = AlignConfig(
            **shared, teacher="bench", per_device_train_batch_size=4096, chunk_tokens=chunk, flops=1e-3,
            torch_compile=compiled, dataloader_num_workers=4,
        )  # fmt: skip
        loop = Loop(Align(config, model, teacher(size), pairs, ranks), config, ranks)
        took, pairs_a_step, read = steps_per_second(loop, 20 if compiled else 8, arguments.steps)
        record(f"align, chunk {chunk}{', compiled' if compiled else ''}", took, pairs_a_step, read, model)
        if arguments.profile and chunk == arguments.chunk[-1]:
            profile(loop, arguments.profile.with_suffix(".compiled.txt" if compiled else ".txt"))
        del loop
    questions = texts(rng, some_lengths(rng, size["rows"] // 20, 12))
    passages = texts(rng, some_lengths(rng, size["rows"] // 4, 110))
    groups = (
        Group(question, (passages[5 * i],), tuple(passages[5 * i + 1 : 5 * i + 5]), language="xx")
        for i, question in enumerate(questions)
    )
    Groups.write(folder / "groups", groups, query=by, document=by)
    counts = [len(list(Groups.texts(folder / "groups", which))) for which in ("queries", "documents")]
    Groups.write_vectors(
        folder / "groups", queries=rng.normal(size=(counts[0], 384)), documents=rng.normal(size=(counts[1], 384))
    )
    for chunk in arguments.chunk[-2:]:
        model = build(size)
        config = DistillConfig(
            **shared, chunk_tokens=chunk, negatives=4, dataloader_num_workers=4, flops_document=1e-3,
            per_device_train_batch_size=192 if ranks.device.type == "cuda" else 8,
        )  # fmt: skip
        loop = Loop(Distill(config, model, Groups.open(folder / "groups"), ranks), config, ranks)
        took, queries, read = steps_per_second(loop, 5, max(3, arguments.steps // 2))
        record(f"distill, chunk {chunk}", took, queries, read, model)
        del loop
    if arguments.out:
        result = {
            "command": command(),
            "machine": machine(ranks.device.type),
            "ceilings": limits,
            "rows": table,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
