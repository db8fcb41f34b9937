"""The parts that both towers share: patch embedding over a clip, the MLP, attention without a mask."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ClipPatchEmbed(nn.Module):
    """Cut every frame into patches and project them; tokens come out time-major, then row-major."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        size = (1, patch_size, patch_size)
        self.proj = nn.Conv3d(3, width, kernel_size=size, stride=size)

    def forward(self, pixel_values: Float[Tensor, "K F 3 H W"]) -> Float[Tensor, "K N D"]:
        """Return one token a patch."""
        return self.proj(pixel_values.transpose(1, 2)).flatten(2).mT.contiguous()


class ConvStem(nn.Module):
    """Halve each frame three times by convolutions: patches of 8 pixels whose features see beyond their edges.

    A small tower learns from it in minutes what cut patches do not teach it in hours; no released model has one.
    Batch normalisation, since with group normalisation or none nothing but colours was learned in the same time.
    """

    PATCH_SIZE = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (3, width // 4, width // 2, width)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += self._stage(fan_in, fan_out, stride=2) + self._stage(fan_out, fan_out, stride=1)
        # Normalised at the end: next to the position table, what the pixels say would else be faint at first.
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))

    @staticmethod
    def _stage(fan_in: int, fan_out: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1)
        return [convolution, nn.BatchNorm2d(fan_out), nn.GELU()]

    def forward(self, pixel_values: Float[Tensor, "K F 3 H W"]) -> Float[Tensor, "K N D"]:
        """Return one token a patch, time-major, then row-major."""
        features = self.layers(pixel_values.flatten(0, 1)).flatten(2).mT
        return features.unflatten(0, pixel_values.shape[:2]).flatten(1, 2)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "K N D"]) -> Float[Tensor, "K N D"]:
        """Apply it to each token."""
        return self.fc2(F.gelu(self.fc1(x)))


def attend(
    query: Float[Tensor, "K N D"], key: Float[Tensor, "K N D"], value: Float[Tensor, "K N D"], num_heads: int
) -> Float[Tensor, "K N D"]:
    """Let every token of a clip look at every other, per head, scaled by 1/sqrt(head width)."""
    query, key, value = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def run_clips(
    encode: Callable[[Float[Tensor, "K F 3 H W"]], Float[Tensor, "K N D"]], pixel_values: Float[Tensor, "K F 3 H W"]
) -> Float[Tensor, "K N D"]:
    """Encode the clips together on an accelerator, one after the other on a CPU.

    CPU matrix kernels choose their blocking by the number of rows, so a batch of clips would round differently from
    a single one. A clip alone is large enough to keep the cores busy, and the result then cannot depend on how many
    clips were handed over at once.
    """
    if pixel_values.device.type != "cpu" or pixel_values.shape[0] == 1:
        return encode(pixel_values)
    return torch.cat([encode(clip) for clip in pixel_values.split(1)])
