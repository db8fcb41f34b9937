"""The plug points: what a method must be, whoever wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from longtake.core.reduction import Reduction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """The patch grid of one clip: frames × rows × columns; `num_heads` is the tower's count of attention heads."""

    num_frames: int
    rows: int
    columns: int
    num_heads: int

    @property
    def num_patches(self) -> int:
        """Tokens in a clip before compression."""
        return self.num_frames * self.rows * self.columns


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """Features [K, M, D] of compressed clips and the batched Reduction (target [K, N]) that made them."""

    features: Tensor
    reduction: Reduction


@runtime_checkable
class ClipCompressor(Protocol):
    """Fewer tokens for a clip, blind to the question; the count is known before any tensor exists."""

    def out_tokens(self, grid: Grid) -> int:
        """Return the count of tokens that a clip of this grid becomes."""
        ...

    def __call__(self, x: Float[Tensor, "K N D"], grid: Grid) -> Compressed:
        """Compress a batch of clips; the result of a clip does not depend on the others."""
        ...


class DropPoint(NamedTuple):
    """Where a walk stands when it asks a reducer what stays.

    stage counts the drops of this sample from 0; after_layer counts layers from 1 (0: before the first).
    num_original visual tokens came in, num_tokens are alive, `keep` of them are to stay.
    """

    stage: int
    after_layer: int
    num_layers: int
    num_original: int
    num_tokens: int
    keep: int


@runtime_checkable
class LayerCompressor(Protocol):
    """Fewer visual tokens between language-model layers.

    `schedule` maps a 1-based layer count to the number of visual tokens that stay after that layer has run (0 means
    before the first layer). `needs_attention` says which of those stages read attention scores; the walk computes
    them lazily, only when `attention` is called: it returns the softmax attention [N] of the query rows over the N
    visual tokens alive, averaged over heads and rows, made with the weights of the layer about to run.
    """

    def schedule(self, num_layers: int, num_tokens: int) -> Mapping[int, int]:
        """Return how many of `num_tokens` visual tokens stay after each layer that has a stage."""
        ...

    def needs_attention(self, stage: int) -> bool:
        """Say whether this stage reads attention scores."""
        ...

    def __call__(self, point: DropPoint, attention: Callable[[], Float[Tensor, "N"]]) -> Reduction:
        """Choose which of the `num_tokens` alive stay."""
        ...


PositionRule = Literal["renumber", "keep"]
