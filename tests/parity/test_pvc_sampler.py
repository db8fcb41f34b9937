"""PVC's frame sampler against the released one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.core.errors import VideoError
from longtake.media.clock import Clock
from longtake.media.sampling import PVC_CLEAN, PVC_RELEASED, frame_indices, sample_times, segment_indices

GOLDEN = Path(__file__).parents[1] / "golden" / "pvc" / "a_get_index.json"
ROWS = json.loads(GOLDEN.read_text("utf-8"))["rows"]


def name_of(row: dict) -> str:
    return f"{row['max_frame']}-{row['num_segments']}-{row['bound']}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_indices_equal_the_released_ones(row: dict) -> None:
    clip = row["bound"] and (float(row["bound"][0]), float(row["bound"][1]))
    found = segment_indices(row["max_frame"], row["fps"], row["num_segments"], clip, row["first_idx"])
    assert found == row["indices"]


@pytest.mark.parametrize("row", [row for row in ROWS if row["first_idx"] == 0], ids=name_of)
def test_the_rule_takes_the_same_frames_by_index_and_by_time(row: dict) -> None:
    count = row["max_frame"] + 1
    clock = Clock(np.arange(count) / row["fps"], count / row["fps"])
    start, end = (float(second) for second in row["bound"]) if row["bound"] else (None, None)
    sampled = sample_times(clock, PVC_RELEASED, row["num_segments"], start_s=start, end_s=end)
    assert np.allclose(sampled.times_s, np.array(row["indices"]) / row["fps"])
    if not row["bound"]:
        assert frame_indices(count, row["fps"], PVC_RELEASED, row["num_segments"]) == row["indices"]


@given(
    max_frame=st.integers(0, 3000), fps=st.floats(0.5, 120), count=st.integers(1, 128), start=st.floats(0, 1),
    part=st.floats(0, 1),
)  # fmt: skip
def test_indices_ascend_inside_the_clip(max_frame: int, fps: float, count: int, start: float, part: float) -> None:
    start_s = start * max_frame / fps
    end_s = start_s + part * (max_frame / fps - start_s)
    found = segment_indices(max_frame, fps, count, (start_s, end_s))
    assert len(found) == count and found == sorted(found)
    assert found[0] >= round(start_s * fps) and found[-1] <= min(round(end_s * fps), max_frame)


@pytest.mark.parametrize("clip", [(11.0, 12.0), (-3.0, -1.0), (5.0, 2.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_clip_outside_of_the_video_is_refused_and_not_walked_backwards(clip: tuple[float, float]) -> None:
    with pytest.raises(VideoError, match="expected"):
        segment_indices(250, 25.0, 8, clip)


def test_frames_of_a_short_video_are_read_once_by_time() -> None:
    clock = Clock.constant(2.0, 5.0)
    assert np.array_equal(sample_times(clock, PVC_CLEAN, 96).times_s, clock.pts_s)
    assert len(sample_times(Clock.constant(100.0, 5.0), PVC_CLEAN, 96).times_s) == 96
