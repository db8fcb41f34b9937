"""InternLM2 alone as a Llama: what PVC's language model is, without the rest of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from longtake.models.gate import check_names, check_values
from longtake.models.pvc_configuration import llama_config
from longtake.models.pvc_names import state_to_ours, state_to_released

_PREFIX = "language_model."


def llama_state(state: Mapping[str, Tensor], text: LlamaConfig) -> dict[str, Tensor]:
    """Translate InternLM2's state dict to Llama's names, the packed attention weights taken apart."""
    ours = state_to_ours({_PREFIX + name: value for name, value in state.items()}, text)
    return {name.replace("language.", "model.", 1): value for name, value in ours.items()}


def internlm2_state(state: Mapping[str, Tensor], text: LlamaConfig) -> dict[str, Tensor]:
    """Translate Llama's state dict to InternLM2's names, attention weights packed: the inverse of `llama_state`."""
    ours = {name.replace("model.", "language.", 1): value for name, value in state.items()}
    return {name.removeprefix(_PREFIX): value for name, value in state_to_released(ours, text).items()}


def internlm2_as_llama(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> LlamaForCausalLM:
    """Build a float32 Llama that computes what InternLM2 does, from its state dict and its configuration's values.

    The table of dynamic NTK follows each sequence, as in transformers; the reference keeps that of the longest one.

    Raises: CheckpointError on a missing, unexpected, wrongly shaped or non-finite tensor; ConfigError as
        `llama_config`.
    """
    text = llama_config(config)
    model = LlamaForCausalLM(text).float()
    expected = {name: tuple(value.shape) for name, value in internlm2_state(model.state_dict(), text).items()}
    check_names(expected, {name: tuple(value.shape) for name, value in state.items()})
    check_values(state.items())
    model.load_state_dict(llama_state({name: value.to(torch.float32) for name, value in state.items()}, text))
    return model.eval()
