"""The recorder's own process: a stream or a camera is written to pieces of video, which another reads and removes.

A piece begins at a key frame and is a video file of its own; packets are copied as they are, only a camera without a
codec is encoded. A piece counts once its table of frames lies beside it. Where a key frame is followed by pictures that
come before it, the old piece takes it and them too, so that every frame can be decoded from one piece.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import av.error
import av.stream

from longtake.core.config import StrictConfig
from longtake.core.errors import LongtakeError, StorageError, VideoError
from longtake.core.files import write_whole

logger = logging.getLogger("longtake")
STATE_FILE = "state.json"
MP4_CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mjpeg")
OPEN_TIMEOUT_S, READ_TIMEOUT_S = 15.0, 15.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 8.0
LOOK_AGAIN_S, SAME_S = 0.05, 1e-6
EARLY_BYTES = 1 << 14
REORDERED_FRAMES = 8
BACKWARD_S, FORWARD_S = 1.0, 10.0
CAMERA_KEY_FRAME_S = 2.0
CAMERA_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "crf": "23"}
# What an address may lead to: a playlist from outside must not name a file of this machine.
PROTOCOLS = {
    "http": "http,https,tcp,tls,crypto,data",
    "https": "https,tcp,tls,crypto,data",
    "rtsp": "rtsp,rtp,rtcp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,rtcp,udp,tcp,tls,crypto",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order(StrictConfig):
    """What is to be recorded.

    source: an address, or a camera's name. format: how a camera is read, none for an address. folder: where pieces go.
    limit_bytes: pieces that nobody has taken yet may have so many; then it waits. piece_s: seconds of a piece, up to
    the next key frame. quiet_s: after how many seconds without a packet the stream counts as ended.
    """

    source: str
    format: str | None
    folder: str
    options: Mapping[str, str]
    limit_bytes: int
    piece_s: float | int
    quiet_s: float | int


@dataclasses.dataclass(kw_only=True)
class State:
    """How far a recording has come; written anew with every piece, so that another process can go on.

    num_pieces: ever. next_s: when the next piece begins, in seconds of the recording. wall_s: when that was. early:
    SHA-256 of the beginning of the first piece. num_lost, missing_s: how often the connection was lost and had again,
    and how much of a live stream is missing for it. ended: why no more will come. error, failed: the type and message
    of the error that ended it.
    """

    num_pieces: int = 0
    next_s: float = 0.0
    wall_s: float = 0.0
    early: str = ""
    num_lost: int = 0
    missing_s: float = 0.0
    ended: str = ""
    error: str = ""
    failed: str = ""

    @classmethod
    def read(cls, folder: Path) -> State:
        """Return what was written last; a new recording where there is nothing."""
        path = folder / STATE_FILE
        return cls(**json.loads(path.read_bytes())) if path.exists() else cls()

    def going_on(self) -> State:
        """Return it as another recorder takes it over."""
        return dataclasses.replace(self, ended="", error="", failed="")

    def write(self, folder: Path) -> None:
        """Write it whole."""
        write_whole(folder / STATE_FILE, json.dumps(dataclasses.asdict(self)).encode())


@dataclasses.dataclass(frozen=True, kw_only=True)
class PieceTable(StrictConfig):
    """The frames of a piece: time stamps in units of 1 / ticks_per_s, ascending, as the stream had them.

    A frame is shown at tick / ticks_per_s - origin_s seconds of the recording. last_duration: of the last frame, in
    ticks; 0 where it is unknown.
    """

    ticks: tuple[int, ...]
    ticks_per_s: float | int
    origin_s: float | int
    last_duration: int


def table_path(piece: Path) -> Path:
    """Return where the table of a piece lies."""
    return piece.with_suffix(".json")


class _Piece:
    """A piece that is being written; first is the packet or frame that it begins with."""

    def __init__(self, path: Path, stream: Any, first: Any, origin_s: float) -> None:
        self.path, self.origin_s = path, origin_s
        self.aside = path.with_suffix(".part")
        self.base, self.time_base = _stamp(first), stream.time_base
        self.ticks: list[int] = []
        self.latest, self.last_duration = self.base, 0
        self.last_dts = -round(1 / stream.time_base)
        self.encodes = not isinstance(first, av.Packet)
        self.container: Any = av.open(str(self.aside), "w", format="mp4")
        if self.encodes:
            rate = stream.average_rate or Fraction(25)
            self.stream: Any = self.container.add_stream("libx264", rate=rate, options=CAMERA_OPTIONS)
            self.stream.width, self.stream.height, self.stream.pix_fmt = first.width, first.height, "yuv420p"
            self.stream.codec_context.gop_size = max(1, round(float(rate) * CAMERA_KEY_FRAME_S))
            self.stream.codec_context.time_base = stream.time_base
        else:
            self.stream = self.container.add_stream_from_template(stream)
        self.stream.time_base = stream.time_base

    @property
    def start_s(self) -> float:
        """When it begins, in seconds of the recording."""
        return float(self.base * self.time_base) - self.origin_s

    @property
    def end_s(self) -> float:
        """When its last frame has been shown, as far as is known."""
        steps = (self.latest - self.base) / max(len(self.ticks) - 1, 1)
        return float((self.latest + (self.last_duration or steps)) * self.time_base) - self.origin_s

    def add(self, item: Any, *, counts: bool = True) -> None:
        """Write a packet, or encode a frame; one that does not count belongs to the next piece too."""
        stamp = _stamp(item)
        if counts:
            self.ticks.append(stamp)
            if stamp >= self.latest:
                self.latest, self.last_duration = stamp, item.duration or 0
        if self.encodes:
            item.pts, item.pict_type = stamp - self.base, 0
            self._mux(self.stream.encode(item))
            return
        copy = av.Packet(bytes(item))
        # Matroska leaves the first decoding times open, and a broken stream repeats them; only their order matters.
        known = self.last_dts if item.dts is None else item.dts - self.base - 1
        self.last_dts = max(self.last_dts, known) + 1
        copy.pts, copy.dts = stamp - self.base, self.last_dts
        copy.time_base, copy.duration, copy.is_keyframe = item.time_base, item.duration or 0, item.is_keyframe
        copy.stream = self.stream
        self._mux(copy)

    def close(self) -> None:
        """Finish it, and put its table beside it, from which on it is there.

        Raises: StorageError if it cannot be written.
        """
        if self.encodes:
            self._mux(self.stream.encode(None))
        try:
            self.container.close()
        except av.error.FFmpegError as error:
            raise self._refused(error) from error
        self.aside.replace(self.path)
        table = PieceTable(
            ticks=tuple(sorted(set(self.ticks))),
            ticks_per_s=float(1 / self.time_base),
            origin_s=self.origin_s,
            last_duration=self.last_duration,
        )
        write_whole(table_path(self.path), json.dumps(table.to_dict()).encode())

    def drop(self) -> None:
        """Give it up."""
        with contextlib.suppress(av.error.FFmpegError):  # there may be no packet in it yet
            self.container.close()
        self.aside.unlink(missing_ok=True)

    def _mux(self, packets: Any) -> None:
        """Write packets; one that makes no sense to the container is left out, unless it is the first."""
        try:
            self.container.mux(packets)
        except av.error.FFmpegError as error:
            if error.errno != errno.EINVAL or len(self.ticks) <= 1:
                raise self._refused(error) from error
            logger.warning("a packet was left out (%s)", error.strerror)

    def _refused(self, error: av.error.FFmpegError) -> StorageError:
        return StorageError(
            f"{self.aside} could not be written ({error.strerror}); expected room for a recording; free some space and "
            "run the same command again: it goes on"
        )


class _OvershotError(Exception):
    """A seek left out what is still to be recorded."""


class Recorder:
    """Records a stream until it ends, through lost connections."""

    def __init__(self, order: Order) -> None:
        self.order, self.folder = order, Path(order.folder)
        self.state = State.read(self.folder)
        self.piece: _Piece | None = None
        self.closing: _Piece | None = None  # one that waits for pictures shown before the key frame behind it
        self.is_finite, self.may_seek, self.was_lost = False, True, False
        self.last_packet_s, self.last_wall_s = time.monotonic(), time.time()

    def run(self) -> None:
        """Record until the end.

        Raises: VideoError if the source cannot be opened the first time, or cannot be recorded as it is; StorageError
            if there is no room.
        """
        wait_s, was_open = FIRST_WAIT_S, False
        while True:
            received = self.last_packet_s
            try:
                with self._open() as container:
                    was_open = True
                    why = self._follow(container)
            except _OvershotError:
                self.may_seek = False
                continue
            except av.error.FFmpegError as error:
                why = str(error.strerror)
                if not was_open:
                    raise VideoError(why) from error
            if not why:
                self._finish("the stream ended")
                return
            self._lost(why)
            wait_s = FIRST_WAIT_S if self.last_packet_s > received else min(2 * wait_s, LONGEST_WAIT_S)
            if time.monotonic() - self.last_packet_s + wait_s > self.order.quiet_s:
                self._finish(f"nothing came for {self.order.quiet_s:g} s ({why})")
                return
            time.sleep(wait_s)

    def _open(self) -> Any:
        source, options = self.order.source, dict(self.order.options)
        if self.order.format is not None:
            return av.open(source, format=self.order.format, options=options)
        scheme = source.split("://")[0].lower()
        options = {"protocol_whitelist": PROTOCOLS[scheme]} | options
        if scheme.startswith("rtsp"):
            options = {"rtsp_transport": "tcp"} | options
        limits = (min(OPEN_TIMEOUT_S, self.order.quiet_s), min(READ_TIMEOUT_S, self.order.quiet_s))
        return av.open(source, metadata_errors="replace", options=options, timeout=limits)

    def _follow(self, container: Any) -> str:
        """Record what an open source gives; say why it stopped, or nothing at the end of what has an end."""
        stream = _video_stream(container, is_camera=self.order.format is not None)
        self.is_finite = self.order.format is None and bool(container.duration or (container.size or 0) > 0)
        origin_s = None
        if self.is_finite:
            origin_s = container.start_time / av.time_base if container.start_time is not None else 0.0
            self._seek(container, origin_s)
        latest_s = None
        for item in _items(container, stream):
            self.last_packet_s, self.last_wall_s = time.monotonic(), time.time()
            self.state.num_lost, self.was_lost = self.state.num_lost + self.was_lost, False
            now_s = float(_stamp(item) * stream.time_base)
            if origin_s is None and not _is_key(item):
                continue  # a live stream that was joined midway
            if origin_s is None:
                origin_s = now_s - self._resumed_s()
            if latest_s is not None and not self.is_finite and not -BACKWARD_S <= now_s - latest_s <= FORWARD_S:
                return f"time stamps jumped by {now_s - latest_s:.1f} s"
            latest_s = now_s
            self._take(item, stream, origin_s)
        return "" if self.is_finite else "the other side closed the stream"

    def _seek(self, container: Any, origin_s: float) -> None:
        """Go to where the recording goes on, where the source can."""
        if self.state.next_s > 0 and self.may_seek:
            try:
                container.seek(round((self.state.next_s + origin_s) * av.time_base), backward=True)
            except av.error.FFmpegError as error:
                raise _OvershotError from error

    def _resumed_s(self) -> float:
        """Return where in the recording a live stream goes on: as much later as has passed on the wall."""
        if not self.state.wall_s:
            return 0.0
        passed_s = max(0.0, time.time() - self.state.wall_s)
        self.state.missing_s += passed_s
        return self.state.next_s + passed_s

    def _take(self, item: Any, stream: Any, origin_s: float) -> None:
        """Write one packet or frame where it belongs."""
        is_key, now_s = _is_key(item), float(_stamp(item) * stream.time_base) - origin_s
        if self.piece is None:
            if not is_key or (self.is_finite and now_s < self.state.next_s - SAME_S):
                return  # what comes before cannot be decoded, or is there already
            if self.is_finite and self.state.num_pieces and self.may_seek and now_s > self.state.next_s + SAME_S:
                raise _OvershotError
            self._begin(item, stream, origin_s)
        elif self.closing is not None and _stamp(item) < self.piece.base:
            self.closing.add(item)
            return
        elif is_key and now_s - self.piece.start_s >= self.order.piece_s:
            self._close_waiting()
            self.closing = self.piece
            if not self.closing.encodes:
                self.closing.add(item, counts=False)
            self._begin(item, stream, origin_s)
        else:
            self._close_waiting()
        assert self.piece is not None
        self.piece.add(item)

    def _begin(self, item: Any, stream: Any, origin_s: float) -> None:
        """Begin a piece, once there is room for it."""
        while sum(path.stat().st_size for path in _whole_pieces(self.folder)) >= self.order.limit_bytes:
            time.sleep(LOOK_AGAIN_S)
        self.last_packet_s = time.monotonic()  # it was not the stream that was quiet
        number = self.state.num_pieces + (self.closing is not None)
        self.piece = _Piece(self.folder / f"{number:08d}.mp4", stream, item, origin_s)

    def _close_waiting(self) -> None:
        """Finish the piece before, once nothing can belong to it any more."""
        if self.closing is not None and self.piece is not None:
            closing, self.closing = self.closing, None
            self._commit(closing, self.piece.start_s)

    def _commit(self, piece: _Piece, next_s: float) -> None:
        piece.close()
        if not self.state.early:
            with piece.path.open("rb") as file:
                self.state.early = hashlib.sha256(file.read(EARLY_BYTES)).hexdigest()
        self.state.num_pieces += 1
        self.state.next_s, self.state.wall_s = next_s, self.last_wall_s
        self.state.write(self.folder)

    def _lost(self, why: str) -> None:
        """Note a lost connection; what there is of a piece is kept of a live stream, else it is read again."""
        logger.warning("the connection was lost (%s)", why)
        self._close_waiting()
        piece, self.piece = self.piece, None
        if piece is not None and self.is_finite:
            piece.drop()
        elif piece is not None:
            self._commit(piece, piece.end_s)
        self.was_lost = True

    def _finish(self, why: str) -> None:
        self._close_waiting()
        if self.piece is not None:
            piece, self.piece = self.piece, None
            self._commit(piece, piece.end_s)
        self.state.ended = why
        self.state.write(self.folder)


def _video_stream(container: Any, *, is_camera: bool) -> Any:
    """Return the stream of pictures.

    Raises: VideoError if there is none, or it has a codec that pieces cannot hold.
    """
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        raise VideoError("it has no video stream")
    codec = streams[0].codec_context.codec.canonical_name
    if codec not in MP4_CODECS and not is_camera:
        raise VideoError(f"its codec is {codec}, which is not recorded; {', '.join(MP4_CODECS)} are")
    return streams[0]


def _items(container: Any, stream: Any) -> Iterator[Any]:
    """Yield packets as they are; decoded frames of a camera whose codec pieces cannot hold.

    FFmpeg gives the first packet over RTSP no time; it is shown one frame before the earliest of those behind it.
    """
    is_copied = stream.codec_context.codec.canonical_name in MP4_CODECS
    found = _found(container, stream, is_copied=is_copied)
    first = next(found, None)
    if first is not None and first.pts is None and first.dts is None:
        behind = [item for item in islice(found, REORDERED_FRAMES) if item.pts is not None]
        stamps = sorted({_stamp(item) for item in behind})
        if len(stamps) > 1:
            first.pts = stamps[0] - min(later - earlier for earlier, later in pairwise(stamps))
            yield first
        yield from behind
    elif first is not None:
        yield first
    yield from (item for item in found if item.pts is not None or item.dts is not None)


def _found(container: Any, stream: Any, *, is_copied: bool) -> Iterator[Any]:
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            yield from [packet] if is_copied else packet.decode()


def _stamp(item: Any) -> int:
    return int(item.dts if item.pts is None else item.pts)


def _is_key(item: Any) -> bool:
    """Say whether a piece can begin with it: a key frame's packet, or any frame that is encoded here."""
    return bool(item.is_keyframe) if isinstance(item, av.Packet) else True


def _whole_pieces(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.mp4")) if table_path(path).exists()]


def _stop_with_parent() -> None:
    """End at once when standard input does: whoever started this has gone."""
    while os.read(sys.stdin.fileno(), EARLY_BYTES):
        pass
    os._exit(0)


def main() -> None:
    """Carry out the order that stands in the first line of standard input."""
    order = Order.from_dict(json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    folder = Path(order.folder)
    for rest in (*folder.glob("*.part"), *(set(folder.glob("*.mp4")) - set(_whole_pieces(folder)))):
        rest.unlink()  # what a recorder left that was killed
    try:
        Recorder(order).run()
    except LongtakeError as error:
        state = State.read(folder)
        state.error, state.failed = type(error).__name__, str(error)
        state.write(folder)


if __name__ == "__main__":
    main()
