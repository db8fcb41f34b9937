from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from longtake.core.errors import ConfigError, VideoError
from longtake.media.video import Video, open_video
from tests.media.places import GOLDEN

BASE = GOLDEN / "base.mp4"


def pixels_at(video: Video, times_s: np.ndarray, **given) -> np.ndarray:
    return np.concatenate([frames.pixels for frames in video.frames_at(times_s, **given)])


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    """Return every frame of the base video, decoded plainly by PyAV."""
    with av.open(str(BASE)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@settings(deadline=None, max_examples=12)
@given(
    rows=st.lists(st.integers(0, 149), min_size=1, max_size=24).map(sorted),
    chunk_frames=st.integers(1, 30),
)
def test_any_choice_in_any_chunks_gives_the_frames_of_a_plain_decode(rows: list[int], chunk_frames: int):
    with open_video(BASE, isolate=False) as video, av.open(str(BASE)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        chunks = list(video.frames_at(video.clock.pts_s[rows], chunk_frames=chunk_frames))
        assert [len(chunk) for chunk in chunks[:-1]] == [chunk_frames] * (len(chunks) - 1)
        assert np.array_equal(np.concatenate([c.pts_s for c in chunks]), video.clock.pts_s[rows])
        assert np.array_equal(np.concatenate([c.pixels for c in chunks]), np.stack([plain[row] for row in rows]))


@pytest.mark.parametrize("name", ["base.mp4", "rotated90_metadata.mp4", "vfr.mp4", "start_at_100s.ts", "flower.gif"])
@pytest.mark.parametrize("resize", ["exact", "fast"])
@pytest.mark.parametrize("size", [None, (64, 48)])
def test_a_process_of_its_own_changes_no_bit(name: str, resize: str, size: tuple[int, int] | None):
    with open_video(GOLDEN / name) as apart, open_video(GOLDEN / name, isolate=False) as here:
        assert np.array_equal(apart.clock.pts_s, here.clock.pts_s)
        assert apart.info == here.info
        times_s = here.clock.pts_s[::7]
        one = list(apart.frames_at(times_s, size=size, resize=resize, chunk_frames=5))
        other = list(here.frames_at(times_s, size=size, resize=resize, chunk_frames=5))
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, other, strict=True))


def test_damage_is_reported_alike_with_and_without_a_process_of_its_own():
    name = GOLDEN / "corrupt_middle_bytes.mp4"
    with open_video(name) as apart, open_video(name, isolate=False) as here:
        one, other = (list(v.frames_at(v.clock.pts_s, size=(36, 64))) for v in (apart, here))
        assert apart.warnings == here.warnings
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert a.damaged is not None and b.damaged is not None and np.array_equal(a.damaged, b.damaged)


def test_exact_resizing_is_pillows_bicubic(reference: np.ndarray):
    with open_video(BASE, isolate=False) as video:
        ours = pixels_at(video, video.clock.pts_s[[3, 70]], size=(224, 224))
    for row, pixels in zip((3, 70), ours, strict=True):
        resized = Image.fromarray(reference[row]).resize((224, 224), Image.Resampling.BICUBIC)
        assert np.array_equal(pixels, np.asarray(resized))


def test_fast_resizing_differs_from_the_exact_one_by_little():
    with open_video(BASE, isolate=False) as video:
        times_s = video.clock.pts_s[::30]
        exact, fast = (pixels_at(video, times_s, size=(224, 224), resize=way).astype(int) for way in ("exact", "fast"))
    assert 0 < np.abs(exact - fast).mean() < 3


def test_the_same_time_may_be_asked_for_often(reference: np.ndarray):
    with open_video(BASE, isolate=False) as video:
        times_s = np.array([1.0, 1.0, 1.0, 1.001, 1.002])
        ours = pixels_at(video, times_s, chunk_frames=2)
        assert len(ours) == 5
        assert np.array_equal(ours, reference[video.clock.nearest(times_s)])


def test_times_outside_give_the_first_and_the_last_frame(reference: np.ndarray):
    with open_video(BASE, isolate=False) as video:
        assert np.array_equal(pixels_at(video, np.array([-3.0, 1e6])), reference[[0, -1]])


def test_no_times_give_no_frames():
    with open_video(BASE) as video:
        assert list(video.frames_at(np.zeros(0))) == []


@pytest.mark.parametrize("times_s", [[1.0, 0.0], [float("nan")], [[0.0, 1.0]], [0.0, float("inf")]])
def test_times_out_of_order_are_refused_before_anything_is_decoded(times_s: list):
    with open_video(BASE, isolate=False) as video, pytest.raises(VideoError, match="ascending"):
        video.frames_at(np.array(times_s))


@pytest.mark.parametrize("wrong", [{"chunk_frames": 0}, {"size": (0, 5)}])
def test_limits_that_make_no_sense_are_refused(wrong: dict):
    with open_video(BASE, isolate=False) as video, pytest.raises(ConfigError, match="expected"):
        video.frames_at(np.zeros(1), **wrong)


def test_a_pass_may_be_left_early_and_another_begun(reference: np.ndarray):
    with open_video(BASE) as video:
        for row in (10, 60, 5):
            passing = video.frames_at(video.clock.pts_s[row:], chunk_frames=2)
            assert np.array_equal(next(passing).pixels, reference[row : row + 2])
            passing.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_two_passes_at_once_do_not_mix(reference: np.ndarray):
    with open_video(BASE) as video:
        one = video.frames_at(video.clock.pts_s[:40], chunk_frames=5)
        other = video.frames_at(video.clock.pts_s[100:140], chunk_frames=5)
        for start in range(0, 40, 5):
            assert np.array_equal(next(one).pixels, reference[start : start + 5])
            assert np.array_equal(next(other).pixels, reference[100 + start : 105 + start])


def test_a_closed_video_gives_no_frames():
    video = open_video(BASE)
    video.close()
    video.close()
    with pytest.raises(VideoError, match="closed"):
        video.frames_at(np.zeros(1))


def test_frames_may_be_written_to(tmp_path: Path):
    with open_video(BASE) as video:
        frames = next(video.frames_at(np.zeros(1)))
    frames.pixels[:] = 0
