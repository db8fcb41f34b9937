"""Pixel shuffle as InternVL does it: blocks of neighbouring patches become one longer vector each."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int64, Num
from torch import Tensor

ShuffleVersion = Literal["v1", "v2"]


def pixel_shuffle(
    grid: Num[Tensor, "T rows columns C"], factor: int, version: ShuffleVersion = "v2"
) -> Num[Tensor, "T r c D"]:
    """Join each factor x factor block of patches, row by row, into one vector.

    Version v1 gives the same vectors on the transposed grid; no released model uses it.

    Raises: ValueError if a side of the grid is no multiple of the factor.
    Source: InternVL `pixel_shuffle`; pinned by tests/parity/test_pvc_compressor.py.
    """
    rows, columns = grid.shape[1:3]
    if rows % factor or columns % factor:
        raise ValueError(f"a grid of {rows} x {columns} patches cannot be cut into blocks of {factor} x {factor}")
    blocks = grid.unflatten(2, (-1, factor)).unflatten(1, (-1, factor))  # [T, r, i, c, j, C]
    order = (0, 1, 3, 2, 4, 5) if version == "v2" else (0, 3, 1, 2, 4, 5)
    return blocks.permute(order).flatten(3)


def shuffle_targets(rows: int, columns: int, factor: int, version: ShuffleVersion = "v2") -> Int64[Tensor, "N"]:
    """Return, for each patch in row-major order, the index of the vector that it becomes part of."""
    row = torch.arange(rows).unsqueeze(1) // factor
    column = torch.arange(columns) // factor
    target = row * (columns // factor) + column if version == "v2" else column * (rows // factor) + row
    return target.flatten()
