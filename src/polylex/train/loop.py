"""The loop both stages share: precision, optimiser, schedule, ranks, log, checkpoints, monitor, evaluation.

result = run(stage, config, Ranks.start(), evaluate=beir_hook, on_log=print)
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from polylex.errors import BadInput, CollapsedRun, DivergedRun
from polylex.model.model import SparseModel
from polylex.train import checkpoint
from polylex.train.batches import Feed, Position
from polylex.train.losses import warm_up
from polylex.train.monitor import Monitor, plot, why_stop
from polylex.train.ranks import Ranks
from polylex.train.recipe import Recipe, write_recipe

Log = Mapping[str, Any]
Evaluate = Callable[[SparseModel], dict[str, float]]

# Settings that decide which rows a step sees: a run that continues must keep them.
_ORDER = ("seed", "bucket_rows", "tokens_per_batch", "per_device_train_batch_size", "gradient_accumulation_steps",
          "language_temperature", "source_temperature", "source_weights", "max_length", "concat_share", "concat_tokens",
          "negatives", "query_max_length", "document_max_length", "align_tokens_per_batch")  # fmt: skip


class Batch(Protocol):
    """What a stage makes of some rows; `rows` and `tokens` (real ones) are for the log."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def tokens(self) -> int: ...  # noqa: D102


