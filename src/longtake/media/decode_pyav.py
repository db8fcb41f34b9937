"""Decoding with PyAV: by presentation time, only what was asked for, packet by packet past damage."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import av.stream
import numpy as np

from longtake.core.errors import VideoError
from longtake.media.pixels import fit
from longtake.media.scan import Alive, Picture, Scan, no_watch

# FFmpeg's log stays off: with it on, PyAV takes the interpreter's lock in decoder threads, and damage can hang it.
SEEK_WORTH_FRAMES = 12
SEEK_MARGIN_S = 10.0
MAX_READ_ERRORS = 64
CODECS_THAT_SKIP = ("h264", "hevc")  # others hand frames out late, and would skip the wrong ones


def _open(path: str) -> Any:
    """Open a container; only local files may be read, also by playlists that name other files."""
    try:
        return av.open(path, metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, ValueError) as error:
        reason = _reason(error, path)
        raise VideoError(f"{path} cannot be opened as a video ({reason}); expected a video file; check it") from error


def _reason(error: Exception, path: str) -> str:
    """Say what is wrong with a file that does not open."""
    if isinstance(error, av.error.InvalidDataError):
        with Path(path).open("rb") as file:
            if file.read(8)[4:] == b"ftyp":
                return "its index, the moov atom, is not found: the file is cut short, or was never finished"
    return str(getattr(error, "strerror", None) or error)


def _video_stream(container: Any, path: str) -> Any:
    """Return the first stream of pictures that is not a cover image."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(s.type for s in container.streams) or "none"
        raise VideoError(f"{path} has no video stream (streams: {kinds}); expected one; pass a file with pictures")
    if streams[0].codec_context is None:
        raise VideoError(f"{path} has a video stream that PyAV has no decoder for; expected a known codec; convert it")
    return streams[0]


def _packets(container: Any, stream: Any, errors: list[str]) -> Iterator[Any]:
    """Yield packets to the end of the file; past a read error the demuxer is asked again, a few times."""
    while len(errors) < MAX_READ_ERRORS:
        try:
            yield from container.demux(stream)
            return
        except av.error.FFmpegError as error:
            errors.append(str(error.strerror))
        except IndexError:  # PyAV 18 at the end of a file in which a stream turned up late; ours has ended by then
            return


def scan(path: str, alive: Alive = no_watch) -> Scan:
    """Read the table of frames by demuxing; only the first frame is decoded, to learn how it is turned.

    Packets that an edit list discards are left out; frames are put in order of presentation.

    Raises: VideoError if the file cannot be opened, or no frame of it decodes.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        times = _read_times(container, stream, alive)
        if not times.ticks:
            raise VideoError(f"{path} has a video stream without frames; expected at least one; check the file")
        ticks = np.unique(np.frombuffer(times.ticks, dtype=np.int64))
        steps = np.diff(ticks)
        typical = int(np.median(steps)) if len(steps) else _frame_ticks(stream)
        ticks_per_s = float(1 / stream.time_base)
        width, height, rotation = _upright_size(path, alive)
        sample_aspect_ratio = stream.sample_aspect_ratio
        return Scan(
            ticks=ticks,
            key_ticks=np.unique(np.frombuffer(times.key_ticks, dtype=np.int64)) if times.key_ticks else ticks[:0],
            ticks_per_s=ticks_per_s,
            start_s=container.start_time / av.time_base if container.start_time is not None else 0.0,
            last_duration_s=(times.last_duration or typical) / ticks_per_s,
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            width=width,
            height=height,
            rotation_degrees=rotation,
            sample_aspect_ratio=float(sample_aspect_ratio) if sample_aspect_ratio else 1.0,
            stream_index=stream.index,
            streams=[f"{s.index}:{s.type}" for s in container.streams],
            warnings=times.warnings,
        )


def _frame_ticks(stream: Any) -> int:
    """Return the ticks between frames that the container promises, for streams without time stamps."""
    rate = stream.average_rate or stream.guessed_rate
    return max(1, round(1 / (rate * stream.time_base))) if rate and stream.time_base else 1


class _Times(NamedTuple):
    ticks: array[int]
    key_ticks: array[int]
    last_duration: int
    warnings: list[str]


def _read_times(container: Any, stream: Any, alive: Alive) -> _Times:
    """Read time stamps of all frames and of key frames, the last frame's duration, and what went wrong."""
    times, keys, errors = array("q"), array("q"), []
    latest, last_duration, discarded, invented, step = None, 0, 0, False, _frame_ticks(stream)
    for packet in _packets(container, stream, errors):
        alive()
        discarded += packet.is_discard
        if packet.size == 0 or packet.is_discard:
            continue
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            stamp, invented = (times[-1] + step if times else 0), True
        times.append(stamp)
        if packet.is_keyframe:
            keys.append(stamp)
        if latest is None or stamp >= latest:
            latest, last_duration = stamp, packet.duration or 0
    warnings = [f"the container could not be read in {len(errors)} places ({errors[0]})"] if errors else []
    if "mp4" in container.format.name and stream.frames > len(times) + discarded:  # others count empty packets too
        warnings.append(f"the index promises {stream.frames} frames, {len(times)} are there: the file is cut short")
    if invented:
        warnings.append("the stream has no time stamps; times follow from the frame rate")
        keys = array("q")  # nothing to seek by
    return _Times(times, keys, last_duration, warnings)


