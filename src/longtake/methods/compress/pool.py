"""Pool: the mean of each block of neighbouring patches, whatever is in them."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import Compressed, Grid
from longtake.core.reduction import Reduction
from longtake.core.registry import register


@register("compress", "pool")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool(StrictConfig):
    """Cut each frame into `tokens_per_frame` blocks, as square as its grid allows, and keep the mean of each.

    Raises: ConfigError if the count is below 1, or the grid cannot be cut into so many equal blocks.
    """

    tokens_per_frame: int = 4

    def __post_init__(self) -> None:
        if self.tokens_per_frame < 1:
            raise ConfigError(f"tokens_per_frame is {self.tokens_per_frame}; expected at least 1; raise it")

    def _blocks(self, grid: Grid) -> tuple[int, int]:
        """Return how many blocks high and wide a frame is."""
        high = [count for count in range(1, grid.rows + 1) if grid.rows % count == 0]
        wide = [count for count in range(1, grid.columns + 1) if grid.columns % count == 0]
        fitting = [(r, c) for r in high for c in wide if r * c == self.tokens_per_frame]
        if fitting:
            return min(fitting, key=lambda blocks: abs(blocks[0] - blocks[1]))
        possible = sorted({r * c for r in high for c in wide})
        raise ConfigError(
            f"{self.tokens_per_frame} tokens were asked for a frame of {grid.rows} x {grid.columns}; expected one of "
            f"{', '.join(map(str, possible))}; choose one"
        )

    def out_tokens(self, grid: Grid) -> int:
        """Return the count of tokens that a clip of this grid becomes."""
        rows, columns = self._blocks(grid)
        return grid.num_frames * rows * columns

    def __call__(self, x: Float[Tensor, "K N D"], grid: Grid) -> Compressed:
        """Average every block of every frame."""
        rows, columns = self._blocks(grid)
        row = torch.arange(grid.rows, device=x.device) * rows // grid.rows
        column = torch.arange(grid.columns, device=x.device) * columns // grid.columns
        block = (row.unsqueeze(1) * columns + column).flatten()
        frame = torch.arange(grid.num_frames, device=x.device).unsqueeze(1) * rows * columns
        target = (frame + block).flatten().expand(len(x), -1)
        reduction = Reduction(target, self.out_tokens(grid))
        return Compressed(reduction.mean(x), reduction)
