"""Rotary position embedding on keys and queries that are kept un-rotated."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rotate(
    x: Float[Tensor, "*batch L d"], cos: Float[Tensor, "*positions L d"], sin: Float[Tensor, "*positions L d"]
) -> Float[Tensor, "*batch L d"]:
    """Rotate each row to its position (half-split form). A negated sine rotates back."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
