"""The whole model against frozen outputs of the released code, from pixels to greedy tokens."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from longtake.convert.load import from_state_dict
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.splice import Visual
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration, kept_visual_tokens

GOLDEN = Path(__file__).parents[1] / "golden" / "videochat_flash"
FAMILIES = ("umt", "iv2")
ATOL = {"tower": 1e-4, "connector": 1e-4, "logits": 3e-4, "score": 1e-6, "loss": 1e-4}


def golden(case: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    facts = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    tensors = load_file(GOLDEN / f"{case}.safetensors")
    return facts, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def cases(prefix: str) -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob(f"{prefix}*.json"))


@cache
def tiny(family: str) -> VideoChatFlashForConditionalGeneration:
    facts, state = golden(f"d_{family}_state")
    return from_state_dict(state, facts["config"])


@pytest.fixture
def model(case: str):
    model = tiny(case.split("_")[1])
    model.reducer = None
    yield model
    model.reducer = None
    model.zero_grad()


def drop(facts: dict[str, Any]) -> ProgressiveDrop | None:
    asked = facts["compress"]
    if asked is None:
        return None
    return ProgressiveDrop(kind=asked["type"], layers=tuple(asked["layers"]), ratios=tuple(map(float, asked["ratios"])))


def close(got: Tensor, expected: Tensor, kind: str) -> None:
    torch.testing.assert_close(got, expected, atol=ATOL[kind], rtol=0.0)


def video_inputs(case: str) -> tuple[Tensor, list[Visual]]:
    _, tensors = golden(f"d_{case.split('_')[1]}_video_inputs")
    return tensors["input.input_ids"], [Visual(pixel_values=tensors["input.pixel_values"])]


def check_drops(reductions: Any, scores: Any, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    layers = facts["compress"]["layers"] if facts["compress"] else []
    kept = kept_visual_tokens(reductions)
    assert len(kept) == len(layers)
    for stage, layer in enumerate(layers):
        assert torch.equal(kept[stage], tensors[f"output.kept_visual_after_layer{layer}"])
        if f"output.attn_score_layer{layer}" in tensors:
            close(scores[stage], tensors[f"output.attn_score_layer{layer}"], "score")


def test_every_golden_of_the_model_is_used():
    used = [c for f in FAMILIES for p in ("state", "video_inputs", "run_", "image_") for c in cases(f"d_{f}_{p}")]
    assert sorted([*used, *cases("d_umt_train_"), "d_umt_batch_mixed"]) == cases("d_")
    assert len(cases("d_")) >= 19


@pytest.mark.parametrize("case", [f"d_{family}_video_inputs" for family in FAMILIES])
def test_tower_and_connector_match_the_reference(case: str, model: VideoChatFlashForConditionalGeneration):
    _, tensors = golden(case)
    clips = model.split_clips(tensors["input.pixel_values"])
    with torch.no_grad():
        close(model.encode_clips(clips), tensors["output.vision_tower"], "tower")
        features, reduction = model.connect(clips)
    close(features, tensors["output.connector"], "connector")
    assert reduction.target.shape == tensors["output.vision_tower"].shape[:2]


@pytest.mark.parametrize("case", [c for f in FAMILIES for c in cases(f"d_{f}_run_")])
def test_prefill_kept_tokens_and_greedy_ids_match_from_pixels(case: str, model: VideoChatFlashForConditionalGeneration):
    facts, tensors = golden(case)
    model.reducer = drop(facts)
    input_ids, visuals = video_inputs(case)
    with torch.no_grad():
        out = model(input_ids, visuals=visuals)
    close(out.logits[0], tensors["output.prefill_logits"], "logits")
    check_drops(out.reductions[0], out.scores[0], facts, tensors)

    answer = model.generate(input_ids, visuals, max_new_tokens=8, keep_logits=True)
    assert answer.ids[0] == tensors["output.generated_ids"].tolist()
    close(answer.logits[0], tensors["output.step_logits"], "logits")
    assert [sum(lengths) for lengths in answer.cache_lengths] == facts["kv_length_per_layer_after_decode"]
    assert answer.num_prompt_tokens == [facts["num_text_tokens"] + facts["num_visual_tokens"]]


@pytest.mark.parametrize("case", [c for f in FAMILIES for c in cases(f"d_{f}_image_")])
def test_images_match_from_tiles(case: str, model: VideoChatFlashForConditionalGeneration):
    facts, tensors = golden(case)
    tiles = tensors["input.pixel_values"]
    side = model.vision.config.image_size
    width, height = facts["image_size_wh"]
    tile_grid = (width // side, height // side) if len(tiles) > 1 else None
    visual = Visual(pixel_values=tiles, modality="image", tile_grid=tile_grid)
    with torch.no_grad():
        close(model.connect(tiles.unsqueeze(1))[0], tensors["output.connector"], "connector")
        close(model.visual_tokens(visual), tensors["output.visual_tokens"], "connector")
        out = model(tensors["input.input_ids"], visuals=[visual])
    close(out.logits[0], tensors["output.prefill_logits"], "logits")


@pytest.mark.parametrize("case", ["d_umt_batch_mixed"])
def test_batch_of_video_image_and_text_matches(case: str, model: VideoChatFlashForConditionalGeneration):
    _, tensors = golden(case)
    visuals = [
        Visual(pixel_values=tensors["input.video"]),
        Visual(pixel_values=tensors["input.image"], modality="image"),
    ]
    with torch.no_grad():
        out = model(
            tensors["input.input_ids"],
            attention_mask=tensors["input.attention_mask"],
            labels=tensors["input.labels"],
            visuals=visuals,
        )
    assert torch.equal(out.mask, tensors["output.attention_mask"])
    assert torch.equal(out.labels, tensors["output.labels"])
    close(out.logits * out.mask.unsqueeze(-1), tensors["output.logits_masked"], "logits")
    close(out.loss.reshape(1), tensors["output.loss"], "loss")


@pytest.mark.parametrize("case", cases("d_umt_train_"))
def test_training_step_matches_with_gradients(case: str, model: VideoChatFlashForConditionalGeneration):
    facts, tensors = golden(case)
    model.reducer = drop(facts)
    input_ids, visuals = video_inputs(case)
    out = model(input_ids, labels=tensors["input.labels"], visuals=visuals)
    close(out.loss.detach().reshape(1), tensors["output.loss"], "loss")
    close(out.logits[0].detach(), tensors["output.logits"], "logits")
    check_drops(out.reductions[0], out.scores[0], facts, tensors)
    out.loss.backward()
    for name, expected in tensors.items():
        if name.startswith("output.grad."):
            check_gradient(model, name.removeprefix("output.grad."), expected)


def check_gradient(model: VideoChatFlashForConditionalGeneration, released: str, expected: Tensor) -> None:
    from longtake.models.released_names import to_ours

    gradient = model.get_parameter(to_ours(released)).grad
    assert gradient is not None
    if expected.shape == (1,):
        gradient = gradient.norm().reshape(1)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
