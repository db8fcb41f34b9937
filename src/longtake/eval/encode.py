"""Writes pictures into a video file, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

# With its look-ahead (mbtree) the encoder does not give the same bytes every time; without it does, whatever the input.
ENCODING = {"preset": "veryfast", "crf": "20", "threads": "1", "x264-params": "mbtree=0:rc-lookahead=0"}


def yuv420(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "R W"]:
    """Return the planes of a picture of even height and width, [3 H / 2, W]: limited range, mean colour of 2 x 2.

    In whole numbers, so that no build of a library rounds otherwise.

    Source: ITU-R BT.601, in the usual 8-bit approximation.
    """
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    luma = (66 * red + 129 * green + 25 * blue + 128 >> 8) + 16
    height, width = luma.shape
    small = pixels.astype(np.int32).reshape(height // 2, 2, width // 2, 2, 3).sum((1, 3)) + 2 >> 2
    red, green, blue = np.moveaxis(small, -1, 0)
    first = (-38 * red - 74 * green + 112 * blue + 128 >> 8) + 128
    second = (112 * red - 94 * green - 18 * blue + 128 >> 8) + 128
    planes = np.concatenate([plane.ravel() for plane in (luma, first, second)])
    return planes.astype(np.uint8).reshape(height * 3 // 2, width)


def encode(pictures: Iterable[np.ndarray], path: Path, fps: float, size: tuple[int, int]) -> Path:
    """Write pictures, RGB uint8 [H, W, 3] of even height and width, as H.264; one at a time, as they come."""
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, height=size[0], width=size[1], pix_fmt="yuv420p")
        stream.codec_context.options = ENCODING
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(yuv420(pixels), format="yuv420p")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
