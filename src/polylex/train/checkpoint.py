"""Checkpoints: a folder that is a model, with all that a run needs to continue exactly.

checkpoint-500/ holds config.json, model.safetensors, tokenizer.json, README.md (open it with SparseModel) and
training.pt: optimiser, random states of all ranks, position in the data, clock, best figure so far. It appears whole or
not at all.
"""

from __future__ import annotations

import pickle
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polylex.errors import BadInput
from polylex.model import weights
from polylex.model.folder import replaced
from polylex.model.model import SparseModel

_NAME = re.compile(r"checkpoint-(\d+)")
_STATE = "training.pt"


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands.

    step       optimiser steps done
    window, batch  position of the data (batches.Position)
    seconds    of training so far
    best       best figure of the evaluation so far, None before the first
    order      the settings that decide the order of the data; another order cannot be continued
    optimizer  its state_dict
    random     random state of each rank, as `random_state` gives it
    """

    step: int
    window: int
    batch: int
    seconds: float
    best: float | None
    order: dict[str, Any]
    optimizer: dict[str, Any]
    random: list[dict[str, Tensor]]


def save(folder: Path, model: SparseModel, state: State, keep: int) -> Path:
    """Write `folder`/checkpoint-<step>, then delete the oldest ones but `keep`. Raises StorageFull."""
    target = folder / f"checkpoint-{state.step}"
    with replaced(target) as fresh:
        # A checkpoint is a model folder: `replaced` refuses to overwrite anything else.
        model.save_pretrained(fresh)
        torch.save(asdict(state), fresh / _STATE)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name) and (path / _STATE).is_file()]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def load(path: Path, model: SparseModel) -> State:
    """Put a checkpoint's weights into `model` and return the rest. Raises BadInput when it cannot be read."""
    try:
        table = torch.load(path / _STATE, map_location="cpu", weights_only=True)
        state = State(**table)
    except (OSError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as fault:
        raise BadInput(f"{path} cannot be read ({fault}); delete it to continue from the checkpoint before") from None
    device = next(model.parameters()).device
    weights.fill(model, weights.read_tensors(path), str(path))
    model.to(device)
    return state


def random_state() -> dict[str, Tensor]:
    """The random generators of this process: torch on the CPU and, where there is one, the GPU in use."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
