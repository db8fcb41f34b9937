"""What docs/scale.md shows follows from bench/simulate_scale.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from bench import simulate_scale
from bench.simulate_scale import DECODE_S_PER_HOUR, Fleet, simulate, video_frames

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "scale.md").read_text("utf-8")


def shown(command: str) -> str:
    """Return what the page shows behind a command, up to the end of the last table there."""
    return TEXT.split(f"```\npython -m bench.simulate_scale {command}\n```\n\n")[1]


@pytest.mark.parametrize("command", ["arithmetic", "queue --hours 10000 --workers 3"])
def test_the_page_shows_what_the_command_writes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    simulate_scale.main(command.split())
    assert shown(command).startswith(capsys.readouterr().out)


def test_the_large_table_is_about_the_videos_it_says_and_its_first_row_adds_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    simulate_scale.main(["queue", "--only", "none"])
    begins = capsys.readouterr().out
    assert shown("queue").startswith(begins)
    count = int(begins.split()[0].replace(",", ""))
    row = shown("queue").removeprefix(begins).splitlines()[0].split("|")
    assert float(row[2]) == pytest.approx((1e6 * 3600 / 576 + count) / 256 / 3600, abs=0.01)


def test_what_was_measured_is_on_the_page_of_measurements() -> None:
    bench = (DOCS / "bench.md").read_text("utf-8")
    (isolated,) = re.findall(r"10 min of 720p H.264, isolated, equal frames \| [\d.]+ s \| ([\d.]+) s", bench)
    assert 6 * float(isolated) == DECODE_S_PER_HOUR and f"{isolated} s for ten minutes" in TEXT
    assert all(f"{size} MB written" in bench and size in TEXT for size in ("89.50", "5.90"))


def test_one_worker_takes_as_long_as_the_sum() -> None:
    frames = np.array([3600.0, 7200.0, 36.0])
    run = simulate(Fleet(workers=1, frames_per_s=10.0, open_s=2.0), frames, seed=0)
    assert run.wall_h * 3600 == pytest.approx(360 + 720 + 3.6 + 6)
    assert run.utilisation == pytest.approx(1083.6 / 1089.6) and (run.failures, run.lost_h) == (0, 0.0)


def test_a_failure_loses_less_than_a_segment_or_all_so_far() -> None:
    frames, fleet = np.full(200, 3600.0), Fleet(workers=4, frames_per_s=1.0, mtbf_h=5.0, open_s=0.0)
    resumed = simulate(fleet, frames, seed=1)
    assert resumed.failures > 10 and 0 < resumed.lost_h * 3600 < 32 * resumed.failures
    again = simulate(Fleet(workers=4, frames_per_s=1.0, mtbf_h=5.0, open_s=0.0, resumes=False), frames, seed=1)
    assert again.lost_h > 5 * resumed.lost_h and again.wall_h > resumed.wall_h
    spent = 4 * resumed.wall_h * resumed.utilisation
    assert spent == pytest.approx(200.0), "every frame is encoded once, lost ones not counted"


def test_lengths_add_up() -> None:
    frames = video_frames(1000.0, 0.3, 1.2, np.random.default_rng(0))
    assert frames.sum() / 3600 == pytest.approx(1000.0, rel=1e-3) and frames.min() >= 1
