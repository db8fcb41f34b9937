"""Remember a video that is still growing: a file that is being written, a stream from an address, or a camera."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float

from longtake._version import __version__
from longtake.core.errors import BudgetError, ConfigError, VideoError
from longtake.core.types import Frames
from longtake.engine.ingest import ingest_segments
from longtake.engine.pictures import settings_of
from longtake.engine.remember import compressor_identity, stamp
from longtake.media.clock import Clock
from longtake.media.recording import DEFAULT_LIMIT_BYTES, DEFAULT_PIECE_S, Recording, is_stream
from longtake.media.sampling import Sampled
from longtake.media.video import Video, open_video
from longtake.memory.demote import demote, num_bytes
from longtake.memory.key import MemoryHeader, MemoryKey
from longtake.memory.quantize import Store, find_store
from longtake.memory.reader import StoredMemory
from longtake.memory.segment import pack_segment, thumbnail
from longtake.memory.writer import MemoryWriter
from longtake.models.loaded import LoadedModel
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration

# Recorders write their header anew at the end; what lies behind it stays.
REWRITTEN_BYTES = 1 << 12
EARLY_BYTES = 1 << 14
SETTLED_S = 1.0
ROOM_TO_GROW = 0.75
RECORDED_PART = 4
END_BYTES = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watching:
    """How a growing video is watched.

    fps: frames a second, at the centre of each share of time. store, clips_per_segment: as in `remember.Wish`.
    max_bytes: what may be on disk; old segments lose tokens, then go (`memory.demote`). Of a stream, a quarter of it is
    for what is recorded and not yet read; without a limit that is `media.recording.DEFAULT_LIMIT_BYTES`. poll_s: how
    often to look; quiet_s: after how long without growth the video counts as finished. piece_s: seconds of a piece of
    a recorded stream. stream_options: of FFmpeg, for the address or camera.
    """

    fps: float | int = 1.0
    store: str = "auto"
    clips_per_segment: int = 8
    max_bytes: int | None = None
    poll_s: float | int = 2.0
    quiet_s: float | int = 30.0
    piece_s: float | int = DEFAULT_PIECE_S
    stream_options: tuple[tuple[str, str], ...] = ()
    options: str = ""


def watch(
    source: str | Path,
    model: LoadedModel,
    target: str | Path,
    how: Watching | None = None,
    *,
    wait: Callable[[float], None] = time.sleep,
    on_segment: Callable[[StoredMemory], None] | None = None,
) -> Path:
    """Append to a memory as a video grows, until it does not grow any more; questions may be asked meanwhile.

    source: a file, an http(s) or rtsp address, or `camera:NAME`. A stream is recorded beside the memory, in pieces that
    are removed once they are read; lost connections are made anew. target: the `*.ltm` file. Times are on a grid that
    does not depend on what is still to come, so the memory is the one that a single look at the finished file gives, to
    the last byte but the hour it was made. A watch that was stopped is gone on with. on_segment is called after each
    look that added something.

    Raises: VideoError if there is no such file, stream or camera, or it cannot be read when it does not grow any more;
        ConfigError for another kind of address, or a model whose clips depend on those before; StorageError,
        MemoryFormatError as a writer does; BudgetError if not one segment fits `max_bytes`.
    """
    how = how or Watching()
    _check(model, how)
    if is_stream(source) and _is_complete(Path(target)):
        return Path(target)
    with _growing(source, Path(target), how) as growing:
        watcher = _Watcher(growing, model, Path(target), how)
        quiet_s, size, is_last = 0.0, -1, False
        while not is_last:
            known, size = size, growing.size
            quiet_s = 0.0 if size != known else quiet_s + how.poll_s
            is_last = growing.is_over(quiet_s)
            size = growing.size if is_last else size
            if (size != known or is_last) and watcher.look(is_last=is_last) and on_segment is not None:
                with StoredMemory(watcher.target) as stored:
                    on_segment(stored)
            if not is_last:
                wait(how.poll_s)
        growing.remove()
    return Path(target)


def _check(model: LoadedModel, how: Watching) -> None:
    """Refuse what cannot be watched with, before anything is opened."""
    if not isinstance(model.model, VideoChatFlashForConditionalGeneration):
        raise ConfigError(
            f"{type(model.model).__name__} reads frames in the light of those before; expected a model that "
            "encodes clips on their own; ingest the finished video instead"
        )
    if not how.fps > 0 or how.clips_per_segment < 1 or not how.poll_s > 0 or not how.piece_s > 0:
        raise ConfigError(f"{how}: expected positive fps, clips_per_segment, poll_s and piece_s; raise them")


def _is_complete(path: Path) -> bool:
    """Say whether a finished memory is there."""
    if not path.exists():
        return False
    with StoredMemory(path) as stored:
        return stored.is_complete


def _growing(source: str | Path, target: Path, how: Watching) -> GrowingFile | GrowingStream:
    """Return what is watched, opened."""
    if not is_stream(source):
        return GrowingFile(source, how.quiet_s)
    limit = DEFAULT_LIMIT_BYTES if how.max_bytes is None else how.max_bytes // RECORDED_PART
    recording = Recording(
        str(source),
        target.with_name(f"{target.stem}.recording"),
        limit_bytes=limit,
        piece_s=how.piece_s,
        quiet_s=how.quiet_s,
        options=dict(how.stream_options),
    )
    return GrowingStream(recording)


def grid_times(clock: Clock, fps: float | int, done: int, *, is_last: bool) -> Float[np.ndarray, "T"]:
    """Return the presentation times of the frames from number `done` on that later packets cannot change any more."""
    known_s = clock.duration_s if is_last else float(clock.pts_s[-1]) - SETTLED_S
    count = max(0, int(np.floor(known_s * fps + 0.5)))
    centres = (np.arange(done, count) + 0.5) / fps
    return clock.pts_s[clock.nearest(centres)]


class _Bounded:
    """A writer that makes room before a segment would pass the limit."""

    def __init__(self, path: Path, header: MemoryHeader, max_bytes: int | None) -> None:
        self.path, self.header, self.max_bytes = path, header, max_bytes
        self.writer = MemoryWriter(path, header)

    def append(self, segment: bytes) -> None:
        """Commit a segment; the oldest ones lose detail for it where there is a limit."""
        needed = num_bytes(segment) + END_BYTES
        if self.max_bytes is not None and self.path.stat().st_size + needed > self.max_bytes:
            self.writer.close()
            demote(self.path, max(int(self.max_bytes * ROOM_TO_GROW) - needed, 0))
            self.writer = MemoryWriter(self.path, self.header)
        self.writer.append(segment)

    def __enter__(self) -> _Bounded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()


class GrowingFile:
    """A video file that another program writes."""

    def __init__(self, source: str | Path, quiet_s: float | int) -> None:
        self.source, self.path, self.quiet_s = str(source), Path(source).absolute(), quiet_s

    @property
    def size(self) -> int:
        """Return how many bytes are there by now.

        Raises: VideoError if there is no such file, or not any more.
        """
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise VideoError(
                f"{self.source} cannot be read ({error.strerror}); expected a video file that grows; check the path"
            ) from error

    def is_over(self, quiet_s: float) -> bool:
        """Say whether it counts as finished."""
        return quiet_s >= self.quiet_s

    def open(self, *, is_last: bool) -> Video | None:
        """Return what is there by now; none if not even its header is.

        Raises: VideoError if it cannot be opened though it is finished.
        """
        if self.size < REWRITTEN_BYTES + EARLY_BYTES and not is_last:
            return None
        try:
            return open_video(self.path)
        except VideoError:
            if is_last:
                raise
            return None

    @property
    def content(self) -> str:
        """Return a hash of an early part, which growth does not change."""
        with self.path.open("rb") as file:
            file.seek(REWRITTEN_BYTES)
            early = file.read(EARLY_BYTES)
        return hashlib.sha256(early).hexdigest()

    def forget(self, time_s: float) -> None:
        """The file is not ours: nothing of it is removed."""

    def remove(self) -> None:
        """The file is not ours."""

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is held open between two looks."""


