"""Decoding with the ffmpeg program, the last rung: slow, but it needs no Python wheel."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from longtake.core.errors import VideoError
from longtake.media.pixels import resize_exact
from longtake.media.scan import Alive, Picture, Scan, no_watch

TICKS_PER_S = 1_000_000
TIME_PATIENCE_S = 10.0
FIRST_PICTURES = "V:0"  # the first video stream that is not a cover image
_SHOWN = re.compile(rb"showinfo.* n: *\d+ pts: *(-?\d+) ")


def _probe(path: str, select: list[str], entries: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", *select, "-show_entries", entries, "-of", "json", "-i", path]
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise VideoError(f"{path} cannot be opened as a video ({reason[0]}); expected a video file; check it")
    return json.loads(done.stdout)


def _tick(value: str | None) -> int | None:
    return None if value in (None, "N/A") else round(float(value) * TICKS_PER_S)


def scan(path: str, alive: Alive = no_watch) -> Scan:
    """Read the table of frames with ffprobe.

    Raises: VideoError if the file cannot be opened or holds no video frame.
    """
    every = _probe(path, [], "stream=index,codec_type:format=format_name,start_time")
    alive()
    entries = (
        "packet=pts_time,dts_time,duration_time,flags:"
        "stream=index,codec_name,width,height,sample_aspect_ratio:stream_side_data=rotation"
    )
    found = _probe(path, ["-select_streams", FIRST_PICTURES], entries)
    if not found.get("streams"):
        kinds = ", ".join(s.get("codec_type", "unknown") for s in every.get("streams", [])) or "none"
        raise VideoError(f"{path} has no video stream (streams: {kinds}); expected one; pass a file with pictures")
    stream = found["streams"][0]
    stamps, keys, durations = _read_times(found.get("packets", []))
    if not stamps:
        raise VideoError(f"{path} has a video stream without frames; expected at least one; check the file")
    ticks = np.unique(np.array(stamps, dtype=np.int64))
    steps = np.diff(ticks)
    last_duration = durations[int(np.argmax(stamps))] or (float(np.median(steps)) if len(steps) else 0.0)
    rotation = int(next((s["rotation"] for s in stream.get("side_data_list", []) if "rotation" in s), 0)) % 360
    width, height = stream["width"], stream["height"]
    first, _, second = str(stream.get("sample_aspect_ratio", "1:1")).partition(":")
    return Scan(
        ticks=ticks,
        key_ticks=np.unique(np.array(keys, dtype=np.int64)),
        ticks_per_s=float(TICKS_PER_S),
        start_s=float(every["format"].get("start_time") or 0.0),
        last_duration_s=last_duration / TICKS_PER_S,
        container=every["format"]["format_name"],
        codec=stream["codec_name"],
        width=height if rotation % 180 else width,
        height=width if rotation % 180 else height,
        rotation_degrees=rotation,
        sample_aspect_ratio=float(first) / float(second) if second and float(first) and float(second) else 1.0,
        stream_index=int(stream["index"]),
        streams=[f"{s['index']}:{s.get('codec_type', 'unknown')}" for s in every["streams"]],
        warnings=[],
    )


def _read_times(packets: list[dict[str, str]]) -> tuple[list[int], list[int], list[int]]:
    """Return times of all frames, of key frames, and how long each is shown, in ticks."""
    stamps, keys, durations = [], [], []
    for packet in packets:
        stamp = _tick(packet.get("pts_time", packet.get("dts_time")))
        flags = packet.get("flags", "")
        if stamp is None or "D" in flags:
            continue
        stamps.append(stamp)
        durations.append(_tick(packet.get("duration_time")) or 0)
        if flags.startswith("K"):
            keys.append(stamp)
    return stamps, keys, durations


def _collect_times(log: IO[bytes], times: queue.SimpleQueue[int]) -> None:
    for line in log:
        found = _SHOWN.search(line)
        if found:
            times.put(int(found[1]))


def _next_time(times: queue.SimpleQueue[int], path: str) -> int:
    try:
        return times.get(timeout=TIME_PATIENCE_S)
    except queue.Empty as error:
        raise VideoError(
            f"ffmpeg gave a frame of {path} without its time; expected both; use another version, or the decoder pyav"
        ) from error


@contextmanager
def _running(path: str, filters: str) -> Iterator[tuple[IO[bytes], queue.SimpleQueue[int]]]:
    """Run the program over a file; give its raw frames, and the time of each in ticks from the container's start."""
    command = ["ffmpeg", "-v", "info", "-nostats", "-hide_banner", "-i", path, "-map", f"0:{FIRST_PICTURES}"]
    command += ["-fps_mode", "passthrough", "-vf", f"settb=1/{TICKS_PER_S},{filters}showinfo=checksum=0"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None and process.stderr is not None
        times: queue.SimpleQueue[int] = queue.SimpleQueue()
        reader = threading.Thread(target=_collect_times, args=(process.stderr, times), daemon=True)
        reader.start()
        try:
            yield process.stdout, times
        finally:
            process.kill()
            reader.join()


def pictures(
    path: str,
    table: Scan,
    indices: np.ndarray,
    size: tuple[int, int] | None,
    *,
    exact: bool,
    alive: Alive = no_watch,
) -> Iterator[Picture]:
    """Yield the frames at ascending `indices` of the table; every frame up to the last one is decoded.

    The program says the time of each frame, so that one lost to damage does not shift those behind it; the nearest
    stands in for it, marked as damaged.

    Raises: VideoError if nothing can be decoded.
    """
    height, width = (table.height, table.width) if size is None or exact else size
    targets = np.round((table.ticks[indices] / table.ticks_per_s - table.start_s) * TICKS_PER_S).astype(np.int64)
    # One step of the container's clock may be lost to rounding on the way.
    slack = 1500 if table.container.startswith("matroska") else 50
    with _running(path, f"scale={width}:{height}:flags=bicubic,") as (raw, times):
        before: tuple[int, bytes] | None = None
        after: tuple[int, bytes] | None = None
        for target in targets:
            while after is None or after[0] < target - slack:
                more = raw.read(height * width * 3)
                if len(more) < height * width * 3:
                    break
                alive()
                before, after = after, (_next_time(times, path), more)
            if after is None:
                raise VideoError(f"not one frame of {path} could be decoded; expected a readable stream; check it")
            best = after if before is None or abs(after[0] - target) <= abs(before[0] - target) else before
            pixels = np.frombuffer(best[1], dtype=np.uint8).reshape(height, width, 3)
            yield Picture(resize_exact(pixels, size or (height, width)), bool(abs(best[0] - target) > slack))
