"""Decoding with PyAV: by presentation time, only what was asked for, packet by packet past damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import av.error
import av.logging
import av.stream
import numpy as np

from longtake.core.errors import VideoError
from longtake.media.pixels import fit
from longtake.media.scan import Picture, Scan

av.logging.set_level(av.logging.PANIC)
SEEK_WORTH_FRAMES = 12
CODECS_THAT_SKIP = ("h264", "hevc")  # others hand frames out late, and would skip the wrong ones


def _open(path: str) -> Any:
    try:
        return av.open(path, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"{path} cannot be opened as a video ({error}); expected a video file; check it") from error


def _video_stream(container: Any, path: str) -> Any:
    """Return the first stream of pictures that is not a cover image."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(s.type for s in container.streams) or "none"
        raise VideoError(f"{path} has no video stream (streams: {kinds}); expected one; pass a file with pictures")
    return streams[0]


def scan(path: str) -> Scan:
    """Read the table of frames by demuxing, without decoding.

    Packets that an edit list discards are left out; frames are put in order of presentation.

    Raises: VideoError if the file cannot be opened or holds no video frame.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        times, keys, last_duration, warnings = _read_times(container, stream)
        if not times:
            raise VideoError(f"{path} has a video stream without frames; expected at least one; check the file")
        ticks = np.unique(np.array(times, dtype=np.int64))
        steps = np.diff(ticks)
        typical = int(np.median(steps)) if len(steps) else _frame_ticks(stream)
        ticks_per_s = float(1 / stream.time_base)
        width, height, rotation = _upright_size(path, stream)
        sample_aspect_ratio = stream.sample_aspect_ratio
        return Scan(
            ticks=ticks,
            key_ticks=np.unique(np.array(keys, dtype=np.int64)),
            ticks_per_s=ticks_per_s,
            start_s=container.start_time / av.time_base if container.start_time is not None else 0.0,
            last_duration_s=(last_duration or typical) / ticks_per_s,
            container=container.format.name,
            codec=stream.codec_context.name,
            width=width,
            height=height,
            rotation_degrees=rotation,
            sample_aspect_ratio=float(sample_aspect_ratio) if sample_aspect_ratio else 1.0,
            streams=[f"{s.index}:{s.type}" for s in container.streams],
            warnings=warnings,
        )


def _frame_ticks(stream: Any) -> int:
    """Return the ticks between frames that the container promises, for streams without time stamps."""
    rate = stream.average_rate or stream.guessed_rate
    return max(1, round(1 / (rate * stream.time_base))) if rate and stream.time_base else 1


def _read_times(container: Any, stream: Any) -> tuple[list[int], list[int], int, list[str]]:
    """Return time stamps of all frames, of key frames, the last frame's duration, and what went wrong."""
    times, keys, warnings = [], [], []
    latest, last_duration, discarded, step = None, 0, 0, _frame_ticks(stream)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError as error:
            warnings.append(f"the container could not be read past frame {len(times)} ({error.strerror})")
            break
        discarded += packet.is_discard
        if packet.size == 0 or packet.is_discard:
            continue
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            stamp = times[-1] + step if times else 0
        times.append(stamp)
        if packet.is_keyframe:
            keys.append(stamp)
        if latest is None or stamp >= latest:
            latest, last_duration = stamp, packet.duration or 0
    if stream.frames > len(times) + discarded:
        warnings.append(f"the index promises {stream.frames} frames, {len(times)} are there: the file is cut short")
    return times, keys, last_duration, warnings


def _upright_size(path: str, stream: Any) -> tuple[int, int, int]:
    """Decode one frame to learn how it is turned; a file of which no frame decodes keeps its stored size."""
    width, height, rotation = stream.codec_context.width, stream.codec_context.height, 0
    with _open(path) as container:
        for frame, _ in _decoded(container, _video_stream(container, path), None):
            width, height, rotation = frame.width, frame.height, int(frame.rotation or 0) % 360
            break
    return (height, width, rotation) if rotation % 180 == 90 else (width, height, rotation)


