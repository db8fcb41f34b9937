"""Explain: relevance, thumbnails at the right times, tokens per layer, and a picture that opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtake.core.errors import ConfigError, StorageError
from longtake.core.types import VideoMemory
from longtake.engine.explain import draw, explain, layer_tokens
from longtake.engine.select import Selector, best_clips, relevance
from longtake.media.synthetic import read_clock
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.select.qc_comp import QcComp
from longtake.models.loaded import LoadedModel

QUESTION = "What costs $5 at the end?"
SELECTOR = Selector(method=QcComp(window=2, stride=1, chunk_frames=16), frames_kept=8)


def test_relevance_thumbnails_and_tokens_are_those_of_the_video(
    loaded: LoadedModel, film: Path, memory: VideoMemory, tmp_path: Path
):
    loaded.model.reducer = LpComp()
    found = explain(film, QUESTION, loaded, selector=SELECTOR, memory=memory)
    scores = relevance(memory, QUESTION, loaded, SELECTOR.method)
    np.testing.assert_allclose(found.relevance, scores.numpy() / scores.numpy().mean(), rtol=1e-6)
    chosen = best_clips(scores, memory, 8).clips
    assert found.times_s[found.kept].tolist() == memory.frame_pts_s[chosen].ravel().tolist()
    assert found.top.pts_s.tolist() == found.times_s[[4, 12, 20]].tolist()  # the middles of three scored clips
    assert [read_clock(picture) for picture in found.top.pixels] == pytest.approx(found.top.pts_s, abs=0.02)
    counts = LpComp().counts(4)[1:]
    np.testing.assert_allclose(found.tokens.sum(1), [8 * count for count in counts])
    np.testing.assert_allclose(found.tokens[:, ~found.kept], 0)
    with Image.open(draw(found, tmp_path / "heat.png")) as picture:
        assert picture.size == (1320, 960)
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20


def test_every_frame_stays_in_a_short_video(loaded: LoadedModel, film: Path, memory: VideoMemory):
    found = explain(film, QUESTION, loaded, selector=Selector(method=SELECTOR.method), memory=memory)
    assert found.kept.all() and found.tokens.sum() == 4 * 24 * 16
    assert found.to_dict()["tokens_per_layer"] == [384.0] * 4


def test_tokens_of_a_layer_follow_the_reducer(loaded: LoadedModel):
    assert layer_tokens(loaded, 160).tolist() == [160.0] * 4
    loaded.model.reducer = LpComp()
    assert layer_tokens(loaded, 160).tolist() == [10.0 * count for count in LpComp().counts(4)[1:]]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [("heat.txt", ConfigError, "ends in .png"), ("nowhere/heat.png", StorageError, "make it first")],
)
def test_a_figure_that_cannot_be_written_is_refused(
    loaded: LoadedModel, film: Path, memory: VideoMemory, tmp_path: Path, name: str, error: type[Exception], words: str
):
    found = explain(film, QUESTION, loaded, selector=SELECTOR, memory=memory)
    with pytest.raises(error, match=words):
        draw(found, tmp_path / name)
