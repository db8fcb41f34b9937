"""PVC with XComp's methods behind it: fewer tokens a frame at run time, drops between layers, selected clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from longtake.convert.key_map import meta_model
from longtake.convert.tuned import attach_methods
from longtake.core.errors import BudgetError, ConfigError
from longtake.core.types import VideoMemory, VisualTokens
from longtake.engine.limits import frames_that_fit
from longtake.engine.plan import plan_for
from longtake.engine.select import ScoredVideo, best_clips
from longtake.methods.compress.pool import Pool
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.select.qc_comp import QcComp
from longtake.models.base import kept_visual_tokens
from longtake.models.presets import preset
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.splice import Visual
from longtake.models.tiny_pvc import random_pvc, tiny_pvc, tiny_pvc_config

SIDE = 8  # patches, and tokens, high and wide: 64 tokens a frame
VISION = {**tiny_pvc_config().vision_config.to_dict(), "image_size": 14 * SIDE}
FRAMES = 6


@pytest.fixture(scope="module")
def untouched() -> PvcForConditionalGeneration:
    config = tiny_pvc_config(vision_config=VISION, downsample_ratio=1.0, conditioning="none", frame_labels=False)
    return random_pvc(config)


@pytest.fixture
def model(untouched: PvcForConditionalGeneration):
    untouched.reducer = LpComp(tokens_per_frame=64)
    yield untouched
    untouched.reducer, untouched.compressor.after = None, None


@pytest.mark.parametrize("budget", [64, 32, 16, 8, 4, 2, 1])
@torch.no_grad()
def test_a_frame_costs_what_the_budget_says_and_ends_as_one_token(budget: int, model: PvcForConditionalGeneration):
    model.limit_tokens(budget)
    video = torch.randn(FRAMES, 3, 14 * SIDE, 14 * SIDE)
    spliced = model.splice_inputs(torch.tensor([[5, -200, 7, 8]]), [Visual(pixel_values=video)])
    assert spliced.num_visual == [FRAMES * budget] == [FRAMES * model.compressor.out_tokens(model.vision.grid(1))]
    walked = model.prefill(spliced)
    assert bool(walked.hidden.isfinite().all())
    kept = kept_visual_tokens(walked.reductions[0])
    last = kept[max(kept)].tolist() if kept else list(range(FRAMES))
    assert last == [budget * (frame + 1) - 1 for frame in range(FRAMES)]
    answer = model.generate(torch.tensor([[5, -200, 7, 8]]), [Visual(pixel_values=video)], max_new_tokens=2)
    assert len(answer.ids[0]) == 2


@torch.no_grad()
def test_a_budget_averages_neighbours_and_says_which(model: PvcForConditionalGeneration):
    patches = model.vision(torch.randn(1, 3, 14 * SIDE, 14 * SIDE), [1])[:, 1:]
    whole = model.compressor(patches, torch.zeros(1), model.vision.grid(1))
    model.limit_tokens(4)
    fewer = model.compressor(patches, torch.zeros(1), model.vision.grid(1))
    quarter = whole.features.unflatten(1, (2, SIDE // 2, 2, SIDE // 2)).mean(dim=(2, 4)).flatten(1, 2)
    torch.testing.assert_close(fewer.features, quarter, atol=1e-5, rtol=1e-5)
    places = fewer.reduction.target.unflatten(1, (SIDE, SIDE))[0]
    assert places[:, 0].tolist() == [0] * 4 + [2] * 4 and places[0].tolist() == [0] * 4 + [1] * 4


def test_memories_of_different_budgets_are_told_apart(model: PvcForConditionalGeneration):
    seen = {model.compressor.fingerprint()}
    for budget in (4, 1):
        model.limit_tokens(budget)
        seen.add(model.compressor.fingerprint())
    assert len(seen) == 3
    model.compressor.after = lambda x, grid: None  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="has no fingerprint"):
        model.compressor.fingerprint()


def test_a_frame_keeps_at_least_one_token():
    with pytest.raises(ConfigError, match="tokens_per_frame is 0"):
        Pool(tokens_per_frame=0)


def test_a_budget_that_cuts_no_grid_is_refused_and_changes_nothing(model: PvcForConditionalGeneration):
    with pytest.raises(ConfigError, match="1, 2, 4, 8, 16, 32, 64"):
        model.limit_tokens(5)
    assert model.compressor.after is None


@torch.no_grad()
def test_the_clips_of_a_memory_are_scored_and_the_best_kept(model: PvcForConditionalGeneration):
    model.limit_tokens(4)
    count = 32
    encoder = model.encoder(count)
    clips = torch.randn(count, 1, 3, 14 * SIDE, 14 * SIDE)
    features = model.projector(encoder.compress(encoder.encode(clips)).features).flatten(0, 1)
    tokens = VisualTokens(features, torch.full((len(features), 1), 16), torch.arange(count).repeat_interleave(4))
    memory = VideoMemory(tokens, np.arange(float(count))[:, None], float(count), "noise", {"kind": "video"})
    method = QcComp(window=2, stride=1, clip_frames=4, chunk_frames=16, first_layer=0, last_layer=3)
    state = ScoredVideo(memory, model.language, method, model.reducer)
    scores = state.frame_scores(torch.tensor([1, 2, -200, *range(10, 30)]), slice(2, 12), 15)
    assert scores.shape == (count,) and bool(scores.isfinite().all()) and len(scores.unique()) == count // 4
    assert len(best_clips(scores, memory, 8).clips) == 8


def test_a_cost_that_is_not_predicted_is_refused_and_advice_is_a_guess():
    with pytest.raises(ConfigError, match="pvc_internvl, whose cost is not predicted"):
        plan_for(None, 10.0, "pvc_8b", max_frames=8, max_new_tokens=8, dtype="bfloat16")
    assert frames_that_fit(tiny_pvc(), 64, free=0) == 48


def test_frames_with_places_of_their_own_cannot_be_dropped_from():
    model = random_pvc(tiny_pvc_config())
    model.reducer = LpComp(tokens_per_frame=4)
    ids = torch.tensor([[5, -200, 7, -200, 8]])
    with torch.no_grad(), pytest.raises(BudgetError, match="2 visuals"):
        model(ids, visuals=[Visual(pixel_values=torch.randn(2, 3, 56, 56))])


def test_the_preset_names_both_methods_and_leaves_the_conditioning_out():
    config: Any = preset("pvc_xcomp").config()
    model: Any = meta_model(config)
    attach_methods(model)
    assert model.reducer == LpComp(tokens_per_frame=64) and model.compressor.config.conditioning == "none"
    assert model.compressor.out_tokens(model.vision.grid(1)) == config.tokens_per_frame == 64
    assert QcComp.from_dict({k: v for k, v in config.methods["select"].items() if k not in ("name", "state_times")})
