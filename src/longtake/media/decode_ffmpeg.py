"""Decoding with the ffmpeg program, the last rung: slow, but it needs no Python wheel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np

from longtake.core.errors import VideoError
from longtake.media.pixels import resize_exact
from longtake.media.scan import Picture, Scan

TICKS_PER_S = 1_000_000


def _probe(path: str) -> dict[str, Any]:
    entries = (
        "packet=pts_time,dts_time,duration_time,flags:"
        "stream=index,codec_type,codec_name,width,height,sample_aspect_ratio:stream_side_data=rotation:"
        "format=format_name,start_time"
    )
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", entries, "-of", "json", path]
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise VideoError(f"{path} cannot be opened as a video ({reason[0]}); expected a video file; check it")
    return json.loads(done.stdout)


def _tick(value: str | None) -> int | None:
    return None if value in (None, "N/A") else round(float(value) * TICKS_PER_S)


def scan(path: str) -> Scan:
    """Read the table of frames with ffprobe.

    Raises: VideoError if the file cannot be opened or holds no video frame.
    """
    found = _probe(path)
    streams = found.get("streams", [])
    if not streams:
        raise VideoError(f"{path} has no video stream; expected one; pass a file with pictures")
    stamps, keys, durations = [], [], []
    for packet in found.get("packets", []):
        stamp = _tick(packet.get("pts_time")) if packet.get("pts_time") else _tick(packet.get("dts_time"))
        if stamp is None or "D" in packet.get("flags", ""):
            continue
        stamps.append(stamp)
        durations.append(_tick(packet.get("duration_time")) or 0)
        if packet.get("flags", "").startswith("K"):
            keys.append(stamp)
    if not stamps:
        raise VideoError(f"{path} has a video stream without frames; expected at least one; check the file")
    stream = streams[0]
    rotation = int(next((s["rotation"] for s in stream.get("side_data_list", []) if "rotation" in s), 0)) % 360
    width, height = stream["width"], stream["height"]
    first, _, second = str(stream.get("sample_aspect_ratio", "1:1")).partition(":")
    return Scan(
        ticks=np.unique(np.array(stamps, dtype=np.int64)),
        key_ticks=np.unique(np.array(keys, dtype=np.int64)),
        ticks_per_s=float(TICKS_PER_S),
        start_s=float(found["format"].get("start_time") or 0.0),
        last_duration_s=durations[int(np.argmax(stamps))] / TICKS_PER_S,
        container=found["format"]["format_name"],
        codec=stream["codec_name"],
        width=height if rotation % 180 else width,
        height=width if rotation % 180 else height,
        rotation_degrees=rotation,
        sample_aspect_ratio=float(first) / float(second) if second and float(first) and float(second) else 1.0,
        streams=[f"{s['index']}:{s['codec_type']}" for s in streams],
        warnings=[],
    )


def pictures(
    path: str, table: Scan, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool
) -> Iterator[Picture]:
    """Yield the frames at ascending `indices` of the table; every frame up to the last one is decoded.

    The n-th frame that the program gives is taken as the n-th of the table; where it gives fewer, the last one stands
    in, marked as damaged.

    Raises: VideoError if nothing can be decoded.
    """
    scale = [] if size is None or exact else ["-vf", f"scale={size[1]}:{size[0]}:flags=bicubic"]
    height, width = (table.height, table.width) if size is None or exact else size
    command = ["ffmpeg", "-v", "quiet", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", *scale]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        number, raw = -1, b""
        for index in indices:
            while number < index:
                more = process.stdout.read(height * width * 3)
                if len(more) < height * width * 3:
                    break
                number, raw = number + 1, more
            if not raw:
                raise VideoError(f"not one frame of {path} could be decoded; expected a readable stream; check it")
            pixels = np.frombuffer(raw, dtype=np.uint8).reshape(height, width, 3)
            yield Picture(resize_exact(pixels, size) if size is not None else pixels, number < index)
        process.kill()
