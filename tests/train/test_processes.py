"""Two processes over gloo against one: the same losses, with a copy of the weights in each and with FSDP2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.train.runs import losses, small_recipe

import longtake
from longtake.train.loop import train

ROOT = Path(__file__).parents[2]
# Trains, takes the last checkpoint and the model away, and trains again: from the checkpoint before, which was written
# and is read by both. Says what the weights were.
CODE = """
import json, shutil, sys
from pathlib import Path
from torch import distributed
from torch.distributed.tensor import DTensor
from longtake.train import sharding
from longtake.train.loop import train
from longtake.train.recipe import recipe_from_dict
real = sharding.shard
def shard(objective):
    found = real(objective)
    sizes = [(p.to_local().numel(), p.numel()) for p in objective.parameters() if isinstance(p, DTensor)]
    print("shards", len(sizes), len(list(objective.parameters())), sum(s for s, _ in sizes) / sum(n for _, n in sizes))
    return found
sharding.shard = shard
recipe = recipe_from_dict(json.loads(sys.argv[1]))
train(recipe)
if distributed.get_rank() == 0:
    for last in ("model", "checkpoints/step_000000004"):
        shutil.rmtree(Path(recipe.out) / last)
distributed.barrier()
train(recipe)
distributed.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_two(recipe: dict) -> list[str]:
    shared = {
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-c", CODE, json.dumps(recipe)]
    running = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(error for _, error in said)[-4000:]
    return [line for text, _ in said for line in text.splitlines() if line.startswith("shards")]


@pytest.mark.parametrize("sharded", [False, True], ids=["copies", "fsdp2"])
def test_two_processes_have_the_losses_and_weights_of_one(
    start: Path, data: Path, tmp_path: Path, sharded: bool
) -> None:
    alone = small_recipe(start, data, tmp_path / "alone", optim={"batch": 1, "accumulation": 2, "max_steps": 4})
    train(alone)
    recipe = small_recipe(
        start,
        data,
        tmp_path / "two",
        sharded=sharded,
        gradient_checkpointing=sharded,
        optim={"batch": 1, "max_steps": 4},
    )
    shards = [line.split() for line in run_two(recipe.to_dict())]
    assert len(shards) == (4 if sharded else 0)  # two processes, two times
    for _, num_sharded, num_weights, share in shards:
        assert num_sharded == num_weights and float(share) == pytest.approx(0.5, abs=0.02)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "alone"), abs=1e-4)
    one, two = (longtake.load(tmp_path / name / "model").model.state_dict() for name in ("alone", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-3)
