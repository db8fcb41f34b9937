"""Which frames of a video to take: pure functions over counts, rates and times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from longtake.core.config import StrictConfig
from longtake.core.errors import BudgetError, ConfigError, VideoError
from longtake.media.clock import Clock

CLIP_END_MARGIN_S = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingRule(StrictConfig):
    """How many frames, and where.

    kind: `dynamic_fps1` takes `fps` frames a second in whole groups of `frame_multiple`, at the middle of equal
    intervals, within the limits; `middle` takes as many as the limit says; `rand` does so at a random place of each
    interval; `fps` takes `fps` frames a second at the centre of each second's share; `segments` is `segment_indices`.
    min_wins: whether the lower limit beats the upper one, and a limit that is no multiple is taken as it is (released
    behaviour). fill: which frames are read again where there are too few for a group: the `last`, or all of them
    evenly (`spread`); `minimum` spreads them until there are `min_frames`.

    Source: VideoChat-Flash evaluation loader; XComp's one spreads; `segments` is PVC's.
    """

    kind: Literal["dynamic_fps1", "middle", "rand", "fps", "segments"] = "dynamic_fps1"
    fps: float = 1.0
    frame_multiple: int = 8
    min_frames: int = 64
    min_wins: bool = False
    fill: Literal["last", "spread", "minimum"] = "last"

    def __post_init__(self) -> None:
        if self.kind not in ("dynamic_fps1", "middle", "rand", "fps", "segments"):
            raise ConfigError(
                f"kind is {self.kind!r}; expected dynamic_fps1, middle, rand, fps or segments; choose one"
            )
        if self.fill not in ("last", "spread", "minimum"):
            raise ConfigError(f"fill is {self.fill!r}; expected last, spread or minimum; choose one")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ConfigError(f"fps is {self.fps}; expected a positive number; raise it")
        if self.frame_multiple < 1 or self.min_frames < 0:
            raise ConfigError(
                f"frame_multiple {self.frame_multiple}, min_frames {self.min_frames}: expected >= 1, >= 0"
            )


RELEASED = SamplingRule(min_wins=True)
XCOMP_RELEASED = SamplingRule(fps=8.0, min_frames=128, min_wins=True, fill="minimum")
PVC_RELEASED = SamplingRule(kind="segments", frame_multiple=1, min_frames=1, min_wins=True)
PVC_CLEAN = SamplingRule(kind="middle", frame_multiple=1, min_frames=1)


class Sampled(NamedTuple):
    """Presentation times of the chosen frames, float64 [T], ascending, and the seconds that they were taken from."""

    times_s: np.ndarray
    duration_s: float


def check_max_frames(rule: SamplingRule, max_frames: int) -> None:
    """Refuse a limit that the rule cannot meet.

    Raises: BudgetError naming the nearest limits that can be met.
    """
    if max_frames < 1:
        raise BudgetError(f"max_frames is {max_frames}; expected at least {rule.frame_multiple}; raise it")
    if not rule.min_wins and max_frames % rule.frame_multiple:
        below = max_frames // rule.frame_multiple * rule.frame_multiple
        near = [n for n in (below, below + rule.frame_multiple) if n > 0]
        raise BudgetError(
            f"max_frames is {max_frames}; expected a multiple of {rule.frame_multiple}; "
            f"pass {' or '.join(map(str, near))}"
        )


def frame_count(num_frames: int, duration_s: float, rule: SamplingRule, max_frames: int) -> int:
    """Return how many frames the rule takes."""
    group = rule.frame_multiple
    min_frames = rule.min_frames
    if min_frames > num_frames:
        min_frames = num_frames // group * group
    count = max_frames
    if rule.kind == "dynamic_fps1":
        groups = int(duration_s * rule.fps // group)
        count = min(group * groups if groups else group, max_frames)
    count = max(min_frames, count)
    if rule.min_wins:
        return count
    most = min(max_frames, num_frames) if group == 1 else max_frames  # nothing is read twice where no group is to fill
    return max(group, min(count, most))


def interval_middles(num_frames: int, count: int) -> list[int]:
    """Return the middle frame of each of `count` equal intervals; with fewer frames the last one is repeated."""
    edges = np.linspace(0, num_frames, min(count, num_frames) + 1).astype(int)
    middles = ((edges[:-1] + edges[1:] - 1) // 2).tolist()
    return middles + middles[-1:] * (count - len(middles))


def frame_indices(
    num_frames: int, fps: float, rule: SamplingRule = RELEASED, max_frames: int = 512, *, seed: int | None = None
) -> list[int]:
    """Choose frames of a video with a constant rate by index, as the released loader does.

    Raises: VideoError for a rate that is no positive number, or no frames; BudgetError for an impossible limit.
    Source: VideoChat-Flash `get_frame_indices`; pinned by tests/parity/test_sampling.py.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise VideoError(f"the frame rate arrived as {fps}; expected a positive number; the file's header is damaged")
    if num_frames < 1:
        raise VideoError(f"{num_frames} frames arrived; expected at least one; check the file")
    check_max_frames(rule, max_frames)
    if rule.kind == "fps":
        step = 1 / rule.fps
        times = np.arange(step / 2, num_frames / fps + step / 2, step)
        found = [i for i in np.around(times * fps).astype(int).tolist() if i < num_frames]
        return found[:max_frames]
    if rule.kind == "segments":
        return segment_indices(num_frames - 1, fps, max_frames)
    count = frame_count(num_frames, num_frames / fps, rule, max_frames)
    if rule.kind == "rand":
        return _random_indices(num_frames, count, seed)
    if rule.fill == "last":
        return interval_middles(num_frames, count)
    found = interval_middles(num_frames, count) if num_frames >= count else spread(list(range(num_frames)), count)
    return spread(found, rule.min_frames) if rule.fill == "minimum" and len(found) < rule.min_frames else found


