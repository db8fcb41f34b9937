"""A video that is open: what is in it, when its frames are shown, and the frames at the times asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from longtake.core.errors import ConfigError, LongtakeError, MissingExtraError, VideoError
from longtake.core.types import Frames
from longtake.media import sources
from longtake.media.backends import Backend, candidates, decoder
from longtake.media.clock import Clock
from longtake.media.images import read_image
from longtake.media.info import VideoInfo
from longtake.media.pixels import resize_exact
from longtake.media.process import DecoderProcess
from longtake.media.scan import Picture, Scan

logger = logging.getLogger("longtake")
FOLDER_FPS = 1.0


@runtime_checkable
class _Pictures(Protocol):
    """Where pixels come from."""

    def pictures(self, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool) -> Iterator[Picture]: ...

    def close(self) -> None: ...


class _FromFile:
    """Pictures of a video file, decoded in a process of their own or in this one."""

    def __init__(
        self, path: Path, backend: str, table: Scan, process: DecoderProcess | None, owned: Path | None
    ) -> None:
        self.path, self.backend, self.table, self.process, self.owned = path, backend, table, process, owned

    def pictures(self, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool) -> Iterator[Picture]:
        if self.process is not None:
            return self.process.pictures(self.backend, str(self.path), indices, size, exact=exact)
        return decoder(self.backend).pictures(str(self.path), self.table, indices, size, exact=exact)

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
        if self.owned is not None:
            self.owned.unlink(missing_ok=True)


class _FromImages:
    """Pictures read one by one: image files, or arrays in memory."""

    def __init__(self, images: list[Path] | np.ndarray) -> None:
        self.images = images

    def pictures(self, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool) -> Iterator[Picture]:
        for index in indices:
            pixels = read_image(self.images[int(index)])
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
        self._pictures = pictures

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

        Raises: VideoError if the times are not ascending or nothing can be decoded; DecodeTimeoutError if the decoder
        hangs.
        """
        times_s = np.asarray(times_s, dtype=np.float64)
        if times_s.ndim != 1 or not np.all(np.isfinite(times_s)) or np.any(np.diff(times_s) < 0):
            raise VideoError("the times asked for are not finite and ascending; sort them first")
        if chunk_frames < 1 or resize not in ("exact", "fast"):
            raise ConfigError(f"chunk_frames {chunk_frames}, resize {resize!r}: expected at least 1, and exact or fast")
        indices = self.clock.nearest(times_s)
        pictures = self._pictures.pictures(indices, size, exact=resize == "exact")
        num_damaged = 0
        for start in range(0, len(indices), chunk_frames):
            wanted = indices[start : start + chunk_frames]
            chunk = list(islice(pictures, len(wanted)))
            damaged = np.array([picture.is_damaged for picture in chunk])
            num_damaged += int(damaged.sum())
            yield Frames(np.stack([picture.pixels for picture in chunk]), self.clock.pts_s[wanted], damaged)
        for _ in pictures:  # lets the decoder say that it is done
            pass
        if num_damaged:
            message = f"{num_damaged} of {len(indices)} frames are damaged, or stand in for frames that are"
            self.warnings.append(message)
            logger.warning("%s: %s", self.info.source, message)

    def close(self) -> None:
        """End the decoder's process and remove temporary files."""
        self._pictures.close()

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
    time_limit_s: float = 60.0,
    isolate: bool = True,
    folder_fps: float = FOLDER_FPS,
) -> Video:
    """Open a video: a path, bytes, an http(s) address, a folder of pictures, one picture, or frames in memory.

    backend: the decoder; `auto` takes the first that can open the file, of PyAV, torchcodec and the ffmpeg program,
    logs which, and records it in `info.backend`. isolate: decode in a process of its own, stopped after
    `time_limit_s` of silence; the pictures are the same either way. folder_fps: frame rate of a folder of pictures.
    Frames in memory are {"pixels": uint8 [T, H, W, 3], "pts_s": [T]} or `Frames`.

    Raises: VideoError if it cannot be opened; the message says why.
    """
    if isinstance(source, Frames):
        return _from_frames(source)
    if isinstance(source, Mapping):
        return _from_frames(sources.frames_from_arrays(source))
    if isinstance(source, bytes):
        path = owned = sources.spool(source)
        name = f"{len(source)} bytes"
    elif sources.is_address(source):
        path = owned = sources.download(str(source))
        name = str(source)
    else:
        path, owned, name = sources.local_file(source), None, str(source)
    if path.is_dir():
        return _from_folder(path, folder_fps)
    if Path(name).suffix.lower() in sources.IMAGE_SUFFIXES:
        return _from_image(path)
    try:
        return _from_file(path, name, backend, time_limit_s if isolate else None, owned)
    except BaseException:
        if owned is not None:
            owned.unlink(missing_ok=True)
        raise


def _from_file(path: Path, name: str, backend: Backend, time_limit_s: float | None, owned: Path | None) -> Video:
    """Try the decoders in order; the first that reads the table of frames is taken."""
    failed: list[str] = []
    first_error: LongtakeError | None = None
    for candidate in candidates(backend):
        process = None if time_limit_s is None else DecoderProcess(time_limit_s)
        try:
            table = process.scan(candidate, str(path)) if process else decoder(candidate).scan(str(path))
        except (VideoError, MissingExtraError) as error:
            if process is not None:
                process.close()
            failed.append(f"{candidate} could not open it")
            first_error = first_error or error
            continue
        if failed:
            logger.warning("%s: %s; decoding with %s", name, "; ".join(failed), candidate)
        else:
            logger.info("%s: decoding with %s", name, candidate)
        return _describe(name, candidate, table, failed, _FromFile(path, candidate, table, process, owned))
    if first_error is None:
        raise MissingExtraError("no decoder is installed; expected PyAV, torchcodec or ffmpeg; pip install av")
    raise type(first_error)(str(first_error).replace(str(path), name)) from first_error


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
    steps = np.diff(frames.pts_s)
    clock = Clock(frames.pts_s, float(frames.pts_s[-1] + (np.median(steps) if len(steps) else 0.0)))
    return Video(
        _still_info("frames in memory", "arrays", frames.pixels.shape[1:3], clock), clock, _FromImages(frames.pixels)
    )


def _from_folder(folder: Path, fps: float) -> Video:
    files = sources.folder_images(folder)
    clock = Clock.constant(len(files) / fps if fps > 0 else 0.0, fps)
    size = read_image(files[0]).shape[:2]
    return Video(_still_info(str(folder), "folder", size, clock), clock, _FromImages(files))


def _from_image(path: Path) -> Video:
    clock = Clock(np.zeros(1), 0.0)
    return Video(_still_info(str(path), "image", read_image(path).shape[:2], clock), clock, _FromImages([path]))