class GrowingStream:
    """A stream that is recorded while it is watched."""

    def __init__(self, recording: Recording) -> None:
        self.recording, self.source = recording, recording.source
        self._size_seen = 0

    @property
    def size(self) -> int:
        """Return how many pieces have come by now."""
        return self.recording.size

    def is_over(self, quiet_s: float) -> bool:
        """Say whether no more will come; how long it may be quiet is the recorder's to say, who loses connections."""
        return self.recording.has_ended

    def open(self, *, is_last: bool) -> Video | None:
        """Return what is recorded and not forgotten.

        Raises: VideoError if nothing was recorded to the end.
        """
        self._size_seen = self.size
        video = self.recording.open()
        if video is None and is_last:
            raise VideoError(
                f"{self.source} gave no frame; expected a video; look at what sends it (an mp4 whose index stands "
                "at its end needs a server that sends ranges: write it with -movflags +faststart, or fetch it first)"
            )
        return video

    @property
    def content(self) -> str:
        """Return a hash of its beginning."""
        return self.recording.content

    def forget(self, time_s: float) -> None:
        """Remove what no later look needs.

        Raises: BudgetError if there is no room to record what the next look waits for.
        """
        self.recording.forget(time_s)
        if self.recording.is_full and self.size == self._size_seen and not self.recording.has_ended:
            limit_mb = self.recording.order.limit_bytes / 1e6
            raise BudgetError(
                f"one segment of {self.source} takes more than the {limit_mb:g} MB that it may be recorded in; "
                f"expected room for one; pass max_mb {2 * RECORDED_PART * limit_mb:g} or more, or a higher fps"
            )

    def remove(self) -> None:
        """Remove what was recorded: all of it was read."""
        self.recording.remove()

    def __enter__(self) -> GrowingStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.recording.close()


