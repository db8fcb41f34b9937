"""The one writer of a memory: each segment is committed on its own, or was never there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from longtake.core.errors import MemoryBusyError, MemoryFormatError, StorageError
from longtake.core.files import flush
from longtake.memory.format import END, HEAD, SEGMENT, Log, check_payload, pack_record, preamble, read_log
from longtake.memory.key import MemoryHeader


class MemoryWriter:
    """Creates a memory, or goes on with one that has the same key; use it as a context manager, or close it.

    While it is open nobody else can write. What an earlier writer did not commit is cut off.

    Raises: StorageError if the file cannot be written, or somebody else is writing it; MemoryFormatError if what is
        there is damaged, no memory, or a memory of something else.
    """

    def __init__(self, path: str | Path, header: MemoryHeader) -> None:
        self.path = Path(path)
        self._handle: int | None = open_locked(self.path)
        try:
            self._log = read_log(self._handle, str(self.path))
            if self._log.num_torn_bytes:
                self._cut()
            if not self._log.records:
                self._begin(header)
            self.header = self._stored_header()
            if self.header.identity.fingerprint() != header.identity.fingerprint():
                raise MemoryFormatError(
                    f"{self.path} is a memory of {self.header.source} under another key; expected that of "
                    f"{header.source} as it is to be read now; choose another place, or remove it"
                )
        except BaseException:
            self.close()
            raise

    @property
    def num_segments(self) -> int:
        """Count of committed segments."""
        return sum(record.kind == SEGMENT for record in self._log.records)

    @property
    def is_complete(self) -> bool:
        """Whether the memory was closed and nothing came after."""
        return self._log.records[-1].kind == END

    def append(self, segment: bytes) -> None:
        """Commit a segment, as `longtake.memory.segment.pack_segment` wrote it.

        Raises: StorageError if it could not be written; the memory is as it was before.
        """
        self._commit(SEGMENT, segment)

    def finish(self, duration_s: float | int, warnings: Sequence[str] = ()) -> None:
        """Say that the memory is whole.

        Raises: StorageError as `append`.
        """
        closing = {"num_segments": self.num_segments, "duration_s": duration_s, "warnings": list(warnings)}
        self._commit(END, json.dumps(closing).encode())

    def close(self) -> None:
        """Let others write."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> MemoryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _open(self) -> int:
        if self._handle is None:
            raise StorageError(f"{self.path} is closed; expected an open memory; open a writer again")
        return self._handle

    def _begin(self, header: MemoryHeader) -> None:
        if self._log.end == 0:
            self._write(preamble(), 0)
            self._log = Log(end=len(preamble()))
        self._commit(HEAD, header.to_bytes())
        flush(self.path.parent)

    def _stored_header(self) -> MemoryHeader:
        """Compare all that is there with its checksums before anything is added to it; return its header."""
        name, header = str(self.path), b""
        for record in self._log.records:
            data, filling = (os.pread(self._open, end - start, start) for start, end in record.bounds())
            checked = check_payload(record, data, filling, name)
            header = header or checked
        return MemoryHeader.from_bytes(header, name)

    def _commit(self, kind: bytes, payload: bytes) -> None:
        """Write a record, have it on disk, then write its commit: the order makes it all or nothing."""
        body, commit, grown = pack_record(self._log, kind, payload)
        self._write(body, self._log.end)
        self._write(commit, self._log.end + len(body))
        self._log = grown

    def _write(self, data: bytes, at: int) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._open, view, at)
                view, at = view[written:], at + written
            os.fsync(self._open)
        except OSError as error:
            self._cut()
            raise StorageError(
                f"{self.path} could not be written ({error.strerror}); expected room for {len(data)} bytes; free some "
                "space and run the same command again: it goes on where it stopped"
            ) from error

    def _cut(self) -> None:
        """Cut off what is not committed. Where even that fails, the next writer does it."""
        try:
            os.ftruncate(self._open, self._log.end)
        except OSError:
            return


def open_locked(path: Path) -> int:
    """Open a file, or create it, and lock it.

    Raises: StorageError if that cannot be done, or somebody else has locked it.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be written ({error.strerror}); expected a folder that is there and writable; choose "
                "another"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StorageError(
                    f"{path} cannot be locked ({error.strerror}); expected a file system with locks; choose another"
                ) from error
            raise MemoryBusyError(
                f"{path} is being written by another process; expected one writer at a time; wait for it to end, then "
                "run the same command again"
            ) from error
        os.close(handle)  # it was replaced between opening and locking: take the new one


@contextmanager
def replacing(path: Path, target: Path | None = None) -> Iterator[Path]:
    """Give a place beside a file to write its successor to, which takes its place once all went well.

    target: where the successor goes, if not to `path`; the old file is removed then.
    """
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    try:
        yield aside
        aside.replace(target or path)
        flush(path.parent)
        if target not in (None, path):
            path.unlink()
    finally:
        aside.unlink(missing_ok=True)
