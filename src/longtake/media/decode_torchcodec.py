"""Decoding with torchcodec, an optional extra."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from longtake.core.errors import MissingExtraError, VideoError
from longtake.media.pixels import resize_exact, upright
from longtake.media.scan import Picture, Scan


def scan(path: str) -> Scan:
    """Read the table of frames: torchcodec has no public one, so the demuxer of PyAV or ffprobe reads it."""
    from longtake.media import backends

    for name in ("pyav", "ffmpeg"):
        if backends.is_available(name):
            return backends.decoder(name).scan(path)
    raise MissingExtraError("torchcodec needs PyAV or ffprobe for frame times; expected one of them; pip install av")


def pictures(
    path: str, table: Scan, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool
) -> Iterator[Picture]:
    """Yield the frames at ascending `indices`; both ways of resizing are the exact one.

    Raises: VideoError if torchcodec cannot decode the file; it gives up at the first damaged packet.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingExtraError(
            f"torchcodec cannot be loaded ({type(error).__name__}); expected a build that fits this torch and FFmpeg's "
            "libraries on the system; use the decoder pyav"
        ) from error
    try:
        decoder = VideoDecoder(path, seek_mode="exact", dimension_order="NHWC")
        for index in indices:
            pixels = upright(decoder.get_frame_at(int(index)).data.numpy(), 0)
            yield Picture(pixels if size is None else resize_exact(pixels, size), False)
    except (RuntimeError, ValueError, IndexError) as error:
        raise VideoError(f"torchcodec cannot decode {path} ({error}); expected an undamaged file; use pyav") from error
