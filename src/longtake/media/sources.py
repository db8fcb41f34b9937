"""What can be opened: files, bytes, addresses, folders of pictures, arrays in memory."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from longtake.core.errors import VideoError
from longtake.core.types import Frames

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_DOWNLOAD_BYTES = 8 << 30
DOWNLOAD_TIMEOUT_S = 600.0
BLOCK_BYTES = 1 << 20


def is_address(source: object) -> bool:
    """Say whether a source is an http(s) address."""
    return isinstance(source, str) and urlsplit(source).scheme in ("http", "https")


def local_file(source: str | Path) -> Path:
    """Return a path that can be read.

    Raises: VideoError if it is missing or empty.
    """
    path = Path(source)
    if not path.exists():
        raise VideoError(f"{path} does not exist; expected a video file; check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes); expected a video file; copy or download it again")
    return path


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

    Raises: VideoError if it cannot be reached, is too large or takes too long.
    """
    deadline = time.monotonic() + timeout_s
    file = tempfile.NamedTemporaryFile(prefix="longtake-", delete=False)  # noqa: SIM115 (the caller removes it)
    path = Path(file.name)
    try:
        with file, urllib.request.urlopen(address, timeout=30) as reply:
            size = 0
            while block := reply.read(BLOCK_BYTES):
                size += len(block)
                if size > max_bytes or time.monotonic() > deadline:
                    raise VideoError(
                        f"{address} gave {size} bytes and goes on; expected at most {max_bytes} bytes in "
                        f"{timeout_s:g} s; download it yourself and pass the file"
                    )
                file.write(block)
    except (urllib.error.URLError, OSError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise VideoError(
            f"{address} cannot be fetched ({error}); expected a video; download it and pass the file"
        ) from error
    except VideoError:
        path.unlink(missing_ok=True)
        raise
    return path


def folder_images(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order of the last number in their names.

    Raises: VideoError if there are none, or two have the same number.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise VideoError(f"folder {folder} holds no pictures; expected {', '.join(IMAGE_SUFFIXES)} files; pass a video")
    numbers = {}
    for file in files:
        found = re.findall(r"\d+", file.stem)
        if not found:
            raise VideoError(f"{file.name} has no number; expected one to order the frames by; rename the files")
        numbers.setdefault(int(found[-1]), []).append(file)
    doubles = next((group for group in numbers.values() if len(group) > 1), None)
    if doubles:
        names = " and ".join(sorted(file.name for file in doubles))
        raise VideoError(f"{names} have the same number; expected one picture a number; rename or remove one")
    return [numbers[number][0] for number in sorted(numbers)]


def frames_from_arrays(arrays: Mapping[str, object]) -> Frames:
    """Take frames in memory: {"pixels": uint8 [T, H, W, 3], "pts_s": [T]}.

    Raises: VideoError if a part is missing or does not fit.
    """
    if set(arrays) != {"pixels", "pts_s"}:
        raise VideoError(f"keys {sorted(arrays)} arrived; expected pixels and pts_s; pass both")
    frames = Frames(np.asarray(arrays["pixels"]), np.asarray(arrays["pts_s"], dtype=np.float64))
    if len(frames) == 0:
        raise VideoError("no frames arrived; expected at least one; pass some")
    return frames


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's pictures in order."""
    digest = hashlib.sha256()
    for file in folder_images(path) if path.is_dir() else [path]:
        with file.open("rb") as opened:
            while block := opened.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