def segment_indices(
    max_frame: int, fps: float, count: int, clip_s: tuple[float, float] | None = None, first: int = 0
) -> list[int]:
    """Choose the middle frame of each of `count` equal shares of the frames `first` to `max_frame`, or of a clip's.

    Frames repeat where there are fewer than `count`.

    Raises: VideoError if the clip lies outside of these frames, or no frame is asked for.
    Source: PVC preprocessing `get_index`, which walks backwards to frames that do not exist in the latter case;
        pinned by tests/parity/test_pvc_sampler.py.
    """
    start, end = first, max_frame
    if clip_s is not None:
        if not all(map(math.isfinite, clip_s)):
            raise VideoError(f"the clip arrived as {clip_s[0]} to {clip_s[1]} s; expected finite seconds; give numbers")
        start, end = max(first, round(clip_s[0] * fps)), min(round(clip_s[1] * fps), max_frame)
    if start > end or count < 1:
        raise VideoError(
            f"{count} frames of frames {start} to {end} were asked for; expected at least one of {first} to "
            f"{max_frame}; choose other bounds"
        )
    share = (end - start) / count
    return [int(start + share / 2 + round(share * k)) for k in range(count)]


def spread(frames: list[int], count: int) -> list[int]:
    """Repeat frames evenly, in order, until there are `count`.

    Source: XComp inference loader.
    """
    return [frames[index * len(frames) // count] for index in range(count)]


def _random_indices(num_frames: int, count: int, seed: int | None) -> list[int]:
    """Return one random frame of each interval; with fewer frames than intervals the last one is repeated."""
    random = np.random.default_rng(seed)
    edges = np.linspace(0, num_frames, min(count, num_frames) + 1).astype(int)
    chosen = [int(random.integers(start, end)) for start, end in pairwise(edges.tolist())]
    return chosen + chosen[-1:] * (count - len(chosen))


class ClipRange(NamedTuple):
    """A part of a video in frames: the first one, how many, and how many seconds they last."""

    first: int
    num_frames: int
    duration_s: float


def clip_range(num_frames: int, fps: float, start_s: float | None, end_s: float | None) -> ClipRange:
    """Return the frames of a clip as the released loader counts them; it ends 0.1 s before the end of the video.

    Raises: VideoError if the clip is empty.
    """
    duration_s = num_frames / fps
    if start_s is None and end_s is None:
        return ClipRange(0, num_frames, duration_s)
    start_s, end_s = check_clip(start_s, end_s, duration_s)
    end_s = min(duration_s - CLIP_END_MARGIN_S, end_s)
    return ClipRange(int(start_s * fps), int((end_s - start_s) * fps), end_s - start_s)


def check_clip(start_s: float | None, end_s: float | None, duration_s: float) -> tuple[float, float]:
    """Return the clip's bounds in seconds, inside the video.

    Raises: VideoError if they are not numbers, the wrong way round, or behind the end.
    """
    start = 0.0 if start_s is None else start_s
    end = duration_s if end_s is None else end_s
    if not (math.isfinite(start) and math.isfinite(end)):
        raise VideoError(f"the clip arrived as {start_s} to {end_s} s; expected finite seconds; give numbers")
    start, end = max(0.0, start), min(end, duration_s)
    if start >= duration_s and duration_s > 0:
        raise VideoError(f"the clip starts at {start:g} s; the video ends at {duration_s:g} s; start earlier")
    if end <= start and duration_s > 0:
        raise VideoError(f"the clip arrived as {start_s} to {end_s} s; expected start before end; swap them")
    return start, end


def sample_times(
    clock: Clock,
    rule: SamplingRule,
    max_frames: int,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    seed: int | None = None,
) -> Sampled:
    """Choose presentation times of frames of a video, ascending.

    The released rule counts frames; the clean one divides the time into equal shares and takes the frame nearest to
    the centre of each. On a constant frame rate both choose the same frames but for rounding.

    Raises: BudgetError if max_frames cannot be met; VideoError for an empty clip.
    """
    check_max_frames(rule, max_frames)
    start, end = check_clip(start_s, end_s, clock.duration_s)
    if rule.kind == "segments":
        clip_s = None if start_s is None and end_s is None else (start, end)
        chosen = segment_indices(len(clock) - 1, clock.average_fps or 1.0, max_frames, clip_s)
        return Sampled(clock.pts_s[chosen], end - start)
    if rule.min_wins or rule.kind in ("rand", "fps"):
        return _sample_by_index(clock, rule, max_frames, start_s, end_s, seed)
    inside = clock.pts_s[(clock.pts_s >= start) & (clock.pts_s <= end)]
    if len(inside) == 0:
        inside = clock.pts_s[clock.nearest(np.array([start]))]
    count = frame_count(len(inside), end - start, rule, max_frames)
    if len(inside) <= count:
        return Sampled(np.append(inside, np.repeat(inside[-1], count - len(inside))), end - start)
    centres = start + (np.arange(count) + 0.5) * (end - start) / count
    chosen = Clock(inside, float(inside[-1])).nearest(centres)
    return Sampled(inside[chosen], end - start)


def _sample_by_index(
    clock: Clock, rule: SamplingRule, max_frames: int, start_s: float | None, end_s: float | None, seed: int | None
) -> Sampled:
    """Choose by frame number, as the released loader does; times are still those of the frames."""
    fps = clock.average_fps or 1.0
    clip = clip_range(len(clock), fps, start_s, end_s)
    if clip.num_frames < 1:
        raise VideoError(f"the clip {start_s} to {end_s} s holds no frame; expected at least one; make it longer")
    chosen = frame_indices(clip.num_frames, fps, rule, max_frames, seed=seed)
    indices = np.minimum(np.array(chosen) + clip.first, len(clock) - 1)
    return Sampled(clock.pts_s[indices], clip.duration_s)


def folder_clip_indices(num_files: int, fps: float, start_s: float, end_s: float, count: int) -> list[int]:
    """Return the pictures of a folder for a clip, evenly spread and rounded, counted from 0.

    Source: VideoChat-Flash image-folder reader: numbers run from max(1, round(start * fps)) to
    min(round(end * fps), files - 1).
    """
    first, last = max(1, round(start_s * fps)), min(round(end_s * fps), num_files - 1)
    return [round(float(value)) for value in np.linspace(first, last, count)]


def message_times(times_s: Sequence[float]) -> str:
    """Write times as the long time message does: rounded to a tenth, joined by commas."""
    return ", ".join(str(round(float(time), 1)) for time in times_s)
