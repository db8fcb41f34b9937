"""The tiny language model and the frozen vectors of the XComp cases."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2Model

GOLDEN = Path(__file__).parents[1] / "golden" / "xcomp"


def load(case: str) -> tuple[dict, dict[str, torch.Tensor]]:
    facts = json.loads((GOLDEN / f"{case}.json").read_text())
    path = GOLDEN / f"{case}.safetensors"
    tensors = load_file(path) if path.exists() else {}
    return facts, {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def language_model(state: dict[str, torch.Tensor], num_layers: int) -> Qwen2Model:
    config = Qwen2Config(
        vocab_size=997,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    model = Qwen2Model(config)
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    return model
