"""Small pictures as masks: sixteen shapes, letters and digits on a grid of five by seven, papers."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from longtake.media.filmstrip.attributes import HSV, HUE_JITTER_DEGREES

OVERSAMPLING = 4
COLUMNS, ROWS = 5, 7
# Seven rows of five bits, as two hexadecimal digits a row.
BITMAPS = {
    "A": "0e11111f111111", "B": "1e11111e11111e", "C": "0e11101010110e", "D": "1e11111111111e",
    "E": "1f10101e10101f", "F": "1f10101e101010", "G": "0e11101711110f", "H": "1111111f111111",
    "I": "1f04040404041f", "J": "0702020202120c", "K": "11121418141211", "L": "1010101010101f",
    "M": "111b1515111111", "N": "11191513111111", "O": "0e11111111110e", "P": "1e11111e101010",
    "Q": "0e11111115120d", "R": "1e11111e141211", "S": "0f10100e01011e", "T": "1f040404040404",
    "U": "1111111111110e", "V": "11111111110a04", "W": "1111111515150a", "X": "11110a040a1111",
    "Y": "11110a04040404", "Z": "1f01020408101f",
    "0": "0e11191513110e", "1": "040c040404040e", "2": "0e11010204081f", "3": "1f02040201110e",
    "4": "02060a121f0202", "5": "1f101e0101110e", "6": "0608101e11110e", "7": "1f010204080808",
    "8": "0e11110e11110e", "9": "0e11110f01020c",
}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def letter_mask(letter: str, height: int, stroke: str = "plain") -> np.ndarray:
    """Draw a letter as a mask, float32 [h, w] of 0 to 1, with its strokes smooth at any height."""
    rows = [int(BITMAPS[letter][2 * i : 2 * i + 2], 16) for i in range(ROWS)]
    bits = np.array([[row >> (COLUMNS - 1 - j) & 1 for j in range(COLUMNS)] for row in rows], dtype=np.uint8)
    picture = Image.fromarray(bits * 255).resize((COLUMNS * 12, ROWS * 12), Image.Resampling.NEAREST)
    if stroke == "slanted":
        # Narrowed to four fifths and leaned over, so that it fills the same box.
        picture = picture.transform(picture.size, Image.Transform.AFFINE, (1.25, 0.18, -15.0, 0.0, 1.0, 0.0))
    elif stroke != "plain":
        picture = picture.filter(ImageFilter.MinFilter(5) if stroke == "thin" else ImageFilter.MaxFilter(5))
    small = picture.resize((max(1, round(height * COLUMNS / ROWS)), max(1, height)), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


@functools.lru_cache(maxsize=4096)
def shape_mask(shape: str, side: int) -> np.ndarray:
    """Draw a shape as a mask, float32 [side, side] of 0 to 1."""
    big = side * OVERSAMPLING
    picture = Image.new("L", (big, big), 0)
    _draw(shape, ImageDraw.Draw(picture), float(big))
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX), dtype=np.float32) / 255


@functools.lru_cache(maxsize=256)
def paper_mask(paper: str, side: int) -> np.ndarray:
    """Draw the pattern of a paper, float32 [side, side] of 0 to 1, 0 being the bare paper."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    patterns = {
        "stripes": np.floor(x * 12) % 2,
        "bars": np.floor(y * 12) % 2,
        "checks": (np.floor(x * 8) + np.floor(y * 8)) % 2,
        "dots": (x * 9 % 1 - 0.5) ** 2 + (y * 9 % 1 - 0.5) ** 2 < 0.08,
        "slope": (x + y) / 2,
    }
    return np.asarray(patterns.get(paper, np.zeros_like(x)), dtype=np.float32)


