"""When each frame of a video is shown."""

from __future__ import annotations

import dataclasses

import numpy as np

from longtake.core.errors import VideoError


@dataclasses.dataclass(frozen=True, eq=False)
class Clock:
    """Presentation times of all frames of a video.

    pts_s: float64 [n], ascending, seconds from the start of the presentation. duration_s: until the last frame has
    been shown.

    Raises: VideoError if there is no frame, or the times are not finite and ascending.
    """

    pts_s: np.ndarray
    duration_s: float

    def __post_init__(self) -> None:
        if len(self.pts_s) == 0:
            raise VideoError("a video without a single frame arrived; expected at least one; check the file")
        if not np.all(np.isfinite(self.pts_s)) or np.any(np.diff(self.pts_s) < 0):
            raise VideoError("frame times arrived that are not finite and ascending; sort them, or check the file")
        if not np.isfinite(self.duration_s) or self.duration_s < 0:
            raise VideoError(f"the duration arrived as {self.duration_s}; expected seconds of at least 0")

    @classmethod
    def constant(cls, duration_s: float | int, fps: float | int) -> Clock:
        """Build the clock of a video with a constant frame rate.

        Raises: VideoError if fps is not a positive number.
        """
        if not (np.isfinite(fps) and fps > 0):
            raise VideoError(f"the frame rate arrived as {fps}; expected a positive number; give the real one")
        count = max(1, round(duration_s * fps))
        return cls(np.arange(count, dtype=np.float64) / fps, float(duration_s))

    def __len__(self) -> int:
        return len(self.pts_s)

    @property
    def average_fps(self) -> float:
        """Frames a second over the whole duration; 0 where the duration is."""
        return len(self.pts_s) / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def is_variable_rate(self) -> bool:
        """Say whether steps between frames differ by more than the rounding of a millisecond clock."""
        steps = np.diff(self.pts_s)
        return len(steps) > 1 and float(steps.max() - steps.min()) > 0.0021

    def nearest(self, times_s: np.ndarray) -> np.ndarray:
        """Return the index of the frame whose time is nearest to each given one; of equals the earlier."""
        return nearest_rows(self.pts_s, times_s)


def nearest_rows(pts_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Return, for each time, the row of the ascending `pts_s` that is nearest to it; of equals the earlier."""
    right = np.searchsorted(pts_s, times_s).clip(0, len(pts_s) - 1)
    left = (right - 1).clip(0)
    closer_left = np.abs(pts_s[left] - times_s) <= np.abs(pts_s[right] - times_s)
    return np.where(closer_left, left, right)
