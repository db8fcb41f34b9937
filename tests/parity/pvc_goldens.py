"""Read PVC's golden cases, and build the models that they are about."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from longtake.convert.load import from_state_dict
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.splice import Visual

GOLDEN = Path(__file__).parents[1] / "golden" / "pvc"
SEQUENCES = sorted(p.stem for p in GOLDEN.glob("r_[ab]_*.json") if not p.stem.endswith("state"))


def golden(case: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    facts = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    tensors = load_file(GOLDEN / f"{case}.safetensors")
    return facts, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def configuration(facts: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in the keys of the released file, with what a golden says of its own."""
    values = {
        "model_type": "pvc_internvl",
        "vision_config": facts["vision_config"],
        "llm_config": facts["llm_config"],
        "downsample_ratio": 0.25,
        "ps_version": "v2",
    }
    renamed = {"image_repeat": "image_repeat_time"}
    own = ("temporal_layers", "time_scale", "image_repeat", "img_context_token_id")
    return values | {renamed.get(key, key): facts[key] for key in own if key in facts}


@cache
def model(state: str, image_repeat: int | None = None, context_id: int | None = None) -> PvcForConditionalGeneration:
    facts, tensors = golden(state)
    values = configuration(facts)
    if image_repeat is not None:
        values["image_repeat_time"] = image_repeat
    if context_id is not None:
        values["img_context_token_id"] = context_id
    return from_state_dict(tensors, values)


def sequence_case(case: str) -> tuple[PvcForConditionalGeneration, list[Visual], dict[str, torch.Tensor]]:
    """Return the model, the media and the tensors of a reconstruction case."""
    facts, tensors = golden(case)
    is_video = "video" in case
    repeat = None if is_video else facts["repeat"]
    built = model(facts["state"].removesuffix(".safetensors"), repeat, facts["img_context_token_id"])
    pixels = tensors["pixel_values"]
    if is_video:
        return built, [Visual(pixel_values=pixels)], tensors
    return built, [Visual(pixel_values=part, modality="image") for part in pixels.split(facts["groups"])], tensors
