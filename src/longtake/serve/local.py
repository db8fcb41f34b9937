"""Files below a configured root, opened folder by folder so that no link leads out of it."""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

from longtake.serve.errors import ApiError


def _refused(why: str) -> ApiError:
    return ApiError(400, f"The path {why}; expected a regular file below the server's root.", code="bad_path")


def path_of(text: str) -> str:
    """Return the path that a `file:` address or a plain text names.

    Raises: ApiError for an address of another machine.
    """
    if not text.lower().startswith("file:"):
        return text
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise _refused("names another machine")
    return unquote(parts.path)


def open_below(root: str | None, text: str) -> IO[bytes]:
    """Open a file below the root; an absolute path must begin with it.

    Every folder on the way is opened in the one before it without following links, so that nothing can be swapped
    between a check and its use.

    Raises: ApiError if there is no root, or the path leaves it, meets a link, or ends at anything but a file.
    """
    if root is None:
        raise ApiError(403, "Local paths are off; expected an upload; the server is started with --root for them.")
    name, base = path_of(text), os.path.realpath(root)
    if "\0" in name or not name:
        raise _refused("is empty or holds a zero byte")
    if name.startswith("/"):
        for prefix in {base, os.path.abspath(root)}:  # noqa: PTH100 (links must not be resolved)
            if name.startswith(prefix.rstrip("/") + "/"):
                name = name[len(prefix.rstrip("/")) + 1 :]
                break
        else:
            raise _refused("is outside")
    parts = PurePosixPath(name).parts
    if not parts or any(part in ("..", ".", "/") for part in parts):
        raise _refused("climbs")
    return _walk(base, parts)


def _walk(base: str, parts: tuple[str, ...]) -> IO[bytes]:
    handle = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = inner
        found = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
    except (OSError, ValueError) as error:
        raise _refused("is not there, or goes over a link") from error
    finally:
        os.close(handle)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise _refused("is no regular file")
    return os.fdopen(found, "rb")
