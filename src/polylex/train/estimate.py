"""What a run will take, before it runs: tokens, steps, memory, time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from polylex.model.model import SparseModel
from polylex.train.batches import Chunk
from polylex.train.loop import Stage
from polylex.train.ranks import Ranks
from polylex.train.recipe import Recipe

# Batches that are built to count tokens.
_SAMPLE = 24
# Share of a plain matrix product's speed that a training step of a small encoder reaches.
_EFFICIENCY = 0.3
# Bytes of activations a token keeps for the backward pass, in units of layers x hidden size, under bf16 autocast.
_ACTIVATION_BYTES = 50
# [texts, V] float32 arrays that exist at the same time: peaks, weights, loss terms and their gradients.
_DENSE_ARRAYS = 12


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one GPU, where not said otherwise.

    parameters        trained ones
    steps             of the whole run
    rows_per_step, tokens_per_step, padded_tokens_per_step   of all GPUs
    padding_share     of padded tokens that are padding
    total_tokens      of the run, all GPUs
    memory_bytes      weights, gradients, AdamW, activations of the fullest batch seen
    flops_per_step    forward and backward, all GPUs
    matrix_tflops     measured here, of a plain matrix product
    seconds           of the run, at 30 % of that; None where max_minutes decides
    """

    parameters: int
    steps: int
    rows_per_step: float
    tokens_per_step: float
    padded_tokens_per_step: float
    padding_share: float
    total_tokens: float
    memory_bytes: int
    flops_per_step: float
    matrix_tflops: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def estimate(stage: Stage, config: Recipe, ranks: Ranks) -> Estimate:
    """Build some batches of a run and count; nothing is trained."""
    batches = []
    for plan in stage.plan(0)[:_SAMPLE]:
        batches.append(stage.build(plan))
    chunks = [_student_chunks(batch) for batch in batches]
    padded = np.array([sum(c.batch.ids.numel() for c in found) for found in chunks])
    texts = np.array([sum(len(c.rows) for c in found) for found in chunks])
    real = np.array([batch.tokens for batch in batches])
    model = stage.model
    per_step = config.gradient_accumulation_steps * ranks.world
    flops = float(padded.mean()) * per_step * flops_per_token(model)
    speed = matrix_flops(ranks.device)
    return Estimate(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        steps=config.max_steps,
        rows_per_step=float(np.mean([batch.rows for batch in batches])) * per_step,
        tokens_per_step=float(real.mean()) * per_step,
        padded_tokens_per_step=float(padded.mean()) * per_step,
        padding_share=float(1 - real.sum() / padded.sum()),
        total_tokens=float(real.mean()) * per_step * config.max_steps,
        memory_bytes=memory(model, int(padded.max()), int(texts.max())),
        flops_per_step=flops,
        matrix_tflops=speed / 1e12,
        seconds=config.max_steps * flops / ranks.world / (speed * _EFFICIENCY),
    )


def flops_per_token(model: SparseModel) -> float:
    """Operations of forward and backward for one token: 6 a weight it meets, 2 a weight of the decoder (forward only).

    Attention's own products are left out (1 % at 128 tokens), and so is the head's sparse backward pass.
    """
    embeddings = sum(p.numel() for n, p in model.named_parameters() if ".embeddings." in n)
    decoder = model.pivot_head.decoder.weight.numel()
    rest = sum(p.numel() for p in model.parameters()) - embeddings - decoder
    return 6.0 * rest + 2.0 * decoder


def memory(model: SparseModel, tokens: int, texts: int) -> int:
    """Bytes: 16 a trained weight (float32 weight, gradient, two moments), activations, arrays [texts, V]."""
    settings = model.encoder.transformer.config
    weights = sum(p.numel() for p in model.parameters())
    layers = int(getattr(settings, "num_hidden_layers", 12))
    activations = tokens * (layers + 2) * model.encoder.width * _ACTIVATION_BYTES
    return int(weights * 16 + activations + texts * model.config.pivot_size * 4 * _DENSE_ARRAYS)


def matrix_flops(device: torch.device, seconds: float = 0.2) -> float:
    """Operations a second of a plain matrix product here: bf16 on a GPU, float32 on a CPU."""
    size, kind = (8192, torch.bfloat16) if device.type == "cuda" else (512, torch.float32)
    a, b = torch.randn(2, size, size, device=device, dtype=kind)
    times = 0
    a @ b
    _wait(device)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        _wait(device)
        times += 1
    return 2 * size**3 * times / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _student_chunks(batch: Any) -> Sequence[Chunk]:  # noqa: ANN401 - of either stage
    more = getattr(batch, "aligned", None)
    own = [chunk for name in ("texts", "queries", "documents") for chunk in getattr(batch, name, [])]
    return [*own, *(_student_chunks(more) if more is not None else [])]


def told(estimate: Estimate, config: Recipe) -> Mapping[str, str]:
    """The estimate for people: name -> value with its unit."""
    limit = f", but at most {config.max_minutes:g} min" if config.max_minutes else ""
    return {
        "trained parameters": f"{estimate.parameters / 1e6:.1f} M",
        "steps": f"{estimate.steps:,}",
        "rows a step": f"{estimate.rows_per_step:,.0f}",
        "tokens a step": f"{estimate.tokens_per_step:,.0f} ({estimate.padding_share:.0%} padding on top)",
        "tokens of the run": f"{estimate.total_tokens / 1e6:,.1f} M",
        "memory of a GPU": f"{estimate.memory_bytes / 2**30:.1f} GiB",
        "operations a step": f"{estimate.flops_per_step / 1e12:.2f} TFLOP",
        "time": f"{estimate.seconds / 60:.1f} min at {_EFFICIENCY:.0%} of the {estimate.matrix_tflops:.1f} TFLOP/s "
        f"that a matrix product reaches here{limit}",
    }