def _draw(shape: str, pen: ImageDraw.ImageDraw, big: float) -> None:
    """Fill a shape into a square of side `big`; coordinates below are shares of it."""

    def polygon(*points: tuple[float, float], fill: int = 255) -> None:
        pen.polygon([(x * big, y * big) for x, y in points], fill=fill)

    def ellipse(x: float, y: float, rx: float, ry: float, fill: int = 255) -> None:
        pen.ellipse([(x - rx) * big, (y - ry) * big, (x + rx) * big, (y + ry) * big], fill=fill)

    if shape in _POLYGONS:
        for points in _POLYGONS[shape]:
            polygon(*points)
    elif shape == "circle":
        ellipse(0.5, 0.5, 0.48, 0.48)
    elif shape == "ring":
        ellipse(0.5, 0.5, 0.48, 0.48)
        ellipse(0.5, 0.5, 0.26, 0.26, fill=0)
    elif shape == "moon":
        ellipse(0.5, 0.5, 0.48, 0.48)
        ellipse(0.72, 0.42, 0.38, 0.38, fill=0)
    elif shape == "heart":
        ellipse(0.27, 0.32, 0.25, 0.25)
        ellipse(0.73, 0.32, 0.25, 0.25)
        polygon((0.05, 0.43), (0.95, 0.43), (0.5, 0.97))
    elif shape == "drop":
        ellipse(0.5, 0.66, 0.32, 0.32)
        polygon((0.5, 0.02), (0.2, 0.56), (0.8, 0.56))
    elif shape == "flower":
        for k in range(5):
            angle = 2 * math.pi * k / 5 - math.pi / 2
            ellipse(0.5 + 0.29 * math.cos(angle), 0.5 + 0.29 * math.sin(angle), 0.19, 0.19)
        ellipse(0.5, 0.5, 0.1, 0.1, fill=0)


def _star() -> tuple[tuple[float, float], ...]:
    radii = (0.5, 0.21)
    angles = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
    return tuple((0.5 + radii[k % 2] * math.cos(a), 0.52 + radii[k % 2] * math.sin(a)) for k, a in enumerate(angles))


_POLYGONS: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "square": (((0.08, 0.08), (0.92, 0.08), (0.92, 0.92), (0.08, 0.92)),),
    "triangle": (((0.5, 0.04), (0.97, 0.92), (0.03, 0.92)),),
    "star": (_star(),),
    "cross": (((0.34, 0.03), (0.66, 0.03), (0.66, 0.97), (0.34, 0.97)),
              ((0.03, 0.34), (0.97, 0.34), (0.97, 0.66), (0.03, 0.66))),
    "diamond": (((0.5, 0.02), (0.84, 0.5), (0.5, 0.98), (0.16, 0.5)),),
    "arrow": (((0.5, 0.03), (0.95, 0.5), (0.05, 0.5)), ((0.35, 0.45), (0.65, 0.45), (0.65, 0.97), (0.35, 0.97))),
    "hourglass": (((0.08, 0.03), (0.92, 0.03), (0.5, 0.52)), ((0.08, 0.97), (0.92, 0.97), (0.5, 0.48))),
    "bolt": (((0.62, 0.02), (0.16, 0.56), (0.48, 0.56)), ((0.38, 0.98), (0.84, 0.44), (0.52, 0.44)),
             ((0.44, 0.4), (0.66, 0.46), (0.56, 0.6), (0.34, 0.56))),
    "crown": (((0.04, 0.15), (0.3, 0.5), (0.5, 0.08), (0.7, 0.5), (0.96, 0.15), (0.88, 0.9), (0.12, 0.9)),),
    "house": (((0.5, 0.03), (0.97, 0.46), (0.03, 0.46)), ((0.16, 0.42), (0.84, 0.42), (0.84, 0.95), (0.16, 0.95))),
}  # fmt: skip


def rgb(colour: str, jitter: float = 0.0) -> np.ndarray:
    """Return a colour, float32 [3] of 0 to 255; jitter -1 … 1 turns its hue by at most six degrees."""
    hue, saturation, value = HSV[colour]
    sector = ((hue + jitter * HUE_JITTER_DEGREES) % 360) / 60
    chroma = value * saturation
    k = (np.array([5.0, 3.0, 1.0]) + sector) % 6
    channels = value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1)
    return (channels * 255).astype(np.float32)
