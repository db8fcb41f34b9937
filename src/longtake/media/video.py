"""A video that is open: what is in it, when its frames are shown, and the frames at the times asked for."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from longtake.core.errors import ConfigError, LongtakeError, MissingExtraError, VideoError
from longtake.core.types import Frames
from longtake.media import sources
from longtake.media.backends import Backend, candidates, decoder
from longtake.media.clock import Clock, nearest_rows
from longtake.media.images import open_picture, read_image
from longtake.media.info import VideoInfo
from longtake.media.pixels import resize_exact
from longtake.media.process import DecoderProcess
from longtake.media.scan import Picture, Scan, no_watch
from longtake.media.sources import content_hash

__all__ = ["Video", "VideoInfo", "content_hash", "open_video"]

logger = logging.getLogger("longtake")
FOLDER_FPS = 1.0


class Limits(NamedTuple):
    """What a decoder's process may take: seconds of silence, bytes of address space."""

    time_limit_s: float | int
    memory_limit_bytes: int | None = None


@runtime_checkable
class _Pictures(Protocol):
    """Where pixels come from; warnings are what went wrong since it was last looked at."""

    warnings: list[str]

    def pictures(self, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool) -> Iterator[Picture]: ...

    def close(self) -> None: ...


class _FromFile:
    """Pictures of a video file, decoded in processes of their own or in this one.

    backends: the decoder in use and those to fall back to. owned: a temporary file to remove at the end.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        backends: list[str],
        table: Scan,
        process: DecoderProcess | None,
        owned: Path | None,
    ) -> None:
        self.path, self.name, self.backends, self.table = path, name, backends, table
        self.process, self.owned = process, owned
        self.warnings: list[str] = []

    def pictures(self, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool) -> Iterator[Picture]:
        """Yield pictures; where a decoder gives up, the next one takes over from there, and this is said."""
        done = 0
        for place, backend in enumerate(self.backends):
            try:
                for picture in self._decode(backend, indices[done:], size, exact=exact):
                    yield picture
                    done += 1
                return
            except (VideoError, MissingExtraError) as error:
                if place + 1 == len(self.backends):
                    raise type(error)(_renamed(error, self.path, self.name)) from error
                message = (
                    f"{backend} gave up after {done} frames ({error}); decoding on with {self.backends[place + 1]}"
                )
                logger.warning("%s: %s", self.name, message)
                self.warnings.append(message)

    def _decode(
        self, backend: str, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool
    ) -> Iterator[Picture]:
        path, process = str(self.path), self._idle_process()
        if backend != self.backends[0]:  # its table of frames may have other rows
            table = process.scan(backend, path) if process else decoder(backend).scan(path, no_watch)
            indices = nearest_rows(table.pts_s, self.table.pts_s[indices])
        else:
            table = self.table
        if process is None:
            yield from decoder(backend).pictures(path, table, indices, size, exact=exact, alive=no_watch)
            return
        try:
            yield from process.pictures(backend, path, indices, size, exact=exact)
        finally:
            if process is not self.process:
                process.close()

    def _idle_process(self) -> DecoderProcess | None:
        """Return the worker, or another one where it is still busy with an earlier request."""
        if self.process is not None and self.process.is_busy:
            return DecoderProcess(self.process.time_limit_s, self.process.memory_limit_bytes)
        return self.process

    def close(self) -> None:
        """End the worker and remove the temporary file."""
        if self.process is not None:
            self.process.close()
        if self.owned is not None:
            self.owned.unlink(missing_ok=True)


class _FromImages:
    """Pictures read one by one: image files, or arrays in memory."""

    def __init__(self, images: list[Path] | np.ndarray, full_size: tuple[int, int]) -> None:
        self.images, self.full_size = images, full_size
        self.warnings: list[str] = []

    def pictures(self, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool) -> Iterator[Picture]:
        """Yield pictures; both ways of resizing are the exact one."""
        for index in indices:
            pixels = read_image(self.images[int(index)])
            if size is None and pixels.shape[:2] != self.full_size:
                (height, width), (full_height, full_width) = pixels.shape[:2], self.full_size
                raise VideoError(
                    f"picture {index} is {width}x{height}, the first one {full_width}x{full_height}; expected one "
                    "size; ask for frames with a size"
                )
            yield Picture(pixels if size is None else resize_exact(pixels, size), False)

    def close(self) -> None:
        """Nothing is held open."""


class Video:
    """An open video; use it as a context manager, or close it.

    info: what is in the file. clock: when its frames are shown. warnings: what was lost, as far as is known by now.
    """

    def __init__(self, info: VideoInfo, clock: Clock, pictures: _Pictures) -> None:
        self.info = info
        self.clock = clock
        self.warnings: list[str] = list(info.warnings)
        self._pictures: _Pictures | None = pictures

    def frames_at(
        self,
        times_s: np.ndarray,
        *,
        size: tuple[int, int] | None = None,
        resize: Literal["exact", "fast"] = "exact",
        chunk_frames: int = 32,
    ) -> Iterator[Frames]:
        """Yield the frames nearest to ascending times, in chunks; as many frames as times.

        size: (height, width) to resize to, aspect ratio not kept; `exact` is Pillow's antialiased bicubic, `fast` the
        decoder's own scaler. No more than one chunk of frames is held. A frame lost to damage is replaced by its
        nearest neighbour and marked.

        Raises: VideoError if the times are not ascending, nothing can be decoded or the video is closed;
        DecodeTimeoutError if the decoder hangs.
        """
        times_s = np.asarray(times_s, dtype=np.float64)
        if times_s.ndim != 1 or not np.all(np.isfinite(times_s)) or np.any(np.diff(times_s) < 0):
            raise VideoError("times arrived that are not finite and ascending; expected seconds in order; sort them")
        if chunk_frames < 1 or resize not in ("exact", "fast"):
            raise ConfigError(f"chunk_frames {chunk_frames}, resize {resize!r}: expected at least 1, and exact or fast")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ConfigError(f"size arrived as {size}; expected (height, width) of at least 1; change it")
        if self._pictures is None:
            raise VideoError(f"{self.info.source} is closed; expected an open video; open it again")
        indices = self.clock.nearest(times_s)
        pictures = self._pictures.pictures(indices, size, exact=resize == "exact")
        return self._chunks(self._pictures, pictures, indices, chunk_frames)

    def _chunks(
        self, origin: _Pictures, pictures: Iterator[Picture], indices: np.ndarray, chunk_frames: int
    ) -> Iterator[Frames]:
        num_damaged = num_lost_packets = 0
        for start in range(0, len(indices), chunk_frames):
            wanted = indices[start : start + chunk_frames]
            chunk = list(islice(pictures, len(wanted)))
            self._warn(origin.warnings, is_logged=True)
            damaged = np.array([picture.is_damaged for picture in chunk])
            num_damaged += int(damaged.sum())
            num_lost_packets = chunk[-1].num_lost_packets
            yield Frames(np.stack([picture.pixels for picture in chunk]), self.clock.pts_s[wanted], damaged)
        next(pictures, None)  # lets the decoder say that it is done
        if num_damaged:
            lost = f"; {num_lost_packets} packets could not be decoded" if num_lost_packets else ""
            self._warn([f"{num_damaged} of {len(indices)} frames are damaged, or stand in for frames that are{lost}"])

    def _warn(self, messages: list[str], *, is_logged: bool = False) -> None:
        """Note what is new, once."""
        for message in messages:
            if message not in self.warnings:
                self.warnings.append(message)
                if not is_logged:
                    logger.warning("%s: %s", self.info.source, message)

    def close(self) -> None:
        """End the decoder's process and remove temporary files."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_video(
    source: str | Path | bytes | Mapping[str, object] | Frames,
    *,
    backend: Backend = "auto",
    time_limit_s: float | int = 60.0,
    isolate: bool = True,
    memory_limit_bytes: int | None = None,
    folder_fps: float | int = FOLDER_FPS,
) -> Video:
    """Open a video: a path, bytes, an http(s) address, a folder of pictures, one picture, or frames in memory.

    backend: the decoder; `auto` takes the first that can open the file, of PyAV, torchcodec and the ffmpeg program,
    logs which, and records it in `info.backend`. isolate: decode in a process of its own, stopped after
    `time_limit_s` of silence, which may have `memory_limit_bytes` of address space; the pictures are the same either
    way. folder_fps: frame rate of a folder of pictures.
    Frames in memory are {"pixels": uint8 [T, H, W, 3], "pts_s": [T]} or `Frames`.

    Raises: VideoError if it cannot be opened; the message says why.
    """
    if isinstance(source, Frames):
        return _from_frames(source)
    if isinstance(source, Mapping):
        return _from_frames(sources.frames_from_arrays(source))
    owned = None
    if isinstance(source, bytes):
        path = owned = sources.spool(source)
        name = f"{len(source)} bytes"
    elif sources.is_address(source):
        path = owned = sources.download(str(source))
        name = str(source)
    else:
        path, name = sources.local_file(source), str(source)
    try:
        if path.is_dir():
            return _from_folder(path, name, folder_fps)
        if sources.is_picture(path, name):
            return _from_image(path, name, owned)
        limits = Limits(time_limit_s, memory_limit_bytes) if isolate else None
        return _from_file(path, name, backend, limits, owned)
    except BaseException:
        if owned is not None:
            owned.unlink(missing_ok=True)
        raise


