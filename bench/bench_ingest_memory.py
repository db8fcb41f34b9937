"""Peak memory of ingest does not grow with the number of frames, when segments are streamed to a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np

from bench.live_bytes import LiveBytes
from longtake.core.types import Frames
from longtake.engine.ingest import ingest_segments
from longtake.media.sampling import Sampled
from longtake.media.video import Video
from longtake.models.tiny import tiny_model

SIDE = 96
HEIGHT, WIDTH = 72, 128


class EndlessFrames:
    """A stand-in for a decoder: each picture is made when it is asked for."""

    def __init__(self, side: int) -> None:
        self.random = np.random.default_rng(0)
        self.base = self.random.integers(0, 255, (side, side, 3), dtype=np.uint8)

    def frames(self, times_s: np.ndarray, chunk: int) -> Iterator[Frames]:
        for start in range(0, len(times_s), chunk):
            times = times_s[start : start + chunk]
            pixels = np.stack([np.roll(self.base, int(time), axis=1) for time in times])
            yield Frames(pixels, times)


class EndlessVideo:
    """The part of an open video that ingest reads."""

    def frames_at(self, times_s: np.ndarray, *, size: tuple[int, int], chunk_frames: int) -> Iterator[Frames]:
        return EndlessFrames(size[0]).frames(times_s, chunk_frames)


def peak(num_frames: int, video: Video | EndlessVideo) -> int:
    loaded = tiny_model()
    sampled = Sampled(np.arange(num_frames, dtype=np.float64), float(num_frames))
    with LiveBytes() as live, tempfile.TemporaryFile() as sink:
        for segment in ingest_segments(video, loaded, sampled):  # pyright: ignore[reportArgumentType]
            sink.write(segment.tokens.features.numpy().tobytes())
    return live.peak


def run(quick: bool) -> list[dict]:
    counts = (64, 256) if quick else (256, 1024, 4096, 16384)
    peaks = [peak(count, EndlessVideo()) for count in counts]
    rows = []
    for count, size in zip(counts, peaks, strict=True):
        rows.append(
            {
                "claim": f"ingest peak of living tensors at {count} frames against {counts[0]}",
                "baseline": f"{peaks[0] / 1e6:.2f} MB",
                "ours": f"{size / 1e6:.2f} MB",
                "ratio": f"{size / peaks[0]:.3f}",
                "target": "<= 1.05",
                "ok": size <= 1.05 * peaks[0],
                "n": 1,
            }
        )
    return rows
