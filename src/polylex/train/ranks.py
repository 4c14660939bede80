"""Ranks: the processes of a run, one a GPU. Started by torchrun, by SLURM, or alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from polylex.errors import BadInput


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where this process stands among all.

    rank, world  this process of how many
    device       where its tensors live
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def start(cls, environment: Mapping[str, str] | None = None, device: str | None = None) -> Ranks:
        """Join the processes that torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or SLURM (SLURM_PROCID, ...) started.

        Alone where the environment tells of neither, or of one process only. Raises BadInput for half an environment.
        """
        table = os.environ if environment is None else environment
        rank, world, local = _places(table)
        if device is None:
            device = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
        place = torch.device(device)
        ranks = cls(rank, world, place)
        ranks.claim()
        if world > 1 and not dist.is_initialized():
            address, port = _meeting(table)
            backend = "nccl" if place.type == "cuda" else "gloo"
            dist.init_process_group(backend, init_method=f"tcp://{address}:{port}", rank=rank, world_size=world)
        return ranks

    def claim(self) -> None:
        """Make `device` that of the calling thread: pinned memory and kernels go by it."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def stop(self) -> None:
        """Leave the group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """Mean over ranks, with gradient."""
        if self.world == 1:
            return value
        result: Tensor = _Mean.apply(value, self.world)  # type: ignore[no-untyped-call]
        return result

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all ranks, rank after rank, with gradient; every rank has as many."""
        if self.world == 1:
            return rows
        result: Tensor = _Gather.apply(rows, self.rank, self.world)  # type: ignore[no-untyped-call]
        return result

    def most(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.world == 1:
            return number
        value = torch.tensor(number, device=self.device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over ranks; one that a rank does not have counts as zero."""
        if self.world == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        for p in trained:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.reshape(-1) for p in trained if p.grad is not None])
        dist.all_reduce(flat)
        flat /= self.world
        offset = 0
        for p in trained:
            assert p.grad is not None
            p.grad.copy_(flat[offset : offset + p.numel()].view_as(p))
            offset += p.numel()

    def collect(self, value: Any) -> list[Any]:  # noqa: ANN401 - anything that can be pickled between our own processes
        """The value of each rank, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, world: int) -> Tensor:  # noqa: ANN401
        ctx.world = world
        total = value.clone()
        dist.all_reduce(total)
        return total / world

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        total = gradient.clone()
        dist.all_reduce(total)
        return total / ctx.world, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, world: int) -> Tensor:  # noqa: ANN401
        ctx.rank, ctx.rows = rank, len(rows)
        parts = [torch.empty_like(rows) for _ in range(world)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        # Every rank's loss uses every row; the ranks' parameter gradients are averaged afterwards.
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None, None


def _places(table: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, world, local rank) as torchrun or SLURM tell them."""
    for names in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")):
        told = [name for name in names if name in table]
        if not told:
            continue
        if len(told) < len(names):
            raise BadInput(
                f"the environment sets {', '.join(told)} but not all of {', '.join(names)}; start by torchrun"
            )
        rank, world, local = (int(table[name]) for name in names)
        # A single SLURM task, such as an interactive shell, is a process alone.
        return (rank, world, local) if world > 1 else (0, 1, local)
    return 0, 1, 0


def _meeting(table: Mapping[str, str]) -> tuple[str, str]:
    """Address and port at which the processes meet."""
    if "MASTER_ADDR" in table:
        return table["MASTER_ADDR"], table.get("MASTER_PORT", "29500")
    nodes = table.get("SLURM_STEP_NODELIST") or table.get("SLURM_JOB_NODELIST", "127.0.0.1")
    job = int(table.get("SLURM_JOB_ID", "0"))
    return first_node(nodes), table.get("MASTER_PORT", str(20000 + job % 20000))


def first_node(nodes: str) -> str:
    """First host of a SLURM node list: "gpu[03-07,11],cpu1" begins with gpu03."""
    found = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    if not found:
        raise BadInput(f"cannot read the node list {nodes!r}; set MASTER_ADDR to the first node's address")
    return found[1] + (found[2] or "")
