"""The sparse-gradient head against the eager formula: forward + backward, time and peak memory, errors, roofline.

    python benchmarks/head.py --out results/head.json          # needs an NVIDIA GPU for the figures of the README

Every row is one problem (B texts of L tokens, width D, V terms, bfloat16) in one run on one machine: the eager formula
as models are usually trained (logits [B, L, V] by autograd), the same without its copy to float32, the PyTorch form and
the fused kernel. The loss has a gradient for active terms only, about `--active` of them a text, as after stage 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import command
from torch import Tensor
from torch.nn.functional import linear

from polylex.train.head import has_triton, peaks

Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

TARGET = (32, 256, 768, 30522)
PROBLEMS = [TARGET, (32, 256, 768, 250002), (1024, 32, 384, 30522), (256, 128, 384, 30522), (128, 256, 384, 30522)]
SMALL = [(4, 32, 64, 2000)]


def eager(hidden: Tensor, speaks: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits, float32, mask, maximum: the formula as it is written down."""
    return linear(hidden, weight, bias).float().masked_fill(~speaks[..., None], -torch.inf).amax(dim=1)


def lean(hidden: Tensor, speaks: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same in the logits' own type: what a careful user of PyTorch writes."""
    return linear(hidden, weight, bias).masked_fill(~speaks[..., None], -torch.inf).amax(dim=1).float()


FORMS: dict[str, Form] = {
    "eager": eager,
    "eager-bf16": lean,
    "pytorch": lambda *inputs: peaks(*inputs, fused=False),
    "fused": lambda *inputs: peaks(*inputs, fused=True),
}


def problem(shape: tuple[int, ...], active: int, device: str, seed: int = 0) -> tuple[tuple[Tensor, ...], Tensor]:
    """Random inputs whose bias leaves about `active` terms of a text above 0, and a random downstream gradient."""
    texts, length, width, terms = shape
    torch.manual_seed(seed)
    hidden = torch.randn(texts, length, width, device=device)
    weight = torch.randn(terms, width, device=device) / width**0.5
    lengths = torch.randint(length * 3 // 4, length + 1, (texts, 1), device=device)
    speaks = torch.arange(length, device=device) < lengths
    with torch.no_grad(), autocast(device):
        found = peaks(hidden, speaks, weight, torch.zeros(terms, device=device), fused=False)
    share = min(1.0, active / terms)
    level = torch.quantile(found[: max(1, 2**23 // terms)].flatten(), 1 - share)
    bias = torch.full((terms,), -float(level), device=device)
    leaves = hidden.requires_grad_(), speaks, weight.requires_grad_(), bias.requires_grad_()
    return leaves, torch.randn(texts, terms, device=device)


def autocast(device: str) -> torch.autocast:
    """bfloat16, as in training."""
    return torch.autocast(device, torch.bfloat16)


def one_pass(form: Form, inputs: tuple[Tensor, ...], downstream: Tensor) -> Tensor:
    """Forward, SPLADE's activation, backward. Gradients are left on the inputs."""
    found = form(*inputs)
    (found.relu().log1p() * downstream).sum().backward()
    return found.detach()


def clear(inputs: tuple[Tensor, ...]) -> None:
    """Forget gradients."""
    for tensor in inputs:
        tensor.grad = None


def wait(device: str) -> None:
    """Let the device finish."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of one call, after warming up."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        wait(device)
        if device == "cuda":
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            work()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
        else:
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measure(form: Form, inputs: tuple[Tensor, ...], downstream: Tensor, device: str, repeats: int) -> dict[str, float]:
    """Time and memory of a form; memory = peak allocation above the inputs, gradients of the inputs included."""

    def work() -> None:
        clear(inputs)
        with autocast(device):
            one_pass(form, inputs, downstream)

    work()
    clear(inputs)
    row = {}
    if device == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        wait(device)
        row["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    row["seconds"] = seconds(work, device, repeats)
    with torch.no_grad(), autocast(device):
        row["forward_seconds"] = seconds(lambda: form(*inputs), device, repeats)
    clear(inputs)
    return row


def errors(
    shape: tuple[int, ...], active: int, device: str, forms: list[str], half: bool
) -> dict[str, dict[str, float]]:
    """|x - reference| / |reference| of values and gradients; the reference is the eager formula in float64."""
    inputs, downstream = problem(shape, active, device, seed=1)
    exact = tuple(t.detach().double().requires_grad_() if t.is_floating_point() else t for t in inputs)
    reference = [one_pass(eager64, exact, downstream.double()), *(t.grad for t in exact if t.is_floating_point())]
    table = {}
    for name in forms:
        clear(inputs)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            found = [one_pass(FORMS[name], inputs, downstream), *(t.grad for t in inputs if t.is_floating_point())]
        table[name] = {
            key: float((mine.double() - true).norm() / true.norm())
            for key, mine, true in zip(("values", "d_hidden", "d_weight", "d_bias"), found, reference, strict=True)
        }
    return table


def eager64(hidden: Tensor, speaks: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The formula in float64."""
    return linear(hidden, weight, bias).masked_fill(~speaks[..., None], -torch.inf).amax(dim=1)


def ceilings(device: str) -> dict[str, float]:
    """What this machine does at best: a large bf16 matrix product, a large copy."""
    size, numbers = (8192, 2**30) if device == "cuda" else (512, 2**22)
    a, b = torch.randn(2, size, size, device=device).bfloat16()
    product = seconds(lambda: a @ b, device, 10)
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source), device, 10)
    return {"flops_per_second": 2 * size**3 / product, "bytes_per_second": 8 * numbers / copy}


def floor(shape: tuple[int, ...], entries: float, limits: dict[str, float]) -> dict[str, float]:
    """Least work of forward + sparse backward, and the time it takes at the ceilings."""
    texts, length, width, terms = shape
    flops = 2.0 * texts * length * width * terms + 4 * entries * width
    # hidden, weight (float32, then its bf16 copy written and read), peaks and positions; gradients, and their rows.
    moved = texts * length * width * (4 + 2 + 4) + terms * width * (4 + 2 + 2 + 4) + texts * terms * 4 * 4
    moved += entries * width * 4 * 4
    return {
        "flops": flops,
        "bytes": moved,
        "flops_seconds": flops / limits["flops_per_second"],
        "bytes_seconds": moved / limits["bytes_per_second"],
    }


def tilings(shape: tuple[int, ...], active: int) -> list[dict[str, object]]:
    """Forward time of the kernel under several tilings; what DEFAULT in fused.py was chosen by."""
    from dataclasses import asdict

    from polylex.train.fused import Tiling, find_peaks_fused

    inputs, _ = problem(shape, active, "cuda")
    hidden, speaks, weight, bias = (t.detach().bfloat16() if t.is_floating_point() else t for t in inputs)
    rows = []
    for tiling in (
        Tiling(128, 128, 64, 8, 3), Tiling(128, 128, 64, 4, 3), Tiling(128, 128, 64, 8, 4), Tiling(128, 256, 64, 8, 3),
        Tiling(256, 128, 64, 8, 3), Tiling(128, 128, 128, 8, 2),
    ):  # fmt: skip
        try:
            took = seconds(lambda t=tiling: find_peaks_fused(hidden, speaks, weight, bias, t), "cuda", 10)
        except Exception as fault:  # out of shared memory or registers: a row of its own, not the end
            rows.append({**asdict(tiling), "error": type(fault).__name__})
            continue
        rows.append({**asdict(tiling), "seconds": took})
    return rows


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--active", type=int, default=256, help="active terms of a text")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tilings", action="store_true", help="also time the kernel's tilings")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    forms = [name for name in FORMS if name != "fused" or (device == "cuda" and has_triton())]
    limits = ceilings(device)
    print(f"ceilings: {limits['flops_per_second'] / 1e12:.1f} TFLOP/s, {limits['bytes_per_second'] / 1e9:.0f} GB/s")
    rows = []
    for shape in PROBLEMS if device == "cuda" else SMALL:
        inputs, downstream = problem(shape, arguments.active, device)
        with torch.no_grad(), autocast(device):
            entries = float((peaks(*inputs, fused=False) > 0).sum())
        least = floor(shape, entries, limits)
        measured = {name: measure(FORMS[name], inputs, downstream, device, arguments.repeats) for name in forms}
        rows.append({"shape": shape, "active_per_text": entries / shape[0], "floor": least, "forms": measured})
        report(rows[-1])
        del inputs, downstream
        if device == "cuda":
            torch.cuda.empty_cache()
    small = (8, 100, 256, 3000)
    table = {
        "float32": errors(small, arguments.active, device, [f for f in forms if f != "eager-bf16"], half=False),
        "bfloat16": errors(small, arguments.active, device, forms, half=True),
    }
    for precision, found in table.items():
        for name, error in found.items():
            print(f"error {precision:>8} {name:>10}  " + "  ".join(f"{k} {v:.1e}" for k, v in error.items()))
    result = {
        "command": command(), "machine": machine(device), "ceilings": limits, "rows": rows, "errors": table,
    }  # fmt: skip
    if arguments.tilings and "fused" in forms:
        result["tilings"] = {str(shape): tilings(shape, arguments.active) for shape in (PROBLEMS[0], PROBLEMS[2])}
        for shape, found in result["tilings"].items():
            for row in found:
                print(shape, row)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def report(row: dict) -> None:
    """Print one problem."""
    texts, length, width, terms = row["shape"]
    print(f"B={texts} L={length} D={width} V={terms}, {row['active_per_text']:.0f} active terms a text")
    base = row["forms"]["eager"]
    least = max(row["floor"]["flops_seconds"], row["floor"]["bytes_seconds"])
    for name, found in row["forms"].items():
        memory = ""
        if "peak_bytes" in found:
            memory = f"  {found['peak_bytes'] / 2**20:9.0f} MiB ({base['peak_bytes'] / found['peak_bytes']:5.1f}x less)"
        print(
            f"  {name:>10}  {found['seconds'] * 1e3:9.3f} ms ({base['seconds'] / found['seconds']:5.2f}x faster, "
            f"{least / found['seconds']:4.0%} of the roofline), "
            f"forward {found['forward_seconds'] * 1e3:9.3f} ms{memory}"
        )


def machine(device: str) -> dict[str, str]:
    """What was measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


if __name__ == "__main__":
    main()
