"""The ladder of decoders: PyAV, then torchcodec, then the ffmpeg program."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Iterator
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np

from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError, MissingExtraError
from longtake.media.scan import Alive, Picture, Scan

Backend = Literal["auto", "pyav", "torchcodec", "ffmpeg"]
LADDER = ("pyav", "torchcodec", "ffmpeg")
_MISSING = {
    "pyav": "pip install av",
    "torchcodec": "pip install 'longtake[torchcodec]', with FFmpeg's libraries on the system",
    "ffmpeg": "install the ffmpeg program and put it on the PATH",
}


@runtime_checkable
class Decoder(Protocol):
    """What a decoder module offers: the table of frames, and pictures at ascending rows of it.

    `alive` is called while there is progress, so that whoever waits can tell slow from stuck.
    """

    def scan(self, path: str, alive: Alive) -> Scan:
        """Read the table of frames."""
        ...

    def pictures(
        self,
        path: str,
        table: Scan,
        indices: np.ndarray,
        size: tuple[int, int] | None,
        *,
        exact: bool,
        alive: Alive,
    ) -> Iterator[Picture]:
        """Yield one picture for each index."""
        ...


def is_available(name: str) -> bool:
    """Say whether a decoder can be tried here."""
    if name == "ffmpeg":
        return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None
    return importlib.util.find_spec("av" if name == "pyav" else name) is not None


def candidates(backend: str) -> list[str]:
    """Return the decoders to try, in order.

    Raises: ConfigError for an unknown name; MissingExtraError if the one asked for is not installed.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"decoder {backend!r} is unknown; {nearest_name(backend, list(get_args(Backend)))}")
    if backend == "auto":
        return [name for name in LADDER if is_available(name)]
    if not is_available(backend):
        raise MissingExtraError(f"decoder {backend} is not installed here; expected it to be; {_MISSING[backend]}")
    return [backend]


def decoder(name: str) -> Decoder:
    """Import a decoder module."""
    return importlib.import_module(f"longtake.media.decode_{name}")  # pyright: ignore[reportReturnType]
