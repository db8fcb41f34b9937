"""LP-Comp: fewer tokens a frame the deeper the layer, down to one at the last (XComp)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import DropPoint
from longtake.core.reduction import Reduction
from longtake.core.registry import register


def cosine_counts(num_layers: int, tokens_per_frame: int, rounding: Literal["nearest", "ceiling"]) -> list[int]:
    """Return the tokens of a frame that enter layer 1 .. num_layers; index 0 is the input of the language model.

    Source: XComp. The released code rounds half up; the paper's Eq. 1 prints a ceiling.
    """
    half = (tokens_per_frame - 1) / 2
    if rounding == "nearest":
        curve = [1 + half * (1 + math.cos(math.pi * layer / num_layers)) for layer in range(num_layers + 1)]
        return [math.floor(value + 0.5) for value in curve]
    curve = [half * math.cos(math.pi * layer / num_layers) + half + 1 for layer in range(num_layers + 1)]
    # A hair is taken off so that a whole number that came out a rounding error too large stays what it is.
    return [math.ceil(value - 1e-9) for value in curve]


def linear_counts(num_layers: int, tokens_per_frame: int) -> list[int]:
    """Return the same for a straight line from `tokens_per_frame` at the input to one at the last layer."""
    slope = (tokens_per_frame - 1) / num_layers
    return [math.floor(tokens_per_frame - slope * layer + 0.5) for layer in range(num_layers + 1)]


def uniform_survivors(tokens_per_frame: int) -> dict[int, list[int]]:
    """Return, for each count, which places of a frame's tokens are left when each drop keeps them evenly spread.

    Source: XComp ablation: from 1 .. n, remove in turn the value whose absence brings the list closest to evenly
    spaced values; the first of equals goes; the last element is outside the sum.
    """
    alive = list(range(1, tokens_per_frame + 1))
    survivors = {len(alive): [value - 1 for value in alive]}
    while len(alive) > 1:
        shorter = [alive[:i] + alive[i + 1 :] for i in range(len(alive))]
        alive = min(shorter, key=lambda values: _unevenness(values, tokens_per_frame))
        survivors[len(alive)] = [value - 1 for value in alive]
    return survivors


def _unevenness(values: list[int], total: int) -> float:
    count = len(values)
    return float(sum((total * place / count - values[place - 1]) ** 2 for place in range(1, count)))


@register("reduce", "lp_comp")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LpComp(StrictConfig):
    """Drop tokens of every frame between layers along a schedule that ends at one token a frame.

    tokens_per_frame: how many consecutive visual tokens are one frame at the input. schedule: `cosine` (rounding as
    released, or the paper's ceiling), `linear`, `step` (after each of `step_layers` keep the last of every
    `step_strides` tokens), or `none`. survivors: `suffix` keeps the last tokens of each frame, `uniform` evenly spread
    ones. Nothing is learned here: the weights learn to live with it.

    Raises: ConfigError for settings that do not fit each other.
    Source: XComp section 3.2. The released code is fixed at 28 layers and breaks at 8 or fewer, where the first drop
    falls before the first layer; here that drop is made at the input.
    """

    tokens_per_frame: int = 16
    schedule_kind: Literal["cosine", "linear", "step", "none"] = "cosine"
    rounding: Literal["nearest", "ceiling"] = "nearest"
    survivors: Literal["suffix", "uniform"] = "suffix"
    step_layers: tuple[int, ...] = (10, 20)
    step_strides: tuple[int, ...] = (4, 4)

    def __post_init__(self) -> None:
        if self.tokens_per_frame < 1:
            raise ConfigError(f"tokens_per_frame is {self.tokens_per_frame}; expected at least 1; raise it")
        if len(self.step_layers) != len(self.step_strides):
            raise ConfigError(
                f"{len(self.step_layers)} step layers arrived with {len(self.step_strides)} strides; expected as many; "
                "give one stride a layer"
            )
        if self.schedule_kind == "step" and self.tokens_per_frame % math.prod(self.step_strides):
            raise ConfigError(
                f"steps of strides {self.step_strides} do not divide {self.tokens_per_frame} tokens a frame; use fewer "
                "steps or other strides"
            )

    @property
    def needs_tuning(self) -> bool:
        """Say that weights have to learn to live with the drops, if there are any."""
        return self.schedule_kind != "none"

    def counts(self, num_layers: int) -> list[int]:
        """Return the tokens of a frame that enter layer 1 .. num_layers; index 0 is the input."""
        if self.schedule_kind == "cosine":
            return cosine_counts(num_layers, self.tokens_per_frame, self.rounding)
        if self.schedule_kind == "linear":
            return linear_counts(num_layers, self.tokens_per_frame)
        steps = zip(self.step_layers, self.step_strides, strict=True) if self.schedule_kind == "step" else ()
        counts = [self.tokens_per_frame] * (num_layers + 1)
        for step_layer, stride in steps:
            counts = [count // stride if layer > step_layer else count for layer, count in enumerate(counts)]
        return counts

    def schedule(self, num_layers: int, num_tokens: int) -> Mapping[int, int]:
        """Return the count of visual tokens left after each layer that is followed by a drop.

        Raises: ConfigError if the tokens are not whole frames.
        """
        if num_tokens % self.tokens_per_frame:
            raise ConfigError(
                f"{num_tokens} visual tokens arrived; expected whole frames of {self.tokens_per_frame}; set "
                "tokens_per_frame to what the compressor gives"
            )
        frames = num_tokens // self.tokens_per_frame
        counts = self.counts(num_layers)
        return {layer: frames * after for layer, (before, after) in enumerate(pairwise(counts)) if after < before}

    def needs_attention(self, stage: int) -> bool:
        """Say that no stage looks at attention: survivors are chosen by place alone."""
        return False

    def __call__(self, point: DropPoint, attention: Callable[[], Float[Tensor, "N"]]) -> Reduction:
        """Keep the same places of every frame."""
        frames = point.num_original // self.tokens_per_frame
        before, after = point.num_tokens // frames, point.keep // frames
        places = torch.tensor(self._places(before, after))
        kept = torch.arange(frames).unsqueeze(1) * before + places
        return Reduction.keep(kept.flatten(), point.num_tokens)

    def _places(self, before: int, after: int) -> list[int]:
        """Return which of a frame's `before` tokens stay."""
        if self.schedule_kind == "step":
            stride = before // after
            return list(range(stride - 1, before, stride))
        if self.survivors == "suffix":
            return list(range(before - after, before))
        alive = uniform_survivors(self.tokens_per_frame)
        return [place for place, token in enumerate(alive[before]) if token in alive[after]]
