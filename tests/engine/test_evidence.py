"""Evidence: the attention of the answer's first word, carried back through every reduction to seconds of the video."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Qwen2Model

from longtake.core.types import VideoMemory, VisualTokens
from longtake.engine.evidence import frame_mass, spans, token_attention
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.loaded import LoadedModel
from longtake.nn.language.walk import WalkInput, WalkOutput, prefill

START, NUM_VISUAL, LENGTH = 5, 20, 33


def some_memory(weight: list[list[int]], clip_index: list[int], times: list[list[float]]) -> VideoMemory:
    tokens = VisualTokens(torch.zeros(len(weight), 4), torch.tensor(weight), torch.tensor(clip_index))
    return VideoMemory(tokens, np.array(times), 10.0, "test", {})


def walk(loaded: LoadedModel, reducer: ProgressiveDrop | None = None, chunk_size: int | None = None) -> WalkOutput:
    generator = torch.Generator().manual_seed(3)
    embeds = torch.randn(1, LENGTH, loaded.config.hidden_size, generator=generator)
    inputs = WalkInput(embeds, torch.ones(1, LENGTH, dtype=torch.bool), [START], [NUM_VISUAL])
    with torch.no_grad():
        return prefill(loaded.model.language, inputs, reducer=reducer, chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_attention_equals_that_of_the_library_s_own_last_layer(loaded: LoadedModel, chunk_size: int | None):
    config = loaded.config.text_config
    config._attn_implementation = "eager"
    reference = Qwen2Model(config).eval()
    reference.load_state_dict(loaded.model.language.state_dict())
    embeds = torch.randn(1, LENGTH, config.hidden_size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        attention = reference(inputs_embeds=embeds, output_attentions=True).attentions[-1]
    row = attention[0, :, -1].mean(0)[START : START + NUM_VISUAL]
    found = token_attention(loaded, walk(loaded, chunk_size=chunk_size), START, NUM_VISUAL)
    assert torch.allclose(found, row / row.sum(), atol=1e-6)


@pytest.mark.parametrize(
    "layers, ratios",
    [
        ((1,), (1.0, 0.5)),
        ((1, 2, 3), (1.0, 0.75, 0.5, 0.25)),
        ((2, 4), (1.0, 0.5, 0.25)),  # a drop after the last layer comes too late to be seen by it
    ],
)
def test_tokens_dropped_before_the_last_layer_get_nothing(
    layers: tuple[int, ...], ratios: tuple[float, ...], loaded: LoadedModel
):
    reducer = ProgressiveDrop(kind="uniform", layers=layers, ratios=ratios)
    walked = walk(loaded, reducer)
    mass = token_attention(loaded, walked, START, NUM_VISUAL)
    seen = [stage for stage, layer in enumerate(layers) if layer < loaded.config.num_hidden_layers]
    kept = torch.arange(NUM_VISUAL)
    for stage in seen:
        kept = kept[walked.reductions[0][stage].kept]
    expected = torch.zeros(NUM_VISUAL, dtype=torch.bool)
    expected[kept] = True
    assert torch.equal(mass > 0, expected)
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-6)


def test_mass_after_a_drop_stays_with_its_own_tokens(loaded: LoadedModel):
    reducer = ProgressiveDrop(kind="attention", layers=(2,), ratios=(1.0, 0.5))
    walked = walk(loaded, reducer)
    mass = token_attention(loaded, walked, START, NUM_VISUAL)
    cache = walked.cache
    assert cache is not None and cache.lengths()[-1] == [LENGTH - NUM_VISUAL // 2]
    short = WalkOutput(
        walked.hidden, walked.mask, [{}], [{}], walked.kept, walked.entering_last, cache
    )  # the same cache, read as if nothing had been dropped from these ten
    direct = token_attention(loaded, short, START, NUM_VISUAL // 2)
    assert torch.allclose(mass[walked.reductions[0][0].kept], direct)


def test_a_token_s_share_is_split_over_its_frames_by_their_patches():
    memory = some_memory([[3, 1], [0, 2], [1, 1]], [0, 0, 1], [[0.0, 1.0], [2.0, 3.0]])
    mass = frame_mass(memory, torch.tensor([0.4, 0.2, 0.4]))
    assert mass == pytest.approx(np.array([[0.3, 0.3], [0.2, 0.2]]))


@pytest.mark.parametrize(
    "mass, expected",
    [
        ([0.1, 0.1, 0.6, 0.1, 0.1], [(2.0, 3.0, 0.6)]),
        ([0.0, 0.3, 0.3, 0.2, 0.2], [(1.0, 3.0, 0.6)]),  # neighbours are one span
        ([0.3, 0.1, 0.1, 0.1, 0.4], [(4.0, 5.0, 0.4), (0.0, 1.0, 0.3)]),  # strongest first
        ([1.0, 0.0, 0.0, 0.0, 0.0], [(0.0, 1.0, 1.0)]),
    ],
)
def test_spans_hold_half_of_the_attention(mass: list[float], expected: list[tuple[float, float, float]]):
    memory = some_memory([[1]] * 5, list(range(5)), [[float(i)] for i in range(5)])
    found = [(span.start_s, span.end_s, span.score) for span in spans(memory, np.array(mass)[:, None])]
    assert found == [pytest.approx(row) for row in expected]


def test_there_are_at_most_five_spans_and_their_scores_do_not_pass_one():
    times = [[float(i)] for i in range(40)]
    memory = some_memory([[1]] * 40, list(range(40)), times)
    mass = np.where(np.arange(40) % 2 == 0, 0.04, 0.01)[:, None]
    found = spans(memory, mass)
    assert len(found) == 5
    assert 0 < sum(span.score or 0.0 for span in found) <= 1
    assert [span.score for span in found] == sorted((span.score for span in found), reverse=True)


def test_a_frame_that_was_read_several_times_counts_once():
    memory = some_memory([[1]] * 5, list(range(5)), [[0.0], [1.0], [2.0], [2.0], [2.0]])
    found = spans(memory, np.array([[0.1], [0.15], [0.25], [0.25], [0.25]]))
    assert [(span.start_s, span.end_s, span.score) for span in found] == [pytest.approx((2.0, 3.0, 0.75))]


def test_a_single_frame_lasts_as_long_as_the_video():
    memory = some_memory([[1]] * 2, [0, 1], [[0.0], [0.0]])
    assert [(span.start_s, span.end_s) for span in spans(memory, np.array([[0.5], [0.5]]))] == [(0.0, 10.0)]
