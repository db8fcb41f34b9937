"""Remember a video that is still being written: a recording, or a stream that another program puts into a file."""

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
from longtake.core.errors import ConfigError, VideoError
from longtake.core.types import Frames
from longtake.engine.ingest import ingest_segments
from longtake.engine.pictures import settings_of
from longtake.engine.remember import compressor_identity, stamp
from longtake.media.clock import Clock
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
END_BYTES = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watching:
    """How a growing video is watched.

    fps: frames a second, at the centre of each share of time. store, clips_per_segment: as in `remember.Wish`.
    max_bytes: what the memory may take; old segments lose tokens, then go (`memory.demote`). poll_s: how often to
    look; quiet_s: after how long without growth the video counts as finished.
    """

    fps: float | int = 1.0
    store: str = "auto"
    clips_per_segment: int = 8
    max_bytes: int | None = None
    poll_s: float | int = 2.0
    quiet_s: float | int = 30.0
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
    """Append to a memory as a video file grows, until it does not grow any more; questions may be asked meanwhile.

    target: the `*.ltm` file. Times are on a grid that does not depend on what is still to come, so the memory is the
    one that a single look at the finished file gives, to the last byte but the hour it was made. A watch that was
    stopped is gone on with. on_segment is called after each look that added something.

    Raises: VideoError if there is no such file, or it cannot be read when it does not grow any more; ConfigError for
        an address, or a model whose clips depend on those before; StorageError, MemoryFormatError as a writer does;
        BudgetError if not one segment fits `max_bytes`.
    """
    watcher = _Watcher(source, model, Path(target), how or Watching())
    quiet_s, size, is_last = 0.0, -1, False
    while True:
        known, size = size, watcher.size
        grown = size != known
        quiet_s = 0.0 if grown else quiet_s + watcher.how.poll_s
        is_last = quiet_s >= watcher.how.quiet_s
        if (grown or is_last) and watcher.look(is_last=is_last) and on_segment is not None:
            with StoredMemory(watcher.target) as stored:
                on_segment(stored)
        if is_last:
            return watcher.target
        wait(watcher.how.poll_s)


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


class _Watcher:
    """What is known between two looks at a growing file."""

    def __init__(self, source: str | Path, model: LoadedModel, target: Path, how: Watching) -> None:
        if "://" in str(source):
            raise ConfigError(
                f"{source} is an address; expected a file; record it beside: ffmpeg -i ADDRESS -c copy live.ts"
            )
        if not isinstance(model.model, VideoChatFlashForConditionalGeneration):
            raise ConfigError(
                f"{type(model.model).__name__} reads frames in the light of those before; expected a model that "
                "encodes clips on their own; ingest the finished video instead"
            )
        if not how.fps > 0 or how.clips_per_segment < 1 or not how.poll_s > 0:
            raise ConfigError(f"{how}: expected positive fps, clips_per_segment and poll_s; raise them")
        self.source, self.path, self.model, self.target, self.how = source, Path(source).absolute(), model, target, how
        self.store: Store = find_store(how.store, model.dtype)
        self.frames_per_clip = model.config.mm_local_num_frames

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

    def look(self, *, is_last: bool) -> bool:
        """Append what is there and settled, in whole segments; at the end, the rest, and the end itself."""
        if self.size < REWRITTEN_BYTES + EARLY_BYTES and not is_last:
            return False
        try:
            video = open_video(self.path)
        except VideoError:
            if is_last:
                raise
            return False  # not even its header is there yet
        with video, _Bounded(self.target, self._header(video), self.how.max_bytes) as memory:
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
                    raise VideoError(f"{self.source} holds no frame; expected a video; look at what writes it")
                memory.writer.finish(video.clock.duration_s, video.warnings)
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
        """Return the header; the content is known by an early part, which growth does not change."""
        with self.path.open("rb") as file:
            file.seek(REWRITTEN_BYTES)
            early = file.read(EARLY_BYTES)
        key = MemoryKey(
            content=f"early part {hashlib.sha256(early).hexdigest()}",
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
        return stamp(key, str(self.source), video.info, self.model, settings, self.how.options)
