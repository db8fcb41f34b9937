"""The list of videos that could not be remembered: what is wrong with each, so that the rest can go on without it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError, StorageError
from longtake.core.files import write_whole

FILE = "quarantine.json"
WRITE_EVERY_S = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantined(StrictConfig):
    """A video that failed: what it was then (bytes, time of its last change), and the error with its type."""

    source: str
    bytes: int
    mtime_ns: int
    type: str
    message: str
    exit_code: int

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is still the one that failed."""
        return (self.bytes, self.mtime_ns) == state_of(self.source)


def state_of(source: str) -> tuple[int, int]:
    """Return the size of a file and when it was changed, in nanoseconds; zeros where there is none."""
    try:
        found = Path(source).stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


class Quarantine:
    """The list in a folder, replaced as a whole: written aside, forced to disk, renamed.

    Raises: ConfigError if there is one that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._found = {each.source: each for each in self._read()}
        self._written_s, self._is_written = 0.0, True

    def __iter__(self) -> Iterator[Quarantined]:
        return iter(self._found.values())

    def holds(self, source: str) -> bool:
        """Say whether this very file failed before."""
        return source in self._found and self._found[source].is_unchanged

    def get(self, source: str) -> Quarantined:
        """Return what is known of a video that is held."""
        return self._found[source]

    def add(self, failed: Quarantined) -> None:
        """Note a failure; it is on disk within seconds, at the latest with `write`."""
        self._found[failed.source], self._is_written = failed, False
        if time.monotonic() - self._written_s > WRITE_EVERY_S:
            self.write()

    def drop(self, source: str) -> None:
        """Forget a video that is remembered now."""
        if self._found.pop(source, None) is not None:
            self._is_written = False

    def write(self) -> None:
        """Have what was noted on disk.

        Raises: StorageError if it cannot be written; the list that was there is whole.
        """
        if self._is_written:
            return
        listed = [self._found[source].to_dict() for source in sorted(self._found)]
        try:
            write_whole(self.path, json.dumps({"videos": listed}, indent=1, ensure_ascii=False).encode())
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written ({error.strerror}); expected room and permission; free some space, "
                "then run the same command again"
            ) from error
        self._written_s, self._is_written = time.monotonic(), True

    def _read(self) -> list[Quarantined]:
        if not self.path.exists():
            return []
        try:
            return [Quarantined.from_dict(each) for each in json.loads(self.path.read_bytes())["videos"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.path} cannot be read ({error}); expected the list that `longtake ingest --ray` wrote; remove it"
            ) from error
