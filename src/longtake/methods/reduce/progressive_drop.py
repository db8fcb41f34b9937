"""Progressive visual dropout between language-model layers (HiCo, video level)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import DropPoint
from longtake.core.reduction import Reduction
from longtake.core.registry import register

Kind = Literal["uniform", "attention", "uniform0_attention", "uniform1_attention"]
UNIFORM_STAGES: Mapping[str, float] = {
    "uniform": float("inf"),
    "attention": 0,
    "uniform0_attention": 1,
    "uniform1_attention": 2,
}


def uniform_keep(num_tokens: int, keep: int) -> Tensor:
    """Return `keep` indices spread over `num_tokens`, the first and the last among them.

    Source: the released code takes an integral linspace, whose second half is computed from the right end; the same
    primitive is used here, since exact integer arithmetic differs from it at some index in 2 % of all cases.
    """
    return torch.linspace(0, num_tokens - 1, keep, dtype=torch.int64)


@register("reduce", "progressive_drop")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressiveDrop(StrictConfig):
    """After layer layers[s] (counted from 1) keep int(N * ratios[s + 1]) of the N visual tokens.

    kind: evenly spread (`uniform`), the most attended by the question (`attention`), or evenly in the first one
    (`uniform0_attention`) or two (`uniform1_attention`) stages and by attention after. Kept tokens stay in order.

    Raises: ConfigError if the lists do not fit each other.
    Source: VideoChat-Flash, progressive visual dropout; attention is that of the next layer, one query row at
    inference.
    """

    kind: Kind = "attention"
    layers: tuple[int, ...] = (8, 16, 24)
    ratios: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)

    def __post_init__(self) -> None:
        if self.kind not in UNIFORM_STAGES:
            raise ConfigError(f"kind is {self.kind!r}; expected one of {', '.join(UNIFORM_STAGES)}; choose one")
        if len(self.ratios) != len(self.layers) + 1 or self.ratios[0] != 1:
            raise ConfigError(
                f"{len(self.ratios)} ratios arrived for {len(self.layers)} layers; expected one more than layers, "
                "the first being 1; add or remove some"
            )
        if list(self.layers) != sorted(set(self.layers)) or (self.layers and self.layers[0] < 1):
            raise ConfigError(f"layers are {self.layers}; expected ascending numbers from 1; sort them")
        if any(b > a or not 0 < b <= 1 for a, b in zip(self.ratios, self.ratios[1:], strict=False)):
            raise ConfigError(f"ratios are {self.ratios}; expected falling numbers in (0, 1]; reorder them")

    def schedule(self, num_layers: int, num_tokens: int) -> Mapping[int, int]:
        """Return the count kept after each layer, at least one.

        Raises: ConfigError if a stage lies behind the last layer.
        """
        if self.layers and self.layers[-1] > num_layers:
            raise ConfigError(f"a drop after layer {self.layers[-1]} was asked for; there are {num_layers}; lower it")
        kept = [max(1, int(num_tokens * ratio)) for ratio in self.ratios[1:]]
        return dict(zip(self.layers, kept, strict=True))

    def needs_attention(self, stage: int) -> bool:
        """Say whether a stage ranks tokens by attention."""
        return stage >= UNIFORM_STAGES[self.kind]

    def __call__(self, point: DropPoint, attention: Callable[[], Float[Tensor, "N"]]) -> Reduction:
        """Choose the tokens that stay, in their old order."""
        if self.needs_attention(point.stage):
            kept = attention().topk(point.keep).indices.sort().values
        else:
            kept = uniform_keep(point.num_tokens, point.keep)
        return Reduction.keep(kept, point.num_tokens)
