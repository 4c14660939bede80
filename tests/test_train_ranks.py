"""Several processes: two with gloo do what one does with a double batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import toy_training as toy  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from polylex.errors import BadInput  # noqa: E402
from polylex.train.ranks import Ranks, _meeting, _places, first_node  # noqa: E402

SCRIPT = Path(__file__).with_name("two_ranks.py")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start(folder, rank, world, port):
    environment = {
        **os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }  # fmt: skip
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(world)], env=environment)


def test_two_processes_do_what_one_does_with_a_double_batch(tmp_path):
    toy.pairs(tmp_path / "pairs")
    toy.groups(tmp_path / "groups")
    for world in (1, 2):
        port = free_port()
        processes = [start(tmp_path, rank, world, port) for rank in range(world)]
        assert [process.wait(timeout=120) for process in processes] == [0] * world
    one, two = load_file(tmp_path / "1.safetensors"), load_file(tmp_path / "2.safetensors")
    start_weights = toy.model().state_dict()
    moved = [name for name in one if not torch.equal(one[name], start_weights[name])]
    assert "pivot_head.decoder.weight" in moved and "source_head.linear.weight" in moved
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_ranks_are_told_by_torchrun_or_slurm_or_nobody():
    assert _places({}) == (0, 1, 0)
    assert _places({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == (3, 4, 1)
    assert _places({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}) == (5, 8, 1)
    assert _places({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}) == (0, 1, 0)
    with pytest.raises(BadInput, match="sets RANK but not all of RANK, WORLD_SIZE, LOCAL_RANK"):
        _places({"RANK": "0"})


def test_processes_meet_at_the_first_node():
    assert first_node("gpu[03-07,11],cpu1") == "gpu03"
    assert first_node("alone") == "alone"
    assert first_node("a,b") == "a"
    assert _meeting({"MASTER_ADDR": "x", "MASTER_PORT": "1"}) == ("x", "1")
    assert _meeting({"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "12345"}) == ("n1", "32345")


def test_alone_nothing_is_exchanged():
    ranks = Ranks.start({}, "cpu")
    rows = torch.ones(2, 3, requires_grad=True)
    assert ranks.leads and ranks.gather(rows) is rows and ranks.mean(rows) is rows
    assert ranks.most(7) == 7 and ranks.collect("x") == ["x"]
    ranks.stop()
