"""Frame indices, clips and time messages against the released loader."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.core.chat import time_message
from longtake.media.clock import Clock
from longtake.media.sampling import RELEASED, SamplingRule, clip_range, frame_indices, sample_times
from longtake.methods.reduce.progressive_drop import uniform_keep
from tests.parity.vcf_goldens import load

INDICES = load("e_frame_indices")[0]["data"]
CLIPS = load("e_load_video")[0]["data"]


def rule_of(row: dict) -> SamplingRule:
    kind = row["sample"]
    rate = float(kind[3:]) if kind.startswith("fps") else 1.0
    return SamplingRule(
        kind="fps" if kind.startswith("fps") else kind,
        fps=rate,
        frame_multiple=row["local_num_frames"],
        min_frames=row["min_num_frames"],
        min_wins=True,
    )


def bounds(row: dict) -> tuple[float, float] | tuple[None, None]:
    return (float(row["clip"][0]), float(row["clip"][1])) if row["clip"] else (None, None)


@pytest.mark.parametrize("row", INDICES, ids=lambda row: f"{row['n_frames']}-{row['sample']}-{row['max_num_frames']}")
def test_frame_indices_equal_the_released_ones(row: dict) -> None:
    found = frame_indices(row["n_frames"], row["fps"], rule_of(row), row["max_num_frames"])
    assert found == row["indices"]


@pytest.mark.parametrize("row", CLIPS, ids=lambda row: f"{row['n_frames']}-{row['clip']}")
def test_clips_and_time_messages_equal_the_released_ones(row: dict) -> None:
    clip = clip_range(row["n_frames"], row["fps"], *bounds(row))
    indices = frame_indices(clip.num_frames, row["fps"], RELEASED, row["max_num_frames"])
    assert [index + clip.first for index in indices] == row["indices"]
    assert time_message(clip.duration_s, len(indices)) == row["time_message"]


@pytest.mark.parametrize("row", CLIPS, ids=lambda row: f"{row['n_frames']}-{row['clip']}")
def test_times_on_a_constant_rate_are_those_of_the_released_indices(row: dict) -> None:
    clock = Clock(np.arange(row["n_frames"]) / row["fps"], row["n_frames"] / row["fps"])
    start, end = bounds(row)
    sampled = sample_times(clock, RELEASED, row["max_num_frames"], start_s=start, end_s=end)
    assert np.allclose(sampled.times_s, np.array(row["indices"]) / row["fps"])
    assert time_message(sampled.duration_s, len(sampled.times_s)) == row["time_message"]


def test_uniform_drop_keeps_the_released_indices() -> None:
    for row in load("e_uniform_keep")[0]["data"]:
        assert uniform_keep(row["n"], row["keep"]).tolist() == row["indices"]
