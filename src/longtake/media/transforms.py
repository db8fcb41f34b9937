"""From RGB pixels to what a model is fed: resizing, tiles, normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from longtake.media.pixels import resize_exact

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize_frames(pixels: UInt8[np.ndarray, "T H W 3"], size: int) -> UInt8[np.ndarray, "T S S 3"]:
    """Resize frames to a square by Pillow's antialiased bicubic, aspect ratio not kept."""
    if pixels.shape[1:3] == (size, size):
        return pixels
    return np.stack([resize_exact(frame, (size, size)) for frame in pixels])


def normalize_pixels(
    pixels: UInt8[Tensor, "T 3 S S"],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Float[Tensor, "T 3 S S"]:
    """Scale bytes to 0..1, subtract the mean and divide by the deviation, in float32, on the pixels' own device."""
    shape = (1, 3, 1, 1)
    centre, spread = (torch.tensor(values, device=pixels.device).view(shape) for values in (mean, std))
    return pixels.float().mul_(1 / 255).sub_(centre).div_(spread)


def normalize_frames(
    pixels: UInt8[np.ndarray, "T H W 3"],
    size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Float[Tensor, "T 3 S S"]:
    """Resize and normalise frames: everything between a decoder and a vision tower.

    Source: VideoChat-Flash image processor; pinned by tests/parity/test_transforms.py.
    """
    resized = np.ascontiguousarray(resize_frames(pixels, size))
    return normalize_pixels(torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous(), mean, std)


def anyres_grid(
    size_wh: tuple[int, int], tile: int, max_side: int = 6, max_tiles: int | None = None
) -> tuple[int, int]:
    """Return how many tiles wide and high the canvas for a picture is.

    Of all canvases up to max_side x max_side tiles the one that shows most of the picture's pixels is taken, of
    equals the one that wastes least, then the first, narrow ones first. max_tiles: leave out larger canvases.

    Source: VideoChat-Flash anyres_nopad; pinned by tests/parity/test_transforms.py.
    """
    width, height = size_wh

    def shown_and_spare(columns: int, rows: int) -> tuple[int, int]:
        scale = min(columns * tile / width, rows * tile / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, -(columns * tile * rows * tile - shown)

    sides = range(1, max_side + 1)
    most = max_side**2 if max_tiles is None else max_tiles
    grids = [(columns, rows) for columns in sides for rows in sides if columns * rows <= most]
    return max(grids, key=lambda grid: shown_and_spare(*grid))


def tile_image(
    pixels: UInt8[np.ndarray, "H W 3"], tile: int, max_side: int = 6, max_tiles: int | None = None
) -> tuple[UInt8[np.ndarray, "N S S 3"], tuple[int, int]]:
    """Cut a picture into square tiles: the whole one first, then the canvas row by row; also return the grid.

    Source: VideoChat-Flash anyres_nopad: the picture is resized straight to the canvas, not padded.
    """
    columns, rows = anyres_grid((pixels.shape[1], pixels.shape[0]), tile, max_side, max_tiles)
    canvas = resize_exact(pixels, (rows * tile, columns * tile))
    tiles = canvas.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    return np.concatenate([resize_exact(pixels, (tile, tile))[None], tiles]), (columns, rows)


def pad_to_square(
    pixels: UInt8[np.ndarray, "H W 3"], mean: Sequence[float] = IMAGENET_MEAN
) -> UInt8[np.ndarray, "S S 3"]:
    """Centre a picture on a square of the mean colour: how each of several pictures of one prompt is shown.

    Source: VideoChat-Flash image_aspect_ratio "pad"; the colour is int(mean * 255).
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = [int(value * 255) for value in mean]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square
