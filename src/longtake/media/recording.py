"""A stream or a camera as a video that grows: recorded in pieces by another process, which are removed once read."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from longtake.core import errors
from longtake.core.errors import ConfigError, MemoryBusyError, VideoError
from longtake.core.files import make_folder
from longtake.media.child import end_child, send_line, start_child
from longtake.media.clock import Clock
from longtake.media.info import VideoInfo
from longtake.media.recorder import PROTOCOLS, Order, PieceTable, State, table_path
from longtake.media.scan import Picture
from longtake.media.video import Video, open_video

LOCK_FILE = "lock"
CAMERA = "camera:"
CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
DEFAULT_PIECE_S = 10.0
DEFAULT_LIMIT_BYTES = 256_000_000
FRAMES_AT_ONCE = 8
START = "from longtake.media.recorder import main; sys.exit(main())"


def is_stream(source: object) -> bool:
    """Say whether a source is an address or a camera, and not a file."""
    return isinstance(source, str) and (source.startswith(CAMERA) or "://" in source)


def shown_source(source: str) -> str:
    """Return an address without the name and password that may stand in it."""
    parts = urlsplit(source)
    if parts.password is None and parts.username is None:
        return source
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def read_source(source: str) -> tuple[str, str | None]:
    """Return what is opened and, of a camera, in which format: `camera:/dev/video0`, `camera:v4l2:/dev/video0`.

    Raises: ConfigError for another kind of address.
    """
    if source.startswith(CAMERA):
        kind, found, name = source.removeprefix(CAMERA).partition(":")
        if found and kind.isalnum() and not kind.isdigit():
            return name, kind
        return source.removeprefix(CAMERA), CAMERA_FORMATS.get(sys.platform, "v4l2")
    scheme = source.split("://")[0].lower()
    if scheme not in PROTOCOLS:
        raise ConfigError(
            f"{shown_source(source)} is an address of kind {scheme}; expected {', '.join(PROTOCOLS)}, camera:NAME or "
            "a file; record another into a file that is watched"
        )
    return source, None


class _Part(NamedTuple):
    """A piece: its file, and when its frames are shown in the recording."""

    path: Path
    pts_s: np.ndarray
    end_s: float


class _FromPieces:
    """Pictures of pieces; those of one piece after the other are decoded, each in a process of its own."""

    def __init__(self, parts: list[_Part]) -> None:
        self.parts = parts
        self.warnings: list[str] = []
        self._firsts = np.cumsum([0, *(len(part.pts_s) for part in parts)])

    def pictures(self, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool) -> Iterator[Picture]:
        """Yield pictures."""
        places = np.searchsorted(self._firsts, indices, side="right") - 1
        for number in np.unique(places).tolist():
            rows = indices[places == number] - self._firsts[number]
            times = self.parts[number].pts_s
            with open_video(self.parts[number].path) as video:
                start_s = float(video.clock.pts_s[0]) - float(times[0])
                chunks = video.frames_at(
                    times[rows] + start_s, size=size, resize="exact" if exact else "fast", chunk_frames=FRAMES_AT_ONCE
                )
                for frames in chunks:
                    damaged = np.zeros(len(frames), dtype=bool) if frames.damaged is None else frames.damaged
                    yield from (Picture(*both) for both in zip(frames.pixels, damaged.tolist(), strict=True))
                self.warnings += [text for text in video.warnings if text not in self.warnings]

    def close(self) -> None:
        """Nothing is held open."""


class Recording:
    """A recording under way; use it as a context manager, or close it. What was not read yet is gone on with later.

    folder: where pieces are. limit_bytes: how many they may have together; the recorder waits while nobody takes them.
    options: further ones of FFmpeg's for this kind of source.

    Raises: ConfigError for an unknown kind of source; StorageError if the folder cannot be made.
    """

    def __init__(
        self,
        source: str,
        folder: Path,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        piece_s: float | int = DEFAULT_PIECE_S,
        quiet_s: float | int = 30.0,
        options: Mapping[str, str] | None = None,
    ) -> None:
        place, kind = read_source(source)
        self.source, self.folder = shown_source(source), folder
        self.order = Order(
            source=place,
            format=kind,
            folder=str(folder.absolute()),
            options=dict(options or {}),
            limit_bytes=limit_bytes,
            piece_s=piece_s,
            quiet_s=quiet_s,
        )
        make_folder(folder)
        self._info: VideoInfo | None = None
        self._lock = self._locked()
        State.read(folder).going_on().write(folder)
        self._process, self._log = self._start()

    @property
    def state(self) -> State:
        """Return how far the recorder has come.

        Raises: VideoError if the source cannot be opened or recorded, or the recorder crashed; StorageError if it has
            no room; MemoryBusyError if somebody else records there.
        """
        ended = self._process.poll() is not None  # looked at before the state, which it wrote before
        state = State.read(self.folder)
        if state.failed:
            raise getattr(errors, state.error, VideoError)(
                f"{self.source} cannot be recorded ({state.failed}); expected a stream or camera that gives video; "
                "check the address or name, and that it is running"
            )
        if ended and not state.ended:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
            raise VideoError(
                f"the recorder of {self.source} ended ({', '.join([f'exit {self._process.returncode}', *said])}); "
                "expected it to go on; run the same command again: it goes on where it stopped"
            )
        return state

    @property
    def size(self) -> int:
        """Count of pieces ever."""
        return self.state.num_pieces

    @property
    def has_ended(self) -> bool:
        """Whether no more pieces will come."""
        return bool(self.state.ended)

    @property
    def is_full(self) -> bool:
        """Whether the recorder waits for pieces to be taken."""
        return sum(part.path.stat().st_size for part in self._parts()) >= self.order.limit_bytes

    @property
    def content(self) -> str:
        """Return what tells this recording from others: a hash of its beginning."""
        return self.state.early

    def open(self) -> Video | None:
        """Return what is there and was not forgotten as one video; none if there is nothing."""
        parts = self._parts()
        if not parts:
            return None
        if self._info is None:
            with open_video(parts[0].path) as video:
                self._info = video.info
        clock = Clock(np.concatenate([part.pts_s for part in parts]), parts[-1].end_s)
        info = dataclasses.replace(self._info, source=self.source, num_frames=len(clock), warnings=self._warnings())
        return Video(info, clock, _FromPieces(parts))

    def forget(self, time_s: float) -> None:
        """Remove the pieces that hold no frame which is nearest to this time or a later one."""
        for part, following in pairwise(self._parts()):
            if following.pts_s[0] <= time_s:
                table_path(part.path).unlink()
                part.path.unlink()

    def remove(self) -> None:
        """Close it and remove all that is left."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """End the recorder; what it has finished stays."""
        end_child(self._process, self._log)
        self._lock.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _locked(self) -> IO[bytes]:
        """Return an open file whose lock says that somebody records here.

        Raises: MemoryBusyError if somebody else does.
        """
        lock = (self.folder / LOCK_FILE).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise MemoryBusyError(
                f"another process records into {self.folder}; expected one at a time; wait for it to end, or choose "
                "another memory"
            ) from error
        return lock

    def _start(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        process, log = start_child(START)
        # The address may hold a password: it goes through a pipe, where no list of processes shows it.
        with contextlib.suppress(BrokenPipeError):  # it crashed, which `state` tells
            send_line(process, self.order.to_dict())
        return process, log

    def _parts(self) -> list[_Part]:
        """Return the pieces that are there, in order; frames that do not come later than those before are left out."""
        parts: list[_Part] = []
        for path in sorted(self.folder.glob("*.mp4")):
            if not table_path(path).exists():
                continue
            table = PieceTable.from_dict(json.loads(table_path(path).read_bytes()))
            ticks = np.array(table.ticks, dtype=np.int64)
            pts_s = ticks / table.ticks_per_s - table.origin_s
            typical = int(np.median(np.diff(ticks))) if len(ticks) > 1 else 0
            end_s = float(pts_s[-1]) + (table.last_duration or typical) / table.ticks_per_s
            if not parts or pts_s[0] > parts[-1].pts_s[-1]:
                parts.append(_Part(path, pts_s, end_s))
        return parts

    def _warnings(self) -> tuple[str, ...]:
        state = self.state
        if not state.num_lost:
            return ()
        times = "once" if state.num_lost == 1 else f"{state.num_lost} times"
        missing = f"; {state.missing_s:.1f} s of it are missing" if state.missing_s else "; nothing of it is missing"
        return (f"the connection was lost {times}{missing}",)
