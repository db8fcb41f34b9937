"""What we read from real files, against what ffprobe says about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longtake.core.errors import VideoError
from longtake.media.video import content_hash, open_video
from tests.media.places import GOLDEN, GOLDEN_FACTS, SHARED, SHARED_FACTS

# The table holds every frame that the file promises to show, also those that turn out not to decode.
MORE_THAN_DECODE = {
    "corrupt_middle_bytes.mp4": 150,  # 9 of them do not decode: marked as damaged
    "truncated_faststart_55pct.mp4": 76,  # the last one is cut in its middle
}
ALL_SHARED = sorted(SHARED_FACTS) or ["absent"]


def check_against(path: Path, facts: dict, start_s: float) -> None:
    with open_video(path, isolate=False) as video:
        count = MORE_THAN_DECODE.get(path.name, facts["decoded_frames"])
        stamps = video.clock.pts_s + video.info.start_s
        assert len(video.clock) == video.info.num_frames == count
        assert video.info.start_s == pytest.approx(start_s, abs=1e-6)
        assert stamps[0] == pytest.approx(facts["first_pts"], abs=1e-6)
        if path.name not in MORE_THAN_DECODE:
            assert stamps[-1] == pytest.approx(facts["last_pts"], abs=1e-6)
            steps = sorted(set(np.diff(stamps).round(4).tolist()))
            assert len(steps) == facts["n_distinct_steps"]
            assert steps == pytest.approx(facts["pts_steps"], abs=1.1e-4)
        assert stamps[-1] < video.clock.duration_s + start_s
        frames = list(video.frames_at(video.clock.pts_s[:: max(1, count // 9)], size=(36, 64)))
    assert all(chunk.pixels.shape[1:] == (36, 64, 3) for chunk in frames)
    if path.name not in MORE_THAN_DECODE:
        assert not any(chunk.damaged.any() for chunk in frames)  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("name", sorted(name for name, facts in GOLDEN_FACTS.items() if facts["decoded_frames"]))
def test_frames_and_times_of_a_shipped_file_are_those_of_ffprobe(name: str):
    facts = GOLDEN_FACTS[name]
    check_against(GOLDEN / name, facts, facts["start_time"])


@pytest.mark.parametrize("name", sorted(GOLDEN_FACTS))
def test_shipped_files_are_the_ones_the_facts_are_about(name: str):
    assert content_hash(GOLDEN / name) == GOLDEN_FACTS[name]["sha256"]


@pytest.mark.shared
@pytest.mark.parametrize("name", ALL_SHARED)
def test_frames_and_times_of_a_shared_file_are_those_of_ffprobe(name: str):
    if name not in SHARED_FACTS:
        pytest.skip("the sample media are not beside the checkout")
    facts = SHARED_FACTS[name]
    if facts["decoded_frames"]:
        check_against(SHARED / name, facts, float(facts["format"]["start_time"]))
        return
    with pytest.raises(VideoError, match="expected"):
        open_video(SHARED / name)


@pytest.mark.shared
@pytest.mark.parametrize("name", ALL_SHARED)
def test_size_of_a_shared_file_is_that_of_ffprobe_turned_upright(name: str):
    if name not in SHARED_FACTS:
        pytest.skip("the sample media are not beside the checkout")
    facts = SHARED_FACTS[name]
    if not facts["decoded_frames"]:
        pytest.skip("not a video")
    stream = next(s for s in facts["streams"] if s["codec_type"] == "video")
    turned = any(d.get("rotation", 0) % 180 for d in stream.get("side_data_list", []))
    size = (stream["height"], stream["width"]) if turned else (stream["width"], stream["height"])
    with open_video(SHARED / name, isolate=False) as video:
        assert (video.info.width, video.info.height) == size
        assert video.info.codec == stream["codec_name"]
        chunk = next(video.frames_at(video.clock.pts_s[:1]))
    assert chunk.pixels.shape == (1, size[1], size[0], 3)


def test_rotation_metadata_turns_the_picture_as_a_player_shows_it():
    with open_video(GOLDEN / "base.mp4", isolate=False) as plain:
        stored = next(plain.frames_at(np.array([1.0]))).pixels[0]
    with open_video(GOLDEN / "rotated90_metadata.mp4", isolate=False) as turned:
        assert (turned.info.width, turned.info.height, turned.info.rotation_degrees) == (270, 480, 90)
        shown = next(turned.frames_at(np.array([1.0]))).pixels[0]
    assert np.array_equal(shown, np.rot90(stored))


def test_an_edit_list_hides_what_lies_before_it():
    with (
        open_video(GOLDEN / "edit_list_trim.mp4", isolate=False) as video,
        open_video(GOLDEN / "base.mp4", isolate=False) as parent,
    ):
        shown = next(video.frames_at(np.zeros(1))).pixels[0].astype(int)
        everything = np.concatenate([c.pixels for c in parent.frames_at(parent.clock.pts_s)]).astype(int)
    # 150 packets, 108 shown: the first one shown is the parent's 43rd.
    assert int(np.abs(everything - shown).mean((1, 2, 3)).argmin()) == 42


@pytest.mark.parametrize(
    "time_s, red, blue",
    [(0.0, True, False), (1.9, True, False), (11.0, True, False), (13.0, False, True), (23.9, False, True)],
)
def test_a_gap_of_twenty_seconds_shows_the_nearest_frame_by_time(time_s: float, red: bool, blue: bool):
    with open_video(GOLDEN / "vfr_gap20s.mkv", isolate=False) as video:
        assert video.info.is_variable_rate
        assert video.info.duration_s == pytest.approx(24.0, abs=1e-3)
        colour = next(video.frames_at(np.array([time_s]))).pixels[0].mean((0, 1))
    assert (colour[0] > 200, colour[2] > 200) == (red, blue)


def test_sample_aspect_ratio_is_recorded_and_not_applied():
    with open_video(GOLDEN / "anamorphic_sar2.mp4", isolate=False) as video:
        assert video.info.sample_aspect_ratio == 2.0
        assert (video.info.width, video.info.height) == (240, 136)


def test_facts_of_a_video_are_plain_values():
    with open_video(GOLDEN / "base.mp4", isolate=False) as video:
        facts = video.info.to_dict()
    assert facts["backend"] == "pyav"
    assert facts["codec"] == "h264"
    assert facts["is_variable_rate"] is False
    assert facts["average_fps"] == pytest.approx(30000 / 1001)
    assert facts["duration_s"] == pytest.approx(5.005)
    assert facts["streams"] == ("0:video",)
