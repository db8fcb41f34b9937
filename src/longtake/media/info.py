"""What is in a video file."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Facts about an opened video.

    width and height are those of the upright picture, after rotation; the sample aspect ratio is recorded, not
    applied. start_s is what was subtracted from the stream's own times: they count from the container's start.
    key_frame_interval_s is the longest gap between key frames; none where it is unknown.
    """

    source: str
    container: str
    codec: str
    width: int
    height: int
    rotation_degrees: int
    sample_aspect_ratio: float
    num_frames: int
    duration_s: float
    start_s: float
    average_fps: float
    is_variable_rate: bool
    key_frame_interval_s: float | None
    backend: str
    streams: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)
