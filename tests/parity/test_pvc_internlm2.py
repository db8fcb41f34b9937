"""InternLM2 as a Llama: the packed attention weight both ways, logits, padding, cached steps, dynamic NTK."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from longtake.convert.internlm2 import internlm2_as_llama, internlm2_state, llama_state
from longtake.core.errors import CheckpointError, ConfigError
from longtake.models.pvc_configuration import llama_config
from longtake.models.pvc_names import join_wqkv, split_wqkv
from tests.parity.pvc_goldens import golden

CASES = ["e_llm_gqa", "e_llm_gqa4"]


def assert_close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_names_and_packed_weights_are_taken_apart_as_the_reference_does_and_put_together_again(case: str) -> None:
    facts, state = golden(f"{case}_state")
    text = llama_config(facts["config"])
    ours = llama_state(state, text)
    expected = golden(f"{case}_as_llama")[1]
    assert expected and all(torch.equal(ours[name], value) for name, value in expected.items())
    back = internlm2_state(ours, text)
    assert back.keys() == state.keys() and all(torch.equal(back[name], value) for name, value in state.items())


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_padding_and_cached_steps_are_the_reference_ones(case: str) -> None:
    facts, state = golden(f"{case}_state")
    model, (_, run) = internlm2_as_llama(state, facts["config"]), golden(f"{case}_run")
    ids = run["input_ids"]
    out = model(ids, use_cache=True)
    assert_close(out.logits, run["logits"])
    mask, positions = run["pad.attention_mask"], run["pad.position_ids"]
    assert_close(model(ids, attention_mask=mask, position_ids=positions).logits[:, 5:], run["pad.logits_valid"])
    cache = out.past_key_values
    for step in range(3):
        out = model(run["decode.next_ids"][:, step : step + 1], past_key_values=cache, use_cache=True)
        assert_close(out.logits[:, 0], run["decode.logits"][:, step])


@torch.no_grad()
def test_dynamic_ntk_follows_each_sequence_and_forgets_the_longest() -> None:
    facts, tensors = golden("e_llm_ntk")
    state = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
    model, ids = internlm2_as_llama(state, facts["config"]), tensors["input_ids"]
    short = tensors["logits_short_fresh"].shape[1]
    assert_close(model(ids[:, :short]).logits, tensors["logits_short_fresh"])
    assert_close(model(ids).logits, tensors["logits_long"])
    again = model(ids[:, :short]).logits
    assert_close(again, tensors["logits_short_fresh"])
    assert (again - tensors["logits_short_after_long"]).abs().max() > 0.1  # what the reference computes then


@settings(deadline=None, max_examples=25)
@given(
    groups=st.integers(1, 4), heads=st.integers(1, 4), size=st.sampled_from([2, 4, 6]), rest=st.sampled_from([(), (3,)])
)
def test_packing_inverts_splitting(groups: int, heads: int, size: int, rest: tuple[int, ...]) -> None:
    hidden = groups * heads * size
    text = LlamaConfig(num_attention_heads=groups * heads, num_key_value_heads=groups, hidden_size=hidden)
    packed = torch.randn((heads + 2) * groups * size, *rest)
    query, key, value = split_wqkv(packed, text)
    assert (len(query), len(key), len(value)) == (groups * heads * size, groups * size, groups * size)
    assert torch.equal(join_wqkv(query, key, value, text), packed)


def test_a_tensor_left_over_and_a_field_left_out_are_refused() -> None:
    facts, state = golden("e_llm_gqa4_state")
    with pytest.raises(CheckpointError, match="extra"):
        internlm2_as_llama(state | {"model.extra": torch.ones(2)}, facts["config"])
    with pytest.raises(ConfigError, match="rope_theta"):
        internlm2_as_llama(state, {key: value for key, value in facts["config"].items() if key != "rope_theta"})
