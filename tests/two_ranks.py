"""One of the processes of test_train_ranks.py: trains both stages a few steps and writes the weights of rank 0.

two_ranks.py FOLDER WORLD   with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the environment
"""

from __future__ import annotations

import sys
from pathlib import Path

import toy_training as toy
from safetensors.torch import save_file

from polylex.train.align import Align
from polylex.train.data import Groups, Pairs
from polylex.train.distill import Distill
from polylex.train.loop import run
from polylex.train.ranks import Ranks
from polylex.train.recipe import AlignConfig, DistillConfig


def main(folder: Path, world: int) -> None:
    ranks = Ranks.start(device="cpu")
    shared = {
        "model": "toy", "train_files": ("toy",), "bf16": False, "bucket_rows": 64, "tokens_per_batch": 0,
        "logging_steps": 2, "save_steps": 0, "monitor_grace": 1.0, "monitor_min_teacher": 0.0, "max_steps": 4,
        "monitor_min_translation": 0.0, "monitor_max_empty": 1.0, "dataloader_num_workers": 1,
        # Adam divides by the gradient's size: without this, rounding of vanishing gradients would be scaled up.
        "adam_epsilon": 1e-3, "learning_rate": 1e-2,
    }  # fmt: skip
    align = AlignConfig(
        **shared, teacher="toy", output_dir=str(folder / f"align-{world}"), max_length=64, concat_tokens=24, l1=1e-3,
        flops=1e-2, per_device_train_batch_size=16 // world,
    )  # fmt: skip
    model = toy.model()
    model.source_head.requires_grad_(False)
    run(Align(align, model, toy.teacher(), Pairs.open(folder / "pairs"), ranks), align, ranks)
    distill = DistillConfig(
        **shared, output_dir=str(folder / f"distill-{world}"), per_device_train_batch_size=8 // world, negatives=2,
        query_max_length=32, document_max_length=64, flops_query=1e-2, flops_document=1e-2, kl_weight=0.0,
    )  # fmt: skip
    model.source_head.requires_grad_(True)
    run(Distill(distill, model, Groups.open(folder / "groups"), ranks), distill, ranks)
    if ranks.leads:
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / f"{world}.safetensors")
    ranks.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