def _upright_size(path: str, alive: Alive) -> tuple[int, int, int]:
    """Decode one frame to learn its upright width and height, and how it is turned."""
    with _open(path) as container:
        stream = _video_stream(container, path)
        for decoded in _decoded(container, stream, None, alive):
            frame, rotation = decoded.frame, int(decoded.frame.rotation or 0) % 360
            if rotation % 180 == 90:
                return frame.height, frame.width, rotation
            return frame.width, frame.height, rotation
    raise VideoError(f"not one frame of {path} could be decoded; expected a readable stream; check the file")


class _Decoded(NamedTuple):
    """A frame out of the decoder; is_damaged holds from an error up to the next clean key frame."""

    frame: Any
    is_damaged: bool
    num_lost_packets: int


def _decoded(container: Any, stream: Any, wanted: set[int] | None, alive: Alive) -> Iterator[_Decoded]:
    """Yield decoded frames. A frame that nothing refers to and nobody wants is not decoded at all.

    One bad packet does not end the stream.
    """
    lost, is_damaged = 0, False
    context = stream.codec_context
    can_skip = wanted is not None and context.name in CODECS_THAT_SKIP
    for packet in _packets(container, stream, []):
        alive()
        if can_skip and packet.size:
            needed = packet.pts is None or packet.pts in wanted  # pyright: ignore[reportOperatorIssue]
            context.skip_frame = "DEFAULT" if needed else "NONREF"
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            lost += packet.size > 0
            is_damaged = True
            continue
        for frame in frames:
            is_damaged = bool(frame.is_corrupt) or (is_damaged and not frame.key_frame)
            yield _Decoded(frame, is_damaged, lost)


def pictures(
    path: str,
    table: Scan,
    indices: np.ndarray,
    size: tuple[int, int] | None,
    *,
    exact: bool,
    alive: Alive = no_watch,
) -> Iterator[Picture]:
    """Yield the frames at ascending `indices` of the table, one for each mention.

    Whole groups of pictures without a wanted frame are jumped over. A frame that cannot be decoded is replaced by the
    nearest one that can, marked as damaged. Without a size all are as large as the first frame of the video, also
    where the stream changes size.

    Raises: VideoError if nothing can be decoded.
    """
    targets = [int(table.ticks[i]) for i in indices]
    with _open(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        reader = _Reader(container, stream, table, set(targets), alive)
        last_frame, pixels = None, None
        for tick in targets:
            found = reader.frame_at(tick)
            if pixels is None or found.frame is not last_frame:
                last_frame, pixels = found.frame, fit(found.frame, size, (table.height, table.width), exact=exact)
            yield Picture(pixels, found.is_damaged, found.num_lost_packets)


class _Reader:
    """Moves forward through a stream and hands out the frame nearest to each tick."""

    def __init__(self, container: Any, stream: Any, table: Scan, wanted: set[int], alive: Alive) -> None:
        self.container, self.stream, self.table, self.wanted, self.alive = container, stream, table, wanted, alive
        self.frames = _decoded(container, stream, wanted, alive)
        self.before: _Decoded | None = None
        self.after: _Decoded | None = None
        self.position: int | None = None
        self.lost_earlier = 0
        self.may_seek = True

    def _seek_if_worth(self, tick: int) -> None:
        """Jump to the last key frame at or before the tick, if that leaves out enough frames."""
        ticks, keys = self.table.ticks, self.table.key_ticks
        place = int(np.searchsorted(keys, tick, side="right")) - 1
        if place < 0 or not self.may_seek:
            return
        key = int(keys[place])
        here = ticks[0] if self.position is None else self.position
        if np.searchsorted(ticks, key) - np.searchsorted(ticks, here) > SEEK_WORTH_FRAMES:
            self._seek(key)

    def _seek(self, key: int) -> None:
        """Jump to a key frame; where the container lands behind it, aim earlier or start again, and jump no more."""
        if self.after is not None:
            self.lost_earlier += self.after.num_lost_packets
        margin = round(SEEK_MARGIN_S * self.table.ticks_per_s)
        for goal in (key, key - margin, int(self.table.ticks[0])):
            try:
                self.container.seek(goal, stream=self.stream, backward=True, any_frame=False)
            except av.error.FFmpegError:
                continue
            self.frames = _decoded(self.container, self.stream, self.wanted, self.alive)
            self.before = self.after = self.position = None
            if self._advance() and self.position is not None and self.position <= key:
                return
            self.may_seek = False

    def _advance(self) -> bool:
        """Take the next frame out of the decoder; one without a time stamp is the next in the table."""
        decoded = next(self.frames, None)
        if decoded is None:
            return False
        self.before, self.after = self.after, decoded
        ticks = self.table.ticks
        if decoded.frame.pts is not None:
            self.position = int(decoded.frame.pts)
        else:
            next_row = 0 if self.position is None else int(np.searchsorted(ticks, self.position, side="right"))
            self.position = decoded.frame.pts = int(ticks[min(next_row, len(ticks) - 1)])
        return True

    def frame_at(self, tick: int) -> _Decoded:
        """Return the frame nearest to a tick; it counts as damaged if it stands in for another."""
        if self.position is None or self.position < tick:
            self._seek_if_worth(tick)
        while self.position is None or self.position < tick:
            if not self._advance():
                break
        best = self.after
        if best is None:
            raise VideoError("not one frame could be decoded; expected a readable stream; check the file")
        if self.before is not None and abs(self.before.frame.pts - tick) < abs(best.frame.pts - tick):
            best = self.before
        lost = self.lost_earlier + (self.after or best).num_lost_packets
        return _Decoded(best.frame, best.is_damaged or best.frame.pts != tick, lost)
