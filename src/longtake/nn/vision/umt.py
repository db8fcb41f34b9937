"""UMT-L: the vision tower of VideoChat-Flash, attention over space and time inside a clip."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import Grid
from longtake.nn.vision.patches import ClipPatchEmbed, ConvStem, Mlp, attend, run_clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class UmtConfig(StrictConfig):
    """Shape of a UMT tower.

    depth counts the blocks of the pre-trained tower; `select_layer` -2 builds and runs one block fewer, as the
    released checkpoints do. pretrained_grid and pretrained_frames say for which grid the position table was made.
    stem: "patch" cuts the frame as released; "convolution" is for small models of our own.

    Raises: ConfigError if the patch size is not the stem's.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    frames_per_clip: int = 4
    select_layer: int = -2
    pretrained_grid: int = 14
    pretrained_frames: int = 4
    block_norm_eps: float = 1e-6
    final_norm_eps: float = 1e-12
    stem: Literal["patch", "convolution"] = "patch"

    def __post_init__(self) -> None:
        if self.stem == "convolution" and self.patch_size != ConvStem.PATCH_SIZE:
            raise ConfigError(
                f"patch_size is {self.patch_size} with a convolutional stem; expected {ConvStem.PATCH_SIZE}, which its "
                "three halvings make; set it"
            )

    @property
    def num_blocks(self) -> int:
        """Count of blocks that are built and run."""
        return self.depth + self.select_layer + 1


def position_table(config: UmtConfig, num_frames: int, rows: int, columns: int) -> Float[Tensor, "N D"]:
    """Build the fixed sin-cos table over flattened space-time, float32.

    The base table runs over the pre-trained grid (time-major); another grid is reached by a bicubic resize of each
    frame without antialiasing, another frame count by linear interpolation along time. One frame uses the first
    frame's rows.

    Source: VideoChat-Flash UMT tower (spec section 3.1).
    """
    side = config.pretrained_grid
    base_frames = 1 if num_frames == 1 else config.pretrained_frames
    position = torch.arange(base_frames * side * side, dtype=torch.float64).unsqueeze(1)
    channel = torch.arange(config.width, dtype=torch.float64)
    angle = position / 10000 ** (2 * (channel // 2) / config.width)
    angle[:, 0::2].sin_()
    angle[:, 1::2].cos_()
    table = angle.float()
    if (rows, columns) != (side, side):
        frames = table.view(base_frames, side, side, -1).permute(0, 3, 1, 2)
        frames = F.interpolate(frames, size=(rows, columns), mode="bicubic", align_corners=False)
        table = frames.permute(0, 2, 3, 1).reshape(-1, config.width)
    if num_frames != base_frames:
        over_time = table.view(base_frames, rows * columns * config.width).mT.unsqueeze(0)
        over_time = F.interpolate(over_time, size=num_frames, mode="linear", align_corners=False)
        table = over_time.squeeze(0).mT.reshape(-1, config.width)
    return table


class UmtAttention(nn.Module):
    """Self-attention with one fused weight, learned query and value biases, and a key bias fixed at zero."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "K N D"]) -> Float[Tensor, "K N D"]:
        """Attend over all tokens of each clip."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        query, key, value = (self.qkv(x) + bias).chunk(3, dim=-1)
        return self.proj(attend(query, key, value, self.num_heads))


class UmtBlock(nn.Module):
    """A pre-norm transformer block without layer scale."""

    def __init__(self, config: UmtConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.block_norm_eps)
        self.attn = UmtAttention(config.width, config.num_heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.block_norm_eps)
        self.mlp = Mlp(config.width, int(config.width * config.mlp_ratio))

    def forward(self, x: Float[Tensor, "K N D"]) -> Float[Tensor, "K N D"]:
        """Add attention, then the MLP."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class UmtTower(nn.Module):
    """Turn clips of normalised frames into patch features.

    Parameter names are the released ones below `model.vision_tower.vision_tower.encoder.`. The position table is no
    parameter and no buffer: it is absent from checkpoints, so it is made on first use and kept beside the module.
    """

    def __init__(self, config: UmtConfig) -> None:
        super().__init__()
        self.config = config
        has_patches = config.stem == "patch"
        self.patch_embed = ClipPatchEmbed(config.patch_size, config.width) if has_patches else ConvStem(config.width)
        self.blocks = nn.ModuleList(UmtBlock(config) for _ in range(config.num_blocks))
        self.vision_layernorm = nn.LayerNorm(config.width, eps=config.final_norm_eps)
        self._tables: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.width

    def grid(self, num_frames: int) -> Grid:
        """Return the patch grid of a clip of `num_frames` frames (1 for an image tile)."""
        side = self.config.image_size // self.config.patch_size
        return Grid(num_frames=num_frames, rows=side, columns=side, num_heads=self.config.num_heads)

    def _positions(self, num_frames: int, like: Tensor) -> Float[Tensor, "N D"]:
        key = (num_frames, like.dtype, like.device)
        if key not in self._tables:
            grid = self.grid(num_frames)
            table = position_table(self.config, num_frames, grid.rows, grid.columns)
            self._tables[key] = table.to(device=like.device, dtype=like.dtype)
        return self._tables[key]

    def encode_together(self, pixel_values: Float[Tensor, "K F 3 H W"]) -> Float[Tensor, "K N D"]:
        """Encode the clips in one pass, as training does; rounding then depends on how many there are."""
        x = self.patch_embed(pixel_values)
        x = x + self._positions(pixel_values.shape[1], x)
        for block in self.blocks:
            x = block(x)
        return self.vision_layernorm(x)

    def forward(self, pixel_values: Float[Tensor, "K F 3 H W"]) -> Float[Tensor, "K N D"]:
        """Encode each clip on its own; tokens are time-major, then row-major over the patch grid."""
        return run_clips(self.encode_together, pixel_values)
