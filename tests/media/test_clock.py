from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.core.errors import VideoError
from longtake.media.clock import Clock


@pytest.mark.parametrize(
    ("pts_s", "asked_s", "rows"),
    [
        ([0.0, 1.0, 2.0], [0.0, 0.4, 0.6, 1.0, 9.0], [0, 0, 1, 1, 2]),
        ([0.0, 1.0, 2.0], [-5.0, 0.5, 1.5], [0, 0, 1]),  # halfway: the earlier
        ([5.0], [0.0, 5.0, 99.0], [0, 0, 0]),
        ([0.0, 0.1, 20.1], [10.0, 10.2], [1, 2]),
    ],
)
def test_the_nearest_frame_is_found_by_time(pts_s: list[float], asked_s: list[float], rows: list[int]):
    assert Clock(np.array(pts_s), 30.0).nearest(np.array(asked_s)).tolist() == rows


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(st.floats(0.001, 10.0), min_size=1, max_size=30),
    asked=st.lists(st.floats(-1.0, 400.0), min_size=1, max_size=10),
)
def test_no_frame_is_nearer_than_the_nearest(steps: list[float], asked: list[float]):
    pts_s = np.cumsum([0.0, *steps])
    found = pts_s[Clock(pts_s, float(pts_s[-1])).nearest(np.array(asked))]
    best = np.abs(pts_s[None, :] - np.array(asked)[:, None]).min(1)
    assert np.abs(found - asked) == pytest.approx(best)


@pytest.mark.parametrize(
    ("duration_s", "fps", "count"),
    [(60.0, 25.0, 1500), (0.0, 25.0, 1), (10.0, 0.1, 1), (36_000.0, 30000 / 1001, 1078921)],
)
def test_a_constant_clock_has_one_frame_a_step(duration_s: float, fps: float, count: int):
    clock = Clock.constant(duration_s, fps)
    assert len(clock) == count
    assert not clock.is_variable_rate


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_no_rate_is_refused(fps: float):
    with pytest.raises(VideoError, match="frame rate"):
        Clock.constant(10.0, fps)


@pytest.mark.parametrize(
    ("pts_s", "duration_s"),
    [([], 1.0), ([1.0, 0.0], 2.0), ([0.0, float("nan")], 1.0), ([0.0], float("nan")), ([0.0], -1.0)],
)
def test_times_that_make_no_sense_are_refused(pts_s: list[float], duration_s: float):
    with pytest.raises(VideoError):
        Clock(np.array(pts_s, dtype=np.float64), duration_s)


def test_the_average_rate_counts_the_last_frame_too():
    assert Clock(np.array([0.0, 0.5, 1.0, 1.5]), 2.0).average_fps == 2.0
    assert Clock(np.zeros(1), 0.0).average_fps == 0.0


def test_a_clock_in_milliseconds_is_not_taken_for_a_variable_rate():
    rounded = np.round(np.arange(300) * 1001 / 30000, 3)
    assert not Clock(rounded, 10.01).is_variable_rate
    assert Clock(np.array([0.0, 0.04, 0.12]), 0.16).is_variable_rate
