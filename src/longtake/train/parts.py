"""Which weights are trained, at which rate, and with which adapters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from longtake.core.errors import ConfigError, MissingExtraError
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.train.recipe import PARTS, LoraSettings, OptimSettings, Rates

PREFIXES = {"umt": "tower", "internvideo2": "tower", "projector": "connector", "language": "language"}
ADAPTED = {
    "language": r"language\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    "connector": r"projector\.mlp\.[02]",
}
ADAPTER_MARK = ".lora_"


def part_of(name: str) -> str:
    """Name the part that a parameter of the model belongs to; the head is part of the language model."""
    return PREFIXES.get(name.split(".", 1)[0], "language")


def choose_parts(model: nn.Module, rates: Rates) -> None:
    """Freeze the parts whose rate is 0; in a part with adapters only these are trained."""
    adapted = {part_of(name) for name, _ in model.named_parameters() if ADAPTER_MARK in name}
    for name, value in model.named_parameters():
        part = part_of(name)
        value.requires_grad_(getattr(rates, part) > 0 and (part not in adapted or ADAPTER_MARK in name))


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the weights that are trained, by name, in a fixed order."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def build_optimizer(model: nn.Module, rates: Rates, settings: OptimSettings) -> torch.optim.AdamW:
    """Build AdamW with a group for each part; norms and biases do not decay.

    Source: VideoChat-Flash, four groups: language model with connector and tower, each with and without decay.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, value in trained(model):
        groups.setdefault((part_of(name), value.ndim > 1), []).append(value)
    described: list[dict[str, Any]] = [
        {
            "params": values,
            "part": part,
            "lr": getattr(rates, part),
            "peak": getattr(rates, part),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (part, decays), values in groups.items()
    ]
    return torch.optim.AdamW(described)


def rate_factor(step: int, num_steps: int, settings: OptimSettings) -> float:
    """Return what share of the peak rates a step is made with; steps count from 1.

    Source: the cosine schedule with warm-up of the released training. There the first step has rate 0 and does
        nothing; here it has the rate that the released log prints for it.
    """
    warmup = math.ceil(settings.warmup * num_steps)
    if step <= warmup:
        return step / warmup
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / max(1, num_steps - warmup)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set every group to so much of its peak rate; return the rate of each part."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    rates = {group["part"]: group["lr"] for group in optimizer.param_groups}
    return {part: rates[part] for part in PARTS if part in rates}


class Adapters:
    """PEFT adapters inside a model; `merge` turns it into a plain one.

    Raises: ConfigError if a part with adapters has rate 0; MissingExtraError without peft.
    """

    def __init__(self, model: VideoChatFlashForConditionalGeneration, settings: LoraSettings, rates: Rates) -> None:
        frozen = [part for part in settings.parts if getattr(rates, part) == 0]
        if frozen or not settings.parts:
            raise ConfigError(
                f"lora.parts is {list(settings.parts)}, of which {frozen} have rate 0; expected parts that are "
                "trained; set rates.PART, or lora.rank=0"
            )
        try:
            from peft import LoraConfig, LoraModel
        except ImportError as error:
            raise MissingExtraError("adapters need peft; pip install 'longtake[train]'") from error
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=settings.dropout,
            target_modules="|".join(ADAPTED[part] for part in settings.parts),
        )
        self._tuner = LoraModel(model, config, "default")

    def merge(self) -> None:
        """Add the adapters to the weights that they stand beside, and take them out of the model."""
        self._tuner.merge_and_unload()