def _decoded(container: Any, stream: Any, wanted: set[int] | None) -> Iterator[tuple[Any, int]]:
    """Yield decoded frames and the count of packets lost so far.

    A frame that nothing refers to and nobody wants is not decoded at all. One bad packet does not end the stream.
    """
    lost = 0
    context = stream.codec_context
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        if wanted is not None and packet.size and context.name in CODECS_THAT_SKIP:
            needed = packet.pts is None or packet.pts in wanted
            context.skip_frame = "DEFAULT" if needed else "NONREF"
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            lost += 1
            continue
        for frame in frames:
            yield frame, lost


def pictures(
    path: str, table: Scan, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool
) -> Iterator[Picture]:
    """Yield the frames at ascending `indices` of the table, one for each mention.

    Whole groups of pictures without a wanted frame are jumped over. A frame that cannot be decoded is replaced by the
    nearest one that can, marked as damaged.

    Raises: VideoError if nothing can be decoded.
    """
    targets = [int(table.ticks[i]) for i in indices]
    with _open(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        reader = _Reader(container, stream, table, set(targets))
        last_frame, last_pixels = None, None
        for tick in targets:
            frame, is_damaged = reader.frame_at(tick)
            if last_pixels is None or frame is not last_frame:
                last_frame, last_pixels = frame, fit(frame, size, exact=exact)
            yield Picture(last_pixels, is_damaged)


class _Reader:
    """Moves forward through a stream and hands out the frame nearest to each tick."""

    def __init__(self, container: Any, stream: Any, table: Scan, wanted: set[int]) -> None:
        self.container, self.stream, self.table, self.wanted = container, stream, table, wanted
        self.frames = _decoded(container, stream, wanted)
        self.before: Any = None
        self.after: Any = None
        self.lost = 0
        self.position: int | None = None

    def _tick(self, frame: Any) -> int:
        """Return a frame's time stamp; one without is taken as the next in the table."""
        if frame.pts is not None:
            return int(frame.pts)
        last = -1 if self.position is None else int(np.searchsorted(self.table.ticks, self.position))
        return int(self.table.ticks[min(last + 1, len(self.table.ticks) - 1)])

    def _seek_if_worth(self, tick: int) -> None:
        keys = self.table.key_ticks
        place = int(np.searchsorted(keys, tick, side="right")) - 1
        if place < 0:
            return
        key = int(keys[place])
        here = self.table.ticks[0] if self.position is None else self.position
        gap = np.searchsorted(self.table.ticks, key) - np.searchsorted(self.table.ticks, here)
        if gap > SEEK_WORTH_FRAMES:
            self._seek(key)

    def _seek(self, key: int) -> None:
        """Jump to a key frame; go back to the start if the container lands behind it."""
        for goal in (key, int(self.table.ticks[0])):
            try:
                self.container.seek(goal, stream=self.stream, backward=True, any_frame=False)
            except av.error.FFmpegError:
                continue
            self.frames = _decoded(self.container, self.stream, self.wanted)
            self.before, self.after = None, None
            if self._advance() and self._tick(self.after) <= key:
                return

    def _advance(self) -> bool:
        try:
            frame, lost = next(self.frames)
        except StopIteration:
            return False
        self.before, self.after, self.lost = self.after, frame, lost
        self.position = self._tick(frame)
        return True

    def frame_at(self, tick: int) -> tuple[Any, bool]:
        """Return the frame nearest to a tick, and whether it stands in for another or was damaged."""
        if self.after is None or self._tick(self.after) < tick:
            self._seek_if_worth(tick)
        lost_before = self.lost
        while self.after is None or self._tick(self.after) < tick:
            if not self._advance():
                break
        if self.after is None:
            raise VideoError("not one frame could be decoded; expected a readable stream; check the file")
        best = self.after
        if self.before is not None and abs(self._tick(self.before) - tick) < abs(self._tick(best) - tick):
            best = self.before
        damaged = bool(best.is_corrupt) or self._tick(best) != tick or self.lost > lost_before
        return best, damaged
