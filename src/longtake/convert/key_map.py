"""Parameter names of a model in the released spelling: what a checkpoint must hold, on both sides of the gate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from longtake.models.loaded import AnyConfig, AnyModel, model_class
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.pvc_names import state_to_ours, state_to_released
from longtake.models.released_names import to_ours, to_released

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
PVC_HEAD = "language_model.output.weight"
PVC_EMBEDDING = "language_model.model.tok_embeddings.weight"


def head_names(config: AnyConfig) -> tuple[str, str]:
    """Return the released names of the head and of the embedding that it may share its weights with."""
    return (PVC_HEAD, PVC_EMBEDDING) if isinstance(config, PvcConfig) else (HEAD, EMBEDDING)


def meta_model(config: AnyConfig) -> AnyModel:
    """Build the model without memory for its weights."""
    with torch.device("meta"):
        return model_class(config)(config)  # pyright: ignore[reportArgumentType]


def released_shapes(config: AnyConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor a checkpoint of this configuration holds, by released name; the head is always listed."""
    state = rename_to_released(meta_model(config).state_dict(), config)
    return {name: tuple(value.shape) for name, value in state.items()}


def rename_to_ours(state: Mapping[str, Tensor], config: AnyConfig) -> dict[str, Tensor]:
    """Translate a released state dict: its keys, and fused weights that we keep apart."""
    if isinstance(config, PvcConfig):
        return state_to_ours(state, config.get_text_config())
    return {to_ours(name): value for name, value in state.items()}


def rename_to_released(state: Mapping[str, Tensor], config: AnyConfig) -> dict[str, Tensor]:
    """Translate our state dict: the inverse of `rename_to_ours`."""
    if isinstance(config, PvcConfig):
        return state_to_released(state, config.get_text_config())
    return {to_released(name): value for name, value in state.items()}
