"""A language model's keys and values of a video, in a file beside its memory, so that a question reads no video.

The file is a log of committed records as a memory is (`memory.format`): what it was made from, a record for each chunk
of video that is read at once, and the end. It is written aside and takes its place when it is whole.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError, MemoryFormatError, StorageError
from longtake.core.files import flush
from longtake.memory.format import (
    END,
    FORMAT_VERSION,
    HEAD,
    SEGMENT,
    Log,
    Record,
    check_payload,
    pack_record,
    preamble,
    read_log,
)
from longtake.memory.key import PIPELINE_VERSION
from longtake.memory.writer import open_locked

KEYS_SUFFIX = ".keys.ltk"
REMEDY = "`longtake ask --keep-keys` makes them anew, `longtake memory prune --keys none` removes them"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeysKey(StrictConfig):
    """Everything that the keys of a video depend on; they serve a question only where all of it is equal.

    memory: the digest of all that the memory holds. tokens_per_frame: what its tokens were merged to when they were
    read, none for as they are. model: its fingerprint (weights, configuration, dtype). selector, reducer: fingerprints
    of how clips are scored, which cuts the video into chunks, and of what drops tokens between layers. prefix: the ids
    of the prompt before the video. device, longtake: what computed them.
    """

    memory: str
    tokens_per_frame: float | int | None
    model: str
    selector: str
    reducer: str | None
    prefix: tuple[int, ...]
    num_chunks: int
    device: str
    longtake: str
    format_version: int = FORMAT_VERSION
    pipeline_version: int = PIPELINE_VERSION

    def differences(self, other: KeysKey) -> list[str]:
        """Return the names of the fields in which two differ."""
        return [
            field.name for field in dataclasses.fields(self) if getattr(self, field.name) != getattr(other, field.name)
        ]


def keys_path(memory: str | Path) -> Path:
    """Return where the keys of a memory's video lie."""
    path = Path(memory)
    return path.with_name(path.stem + KEYS_SUFFIX)


def aside_path(memory: str | Path) -> Path:
    """Return where they are written to until they are whole."""
    path = keys_path(memory)
    return path.with_name(f".{path.name}.new")


def remove_keys(memory: str | Path) -> int:
    """Remove the keys of a memory's video, also such as were never finished; return how many bytes that gave back.

    Raises: StorageError if they cannot be removed.
    """
    freed = 0
    for path in (keys_path(memory), aside_path(memory)):
        try:
            if path.exists():
                freed += path.stat().st_size
                path.unlink()
        except OSError as error:
            raise StorageError(
                f"{path} cannot be removed ({error.strerror}); expected permission; remove it by hand"
            ) from error
    return freed


class KeysWriter:
    """Writes the keys of a video aside; `finish` puts them in their place. Use it as a context manager.

    Raises: StorageError if they cannot be written, or another process is writing them.
    """

    def __init__(self, memory: str | Path, key: KeysKey) -> None:
        self.path, self.aside, self.key = keys_path(memory), aside_path(memory), key
        self._handle: int | None = open_locked(self.aside)
        try:
            os.ftruncate(self._handle, 0)  # what a writer left that was killed
            self._write(preamble())
            self._log = Log(end=len(preamble()))
            self._commit(HEAD, json.dumps(key.to_dict(), sort_keys=True).encode())
        except BaseException:
            self.close()
            raise

    def append(self, chunk: Mapping[str, Tensor]) -> None:
        """Add the next chunk.

        Raises: StorageError if it could not be written.
        """
        self._commit(SEGMENT, save({name: value.detach().cpu().contiguous() for name, value in chunk.items()}))

    def finish(self) -> Path:
        """Put the keys in their place, for good; return where that is.

        Raises: StorageError if that cannot be done; ConfigError if a chunk is missing.
        """
        done = len(self._log.records) - 1
        if done != self.key.num_chunks:
            raise ConfigError(f"{done} chunks were written; expected {self.key.num_chunks}; append all of them first")
        self._commit(END, json.dumps({"num_chunks": done}).encode())
        assert self._handle is not None, "the keys are closed"
        try:
            os.fsync(self._handle)
            self.aside.replace(self.path)
            flush(self.path.parent)
        except OSError as error:
            raise self._refused(error) from error
        self.close()
        return self.path

    def close(self) -> None:
        """Give up what is not finished."""
        if self._handle is not None:
            if self.aside.exists() and os.path.samestat(os.fstat(self._handle), self.aside.stat()):
                self.aside.unlink()
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> KeysWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self, kind: bytes, payload: bytes) -> None:
        body, commit, self._log = pack_record(self._log, kind, payload)
        self._write(body)
        self._write(commit)

    def _write(self, data: bytes) -> None:
        assert self._handle is not None, "the keys are closed"
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.aside} could not be written ({error.strerror}); expected room for the keys of a video; free some "
            "space, or do without them"
        )


class StoredKeys:
    """Open keys of a video; use it as a context manager, or close it.

    Raises: MemoryFormatError if the file is missing, damaged, cut short or of another version.
    """

    def __init__(self, memory: str | Path) -> None:
        self.path = keys_path(memory)
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._damaged(f"cannot be read ({error.strerror})") from error
        self._map: mmap.mmap | None = None
        try:
            log = read_log(handle, str(self.path))
            self._records = log.records
            if not self._records or self._records[-1].kind != END or log.num_torn_bytes:
                raise self._damaged("has no end")
            self._map = mmap.mmap(handle, log.end, access=mmap.ACCESS_READ)
            self.num_bytes = log.end
            self.key = self._read_key()
            if self.num_chunks != self.key.num_chunks:
                raise self._damaged(f"holds {self.num_chunks} of {self.key.num_chunks} chunks")
        finally:
            os.close(handle)

    @property
    def num_chunks(self) -> int:
        """Count of chunks of video."""
        return len(self._records) - 2

    def chunk(self, number: int) -> dict[str, Tensor]:
        """Return one chunk, compared with its checksum.

        Raises: MemoryFormatError if it is damaged.
        """
        try:
            return load(self._payload(self._records[number + 1]))
        except SafetensorError as broken:
            raise self._damaged(f"holds a chunk that cannot be read ({broken!r})") from broken

    def verify(self) -> None:
        """Compare every byte with its checksum.

        Raises: MemoryFormatError if any is damaged.
        """
        for record in self._records:
            self._payload(record)

    def close(self) -> None:
        """Close the file."""
        self._map = None

    def __enter__(self) -> StoredKeys:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_key(self) -> KeysKey:
        try:
            return KeysKey.from_dict(json.loads(self._payload(self._records[0])))
        except (ValueError, TypeError, ConfigError) as error:
            raise self._damaged(f"has a header that this longtake cannot read ({error})") from error

    def _payload(self, record: Record) -> bytes:
        assert self._map is not None, "the keys are closed"
        data, filling = (self._map[start:end] for start, end in record.bounds())
        return check_payload(record, data, filling, str(self.path))

    def _damaged(self, what: str) -> MemoryFormatError:
        return MemoryFormatError(f"{self.path} {what}; expected the keys of a whole video; {REMEDY}")
