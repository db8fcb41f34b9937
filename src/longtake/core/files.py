"""Files that are there whole or not at all, also after a loss of power."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from longtake.core.errors import StorageError


def flush(path: Path) -> None:
    """Have the operating system write a file, or which files a folder has, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write beside, flush to the disk, rename: whoever reads the path sees the old file or the new one.

    Raises: OSError if it cannot be written; what was there stays, and nothing is left beside it.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
        flush(path.parent)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder where there is none.

    Raises: StorageError if that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder {folder} cannot be made ({error.strerror}); expected room and permission; choose another"
        ) from error
