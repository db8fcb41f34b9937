"""The walk and progressive drop alone, from connector outputs, against frozen outputs of the released code."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from longtake.core.reduction import Reduction
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.nn.language.walk import WalkInput, WalkOutput, answer_rows, decode_step, prefill
from tests.parity.vcf_goldens import cases, load

RUNS = [case for case in cases("d_") if "_run_" in case]
TRAINS = [case for case in cases("d_") if "_train_" in case]
TEXT_SHAPE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)


class Language(nn.Module):
    """The language half of a golden model, under its released names."""

    def __init__(self, family: str) -> None:
        super().__init__()
        facts, state = load(f"d_{family}_state")
        shape = facts["config"]
        rope = {"rope_type": "default", "rope_theta": shape["rope_theta"]}
        self.model = Qwen2Model(Qwen2Config(**{key: shape[key] for key in TEXT_SHAPE}, rope_parameters=rope))
        self.lm_head = nn.Linear(shape["hidden_size"], shape["vocab_size"], bias=False)
        own = self.state_dict()
        self.load_state_dict({name: value for name, value in state.items() if name in own})


@cache
def language(family: str) -> Language:
    return Language(family)


def prompt(case: str, model: Language) -> tuple[Tensor, Tensor, int]:
    """Return embeddings [L, D] with the connector's output in the place of the placeholder, that output, its start."""
    _, tensors = load(f"d_{case.split('_')[1]}_video_inputs")
    ids, visual = tensors["input.input_ids"][0], tensors["output.connector"].flatten(0, 1)
    start = int((ids == -200).nonzero())
    visual.requires_grad_()
    before, after = model.model.embed_tokens(ids[:start]), model.model.embed_tokens(ids[start + 1 :])
    return torch.cat([before, visual, after]), visual, start


def drop(facts: dict[str, Any]) -> ProgressiveDrop | None:
    asked = facts["compress"]
    return asked and ProgressiveDrop.from_dict(
        {"kind": asked["type"], "layers": asked["layers"], "ratios": [float(ratio) for ratio in asked["ratios"]]}
    )


def one(embeds: Tensor, start: int, num_visual: int, rows: list[int] | None = None) -> WalkInput:
    mask = torch.ones(1, len(embeds), dtype=torch.bool)
    return WalkInput(embeds[None], mask, [start], [num_visual], None if rows is None else [rows])


def check_drops(out: WalkOutput, facts: dict[str, Any], tensors: dict[str, Tensor], start: int) -> None:
    layers = facts["compress"]["layers"] if facts["compress"] else []
    num_visual = facts["num_visual_tokens"]
    total = Reduction.identity(num_visual)
    assert sorted(out.reductions[0]) == list(range(len(layers)))
    for stage, layer in enumerate(layers):
        total = total.then(out.reductions[0][stage])
        assert torch.equal(total.kept, tensors[f"output.kept_visual_after_layer{layer}"])
        expected = tensors.get(f"output.attn_score_layer{layer}")
        assert (expected is None) == (stage not in out.scores[0])
        if expected is not None:
            torch.testing.assert_close(out.scores[0][stage], expected, atol=1e-6, rtol=0)
    rows = out.kept[0]
    assert torch.equal(rows[(rows >= start) & (rows < start + num_visual)] - start, total.kept)


def test_every_golden_run_is_here() -> None:
    assert len(RUNS) == 10 and len(TRAINS) == 2


@pytest.mark.parametrize("chunk_size", [None, 1, 100])
@pytest.mark.parametrize("case", RUNS)
@torch.no_grad()
def test_logits_kept_tokens_scores_greedy_ids_and_cache_lengths_match(case: str, chunk_size: int | None) -> None:
    facts, tensors = load(case)
    model = language(case.split("_")[1])
    embeds, _, start = prompt(case, model)
    assert start == facts["placeholder_index"]
    inputs = one(embeds, start, facts["num_visual_tokens"])
    out = prefill(model.model, inputs, reducer=drop(facts), chunk_size=chunk_size)
    logits = model.lm_head(out.hidden[0])
    torch.testing.assert_close(logits, tensors["output.prefill_logits"], atol=3e-4, rtol=0)
    check_drops(out, facts, tensors, start)

    assert out.cache is not None
    step, ids = logits[-1], tensors["output.generated_ids"].tolist()
    for index, token in enumerate(ids):
        torch.testing.assert_close(step, tensors["output.step_logits"][index], atol=3e-4, rtol=0)
        assert int(step.argmax()) == token
        if index + 1 < len(ids):
            new = model.model.embed_tokens(torch.tensor([[token]]))
            step = model.lm_head(decode_step(model.model, new, out.cache))[0, 0]
    assert [sum(layer) for layer in out.cache.lengths()] == facts["kv_length_per_layer_after_decode"]


@pytest.mark.parametrize("case", TRAINS)
def test_training_loss_labels_scores_and_gradients_match(case: str) -> None:
    facts, tensors = load(case)
    model = language("umt")
    model.zero_grad()
    embeds, visual, start = prompt(case, model)
    text, count = tensors["input.labels"][0], facts["num_visual_tokens"]
    labels = torch.cat([text[:start], torch.full((count,), -100), text[start + 1 :]])
    inputs = one(embeds, start, count, answer_rows(labels))
    assert len(inputs.score_rows[0]) == 2
    out = prefill(model.model, inputs, reducer=drop(facts), use_cache=False)
    check_drops(out, facts, tensors, start)
    logits, moved = model.lm_head(out.hidden[0]), out.move_labels(labels[None])[0]
    torch.testing.assert_close(logits, tensors["output.logits"], atol=3e-4, rtol=0)
    assert torch.equal(moved[moved != -100], labels[labels != -100])
    loss = F.cross_entropy(logits[:-1], moved[1:])
    torch.testing.assert_close(loss.reshape(1), tensors["output.loss"], atol=1e-4, rtol=0)

    loss.backward()
    checked = 0
    for name, expected in tensors.items():
        released = name.removeprefix("output.grad.")
        if name.startswith("output.grad.") and "mm_projector" not in released:
            gradient = model.get_parameter(released).grad
            gradient = gradient.norm().reshape(1) if expected.shape == (1,) else gradient
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
            checked += 1
    assert checked >= 3
    # The connector's last bias is added to every visual token, so its gradient is the sum of theirs.
    expected = tensors["output.grad.model.mm_projector.mlp.2.bias"]
    torch.testing.assert_close(visual.grad.sum(0), expected, rtol=1e-3, atol=1e-6)
