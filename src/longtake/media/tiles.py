"""Pictures as grids of square tiles: the grid follows the picture's shape, the whole picture comes last."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.media.pixels import resize_exact
from longtake.media.transforms import normalize_frames

ROOMY = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling(StrictConfig):
    """How many tiles of `tile` pixels a side a picture may become.

    max_tiles: the thumbnail not counted; 1 squashes the picture into one tile, as frames of a video are. thumbnail:
    append the whole picture where there is more than one tile.

    Source: PVC evaluation: 12 tiles for charts, 18 for documents, 24 for infographics, 6 for everything else.
    """

    tile: int = 448
    min_tiles: int = 1
    max_tiles: int = 12
    thumbnail: bool = True

    def __post_init__(self) -> None:
        if self.tile < 1 or not 1 <= self.min_tiles <= self.max_tiles:
            raise ConfigError(
                f"tiles of {self.tile} pixels, {self.min_tiles} to {self.max_tiles} of them, arrived; expected at "
                "least 1 pixel and 1 <= min_tiles <= max_tiles; change them"
            )


class TileGrid(NamedTuple):
    """How many tiles wide and high a picture is."""

    columns: int
    rows: int


def candidate_grids(min_tiles: int, max_tiles: int) -> list[TileGrid]:
    """Return all grids of so many tiles, small ones first."""
    grids = [
        TileGrid(columns, rows)
        for columns in range(1, max_tiles + 1)
        for rows in range(-(-min_tiles // columns), max_tiles // columns + 1)
    ]
    return sorted(grids, key=lambda grid: (grid.columns * grid.rows, grid.columns))


def closest_grid(size_wh: tuple[int, int], tiling: Tiling) -> TileGrid:
    """Return the grid whose columns to rows are closest to the picture's width to height.

    Of equally close grids a larger one is taken only where the picture fills more than half of it.

    Source: PVC preprocessing `find_closest_aspect_ratio`; pinned by tests/parity/test_pvc_tiling.py.
    """
    width, height = size_wh
    chosen, closest = TileGrid(1, 1), float("inf")
    for grid in candidate_grids(tiling.min_tiles, tiling.max_tiles):
        distance = abs(width / height - grid.columns / grid.rows)
        fills = width * height > ROOMY * tiling.tile**2 * grid.columns * grid.rows
        if distance < closest or (distance == closest and fills):
            chosen, closest = grid, distance
    return chosen


def num_tiles(size_wh: tuple[int, int], tiling: Tiling) -> int:
    """Return how many tiles a picture becomes, the thumbnail counted."""
    columns, rows = closest_grid(size_wh, tiling)
    return columns * rows + int(tiling.thumbnail and columns * rows > 1)


def tile_boxes(grid: TileGrid, tile: int) -> list[tuple[int, int, int, int]]:
    """Return (left, top, right, bottom) of each tile on the resized picture, row by row."""
    return [
        (column * tile, row * tile, (column + 1) * tile, (row + 1) * tile)
        for row in range(grid.rows)
        for column in range(grid.columns)
    ]


def dynamic_tiles(pixels: UInt8[np.ndarray, "H W 3"], tiling: Tiling) -> UInt8[np.ndarray, "N S S 3"]:
    """Resize a picture straight to its grid and cut it row by row; its thumbnail comes last.

    Source: PVC preprocessing `dynamic_preprocess`. The aspect ratio is not kept; a single tile has no thumbnail.
    """
    side, grid = tiling.tile, closest_grid((pixels.shape[1], pixels.shape[0]), tiling)
    canvas = resize_exact(pixels, (side * grid.rows, side * grid.columns))
    tiles = [canvas[top:bottom, left:right] for left, top, right, bottom in tile_boxes(grid, side)]
    if tiling.thumbnail and len(tiles) > 1:
        tiles.append(resize_exact(pixels, (side, side)))
    return np.stack(tiles)


def tile_values(pixels: UInt8[np.ndarray, "H W 3"], tiling: Tiling) -> Float[Tensor, "N 3 S S"]:
    """Cut a picture into tiles and normalise them: what PVC's tower is fed."""
    return normalize_frames(dynamic_tiles(pixels, tiling), tiling.tile)
