"""Position bias: the protocols tell place from content on scores that are known, and run on a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.engine.test_select import film_of

from longtake.core.errors import ConfigError, VideoError
from longtake.core.types import VideoMemory
from longtake.engine.bias import arranged, draw, measure, needle_depth, null_video, shuffled
from longtake.methods.select.qc_comp import QcComp
from longtake.models.loaded import LoadedModel

SMALL = QcComp(window=3, stride=1, chunk_frames=64)


def by_place(film: VideoMemory) -> np.ndarray:
    """Score each clip of 8 frames by its place alone: the two ends twice as high."""
    scores = np.ones(len(film.frame_pts_s) // 2)
    scores[[0, -1]] = 2.0
    return scores


def by_content(film: VideoMemory) -> np.ndarray:
    return film.tokens.features.view(-1, 128 * 64).mean(1).numpy() + 1.0


def test_a_null_video_shows_what_place_alone_does():
    found = null_video(film_of(20), [4, 5], by_place)
    assert found.edge_ratio == pytest.approx(2.0)
    assert found.profile.sum() == pytest.approx(1.0) and found.kl > 0.01
    flat = null_video(film_of(20), [4, 5], by_content)
    assert (flat.edge_ratio, flat.kl) == pytest.approx((1.0, 0.0), abs=1e-6)


def test_shuffling_tells_place_from_content():
    place, content = shuffled(film_of(20), 2, by_place, 32), shuffled(film_of(20), 2, by_content, 32)
    assert place.by_position == pytest.approx(1.0) and place.by_content < 0.1
    assert content.by_content == pytest.approx(1.0, abs=1e-5) and content.by_position < 0.1
    mixed = shuffled(film_of(20), 2, lambda film: by_content(film) + np.random.default_rng(1).normal(size=10), 32)
    assert mixed.by_content < 0.5


def test_scores_without_variance_are_explained_by_nothing():
    flat = shuffled(film_of(20), 2, lambda film: np.ones(len(film.frame_pts_s) // 2), 4)
    assert (flat.by_position, flat.by_content) == (0.0, 0.0)


def test_a_needle_is_found_at_every_depth_by_content_and_only_at_the_ends_by_place():
    needle = film_of(2, seed=9)
    needle.tokens.features.add_(5.0)
    found = needle_depth(film_of(20), needle, 2, by_content, 10)
    assert found.rank.tolist() == [0.0] * 10 and found.recall() == 1.0
    assert found.depth.tolist() == pytest.approx(np.arange(10) / 9)
    placed = needle_depth(film_of(20), needle, 2, by_place, 10)
    assert placed.rank.tolist() == [0.0, *[2.0] * 8, 0.0] and placed.recall() == pytest.approx(0.2)


def test_a_moved_clip_leaves_its_old_place():
    film = film_of(20)
    seen = []

    def score(shown: VideoMemory) -> np.ndarray:
        seen.append(sorted(by_content(shown).tolist()))
        return by_content(shown)

    best = int(by_content(film).argmax())
    needle = arranged(film, [2 * best, 2 * best + 1])
    found = needle_depth(film, needle, 2, score, 4, skip=best)
    assert all(one == seen[0] for one in seen) and found.rank.tolist() == [0.0] * 4


def test_an_arranged_film_keeps_the_timeline():
    film = film_of(20)
    shown = arranged(film, [5, 0, 5])
    assert shown.frame_pts_s.tolist() == film.frame_pts_s[:3].tolist()
    assert shown.tokens.features[:64].equal(film.tokens.features[320:384])


def test_the_report_of_a_model_compares_three_ways_and_is_drawn(loaded: LoadedModel, tmp_path: Path):
    report = measure(film_of(24), "Where is it?", loaded, SMALL, rounds=3)
    plain = report.to_dict()
    assert list(plain) == ["global", "segment-local", "position-corrected"]
    for row in plain.values():
        assert len(row["null_profile"]) == 12 and len(row["needle_rank"]) == 3
        assert 0 <= row["shuffled_by_position"] <= 1 and row["null_edge_ratio"] > 0
    # Windows make the profile of a constant video flatter, and the correction flatter still.
    assert plain["position-corrected"]["null_kl"] < plain["segment-local"]["null_kl"] < plain["global"]["null_kl"]
    with Image.open(draw(report, tmp_path / "bias.png")) as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("clips", "method", "error", "words"),
    [
        (18, SMALL, VideoError, "at least 10 scored clips"),
        (24, dataclasses.replace(SMALL, window=0), ConfigError, "set a window"),
        (24, dataclasses.replace(SMALL, edges="drop", stride=2, last_window=False), VideoError, "every clip"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    loaded: LoadedModel, clips: int, method: QcComp, error: type[Exception], words: str
):
    with pytest.raises(error, match=words):
        measure(film_of(clips), "Where is it?", loaded, method, rounds=2)


def test_a_needle_that_is_too_short_and_too_few_rounds_are_refused():
    with pytest.raises(VideoError, match="take a longer one"):
        needle_depth(film_of(20), film_of(1), 2, by_place, 3)
    with pytest.raises(ConfigError, match="rounds is 1"):
        shuffled(film_of(20), 2, by_place, 1)