class Stage(Protocol):
    """Stage 1 or 2: all that differs between them.

    plan     window number -> what each of this rank's batches is made of; runs in a thread, one window at a time
    build    such a plan -> padded tensors; runs in threads
    loss     batch, factor of the regularisers -> loss and figures for the log (scalars, on the device)
    probe    lets the monitor see fixed texts, where a stage has any; before each reading
    """

    model: SparseModel
    monitor: Monitor

    def plan(self, window: int) -> Sequence[Any]: ...  # noqa: D102
    def build(self, plan: Any) -> Any: ...  # noqa: ANN401, D102
    def loss(self, batch: Any, factor: float) -> tuple[Tensor, dict[str, Tensor]]: ...  # noqa: ANN401, D102
    def probe(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind: steps done, seconds, folder of the last weights, best figure of the evaluation."""

    steps: int
    seconds: float
    model: Path
    best: float | None


def run(
    stage: Stage,
    config: Recipe,
    ranks: Ranks,
    *,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    on_log: Callable[[Log], None] | None = None,
    card: Callable[[], str] | None = None,
) -> Result:
    """Train `stage.model` to the end of the recipe and write it to output_dir/model.

    resume    continue from the newest checkpoint of output_dir, exactly; start when there is none
    evaluate  figures of the model on test collections, every eval_steps; their mean chooses output_dir/best
    on_log    called with each log line, which output_dir/log.jsonl holds as well (rank 0)
    card      text of the README.md of the models written at the end

    Raises DivergedRun when the loss or gradient is not finite, CollapsedRun when the monitor finds a reason; the last
    checkpoint stays.
    """
    loop = Loop(stage, config, ranks, evaluate, on_log, card)
    loop.start(resume)
    try:
        return loop.train()
    finally:
        loop.close()


class Loop:
    """One run. `run` is what to call; a test may step through `steps`."""

    def __init__(
        self,
        stage: Stage,
        config: Recipe,
        ranks: Ranks,
        evaluate: Evaluate | None = None,
        on_log: Callable[[Log], None] | None = None,
        card: Callable[[], str] | None = None,
    ) -> None:
        self.stage, self.config, self.ranks = stage, config, ranks
        self._evaluate, self._on_log, self._card = evaluate, on_log, card
        self.folder = Path(config.output_dir)
        self.model = _prepared(stage.model.to(ranks.device), config)
        self._groups = parameter_groups(self.model, config)
        self._trained = [p for group in self._groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(
            self._groups, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_epsilon,
            fused=ranks.device.type == "cuda",
        )  # fmt: skip
        self.step, self.position = 0, Position()
        self.best: float | None = None
        self._seconds = 0.0
        self._rates = [group["lr"] for group in self._groups]
        self._pending: Tensor | None = None
        self._tally: dict[str, Any] = {}
        self._board = _tensorboard(self.folder) if ranks.leads and config.logging_steps else None

    # -- begin and end -----------------------------------------------------------------------------

    def start(self, resume: bool) -> None:
        """Seed, or continue from a checkpoint. Raises BadInput where output_dir holds another run."""
        found = checkpoint.checkpoints(self.folder)
        if found and not resume:
            raise BadInput(f"{self.folder} holds {found[-1].name}; continue it with --resume, or name a new output_dir")
        self.ranks.barrier()  # nobody writes before all have looked
        torch.manual_seed(self.config.seed + self.ranks.rank)
        if found:
            self._continue(found[-1])
        if self.ranks.leads:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_recipe(self.config, self.folder / "recipe.toml")

    def _continue(self, path: Path) -> None:
        state = checkpoint.load(path, self.model)
        if state.order != self._order() or len(state.random) != self.ranks.world:
            changed = [name for name, value in self._order().items() if state.order.get(name) != value]
            raise BadInput(
                f"{path} was made with other {', '.join(changed) or 'numbers of GPUs'}, which decide what each step "
                "sees; put them back, or start a new run whose `model` is this checkpoint"
            )
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.best, self._seconds = state.step, state.best, state.seconds
        self.position = Position(state.window, state.batch)
        checkpoint.set_random_state(state.random[self.ranks.rank])

    def close(self) -> None:
        """Close the log."""
        if self._board is not None:
            self._board.close()

    def train(self) -> Result:
        """All steps that remain, then the last checkpoint, the model and the curves."""
        for _ in self.steps():
            pass
        target = self.folder / "model"
        if not checkpoint.checkpoints(self.folder)[-1:] or self._last_saved != self.step:
            self._save()
        if self._evaluate is not None:
            self._measure()
        if self.ranks.leads:
            self.model.save_pretrained(target, card=self._card() if self._card else None)
            if (self.folder / "log.jsonl").exists():
                plot(self.folder / "log.jsonl", self.folder / "curves.png")
        self.ranks.barrier()
        return Result(self.step, self._seconds, target, self.best)

    # -- steps -------------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """Do one optimiser step after the other; yields the number of each one done."""
        config = self.config
        self._last_saved = self.step
        if self.progress() >= 1:
            return
        self.model.train()
        threads = config.dataloader_num_workers
        feed = iter(Feed(self.stage.plan, self.stage.build, self.position, threads, self.ranks.claim))
        clock = time.monotonic() - self._seconds
        try:
            while self.progress() < 1:
                self._one(feed)
                self._seconds = self._shared_seconds(time.monotonic() - clock)
                last = self.progress() >= 1
                if _due(self.step, config.logging_steps) or (last and config.logging_steps):
                    self._log()
                measured = self._evaluate is not None and _due(self.step, config.eval_steps)
                if _due(self.step, config.save_steps) or measured:
                    self._save()
                if measured and not last:
                    paused = time.monotonic()
                    self._measure()
                    clock += time.monotonic() - paused
                yield self.step
            self._check_finite()
        finally:
            feed.close()  # type: ignore[attr-defined] # a generator

    def progress(self) -> float:
        """Share of the run that is done: of its steps, or of its minutes where those go faster."""
        minutes = self.config.max_minutes
        return max(self.step / self.config.max_steps, self._seconds / 60 / minutes if minutes else 0.0)

    def _one(self, feed: Iterator[tuple[Position, Any]]) -> None:
        config, progress = self.config, self.progress()
        factor = warm_up(progress, config.regulariser_warmup)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * schedule(progress, config.warmup_ratio, self.step)
        for _ in range(config.gradient_accumulation_steps):
            position, batch = next(feed)
            with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=config.bf16):
                loss, figures = self.stage.loss(batch, factor)
            self._check_finite()
            (loss / config.gradient_accumulation_steps).backward()  # type: ignore[no-untyped-call]
            self._count(batch, {"loss": loss.detach(), **figures})
            self.position = position
        self.ranks.average_gradients(self._trained)
        norm = nn.utils.clip_grad_norm_(self._trained, config.max_grad_norm or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(None, {"gradient_norm": norm})
        # Looked at during the next step, when it is known: waiting for it now would leave the GPU without work.
        self._pending = norm + self.ranks.mean(loss.detach())
        self.step += 1

    def _check_finite(self) -> None:
        """Raise DivergedRun if the step before had no finite loss and gradient; all ranks see the same number."""
        if self._pending is None:
            return
        value = float(self._pending)
        self._pending = None
        if not math.isfinite(value):
            raise DivergedRun(
                f"step {self.step}: loss and gradient norm sum to {value}. The weights are spoiled, checkpoints are "
                "not: continue from the last one with a lower learning_rate or max_grad_norm, or with bf16 off"
            )

    # -- log ---------------------------------------------------------------------------------------

    def _count(self, batch: Batch | None, figures: Mapping[str, Tensor]) -> None:
        tally = self._tally
        if not tally:
            tally.update(rows=0, tokens=0, since=time.monotonic(), figures={}, counts={})
        if batch is not None:
            tally["rows"] += batch.rows
            tally["tokens"] += batch.tokens
        for name, value in figures.items():
            tally["figures"][name] = tally["figures"].get(name, 0) + value.detach()
            tally["counts"][name] = tally["counts"].get(name, 0) + 1

    def _log(self) -> None:
        self._check_finite()
        self.stage.probe()
        reading = self.stage.monitor.read()
        tally, self._tally = self._tally, {}
        passed = max(time.monotonic() - tally["since"], 1e-9)
        figures = {name: float(total) / tally["counts"][name] for name, total in tally["figures"].items()}
        line = {
            "step": self.step,
            "progress": round(self.progress(), 5),
            "seconds": round(self._seconds, 2),
            **{name: round(value, 6) for name, value in figures.items()},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "rows_per_second": round(tally["rows"] * self.ranks.world / passed, 1),
            "tokens_per_second": round(tally["tokens"] * self.ranks.world / passed),
            "monitor": reading.to_dict(),
        }
        if self.ranks.leads:
            self._write(line)
        reason = why_stop(reading, self.config) if self.progress() >= self.config.monitor_grace else None
        stopped = [told for told in self.ranks.collect(reason) if told]
        if stopped:
            raise CollapsedRun(
                f"step {self.step}: {stopped[0]}. Train stage 1 (align) first or longer, or change the regularisers; "
                f"{self.folder / 'log.jsonl'} has the curves"
            )

    def _write(self, line: Log) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if self._board is not None:
            for name, value in flat(line):
                self._board.add_scalar(name, value, self.step)
        if self._on_log is not None:
            self._on_log(line)

    # -- checkpoints and evaluation ----------------------------------------------------------------

    def _order(self) -> dict[str, Any]:
        return {name: getattr(self.config, name) for name in _ORDER if hasattr(self.config, name)}

    def _save(self) -> None:
        self._check_finite()
        if self._last_saved == self.step and checkpoint.checkpoints(self.folder):
            return
        random = self.ranks.collect(checkpoint.random_state())
        if self.ranks.leads:
            state = checkpoint.State(
                self.step, *self.position, self._seconds, self.best, self._order(), self.optimizer.state_dict(), random
            )
            checkpoint.save(self.folder, self.model, state, self.config.save_total_limit)
        self._last_saved = self.step
        self.ranks.barrier()

    def _measure(self) -> None:
        if self.ranks.leads and self._evaluate is not None:
            figures = self._evaluate(self.model)
            mean = sum(figures.values()) / len(figures)
            if self.best is None or mean > self.best:
                self.best = mean
                self.model.save_pretrained(self.folder / "best", card=self._card() if self._card else None)
            self._write({"step": self.step, "evaluation": figures, "evaluation_mean": mean, "best": self.best})
            self.model.train()
        self.ranks.barrier()

    def _shared_seconds(self, mine: float) -> float:
        """One clock for all ranks, where it decides anything."""
        if self.ranks.world == 1 or not self.config.max_minutes:
            return mine
        return self.ranks.most(int(mine * 1000)) / 1000


# -- parts -------------------------------------------------------------------------------------------


def schedule(progress: float, warmup: float, step: int) -> float:
    """Factor of the learning rates: linear from 0 over the share `warmup` of the run, then a half cosine to 0.

    The first step of a run has progress 0; it gets a tenth of a percent rather than nothing.
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3 if step == 0 else 0.0)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))))


