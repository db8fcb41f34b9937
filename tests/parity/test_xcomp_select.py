"""Selection from a memory, whose clips were encoded once, against the released code, which encodes every chunk."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from longtake.core.types import VideoMemory, VisualTokens
from longtake.engine.select import ScoredVideo, best_clips, subset
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.select.qc_comp import XCOMP_2B_RELEASED
from tests.parity.xcomp_goldens import language_model, load

CLIP = 4


def test_a_memory_selects_the_frames_that_the_released_code_does() -> None:
    facts, inputs = load("c_qc_full_inputs")
    wanted, expected = load("c_qc_full")
    count = wanted["num_frames"] // CLIP
    features = inputs["visual_embeds"].flatten(0, 1)
    weight = torch.ones(len(features), CLIP, dtype=torch.int64)
    tokens = VisualTokens(features, weight, torch.arange(count).repeat_interleave(CLIP * 16))
    times = np.arange(wanted["num_frames"], dtype=np.float64).reshape(count, CLIP)
    memory = VideoMemory(tokens, times, float(wanted["num_frames"]), "golden", {"kind": "video"})

    language = language_model(load("b_lp28_state")[1], 28)
    method = dataclasses.replace(XCOMP_2B_RELEASED, repeats=wanted["n_repeat"])
    state = ScoredVideo(memory, language, method, LpComp())
    ids = inputs["input_ids"].clone()
    start = facts["placeholder_index"]
    ids[start] = -200
    header = facts["assistant_header_index_in_input_ids"] - start - 1
    total = state.frame_scores(ids, slice(wanted["query_bias"], header), header)
    torch.testing.assert_close(total.float(), expected["output.frame_total_score"].float(), rtol=1e-4, atol=0)
    chosen = best_clips(total, memory, wanted["select"])
    frames = subset(memory, chosen.clips).frame_pts_s.ravel().astype(int).tolist()
    assert frames == expected["output.selected_frames"].tolist()

    again = state.frame_scores(ids, slice(wanted["query_bias"], header), header)
    torch.testing.assert_close(again, total, rtol=1e-5, atol=0)
