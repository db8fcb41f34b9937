"""QC-Comp against numbers from the released code: clip scores, chunks, selected frames, the whole two-stage answer."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from longtake.core.errors import ConfigError
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.methods.select.qc_comp import XCOMP_2B_RELEASED, chunks, frame_scores, top_frames
from longtake.models.clip_scorer import ClipScorer
from longtake.nn.language.walk import WalkInput, decode_step, prefill
from tests.parity.xcomp_goldens import language_model, load

SENTINEL = 1e9
ALL_LAYERS = dataclasses.replace(XCOMP_2B_RELEASED, first_layer=0, last_layer=27)
SCORES = [
    ("segments_8_4_bias27", ALL_LAYERS, 27),
    ("segments_8_4_bias0", ALL_LAYERS, 0),
    ("segments_4_2_bias27", dataclasses.replace(ALL_LAYERS, window=4, stride=2), 27),
    ("default_bias27", dataclasses.replace(ALL_LAYERS, window=0), 27),
    ("default_bias0", dataclasses.replace(ALL_LAYERS, window=0), 0),
]


@pytest.fixture(scope="module")
def language() -> torch.nn.Module:
    return language_model(load("b_lp28_state")[1], 28)


def text_parts(language: torch.nn.Module, facts: dict, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The embedded prefix, everything after the video, and how much of that precedes the assistant's header."""
    start = facts["placeholder_index"]
    with torch.no_grad():
        prefix, text = language.embed_tokens(ids[:start]), language.embed_tokens(ids[start + 1 :])
    return prefix, text, facts["assistant_header_index_in_input_ids"] - start - 1


@pytest.mark.parametrize(("case", "method", "skipped"), SCORES, ids=[case for case, *_ in SCORES])
def test_clip_scores_equal_the_released_code(
    language: torch.nn.Module, case: str, method: object, skipped: int
) -> None:
    facts, inputs = load("c_qc_inputs")
    prefix, text, header = text_parts(language, facts, inputs["input_ids"])
    scorer = ClipScorer(language, method, LpComp())
    chunk = scorer.read(prefix, inputs["visual_embeds"].flatten(0, 1), facts["num_clips"])
    seen = text[:header] if method.window else text
    scores = scorer.score(chunk, seen, slice(skipped, header))
    expected = load(f"c_qc_scores_{case}")[1]["output.clip_scores"]
    torch.testing.assert_close(scores.nan_to_num(SENTINEL), expected, rtol=1e-4, atol=1e-7)


def test_second_question_scores_as_the_first_would(language: torch.nn.Module) -> None:
    facts, inputs = load("c_qc_inputs")
    prefix, text, header = text_parts(language, facts, inputs["input_ids"])
    scorer = ClipScorer(language, XCOMP_2B_RELEASED, LpComp())
    visual = inputs["visual_embeds"].flatten(0, 1)
    chunk = scorer.read(prefix, visual, facts["num_clips"])
    scorer.score(chunk, text[:header].flip(0))
    warm = scorer.score(chunk, text[:header])
    cold = scorer.score(scorer.read(prefix, visual, facts["num_clips"], chunk_size=100), text[:header])
    torch.testing.assert_close(warm, cold, rtol=1e-5, atol=1e-7, equal_nan=True)


def test_a_causal_mask_changes_the_scores(language: torch.nn.Module) -> None:
    facts, inputs = load("c_qc_inputs")
    prefix, text, header = text_parts(language, facts, inputs["input_ids"])
    causal = ClipScorer(language, dataclasses.replace(ALL_LAYERS, mask="causal"), LpComp())
    chunk = causal.read(prefix, inputs["visual_embeds"].flatten(0, 1), facts["num_clips"])
    scores = causal.score(chunk, text[:header], slice(27, header)).nan_to_num(SENTINEL)
    expected = load("c_qc_scores_segments_8_4_bias27")[1]["output.clip_scores"]
    assert not torch.allclose(scores, expected, rtol=1e-3)


def test_a_reducer_that_reads_the_question_is_refused(language: torch.nn.Module) -> None:
    facts, inputs = load("c_qc_inputs")
    prefix, _, _ = text_parts(language, facts, inputs["input_ids"])
    scorer = ClipScorer(language, XCOMP_2B_RELEASED, ProgressiveDrop(kind="attention"))
    with pytest.raises(ConfigError, match="before any question"):
        scorer.read(prefix, inputs["visual_embeds"].flatten(0, 1), facts["num_clips"])


@pytest.mark.parametrize("row", range(7))
def test_chunks_and_selected_frames_equal_the_released_code(row: int) -> None:
    facts, tensors = load("c_qc_select")
    case = facts["rows"][row]
    method = dataclasses.replace(
        XCOMP_2B_RELEASED, repeats=case["n_repeat"], window=0 if case["score_type"] == "default" else 8
    )
    if case["num_frames"] < method.gate_frames:
        assert case["selected"].startswith("ALL")
        return
    frames = chunks(case["num_frames"], method)
    assert [int(chunk[0]) for chunk in frames] == case["chunk_start"]
    assert [len(chunk) for chunk in frames] == case["chunk_len"]
    scores = tensors[case["score_tensor"]][:, 6:24]
    valid = torch.where(scores < 1000, scores, torch.nan)
    total = frame_scores(list(valid), frames, case["num_frames"], method.clip_frames)
    assert top_frames(total, case["select"]) == case["selected"]


@torch.no_grad()
def test_two_stage_answer_equals_the_released_code(language: torch.nn.Module) -> None:
    facts, inputs = load("c_qc_full_inputs")
    wanted, expected = load("c_qc_full")
    prefix, text, header = text_parts(language, facts, inputs["input_ids"])
    method = dataclasses.replace(XCOMP_2B_RELEASED, repeats=wanted["n_repeat"])
    scorer = ClipScorer(language, method, LpComp())
    frames = chunks(wanted["num_frames"], method)
    scores = []
    for index, chunk_frames in enumerate(frames):
        chunk = scorer.read(prefix, inputs["visual_embeds"][chunk_frames].flatten(0, 1), len(chunk_frames) // 8)
        scores.append(scorer.score(chunk, text[:header], slice(27, header)))
        own = expected["output.chunk_clip_scores"][index, 6:24]
        torch.testing.assert_close(scores[-1].nan_to_num(SENTINEL), own, rtol=1e-4, atol=1e-7)
    total = frame_scores(scores, frames, wanted["num_frames"], 8)
    torch.testing.assert_close(total.float(), expected["output.frame_total_score"].float(), rtol=1e-4, atol=0)
    selected = top_frames(total, wanted["select"])
    assert selected == expected["output.selected_frames"].tolist()

    visual = inputs["visual_embeds"][selected].flatten(0, 1)
    embeds = torch.cat([prefix, visual, text])[None]
    walk_input = WalkInput(embeds, torch.ones(embeds.shape[:2], dtype=torch.bool), [len(prefix)], [len(visual)])
    out = prefill(language, walk_input, reducer=LpComp())
    head, step = language.embed_tokens.weight, out.hidden[:, -1]
    for index, token in enumerate(expected["output.generated_ids"].tolist()):
        logits = step @ head.T
        torch.testing.assert_close(logits[0], expected["output.step_logits"][index], atol=2e-3, rtol=1e-3)
        assert int(logits.argmax()) == token
        step = decode_step(language, language.embed_tokens(torch.tensor([[token]])), out.cache)[:, -1]
