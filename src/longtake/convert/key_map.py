"""Parameter names of a model in the released spelling: what a checkpoint must hold, on both sides of the gate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.released_names import to_ours, to_released
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"


def meta_model(config: VideoChatFlashConfig) -> VideoChatFlashForConditionalGeneration:
    """Build the model without memory for its weights."""
    with torch.device("meta"):
        return VideoChatFlashForConditionalGeneration(config)


def released_shapes(config: VideoChatFlashConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor a checkpoint of this configuration holds, by released name; the head is always listed."""
    state = meta_model(config).state_dict()
    return {to_released(name): tuple(value.shape) for name, value in state.items()}


def rename_to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the keys of a released state dict."""
    return {to_ours(name): value for name, value in state.items()}


def rename_to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the keys of our state dict."""
    return {to_released(name): value for name, value in state.items()}
