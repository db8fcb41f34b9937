"""Writes a film into a real video file, or into memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from longtake.core.errors import ConfigError, StorageError, VideoError
from longtake.media.filmstrip.controls import control_frames
from longtake.media.filmstrip.render import REFERENCE_SIDE, Layers, film_frames
from longtake.media.filmstrip.world import Film

# With its look-ahead (mbtree) the encoder does not write the same bytes every time.
H264 = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0:rc-lookahead=0"}
# By suffix: the container's name, the encoder, and its settings.
FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "libx264", H264),
    ".mkv": ("matroska", "libx264", H264),
    ".webm": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "28", "b": "0"}),
}


def write_film(
    film: Film,
    path: str | Path,
    size: int = REFERENCE_SIDE,
    layers: Layers | None = None,
    *,
    control: str | None = None,
) -> Path:
    """Write a film as mp4, mkv (H.264) or webm (VP9), as the suffix says, square, `size` pixels wide.

    control: write what this control makes of the film instead (keys of CONTROLS). The file appears whole or not at
    all; one that was there is replaced.

    Raises: VideoError for another suffix or an odd size, or an encoder that this build of PyAV lacks. ConfigError for
    an unknown control, or one together with layers. StorageError if the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.part")
    frames = _frames(film, size, layers, control)
    try:
        _encode(frames, film.spec.fps, str(aside), path.suffix, size)
        aside.replace(path)
    except OSError as error:
        raise StorageError(
            f"the film could not be written to {path} ({error}); expected a folder with room and permission to write; "
            "make the folder, free some space or choose another"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    return path


def film_bytes(
    film: Film,
    suffix: str = ".mp4",
    size: int = REFERENCE_SIDE,
    layers: Layers | None = None,
    *,
    control: str | None = None,
) -> bytes:
    """Return a film, or what a control makes of it, as the bytes of a video file.

    Raises: VideoError and ConfigError as `write_film`.
    """
    stream = io.BytesIO()
    _encode(_frames(film, size, layers, control), film.spec.fps, stream, suffix, size)
    return stream.getvalue()


def _frames(film: Film, size: int, layers: Layers | None, control: str | None) -> Iterator[np.ndarray]:
    if control is not None and layers is not None:
        raise ConfigError(f"control {control!r} arrived with layers; expected one of them; a control chooses its own")
    return film_frames(film, size, layers=layers) if control is None else control_frames(film, control, size)


def _encode(frames: Iterator[np.ndarray], fps: float, target: str | io.BytesIO, suffix: str, size: int) -> None:
    if suffix not in FORMATS:
        raise VideoError(f"the suffix {suffix!r} arrived; expected one of {', '.join(FORMATS)}; rename the file")
    if size % 2:
        raise VideoError(f"size {size} arrived; expected an even number, as 4:2:0 colour needs; choose {size + 1}")
    container_name, codec, options = FORMATS[suffix]
    if codec not in av.codecs_available:
        raise VideoError(f"encoder {codec} is not in this build of PyAV; expected it to be; choose another suffix")
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(target, "w", format=container_name) as container:
        stream: Any = container.add_stream(codec, rate=rate, width=size, height=size, pix_fmt="yuv420p")
        stream.codec_context.options = options
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
