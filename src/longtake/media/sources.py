"""What can be opened: files, bytes, addresses, folders of pictures, arrays in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np

from longtake.core.errors import VideoError
from longtake.core.types import Frames

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
PICTURE_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*")  # JPEG, PNG, both kinds of TIFF
MAX_DOWNLOAD_BYTES = 8 << 30
DOWNLOAD_TIMEOUT_S = 600.0
SILENCE_TIMEOUT_S = 30.0
BLOCK_BYTES = 1 << 20


def is_address(source: object) -> bool:
    """Say whether a source is an http(s) address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def local_file(source: str | Path) -> Path:
    """Return the absolute path of a file or folder that can be read; no decoder can take it for an address.

    Raises: VideoError if it is missing, empty or no file.
    """
    if not isinstance(source, str | os.PathLike) or not str(source):
        raise VideoError(
            f"{source!r} ({type(source).__name__}) arrived; expected a path, bytes or an address; pass one"
        )
    path = Path(source).absolute()
    try:
        if not path.exists():
            raise VideoError(f"{source} does not exist; expected a video file; check the path")
        if path.is_file() and path.stat().st_size == 0:
            raise VideoError(f"{source} is empty (0 bytes); expected a video file; copy or download it again")
        if not path.is_file() and not path.is_dir():
            raise VideoError(f"{source} is neither a file nor a folder; expected a video file; save it to a file first")
    except OSError as error:
        raise VideoError(
            f"{source} cannot be read ({error.strerror}); expected a video file; check the path"
        ) from error
    return path


def is_picture(path: Path, name: str) -> bool:
    """Say whether a file is a still picture, by its first bytes, else by its name."""
    with path.open("rb") as file:
        head = file.read(12)
    is_known = head.startswith(PICTURE_HEADS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
    return is_known or Path(name).suffix.lower() in IMAGE_SUFFIXES


def spool(data: bytes) -> Path:
    """Write bytes to a temporary file, for decoders that read files; the caller removes it.

    Raises: VideoError if there are none.
    """
    if not data:
        raise VideoError("0 bytes arrived; expected a video; pass the whole file")
    with tempfile.NamedTemporaryFile(prefix="longtake-", delete=False) as file:
        file.write(data)
    return Path(file.name)


def download(address: str, max_bytes: int = MAX_DOWNLOAD_BYTES, timeout_s: float = DOWNLOAD_TIMEOUT_S) -> Path:
    """Fetch an address into a temporary file; the caller removes it.

    Raises: VideoError if it cannot be reached, is too large, takes too long or ends early.
    """
    file = tempfile.NamedTemporaryFile(prefix="longtake-", delete=False)  # noqa: SIM115 (the caller removes it)
    path = Path(file.name)
    try:
        with file:
            _fetch(address, file, max_bytes, timeout_s)
    except (OSError, ValueError, HTTPException) as error:
        path.unlink(missing_ok=True)
        raise _refused(address, f"cannot be fetched ({error})") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _fetch(address: str, file: IO[bytes], max_bytes: int, timeout_s: float) -> None:
    deadline, size = time.monotonic() + timeout_s, 0
    with urllib.request.urlopen(address, timeout=min(timeout_s, SILENCE_TIMEOUT_S)) as reply:
        promised = int(reply.headers.get("Content-Length") or 0)
        if promised > max_bytes:
            raise _refused(address, f"has {promised} bytes, the limit is {max_bytes}")
        while block := reply.read1(BLOCK_BYTES):  # what is there: a server that trickles must not outlast the deadline
            size += len(block)
            if size > max_bytes:
                raise _refused(address, f"has more than {max_bytes} bytes, the limit")
            if time.monotonic() > deadline:
                raise _refused(address, f"gave {size} bytes in {timeout_s:g} s and goes on")
            file.write(block)
    if size < promised:
        raise _refused(address, f"broke off after {size} of {promised} bytes")


def _refused(address: str, what: str) -> VideoError:
    return VideoError(f"{address} {what}; expected a whole video in time; download it yourself and pass the file")


def folder_images(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the natural order of their names: 2 comes before 10.

    Raises: VideoError if there are none, or two names differ in nothing but their ending.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    if not files:
        raise VideoError(f"folder {folder} holds no pictures; expected {', '.join(IMAGE_SUFFIXES)} files; pass a video")
    ordered = sorted(files, key=lambda file: (_natural(file.stem), file.name))
    for one, other in pairwise(ordered):
        if _natural(one.stem) == _natural(other.stem):
            raise VideoError(
                f"{one.name} and {other.name} have the same place; expected one picture a place; rename or remove one"
            )
    return ordered


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that compares runs of digits as numbers, before text."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def frames_from_arrays(arrays: Mapping[str, object]) -> Frames:
    """Take frames in memory: {"pixels": uint8 [T, H, W, 3], "pts_s": [T]}.

    Raises: VideoError if a part is missing or does not fit.
    """
    if set(arrays) != {"pixels", "pts_s"}:
        raise VideoError(f"keys {sorted(map(str, arrays))} arrived; expected pixels and pts_s; pass both")
    try:
        pts_s = np.asarray(arrays["pts_s"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise VideoError(
            f"frame times arrived that are no numbers ({error}); expected seconds; convert them"
        ) from error
    return Frames(np.asarray(arrays["pixels"]), pts_s)


def content_hash(source: str | Path | bytes | Mapping[str, object] | Frames) -> str:
    """Return the SHA-256 of what a video is made of: a file's bytes, a folder's pictures in order, arrays and times.

    Raises: VideoError if it is an address (download it first) or cannot be read.
    """
    digest = hashlib.sha256()
    if isinstance(source, bytes):
        digest.update(source)
        return digest.hexdigest()
    if isinstance(source, Frames | Mapping):
        frames = source if isinstance(source, Frames) else frames_from_arrays(source)
        digest.update(json.dumps(frames.pixels.shape).encode())
        digest.update(np.ascontiguousarray(frames.pixels).data)
        digest.update(np.ascontiguousarray(frames.pts_s).data)
        return digest.hexdigest()
    if is_address(source):
        raise VideoError(f"{source} is an address, not a file; expected something local; download it first")
    path = local_file(source)
    for file in folder_images(path) if path.is_dir() else [path]:
        with file.open("rb") as opened:
            while block := opened.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
