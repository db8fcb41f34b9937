"""Generation: batches equal single prompts, seeds, stops, limits, and what a caller can read from it."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from longtake.core.budget import Budget
from longtake.core.errors import BudgetError, CheckpointError, PromptError
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.generation import Sampler
from longtake.models.splice import Visual
from longtake.models.tiny import build_random, tiny_config, tiny_model
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration, kept_visual_tokens

DROP = ProgressiveDrop(kind="attention", layers=(1, 3), ratios=(1.0, 0.5, 0.25))


@cache
def built() -> VideoChatFlashForConditionalGeneration:
    return build_random(seed=1)


@pytest.fixture
def model():
    yield built()
    built().reducer = None


def frames(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 96, 96, generator=torch.Generator().manual_seed(seed))


def prompt(*ids: int) -> torch.Tensor:
    return torch.tensor([ids])


def test_model_is_the_same_for_a_seed_and_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = build_random(seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    two, other = build_random(seed=7), build_random(seed=8)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_tiny_model_is_whole_and_its_fingerprint_follows_the_seed():
    one, two = tiny_model(seed=1), tiny_model(seed=2)
    assert one.fingerprint != two.fingerprint == tiny_model(seed=2).fingerprint
    assert (one.device.type, one.dtype) == ("cpu", torch.float32)
    assert len(one.tokenizer) <= one.config.vocab_size


@pytest.mark.parametrize("splits", [[1] * 6, [2, 4], [5, 1], [6]])
def test_connect_does_not_depend_on_how_clips_are_chunked(
    splits: list[int], model: VideoChatFlashForConditionalGeneration
):
    clips = model.split_clips(frames(24))
    with torch.no_grad():
        whole, reduction = model.connect(clips)
        parts = [model.connect(part) for part in clips.split(splits)]
    assert torch.equal(torch.cat([tokens for tokens, _ in parts]), whole)
    assert torch.equal(torch.cat([own.target for _, own in parts]), reduction.target)
    assert whole.shape == (6, 64, 64)


@pytest.mark.parametrize("reducer", [None, DROP])
@pytest.mark.parametrize("left", [False, True])
def test_batch_of_prompts_answers_as_each_alone(
    left: bool, reducer: ProgressiveDrop | None, model: VideoChatFlashForConditionalGeneration
):
    model.reducer = reducer
    visuals = [Visual(pixel_values=frames(8, 1)), Visual(pixel_values=frames(4, 2))]
    alone = [
        model.generate(prompt(1, 2, -200, 3, 4, 5), visuals[:1], max_new_tokens=5),
        model.generate(prompt(9, -200, 8), visuals[1:], max_new_tokens=5),
        model.generate(prompt(7, 6, 5, 4), max_new_tokens=5),
    ]
    rows = [[1, 2, -200, 3, 4, 5], [9, -200, 8], [7, 6, 5, 4]]
    pads = [[0] * (6 - len(row)) for row in rows]
    ids = torch.tensor([pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)])
    mask = torch.tensor(
        [
            [0] * len(pad) + [1] * len(row) if left else [1] * len(row) + [0] * len(pad)
            for row, pad in zip(rows, pads, strict=True)
        ]
    )
    together = model.generate(ids, visuals, attention_mask=mask, max_new_tokens=5)
    assert together.ids == [answer.ids[0] for answer in alone]
    assert together.num_prompt_tokens == [133, 66, 4]


def test_reductions_of_the_prefill_come_with_the_answer(model: VideoChatFlashForConditionalGeneration):
    model.reducer = DROP
    answer = model.generate(prompt(1, -200, 2), [Visual(pixel_values=frames(8))], max_new_tokens=2)
    kept = kept_visual_tokens(answer.reductions[0])
    assert [len(kept[stage]) for stage in (0, 1)] == [64, 32]
    assert set(kept[1].tolist()) < set(kept[0].tolist()) <= set(range(128))


def test_features_made_before_answer_as_pixels_do(model: VideoChatFlashForConditionalGeneration):
    visual = Visual(pixel_values=frames(4))
    with torch.no_grad():
        features = model.visual_tokens(visual)
    answers = [model.generate(prompt(1, -200, 2), [v], max_new_tokens=4).ids for v in (visual, features)]
    answers.append(model.generate(prompt(1, -200, 2), [Visual(features=features)], max_new_tokens=4).ids)
    assert answers[0] == answers[1] == answers[2]


def test_chunked_prefill_gives_the_same_answer(model: VideoChatFlashForConditionalGeneration):
    model.reducer = DROP
    visual = Visual(pixel_values=frames(8))
    runs = [
        model.generate(prompt(1, -200, 2), [visual], max_new_tokens=4, chunk_size=size, keep_logits=True)
        for size in (None, 17)
    ]
    torch.testing.assert_close(runs[0].logits, runs[1].logits, atol=1e-4, rtol=0.0)
    assert runs[0].ids == runs[1].ids


def test_seed_decides_the_sampled_answer(model: VideoChatFlashForConditionalGeneration):
    def sample(seed: int) -> list[int]:
        return model.generate(prompt(1, 2, 3), max_new_tokens=12, temperature=1.0, top_p=0.95, seed=seed).ids[0]

    assert sample(1) == sample(1)
    assert len({tuple(sample(seed)) for seed in range(4)}) > 1


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    generator = torch.Generator().manual_seed(0)

    def drawn(top_p: float) -> set[int]:
        sampler = Sampler(temperature=1.0, top_p=top_p)
        return {int(sampler.choose(logits, generator)) for _ in range(200)}

    assert drawn(0.1) == {0}
    assert drawn(0.6) == {0, 1}
    assert drawn(0.9) == {0, 1, 2}
    assert drawn(1.0) == {0, 1, 2, 3}


def test_answer_ends_at_a_stop_id_and_the_others_go_on(model: VideoChatFlashForConditionalGeneration):
    free = model.generate(torch.tensor([[1, 2, 3], [4, 5, 6]]), max_new_tokens=6)
    assert free.finish_reasons == ["length", "length"]
    stop = free.ids[0][2]
    at = free.ids[0].index(stop)
    assert stop not in free.ids[1], "choose another seed: both answers hold the stop id"
    ended = model.generate(torch.tensor([[1, 2, 3], [4, 5, 6]]), max_new_tokens=6, stop_ids=(stop,))
    assert ended.ids == [free.ids[0][:at], free.ids[1]]
    assert ended.finish_reasons == ["stop", "length"]


def test_tokens_arrive_one_by_one_and_the_stream_can_be_closed(model: VideoChatFlashForConditionalGeneration):
    whole = model.generate(prompt(1, 2, 3), max_new_tokens=6).ids[0]
    steps = model.stream(prompt(1, 2, 3), max_new_tokens=6)
    assert [next(steps).ids[0] for _ in range(3)] == whole[:3]
    assert torch.is_grad_enabled()
    steps.close()
    seen: list[int | None] = []
    model.generate(prompt(1, 2, 3), max_new_tokens=6, on_token=lambda step: seen.append(step.ids[0]))
    assert seen == whole


def test_budget_limits_the_answer_and_an_option_goes_before_it(model: VideoChatFlashForConditionalGeneration):
    assert len(model.generate(prompt(1), budget=Budget(max_new_tokens=3)).ids[0]) == 3
    assert len(model.generate(prompt(1), budget=Budget(max_new_tokens=3), max_new_tokens=2).ids[0]) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": True},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
    ],
)
def test_option_out_of_range_is_refused(options: dict, model: VideoChatFlashForConditionalGeneration):
    with pytest.raises(BudgetError):
        model.generate(prompt(1), **options)


@pytest.mark.parametrize("count", [0, 3, 10])
def test_frames_that_do_not_fill_clips_are_refused(count: int, model: VideoChatFlashForConditionalGeneration):
    with pytest.raises(BudgetError, match="multiple of the clip length 4"):
        model.split_clips(frames(count))


def test_prompt_beyond_the_context_is_refused_not_cut():
    small = build_random(tiny_config(tokenizer_model_max_length=60))
    with pytest.raises(PromptError, match="66 tokens long, 6 more than the context of 60"):
        small.generate(prompt(1, -200, 2), [Visual(pixel_values=frames(4))], max_new_tokens=2)


def test_overflow_is_told_instead_of_answered():
    broken = build_random(seed=1)
    with torch.no_grad():
        broken.lm_head.weight[3, 3] = float("inf")
    with pytest.raises(CheckpointError, match="float32 at step 0"):
        broken.generate(prompt(1, 2), max_new_tokens=2)


def test_two_visuals_answer_without_drops_and_are_refused_with_them(model: VideoChatFlashForConditionalGeneration):
    visuals = [Visual(pixel_values=frames(4, seed)) for seed in (0, 1)]
    assert model.generate(prompt(-200, 1, -200, 2), visuals, max_new_tokens=2).num_prompt_tokens == [130]
    model.reducer = DROP
    with pytest.raises(BudgetError, match="2 visuals"):
        model.generate(prompt(-200, 1, -200, 2), visuals, max_new_tokens=2)


def test_text_alone_answers_after_a_dropped_video(model: VideoChatFlashForConditionalGeneration):
    alone = model.generate(prompt(1, 2, 3), max_new_tokens=3).ids
    model.reducer = DROP
    model.generate(prompt(1, -200, 2), [Visual(pixel_values=frames(4))], max_new_tokens=2)
    assert model.generate(prompt(1, 2, 3), max_new_tokens=3).ids == alone


def test_reducer_follows_the_configuration_until_it_is_set(model: VideoChatFlashForConditionalGeneration):
    fresh = build_random()
    assert fresh.reducer is None
    fresh.config.mm_llm_compress = True
    assert fresh.reducer == ProgressiveDrop(layers=(1, 2, 3))
    fresh.reducer = None
    assert fresh.reducer is None


def test_labels_and_kept_logits_exclude_each_other(model: VideoChatFlashForConditionalGeneration):
    ids = prompt(1, 2, 3, 4)
    with torch.no_grad():
        whole, last = model(ids).logits, model(ids, logits_to_keep=1).logits
    torch.testing.assert_close(last, whole[:, -1:])
    with pytest.raises(BudgetError, match="logits_to_keep"):
        model(ids, labels=ids, logits_to_keep=1)
