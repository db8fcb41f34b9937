"""Read a memory from disk: what is committed, and only after its checksum was compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from longtake.core.errors import MemoryFormatError
from longtake.core.types import VideoMemory, VisualTokens
from longtake.memory.format import BLOCK_BYTES, END, SEGMENT, SUFFIX, Log, Record, check_payload, read_log
from longtake.memory.key import MemoryHeader
from longtake.memory.segment import StoredSegment, unpack_segment


def is_memory_file(source: object) -> bool:
    """Say whether a source is named like a memory."""
    return isinstance(source, str | Path) and Path(source).suffix == SUFFIX


def memory_files(folder: str | Path) -> list[Path]:
    """Return the memories that lie in a folder, by name; those that are being replaced are hidden and left out."""
    return sorted(file for file in Path(folder).glob(f"*{SUFFIX}") if not file.name.startswith("."))


class StoredMemory:
    """An open memory; use it as a context manager, or close it. It may be read while it is written.

    Raises: MemoryFormatError if the file is missing, no memory, of another version, damaged, or without a header yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._handle: int | None = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MemoryFormatError(
                f"{path} cannot be read ({error.strerror}); expected a memory that `longtake ingest` made; check the "
                "path"
            ) from error
        self._map: mmap.mmap | None = None
        self._log, self._segments = Log(), list[Record]()
        try:
            self.refresh()
            if not self._log.records:
                raise MemoryFormatError(
                    f"{path} holds nothing: its writer was stopped before the header; expected a memory; ingest again"
                )
            self.header = MemoryHeader.from_bytes(self._payload(self._log.records[0]), str(path))
        except BaseException:
            self.close()
            raise

    def refresh(self) -> int:
        """Look at what was committed since, and return the count of segments.

        Raises: MemoryFormatError as opening does.
        """
        assert self._handle is not None, "the memory is closed"
        known, self._log = self._log.end, read_log(self._handle, str(self.path), self._log)
        self._segments = [record for record in self._log.records if record.kind == SEGMENT]
        if self._log.end > known:
            # Committed bytes are never cut off, so a map of them stays valid; the bytes behind may go away.
            self._map = mmap.mmap(self._handle, self._log.end, access=mmap.ACCESS_READ)
        return self.num_segments

    @property
    def digest(self) -> str:
        """Return a hash over the key and all that is committed: equal where, and only where, all of it is."""
        return hashlib.sha256(self.header.identity.fingerprint().encode() + self._log.chain).hexdigest()

    @property
    def num_segments(self) -> int:
        """Count of committed segments."""
        return len(self._segments)

    @property
    def num_bytes(self) -> int:
        """Count of committed bytes."""
        return self._log.end

    @property
    def num_header_bytes(self) -> int:
        """Count of bytes before the first segment."""
        return self._log.records[0].bounds()[1][1] + BLOCK_BYTES

    @property
    def num_torn_bytes(self) -> int:
        """Bytes at the end that a writer has not committed."""
        return self._log.num_torn_bytes

    @property
    def is_complete(self) -> bool:
        """Whether the memory was closed by its writer; if not, it is being written, was interrupted or was cut."""
        return self._log.records[-1].kind == END

    def closing(self) -> dict[str, Any]:
        """Return what the writer said last: the duration and what was lost on the way; nothing if it has not yet.

        Raises: MemoryFormatError if it does not match what is there.
        """
        if not self.is_complete:
            return {}
        said = json.loads(self._payload(self._log.records[-1]))
        if said["num_segments"] != self.num_segments:
            raise MemoryFormatError(
                f"{self.path} has {self.num_segments} segments; expected {said['num_segments']}; ingest the video again"
            )
        return said

    def segments(self, dtype: torch.dtype | None = None) -> Iterator[StoredSegment]:
        """Yield all committed segments, each compared with its checksum.

        dtype: of the tokens, else as the model that made them.

        Raises: MemoryFormatError if one is damaged.
        """
        num_clips = 0
        for number in range(self.num_segments):
            segment = self.segment(number, num_clips, dtype)
            num_clips += len(segment.frame_pts_s)
            yield segment

    def segment(self, number: int, first_clip: int = 0, dtype: torch.dtype | None = None) -> StoredSegment:
        """Return one segment, compared with its checksum; its clips are counted from `first_clip`.

        Raises: MemoryFormatError if it is damaged.
        """
        wanted = dtype or getattr(torch, self.header.dtype)
        return unpack_segment(self._payload(self._segments[number]), first_clip, wanted, str(self.path))

    def memory(self, dtype: torch.dtype | None = None) -> VideoMemory:
        """Return all that is committed as a memory that questions can be asked of.

        Raises: MemoryFormatError if a segment is damaged, or there is none yet.
        """
        segments = list(self.segments(dtype))
        return self._joined(segments, segments)

    def part(self, numbers: Sequence[int], dtype: torch.dtype | None = None) -> VideoMemory:
        """Return some segments, in the given order, as a memory of their clips alone.

        Raises: MemoryFormatError as `memory`.
        """
        segments, num_clips = [], 0
        for number in numbers:
            segments.append(self.segment(number, num_clips, dtype))
            num_clips += len(segments[-1].frame_pts_s)
        memory = self._joined(segments, segments if self.is_complete else list(self.segments(dtype)))
        return dataclasses.replace(memory, settings=dict(memory.settings) | {"segments": tuple(numbers)})

    def _joined(self, segments: Sequence[StoredSegment], so_far: Sequence[StoredSegment]) -> VideoMemory:
        """Put segments together; what is there so far tells how long an unfinished memory is by now."""
        closing = self.closing()
        if not segments:
            raise MemoryFormatError(
                f"{self.path} holds no segment yet; expected at least one; wait for its writer, or ingest again"
            )
        tokens = VisualTokens(
            torch.cat([segment.tokens.features for segment in segments]),
            torch.cat([segment.tokens.frame_weight for segment in segments]),
            torch.cat([segment.tokens.clip_index for segment in segments]),
        )
        times = np.concatenate([segment.frame_pts_s for segment in segments])
        warnings = [str(text) for text in closing.get("warnings", ())]
        duration_s = closing.get("duration_s")
        if duration_s is None:
            duration_s, warning = self._so_far(np.concatenate([segment.frame_pts_s for segment in so_far]))
            warnings.append(warning)
        return VideoMemory(
            tokens, times, float(duration_s), self.header.source, dict(self.header.settings), tuple(warnings)
        )

    def _so_far(self, times: np.ndarray) -> tuple[float, str]:
        """Return how long an unfinished memory is by now, and what to say of it."""
        planned = self.header.num_frames
        if not planned:
            return float(times[-1, -1]), f"{self.path.name} is still being written: {times.size} frames are in it"
        text = f"{self.path.name} is unfinished: {times.size} of {planned} frames are in it; ingest again to go on"
        return self.header.duration_s * times.size / planned, text

    def verify(self) -> None:
        """Compare every byte with its checksum.

        Raises: MemoryFormatError if anything is damaged, or the memory has no end.
        """
        for record in self._log.records:
            self._payload(record)
        self.closing()
        if not self.is_complete or self.num_torn_bytes:
            raise MemoryFormatError(
                f"{self.path} has no end: {self.num_segments} segments are whole, {self.num_torn_bytes} bytes are not "
                "committed; expected a finished memory; if nobody is writing it, run the command that made it again: "
                "it goes on where it stopped"
            )

    def close(self) -> None:
        """Close the file."""
        self._map = None  # what was handed out keeps it alive
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> StoredMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _payload(self, record: Record) -> bytes:
        assert self._map is not None, "the memory is closed"
        data, filling = (self._map[start:end] for start, end in record.bounds())
        return check_payload(record, data, filling, str(self.path))
