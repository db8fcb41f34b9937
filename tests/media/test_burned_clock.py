"""Every frame of a generated video spells its own time: what is read back must be what the clock says."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from longtake.core.errors import VideoError
from longtake.media.synthetic import draw_clock, read_clock, write_clock_video
from longtake.media.video import Video, open_video

RNG = np.random.default_rng(7)
UNEVEN = np.concatenate([[0.0], RNG.uniform(0.02, 0.6, 60).cumsum()])

CASES: dict[str, tuple[str, dict]] = {
    "h264 in mp4": ("mp4", {}),
    "h264 in mp4 without B-frames": ("mp4", {"num_b_frames": 0}),
    "h264 in mp4 with 5 B-frames": ("mp4", {"num_b_frames": 5, "key_frame_every": 24}),
    "h264, key frames only": ("mp4", {"key_frame_every": 1, "num_b_frames": 0}),
    "h264, two frames a group": ("mp4", {"key_frame_every": 2, "num_b_frames": 0}),
    "h264, one key frame": ("mp4", {"key_frame_every": 10_000}),
    "h264, open groups": ("mp4", {"options": {"open_gop": "1"}, "num_b_frames": 3}),
    "h264 in mkv": ("mkv", {}),
    "h264 in mpeg-ts": ("ts", {"start_s": 100.0}),
    "h264 without a container": ("h264", {}),
    "hevc in mkv": ("mkv", {"codec": "libx265"}),
    "hevc in mp4": ("mp4", {"codec": "libx265"}),
    "vp9 in webm": ("webm", {"codec": "libvpx-vp9"}),
    "av1 in mp4": ("mp4", {"codec": "libsvtav1"}),
    "29.97 fps": ("mp4", {"fps": Fraction(30000, 1001)}),
    "23.976 fps in mkv": ("mkv", {"fps": Fraction(24000, 1001)}),
    "60 fps": ("mp4", {"fps": 60, "duration_s": 3.0}),
    "1 frame every 2.5 s": ("mp4", {"fps": 0.4, "duration_s": 40.0}),
    "variable rate in mp4": ("mp4", {"times_s": UNEVEN}),
    "variable rate in mkv": ("mkv", {"times_s": UNEVEN}),
    "variable rate in webm": ("webm", {"times_s": UNEVEN, "codec": "libvpx-vp9"}),
    "turned 90": ("mp4", {"rotation_degrees": 90}),
    "turned 180": ("mp4", {"rotation_degrees": 180}),
    "turned 270": ("mp4", {"rotation_degrees": 270}),
    "one frame": ("mp4", {"times_s": [0.0]}),
    "two frames": ("mp4", {"times_s": [0.0, 3.0]}),
    "starts at 12.3 s": ("mkv", {"start_s": 12.3}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("clocks")

    def make(name: str) -> Path:
        ending, given = CASES[name]
        path = folder / f"{name.replace(' ', '_')}.{ending}"
        return path if path.exists() else write_clock_video(path, **{"duration_s": 6.0, **given})

    return make


def largest_error(video: Video, times_s: np.ndarray) -> float:
    """Return how far, in seconds, the worst frame is from the nearest that there is."""
    worst, done = 0.0, 0
    for frames in video.frames_at(times_s, size=(48, 192)):
        assert frames.damaged is not None and not frames.damaged.any()
        for pixels, pts_s in zip(frames.pixels, frames.pts_s, strict=True):
            best_s = np.abs(video.clock.pts_s - times_s[done]).min()
            shown_s = read_clock(pixels)
            assert shown_s == pytest.approx(pts_s, abs=0.006)  # the clock in the picture counts hundredths
            worst, done = max(worst, abs(shown_s - times_s[done]) - best_s), done + 1
    assert done == len(times_s)
    return worst


@pytest.mark.parametrize("name", CASES)
def test_every_frame_shows_the_time_that_the_clock_gives_it(name: str, made: Callable[[str], Path]):
    with open_video(made(name), isolate=False) as video:
        assert largest_error(video, video.clock.pts_s) < 0.006


@pytest.mark.parametrize("name", CASES)
def test_frames_far_apart_are_no_more_than_half_a_frame_off(name: str, made: Callable[[str], Path]):
    with open_video(made(name), isolate=False) as video:
        end_s = float(video.clock.pts_s[-1])
        for count in (1, 3, 7):
            middles = (np.arange(count) + 0.5) * end_s / count
            assert largest_error(video, middles) < 0.006
        longest_step = np.diff(video.clock.pts_s).max(initial=0.0)
        nearest = video.clock.pts_s[video.clock.nearest(middles)]
        assert np.abs(nearest - middles).max() <= longest_step / 2 + 1e-9


@pytest.mark.parametrize("name", ["h264 in mp4", "h264, open groups", "hevc in mkv", "vp9 in webm", "turned 90"])
def test_frames_fetched_alone_are_equal_to_those_of_a_full_pass(name: str, made: Callable[[str], Path]):
    with open_video(made(name), isolate=False) as video:
        full = np.concatenate([frames.pixels for frames in video.frames_at(video.clock.pts_s)])
        for row in (0, 1, 49, 50, 51, 77, 120, len(full) - 1):
            alone = next(video.frames_at(video.clock.pts_s[row : row + 1]))
            assert np.array_equal(alone.pixels[0], full[row])


def test_ten_hours_at_one_frame_a_second_take_seconds_and_stay_exact(tmp_path: Path):
    path = write_clock_video(
        tmp_path / "ten_hours.mp4", 36_000, fps=1, size=(32, 96), moving=False, key_frame_every=600, num_b_frames=0
    )
    with open_video(path) as video:
        assert video.info.num_frames == 36_000
        assert video.info.duration_s == pytest.approx(36_000)
        times_s = (np.arange(200) + 0.5) * 180
        assert largest_error(video, times_s) < 0.006


def test_a_few_frames_of_4k_come_out_whole(tmp_path: Path):
    path = write_clock_video(tmp_path / "uhd.mp4", 0.3, fps=10, size=(2160, 3840))
    with open_video(path) as video:
        frames = next(video.frames_at(video.clock.pts_s))
    assert frames.pixels.shape == (3, 2160, 3840, 3)
    assert [read_clock(pixels) for pixels in frames.pixels] == pytest.approx([0.0, 0.1, 0.2])


@pytest.mark.parametrize("rotation_degrees", [0, 90, 180, 270])
def test_a_turned_video_looks_as_it_was_drawn(rotation_degrees: int, made: Callable[[str], Path]):
    with open_video(
        made("h264 in mp4" if not rotation_degrees else f"turned {rotation_degrees}"), isolate=False
    ) as video:
        assert (video.info.height, video.info.width) == (96, 192)
        assert video.info.rotation_degrees == rotation_degrees
        shown = next(video.frames_at(np.zeros(1))).pixels[0].astype(int)
    assert np.abs(shown - draw_clock(0.0, 96, 192)).mean() < 12  # chroma is stored at half size


@pytest.mark.parametrize("time_s", [0.0, 0.01, 1.0, 59.99, 3600.0, 36_000.0, 167_772.15])
@pytest.mark.parametrize("size", [(32, 96), (96, 192), (224, 224)])
def test_a_drawn_clock_reads_back(time_s: float, size: tuple[int, int]):
    assert read_clock(draw_clock(time_s, *size)) == pytest.approx(time_s)


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(VideoError, match="libnothing"):
        write_clock_video(tmp_path / "x.mp4", codec="libnothing")


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="only Linux tells how a thread is scheduled")
def test_an_encoder_does_not_leave_the_process_real_time(tmp_path: Path):
    before = os.sched_getscheduler(0)
    write_clock_video(tmp_path / "clock.mp4", 1.0, codec="libsvtav1")
    assert os.sched_getscheduler(0) == before
