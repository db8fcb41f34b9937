"""Decoding with torchcodec, an optional extra."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from longtake.core.errors import MissingExtraError, VideoError
from longtake.media.pixels import resize_exact
from longtake.media.scan import Alive, Picture, Scan, no_watch


def scan(path: str, alive: Alive = no_watch) -> Scan:
    """Read the table of frames: torchcodec has no public one, so the demuxer of PyAV or ffprobe reads it."""
    from longtake.media import backends

    for name in ("pyav", "ffmpeg"):
        if backends.is_available(name):
            return backends.decoder(name).scan(path, alive)
    raise MissingExtraError("torchcodec needs PyAV or ffprobe for frame times; expected one of them; pip install av")


def pictures(
    path: str,
    table: Scan,
    indices: np.ndarray,
    size: tuple[int, int] | None,
    *,
    exact: bool,
    alive: Alive = no_watch,
) -> Iterator[Picture]:
    """Yield the frames at ascending `indices`; both ways of resizing are the exact one.

    Frames are asked for by time, a little past their start, and not by number: edit lists hide frames.

    Raises: VideoError if torchcodec cannot decode the file; it gives up at the first damaged packet.
    MissingExtraError if it cannot be loaded.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingExtraError(
            f"torchcodec cannot be loaded ({type(error).__name__}); expected a build that fits this torch and FFmpeg's "
            "libraries on the system; use the decoder pyav"
        ) from error
    starts_s = table.ticks / table.ticks_per_s
    inside_s = starts_s + 0.25 * np.diff(starts_s).min(initial=table.last_duration_s)
    try:
        decoder = VideoDecoder(path, stream_index=table.stream_index, seek_mode="exact", dimension_order="NHWC")
        for index in indices:
            alive()
            frame = decoder.get_frame_played_at(float(inside_s[index]))
            pixels = resize_exact(np.ascontiguousarray(frame.data.numpy()), size or (table.height, table.width))
            yield Picture(pixels, bool(abs(frame.pts_seconds - starts_s[index]) > 1.5 / table.ticks_per_s))
    except (RuntimeError, ValueError, IndexError) as error:
        raise VideoError(f"torchcodec cannot decode {path} ({error}); expected an undamaged file; use pyav") from error
