"""InternVideo2-1B: the motion tower of VideoChat-Flash, attention over space and time inside a clip."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import Grid
from longtake.nn.vision.patches import ClipPatchEmbed, Mlp, attend, run_clips

LAYER_SCALE_INIT = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVideo2Config(StrictConfig):
    """Shape of an InternVideo2 tower; `select_layer` -2 builds and runs one block fewer than `depth`.

    mlp_hidden is int(width * 48 / 11) in the released tower.
    """

    image_size: int = 224
    patch_size: int = 14
    width: int = 1408
    depth: int = 40
    num_heads: int = 16
    mlp_hidden: int = 6144
    frames_per_clip: int = 4
    select_layer: int = -2
    norm_eps: float = 1e-6

    @property
    def num_blocks(self) -> int:
        """Count of blocks that are built and run."""
        return self.depth + self.select_layer + 1


def _sincos(position: Tensor, width: int) -> Tensor:
    """Encode positions as [sin | cos] halves, float64."""
    frequency = 10000 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = position.double().unsqueeze(-1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def initial_positions(width: int, num_frames: int, side: int) -> Float[Tensor, "1 L D"]:
    """Build the initial value of a learned position table: a zero CLS row, then [time | column | row] codes.

    Source: InternVideo2 (spec section 3.2). A quarter of the width is time; of the rest the first half encodes the
    column, the second the row.
    """
    time, row, column = torch.meshgrid(torch.arange(num_frames), torch.arange(side), torch.arange(side), indexing="ij")
    time_width, space_width = width // 4, width // 4 * 3
    codes = [
        _sincos(time.flatten(), time_width),
        _sincos(column.flatten(), space_width // 2),
        _sincos(row.flatten(), space_width // 2),
    ]
    table = torch.cat(codes, dim=-1).float()
    return torch.cat([torch.zeros(1, width), table]).unsqueeze(0)


def resize_position_parameters(
    table: Float[Tensor, "1 L D"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "1 M D"]:
    """Fit a learned table made for (frames, side) `old` to `new`: linear in time, then bicubic in space, CLS kept.

    Source: InternVideo2 pre-training interpolation rule (spec section 3.2).
    """
    (old_frames, old_side), (new_frames, new_side) = old, new
    cls_row, x = table[:, :1], table[:, 1:].float()
    if old_frames != new_frames:
        over_time = x.view(old_frames, -1).mT.unsqueeze(0)
        x = F.interpolate(over_time, size=new_frames, mode="linear", align_corners=False).squeeze(0).mT
    if old_side != new_side:
        frames = x.reshape(new_frames, old_side, old_side, -1).permute(0, 3, 1, 2)
        frames = F.interpolate(frames, size=(new_side, new_side), mode="bicubic", align_corners=False)
        x = frames.permute(0, 2, 3, 1)
    return torch.cat([cls_row, x.reshape(1, -1, table.shape[-1]).to(table.dtype)], dim=1)


class Float32RMSNorm(nn.Module):
    """Root-mean-square norm with a weight, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Normalise the last dimension and cast back before the weight is applied."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class LayerScale(nn.Module):
    """Multiply a branch by a learned vector, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), LAYER_SCALE_INIT))

    def forward(self, x: Float[Tensor, "K N D"]) -> Float[Tensor, "K N D"]:
        """Scale and cast back."""
        return (x.float() * self.weight.float()).to(x.dtype)


class InternVideo2Attention(nn.Module):
    """Self-attention with RMS norms over the whole width of queries and keys, before heads are split."""

    def __init__(self, config: InternVideo2Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.q_norm = Float32RMSNorm(config.width, config.norm_eps)
        self.k_norm = Float32RMSNorm(config.width, config.norm_eps)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Float[Tensor, "K N D"]) -> Float[Tensor, "K N D"]:
        """Attend over all tokens of each clip, the CLS token included."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attend(self.q_norm(query), self.k_norm(key), value, self.num_heads))


class InternVideo2Block(nn.Module):
    """A pre-norm transformer block with layer scale."""

    def __init__(self, config: InternVideo2Config) -> None:
        super().__init__()
        self.norm1 = Float32RMSNorm(config.width, config.norm_eps)
        self.attn = InternVideo2Attention(config)
        self.ls1 = LayerScale(config.width)
        self.norm2 = Float32RMSNorm(config.width, config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp_hidden)
        self.ls2 = LayerScale(config.width)

    def forward(self, x: Float[Tensor, "K N D"]) -> Float[Tensor, "K N D"]:
        """Add scaled attention, then the scaled MLP."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class InternVideo2Tower(nn.Module):
    """Turn clips of normalised frames into patch features; the CLS token works inside and is not returned.

    Parameter names are the released ones below `model.vision_tower.vision_tower.`. Positions are learned, one table
    for clips and one for single images; there is no final norm.
    """

    def __init__(self, config: InternVideo2Config) -> None:
        super().__init__()
        self.config = config
        side = config.image_size // config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(initial_positions(config.width, config.frames_per_clip, side))
        self.img_pos_embed = nn.Parameter(initial_positions(config.width, 1, side))
        self.patch_embed = ClipPatchEmbed(config.patch_size, config.width)
        self.blocks = nn.ModuleList(InternVideo2Block(config) for _ in range(config.num_blocks))
        nn.init.normal_(self.cls_token, std=0.02)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.width

    def grid(self, num_frames: int) -> Grid:
        """Return the patch grid of a clip of `num_frames` frames (1 for an image tile)."""
        side = self.config.image_size // self.config.patch_size
        return Grid(num_frames=num_frames, rows=side, columns=side, num_heads=self.config.num_heads)

    def _encode(self, pixel_values: Float[Tensor, "K F 3 H W"]) -> Float[Tensor, "K N D"]:
        x = self.patch_embed(pixel_values)
        x = torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        x = x + (self.img_pos_embed if pixel_values.shape[1] == 1 else self.pos_embed).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return x[:, 1:].contiguous()

    def forward(self, pixel_values: Float[Tensor, "K F 3 H W"]) -> Float[Tensor, "K N D"]:
        """Encode each clip on its own; tokens are time-major, then row-major over the patch grid.

        Raises: ConfigError if a clip has neither one frame nor `frames_per_clip`.
        """
        if pixel_values.shape[1] not in (1, self.config.frames_per_clip):
            raise ConfigError(
                f"clips of {pixel_values.shape[1]} frames arrived; this tower's positions are learned for 1 or "
                f"{self.config.frames_per_clip}; regroup the frames, or fit the table with resize_position_parameters"
            )
        return run_clips(self._encode, pixel_values)
