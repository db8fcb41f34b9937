"""Real video files whose frames carry their own presentation time, to test clocks and decoders with."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from longtake.core.errors import VideoError

CLOCK_BITS = 24
CLOCK_UNITS_PER_S = 100
TIME_BASE = Fraction(1, 90_000)


def draw_clock(time_s: float, height: int, width: int, *, moving: bool = True) -> np.ndarray:
    """Draw a picture, RGB uint8 [H, W, 3], whose top rows spell a time in hundredths of a second as black or white.

    Below it a gradient moves with time, so that frames differ and motion is coded.
    """
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    shift = int(time_s * 40) if moving else 0
    planes = [(x + shift) * 255 // max(width, 1), (y + 2 * shift) * 255 // max(height, 1), (x + y + shift) * 2]
    picture = (np.stack(planes, axis=-1) % 256).astype(np.uint8)
    number = round(time_s * CLOCK_UNITS_PER_S)
    for bit in range(CLOCK_BITS):
        left, right = bit * width // CLOCK_BITS, (bit + 1) * width // CLOCK_BITS
        picture[: height // 4, left:right] = 255 if number >> (CLOCK_BITS - 1 - bit) & 1 else 0
    return picture


def read_clock(pixels: np.ndarray) -> float:
    """Read back the seconds that `draw_clock` drew, from a decoded and perhaps resized picture."""
    height, width = pixels.shape[:2]
    number = 0
    for bit in range(CLOCK_BITS):
        middle = (2 * bit + 1) * width // (2 * CLOCK_BITS)
        patch = pixels[height // 16 : height // 6 + 1, middle : middle + 1]
        number = number << 1 | int(patch.mean() > 127)
    return number / CLOCK_UNITS_PER_S


def write_clock_video(
    path: str | Path,
    duration_s: float = 10.0,
    *,
    fps: float | Fraction = 25,
    size: tuple[int, int] = (96, 192),
    codec: str = "libx264",
    times_s: Iterable[float] | None = None,
    start_s: float = 0.0,
    rotation_degrees: int = 0,
    key_frame_every: int = 50,
    num_b_frames: int = 2,
    moving: bool = True,
) -> Path:
    """Write a video in which every frame shows its own time; the suffix of `path` chooses the container.

    size: (height, width) of the upright picture; with a rotation it is stored turned. times_s: presentation times of
    the frames, for a variable rate; else `fps` of them a second over `duration_s`. start_s is added to every time
    stamp, not to the clock in the picture.

    Raises: VideoError if the encoder is not in this build of PyAV.
    """
    path = Path(path)
    rate = Fraction(fps).limit_denominator(1_001_000)
    times = list(times_s) if times_s is not None else [float(i / rate) for i in range(round(duration_s * rate))]
    if codec not in av.codecs_available:
        raise VideoError(f"encoder {codec} is not in this build of PyAV; expected it to be; choose another")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=max(1, round(rate)))
        stored = size if rotation_degrees % 180 == 0 else size[::-1]
        stream.height, stream.width = stored  # pyright: ignore[reportAttributeAccessIssue]
        stream.pix_fmt = "yuv420p"  # pyright: ignore[reportAttributeAccessIssue]
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        stream.codec_context.gop_size = key_frame_every  # pyright: ignore[reportAttributeAccessIssue]
        if codec in ("libx264", "libx265"):
            stream.codec_context.options = {"preset": "ultrafast", "bf": str(num_b_frames)}
            stream.codec_context.max_b_frames = num_b_frames  # pyright: ignore[reportAttributeAccessIssue]
        if rotation_degrees:
            stream.set_display_rotation(rotation_degrees)  # pyright: ignore[reportAttributeAccessIssue]
        for time_s in times:
            turned = np.ascontiguousarray(np.rot90(draw_clock(time_s, *size, moving=moving), -rotation_degrees // 90))
            frame = av.VideoFrame.from_ndarray(turned, format="rgb24")
            frame.pts, frame.time_base = round((time_s + start_s) / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))  # pyright: ignore
        container.mux(stream.encode(None))  # pyright: ignore
    return path
