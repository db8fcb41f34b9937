"""From a decoder's frame to upright RGB pixels of the wanted size."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image


def upright(pixels: np.ndarray, rotation_degrees: int) -> np.ndarray:
    """Turn a picture counter-clockwise by a multiple of 90 degrees, as its display matrix asks."""
    return np.ascontiguousarray(np.rot90(pixels, rotation_degrees // 90 % 4))


def resize_exact(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize RGB uint8 to (height, width) by Pillow's antialiased bicubic: what the released models were trained on.

    The order of its two passes, and with it the last bits, changed in Pillow 13. Ours is that of 13 under any version.
    """
    (height, width), (to_height, to_width) = pixels.shape[:2], size
    if (height, width) == (to_height, to_width):
        return pixels
    is_height_first = height - to_height > max(0, 2 * (width - to_width))
    between = (width, to_height) if is_height_first else (to_width, height)
    image = Image.fromarray(pixels).resize(between, Image.Resampling.BICUBIC)
    return np.asarray(image.resize((to_width, to_height), Image.Resampling.BICUBIC))


def fit(frame: Any, size: tuple[int, int] | None, full_size: tuple[int, int], *, exact: bool) -> np.ndarray:
    """Convert a PyAV frame to upright RGB [H, W, 3], resized to `size`, else to `full_size` where it differs.

    Sizes are (height, width). Not exact: the decoder's own scaler converts and resizes in one pass, a little different
    in the last bits.
    """
    rotation = int(frame.rotation or 0) % 360
    if size is None or exact:
        return resize_exact(upright(frame.to_ndarray(format="rgb24"), rotation), size or full_size)
    height, width = size if rotation % 180 == 0 else (size[1], size[0])
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
    return upright(scaled.to_ndarray(), rotation)