def _renamed(error: LongtakeError, path: Path, name: str) -> str:
    """Return the message with the name that the caller knows, where we decoded a copy or an absolute path."""
    return str(error).replace(str(path), name)


def _from_file(path: Path, name: str, backend: Backend, limits: Limits | None, owned: Path | None) -> Video:
    """Try the decoders in order; the first that reads the table of frames is taken."""
    names = candidates(backend)
    failed: list[str] = []
    first_error: LongtakeError | None = None
    for place, candidate in enumerate(names):
        process = None if limits is None else DecoderProcess(*limits)
        try:
            table = process.scan(candidate, str(path)) if process else decoder(candidate).scan(str(path), no_watch)
        except (VideoError, MissingExtraError) as error:
            if process is not None:
                process.close()
            failed.append(f"{candidate} could not open it ({_renamed(error, path, name)})")
            first_error = first_error or error
            continue
        if failed:
            logger.warning("%s: %s; decoding with %s", name, "; ".join(failed), candidate)
        else:
            logger.info("%s: decoding with %s", name, candidate)
        pictures = _FromFile(path, name, names[place:], table, process, owned)
        return _describe(name, candidate, table, failed, pictures)
    if first_error is None:
        raise MissingExtraError("no decoder is installed; expected PyAV, torchcodec or ffmpeg; pip install av")
    raise type(first_error)(_renamed(first_error, path, name)) from first_error