class _Watcher:
    """What is known between two looks at a growing video."""

    def __init__(self, growing: GrowingFile | GrowingStream, model: LoadedModel, target: Path, how: Watching) -> None:
        self.growing, self.model, self.target, self.how = growing, model, target, how
        self.store: Store = find_store(how.store, model.dtype)
        self.frames_per_clip = model.config.mm_local_num_frames
        self.max_bytes = how.max_bytes
        if self.max_bytes is not None and isinstance(growing, GrowingStream):
            self.max_bytes -= self.max_bytes // RECORDED_PART

    def look(self, *, is_last: bool) -> bool:
        """Append what is there and settled, in whole segments; at the end, the rest, and the end itself."""
        video = self.growing.open(is_last=is_last)
        if video is None:
            return False
        with video, _Bounded(self.target, self._header(video), self.max_bytes) as memory:
            if memory.writer.is_complete:
                return False
            done = self._num_done() if memory.writer.num_segments else 0
            size = self.how.clips_per_segment * self.frames_per_clip
            times = grid_times(video.clock, self.how.fps, done, is_last=is_last)
            if not is_last:
                times = times[: len(times) // size * size]
            elif len(times) % self.frames_per_clip:
                times = np.append(times, np.repeat(times[-1:], -len(times) % self.frames_per_clip))
            if len(times):
                self._append(video, memory, times, done)
            if is_last:
                if not memory.writer.num_segments:
                    raise VideoError(f"{self.growing.source} holds no frame; expected a video; look at what writes it")
                memory.writer.finish(video.clock.duration_s, video.warnings)
        self.growing.forget((done + len(times) + 0.5) / self.how.fps)
        return len(times) > 0

    def _append(self, video: Video, memory: _Bounded, times: Float[np.ndarray, "T"], done: int) -> None:
        pictures: list[bytes] = []

        def keep_picture(frames: Frames) -> None:
            pictures.append(thumbnail(frames.pixels[len(frames) // 2], memory.header.aspect))

        segments = ingest_segments(
            video,
            self.model,
            Sampled(times, video.clock.duration_s),
            chunk_clips=self.how.clips_per_segment,
            on_frames=keep_picture,
        )
        for segment in segments:
            memory.append(pack_segment(segment.tokens, segment.frame_pts_s, pictures[-1], self.store, done))
            done += segment.frame_pts_s.size

    def _num_done(self) -> int:
        """Return how many frames were ever put into the memory, forgotten ones counted."""
        with StoredMemory(self.target) as stored:
            last = stored.segment(stored.num_segments - 1)
        return last.first_frame + last.frame_pts_s.size

    def _header(self, video: Video) -> MemoryHeader:
        """Return the header; the content is known by an early part."""
        key = MemoryKey(
            content=f"early part {self.growing.content}",
            model=self.model.fingerprint,
            compressor=compressor_identity(self.model),
            sampling=f"grid {self.how.fps!r}",
            max_frames=0,
            max_tiles=None,
            start_s=None,
            end_s=None,
            frames_per_clip=self.frames_per_clip,
            clips_per_segment=self.how.clips_per_segment,
            store=self.store,
            decoder=video.info.backend,
            device=self.model.device.type,
            longtake=__version__,
            changes=() if self.how.max_bytes is None else (f"max_bytes={self.how.max_bytes}",),
        )
        settings = settings_of(self.model, "video")
        return stamp(key, self.growing.source, video.info, self.model, settings, self.how.options)
