"""Real video files whose frames carry their own presentation time, to test clocks and decoders with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from longtake.core.errors import VideoError

CLOCK_BITS = 24
CLOCK_UNITS_PER_S = 100
TIME_BASE = Fraction(1, 90_000)
ENCODER_OPTIONS = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "8", "crf": "20"},
}


@contextmanager
def same_scheduling() -> Iterator[None]:
    """Give a thread its scheduling back: SVT-AV1 makes the one that calls it real-time where it may, as root may.

    Everything else on the machine would wait for it from then on.
    """
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before[0]:
            os.sched_setscheduler(0, *before)


def draw_clock(time_s: float | int, height: int, width: int, *, moving: bool = True) -> np.ndarray:
    """Draw a picture, RGB uint8 [H, W, 3], whose top rows spell a time in hundredths of a second as black or white.

    Below it is a gradient; it moves with time, so that frames differ and motion is coded, unless it is told not to.
    """
    shift = int(time_s * 40) if moving else 0
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[..., 0] = (x + shift) * 255 // max(width, 1) % 256
    picture[..., 1] = (y + 2 * shift) * 255 // max(height, 1) % 256
    picture[..., 2] = (x + y + shift) * 2 % 256
    number = round(time_s * CLOCK_UNITS_PER_S)
    bits = number >> np.arange(CLOCK_BITS - 1, -1, -1) & 1
    picture[: height // 4] = (bits[np.arange(width) * CLOCK_BITS // width] * 255)[None, :, None]
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
    duration_s: float | int = 10.0,
    *,
    fps: float | int | Fraction = 25,
    size: tuple[int, int] = (96, 192),
    codec: str = "libx264",
    times_s: Iterable[float] | None = None,
    start_s: float | int = 0.0,
    rotation_degrees: int = 0,
    key_frame_every: int = 50,
    num_b_frames: int = 2,
    moving: bool = True,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write a video in which every frame shows its own time; the suffix of `path` chooses the container.

    size: (height, width) of the upright picture; with a rotation it is stored turned. times_s: presentation times of
    the frames, for a variable rate; else `fps` of them a second over `duration_s`. start_s is added to every time
    stamp, not to the clock in the picture. options: further settings of the encoder.

    Raises: VideoError if the encoder is not in this build of PyAV.
    """
    path = Path(path)
    rate = Fraction(fps).limit_denominator(1_001_000)
    times = list(times_s) if times_s is not None else [float(i / rate) for i in range(round(duration_s * rate))]
    if codec not in av.codecs_available:
        raise VideoError(f"encoder {codec} is not in this build of PyAV; expected it to be; choose another")
    with same_scheduling(), av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=max(1, round(rate)))
        stored = size if rotation_degrees % 180 == 0 else size[::-1]
        stream.height, stream.width = stored
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        stream.codec_context.gop_size = key_frame_every
        stream.codec_context.options = ENCODER_OPTIONS.get(codec, {}) | dict(options or {})
        if codec in ("libx264", "libx265"):
            stream.codec_context.max_b_frames = num_b_frames
        if rotation_degrees:
            stream.set_display_rotation(rotation_degrees)
        for time_s in times:
            turned = np.ascontiguousarray(np.rot90(draw_clock(time_s, *size, moving=moving), -rotation_degrees // 90))
            frame = av.VideoFrame.from_ndarray(turned, format="rgb24")
            frame.pts, frame.time_base = round((time_s + start_s) / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