def parameter_groups(model: SparseModel, config: Recipe) -> list[dict[str, Any]]:
    """Head, encoder and embeddings, each with its learning rate; biases, norms and scales without weight decay."""
    rates = {
        "head": config.learning_rate,
        "encoder": config.encoder_learning_rate,
        "embeddings": config.embedding_learning_rate,
    }
    sorted_out: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "head" if not name.startswith("encoder.") else "embeddings" if ".embeddings." in name else "encoder"
        if rates[part] == 0:
            parameter.requires_grad_(False)
            continue
        sorted_out.setdefault((part, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": params, "lr": rates[part], "weight_decay": config.weight_decay if matrix else 0.0, "name": part}
        for (part, matrix), params in sorted_out.items()
    ]


def flat(line: Log, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a log line under names such as "monitor/all/terms"."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, float(value)


def _prepared(model: SparseModel, config: Recipe) -> SparseModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
    if config.gradient_checkpointing:
        model.encoder.transformer.gradient_checkpointing_enable()
    if config.torch_compile:
        model.encoder.compile(dynamic=True)
    if config.tf32:
        torch.set_float32_matmul_precision("high")
    # cuDNN's attention plans anew for every shape [B, L], 60 ms each; batches of texts have ever new shapes.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return model


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _tensorboard(folder: Path) -> Any:  # noqa: ANN401 - an optional package's
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))
