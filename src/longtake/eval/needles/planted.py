"""Writes needles into a real video file: it then goes through decoder, sampler, memory and selector like any other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from longtake.core.errors import ConfigError
from longtake.eval.encode import encode
from longtake.eval.result import text_hash
from longtake.eval.task import Drawn
from longtake.media.images import read_image
from longtake.media.pixels import resize_exact
from longtake.media.video import Video, open_video

CHUNK_FRAMES = 64
Picture = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needle:
    """A picture that is put before frame `before` of the haystack."""

    image: Path
    before: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted:
    """A haystack of `frames` frames, `fps` a second, with needles, each shown for `hold` frames.

    The haystack's frames are taken in time order, `fps` a second from its start, each at most once: where it is too
    short it is refused, not shown twice. height: of the picture; its shape is the haystack's.
    """

    haystack: Path | Drawn
    needles: tuple[Needle, ...]
    frames: int
    hold: int = 1
    fps: float = 1.0
    height: int = 128
    suffix: str = ".mp4"

    @property
    def key(self) -> str:
        """Return a name that follows from all that is shown."""
        haystack = str(self.haystack) if isinstance(self.haystack, Path) else self.haystack.key
        needles = [(str(needle.image), needle.before) for needle in self.needles]
        return f"planted-{text_hash(haystack, needles, self.frames, self.hold, self.fps, self.height)[:24]}"

    @property
    def spans_s(self) -> tuple[tuple[float, float], ...]:
        """Return from when to when each needle is shown, in seconds."""
        return needle_spans([needle.before for needle in self.needles], self.hold, self.fps)

    def write(self, path: Path) -> Path:
        """Write the file frame by frame.

        Raises: ConfigError if the haystack has fewer frames; VideoError if it, or a picture, cannot be read.
        """
        if isinstance(self.haystack, Path):
            return self._write(self.haystack, path)
        drawn = self.haystack.write(path.with_name(f"haystack{self.haystack.suffix}"))
        try:
            return self._write(drawn, path)
        finally:
            drawn.unlink()

    def _write(self, haystack: Path, path: Path) -> Path:
        with open_video(haystack) as video:
            times = haystack_times(video, self.frames, self.fps, str(haystack))
            width = max(2, round(self.height * video.info.width / video.info.height / 2) * 2)
            size = (self.height // 2 * 2, width)
            chunks = video.frames_at(times, size=size, chunk_frames=CHUNK_FRAMES)
            pictures = (picture for frames in chunks for picture in frames.pixels)
            encode(self._with_needles(pictures, size), path, self.fps, size)
        return path

    def _with_needles(self, pictures: Iterator[Picture], size: tuple[int, int]) -> Iterator[Picture]:
        """Yield the haystack's pictures with the needles between them."""
        waiting = sorted(self.needles, key=lambda needle: needle.before)
        for number in range(self.frames + 1):
            while waiting and waiting[0].before == number:
                shown = letterbox(read_image(waiting.pop(0).image), size)
                yield from (shown for _ in range(self.hold))
            if number < self.frames:
                yield next(pictures)


def needle_spans(before: Sequence[int], hold: int, fps: float) -> tuple[tuple[float, float], ...]:
    """Return when needles are shown, in seconds, in the order given; each moves those behind it further on."""
    order = sorted(range(len(before)), key=lambda place: before[place])
    starts = {place: before[place] + rank * hold for rank, place in enumerate(order)}
    return tuple((starts[place] / fps, (starts[place] + hold) / fps) for place in range(len(before)))


def haystack_times(video: Video, frames: int, fps: float, name: str) -> np.ndarray:
    """Return the times of so many different frames of a video, `fps` a second from its start.

    Raises: ConfigError if it has fewer.
    """
    times = video.clock.pts_s[np.unique(video.clock.nearest(np.arange(frames) / fps))]
    if len(times) < frames:
        raise ConfigError(
            f"{name} has {len(times)} different frames at {fps:g} a second; expected {frames}; choose a longer "
            "haystack, or a shorter grid"
        )
    return times


def letterbox(pixels: Picture, size: tuple[int, int]) -> UInt8[np.ndarray, "R C 3"]:
    """Fit a picture into (height, width) whole, black around it."""
    height, width = pixels.shape[:2]
    share = min(size[0] / height, size[1] / width)
    inner = (max(1, math.floor(height * share)), max(1, math.floor(width * share)))
    canvas = np.zeros((*size, 3), np.uint8)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = resize_exact(pixels, inner)
    return canvas
