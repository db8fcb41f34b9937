"""ToMe: merge the most similar patches of a clip until a fixed number is left (HiCo, clip level)."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import Compressed, Grid
from longtake.core.registry import register
from longtake.ops.matching import merge


@register("compress", "tome")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ToMe(StrictConfig):
    """Merge each clip to `tokens_per_frame` tokens a frame, an image tile to `tokens_per_image`.

    similarity_dtype: "input" matches in the dtype of the features as the released code does; "float32" gives the
    same merges on every device, at the price of one copy.

    Source: VideoChat-Flash, connector `tome16_mlp_hd64`; 64 is the width of the head-averaged metric for UMT-L.
    """

    tokens_per_frame: int = 16
    tokens_per_image: int = 64
    similarity_dtype: Literal["input", "float32"] = "input"

    def __post_init__(self) -> None:
        if self.tokens_per_frame < 1 or self.tokens_per_image < 1:
            raise ConfigError(f"ToMe got {self}; token counts must be at least 1; raise them")

    def out_tokens(self, grid: Grid) -> int:
        """Return the count of tokens a clip of this grid becomes; one frame is an image tile."""
        wanted = self.tokens_per_image if grid.num_frames == 1 else self.tokens_per_frame * grid.num_frames
        return min(wanted, grid.num_patches)

    def __call__(self, x: Float[Tensor, "K N D"], grid: Grid) -> Compressed:
        """Merge every clip on its own; a feature is the mean of the patches that it stands for."""
        if x.shape[1] != grid.num_patches:
            raise ConfigError(f"{x.shape[1]} patches arrived; the grid {grid} has {grid.num_patches}; pass its grid")
        if self.similarity_dtype == "input" or x.dtype.itemsize == 4:
            features, _, reduction = merge(x, self.out_tokens(grid), grid.num_heads)
        else:
            _, _, reduction = merge(x.float(), self.out_tokens(grid), grid.num_heads)
            features = reduction.mean(x.float()).to(x.dtype)
        return Compressed(features, reduction)
