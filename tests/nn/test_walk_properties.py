"""What must not change a result: the other samples of a batch, and how a prompt is cut into chunks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtake.nn.language.walk import WalkInput, WalkOutput, decode_step, extend, prefill
from tests.nn.tiny_language import DEPTH, REDUCERS, WIDTH, alone, language, prompts

MODEL = language()
RULES = st.sampled_from(["renumber", "keep"])
# Text before, visual tokens (whole frames of 4 for LP-Comp), text after.
SAMPLE = st.tuples(st.integers(0, 6), st.integers(0, 10).map(lambda frames: 4 * frames), st.integers(1, 8))
SETTINGS = settings(deadline=None, max_examples=12, derandomize=True)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def close_walks(got: WalkOutput, expected: WalkOutput) -> None:
    assert torch.equal(got.mask, expected.mask)
    for sample, kept in enumerate(expected.kept):
        assert torch.equal(got.kept[sample], kept)
        close(got.hidden[sample, : len(kept)], expected.hidden[sample, : len(kept)])
        assert list(got.scores[sample]) == list(expected.scores[sample])
        for stage, scores in expected.scores[sample].items():
            close(got.scores[sample][stage], scores)
    close(got.entering_last, expected.entering_last)


def tokens(batch: int, count: int, seed: int = 3) -> Tensor:
    return torch.randn(batch, count, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", REDUCERS)
@SETTINGS
@given(shapes=st.lists(SAMPLE, min_size=2, max_size=4), rule=RULES, chunk=st.sampled_from([None, 1, 5, 64]))
@torch.no_grad()
def test_sample_in_a_padded_batch_equals_the_sample_alone(name: str, shapes: Any, rule: Any, chunk: Any) -> None:
    inputs, reducer, new = prompts(shapes), REDUCERS[name], tokens(len(shapes), 4)
    out = prefill(MODEL, inputs, reducer=reducer, position_rule=rule, chunk_size=chunk)
    together = [decode_step(MODEL, new[:, i : i + 1], out.cache) for i in range(2)]
    together.append(extend(MODEL, new[:, 2:], out.cache))
    for sample in range(len(shapes)):
        own = prefill(MODEL, alone(inputs, sample), reducer=reducer, position_rule=rule)
        assert torch.equal(out.kept[sample], own.kept[0])
        close(out.hidden[sample, : len(own.kept[0])], own.hidden[0])
        close(out.entering_last[sample], own.entering_last[0])
        steps = [decode_step(MODEL, new[sample : sample + 1, i : i + 1], own.cache) for i in range(2)]
        steps.append(extend(MODEL, new[sample : sample + 1, 2:], own.cache))
        close(torch.cat([step[sample : sample + 1] for step in together], 1), torch.cat(steps, 1))
        assert [layer[sample] for layer in out.cache.lengths()] == [layer[0] for layer in own.cache.lengths()]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 16, 31, 32, 33, 1000])
@pytest.mark.parametrize("name", REDUCERS)
@torch.no_grad()
def test_any_chunk_size_gives_the_whole_prefill_and_the_same_decoding(name: str, chunk: int) -> None:
    inputs, new = prompts([(3, 24, 5), (2, 16, 4)]), tokens(2, 3)
    outs = [prefill(MODEL, inputs, reducer=REDUCERS[name], chunk_size=size) for size in (chunk, None)]
    close_walks(*outs)
    caches = [out.cache for out in outs]
    assert caches[0].lengths() == caches[1].lengths()
    for index in range(DEPTH):
        for sample, length in enumerate(caches[1].layers[index].lengths):
            close(*(cache.layers[index].keys[sample, :, :length] for cache in caches))
            close(*(cache.layers[index].values[sample, :, :length] for cache in caches))
    for step in range(3):
        close(*(decode_step(MODEL, new[:, step : step + 1], cache) for cache in caches))


@pytest.mark.parametrize("name", REDUCERS)
@SETTINGS
@given(shapes=st.lists(SAMPLE, min_size=1, max_size=3), chunk=st.integers(1, 70), rule=RULES)
@torch.no_grad()
def test_chunked_prefill_of_any_shape_equals_the_whole_one(name: str, shapes: Any, chunk: int, rule: Any) -> None:
    inputs, reducer = prompts(shapes), REDUCERS[name]
    whole = prefill(MODEL, inputs, reducer=reducer, position_rule=rule)
    close_walks(prefill(MODEL, inputs, reducer=reducer, position_rule=rule, chunk_size=chunk), whole)


@SETTINGS
@given(shape=SAMPLE, cuts=st.lists(st.integers(1, 5), max_size=4), rule=RULES)
@torch.no_grad()
def test_prefill_then_extensions_of_any_size_equal_one_prefill(shape: Any, cuts: list[int], rule: Any) -> None:
    inputs = prompts([(shape[0], shape[1], shape[2] + sum(cuts))])
    length = sum(shape)
    first = WalkInput(inputs.embeds[:, :length], inputs.mask[:, :length], [0], [0])
    out = prefill(MODEL, first, position_rule=rule)
    parts = [out.hidden, *(extend(MODEL, part, out.cache) for part in inputs.embeds[:, length:].split(cuts, 1))]
    close(torch.cat(parts[: len(cuts) + 1], 1), prefill(MODEL, inputs, position_rule=rule).hidden)


@pytest.mark.parametrize("name", REDUCERS)
@torch.no_grad()
def test_walk_without_a_cache_equals_the_walk_with_one(name: str) -> None:
    inputs = prompts([(3, 24, 5), (2, 16, 4)])
    out = prefill(MODEL, inputs, reducer=REDUCERS[name], use_cache=False)
    assert out.cache is None
    close_walks(out, prefill(MODEL, inputs, reducer=REDUCERS[name]))


@pytest.mark.parametrize("name", ["none", "attention", "lp_comp"])
@torch.no_grad()
def test_order_of_the_samples_does_not_matter(name: str) -> None:
    shapes = [(3, 24, 5), (2, 16, 4), (5, 0, 3)]
    inputs = prompts(shapes)
    turned = WalkInput(inputs.embeds.flip(0), inputs.mask.flip(0), inputs.visual_start[::-1], inputs.num_visual[::-1])
    out, back = (prefill(MODEL, own, reducer=REDUCERS[name]) for own in (inputs, turned))
    close(out.hidden[out.mask], back.hidden.flip(0)[out.mask])
    assert out.cache.lengths() == [lengths[::-1] for lengths in back.cache.lengths()]


@pytest.mark.parametrize("name", ["attention", "uniform"])
@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(name: str) -> None:
    inputs = prompts([(3, 24, 5), (2, 16, 4)])
    zeros = dataclasses.replace(inputs, embeds=inputs.embeds * inputs.mask.unsqueeze(-1))
    for chunk in (None, 9):
        outs = [prefill(MODEL, own, reducer=REDUCERS[name], chunk_size=chunk) for own in (inputs, zeros)]
        close(*(out.hidden[out.mask] for out in outs))
        close(*(decode_step(MODEL, tokens(2, 1), out.cache) for out in outs))