def _describe(name: str, backend: str, table: Scan, failed: list[str], pictures: _Pictures) -> Video:
    pts_s = table.pts_s
    clock = Clock(pts_s, max(0.0, float(pts_s[-1]) + table.last_duration_s))
    keys = table.key_ticks / table.ticks_per_s
    gaps = np.diff(np.append(keys, table.ticks[-1] / table.ticks_per_s))
    info = VideoInfo(
        source=name,
        container=table.container,
        codec=table.codec,
        width=table.width,
        height=table.height,
        rotation_degrees=table.rotation_degrees,
        sample_aspect_ratio=table.sample_aspect_ratio,
        num_frames=len(pts_s),
        duration_s=clock.duration_s,
        start_s=table.start_s,
        average_fps=clock.average_fps,
        is_variable_rate=clock.is_variable_rate,
        key_frame_interval_s=float(gaps.max()) if len(keys) else None,
        backend=backend,
        streams=tuple(table.streams),
        warnings=(*failed, *table.warnings),
    )
    return Video(info, clock, pictures)


def _still_info(name: str, container: str, size: tuple[int, int], clock: Clock) -> VideoInfo:
    return VideoInfo(
        source=name,
        container=container,
        codec="pictures",
        width=size[1],
        height=size[0],
        rotation_degrees=0,
        sample_aspect_ratio=1.0,
        num_frames=len(clock),
        duration_s=clock.duration_s,
        start_s=0.0,
        average_fps=clock.average_fps,
        is_variable_rate=clock.is_variable_rate,
        key_frame_interval_s=0.0,
        backend="memory" if container == "arrays" else "pillow",
    )


def _from_frames(frames: Frames) -> Video:
    if len(frames) == 0:
        raise VideoError("no frames arrived; expected at least one; pass some")
    steps = np.diff(frames.pts_s)
    clock = Clock(frames.pts_s, max(0.0, float(frames.pts_s[-1] + (np.median(steps) if len(steps) else 0.0))))
    size = frames.pixels.shape[1:3]
    return Video(_still_info("frames in memory", "arrays", size, clock), clock, _FromImages(frames.pixels, size))


def _from_folder(folder: Path, name: str, fps: float | int) -> Video:
    files = sources.folder_images(folder)
    clock = Clock.constant(len(files) / fps if fps > 0 else 0.0, fps)
    size = read_image(files[0]).shape[:2]
    return Video(_still_info(name, "folder", size, clock), clock, _FromImages(files, size))


def _from_image(path: Path, name: str, owned: Path | None) -> Video:
    """Read a picture at once; it is a video of one frame."""
    try:
        pixels, notes = open_picture(path)
    except VideoError as error:
        raise VideoError(_renamed(error, path, name)) from error
    if owned is not None:
        owned.unlink(missing_ok=True)
    clock = Clock(np.zeros(1), 0.0)
    size = pixels.shape[:2]
    info = dataclasses.replace(_still_info(name, "image", size, clock), warnings=notes)
    return Video(info, clock, _FromImages(pixels[None], size))
