"""FSDP2: every process holds a share of each weight, its gradient and its optimizer state.

accelerate's own FSDP plugin turns into plain data parallelism on a CPU, so torch's `fully_shard` is called directly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from longtake.train.objective import Objective
from longtake.train.parts import trained

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(objective: Objective) -> FSDPModule:
    """Shard a model in place: each MLP on its own, all else as one group.

    The walk calls the parts of a decoder layer and not the layer, so a layer cannot be a group of its own.
    """
    layers: Any = objective.model.language.layers
    for layer in layers:
        fully_shard(layer.mlp)
    return fully_shard(objective)


def whole(value: Tensor) -> Tensor:
    """Return a weight gathered from all processes, as it is if it is not sharded; every process has to ask."""
    found = value.full_tensor() if isinstance(value, DTensor) else value
    return found.detach().cpu()


def trained_weights(objective: Objective) -> dict[str, Tensor]:
    """Return the weights that are trained, whole, by name; every process has to ask."""
    return {name: whole(value) for name, value in trained(objective.model)}


@torch.no_grad()
def restore_weights(objective: Objective, weights: dict[str, Tensor]) -> None:
    """Take up weights that `trained_weights` returned."""
    for name, value in trained(objective.model):
        found = weights[name].to(value.device)
        if isinstance(value, DTensor):
            found = distribute_tensor(found, value.device_mesh, value.placements)
        value.copy_(found)


def optimizer_state(objective: Objective, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's state by name of weight, whole; every process has to ask."""
    return get_optimizer_state_dict(objective, optimizer, options=WHOLE)


def restore_optimizer(objective: Objective, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up a state that `optimizer_state` returned."""
    set_optimizer_state_dict(objective, optimizer, state, options=WHOLE)
