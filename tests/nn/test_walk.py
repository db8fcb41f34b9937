"""The walk against transformers' own forward and against a plain walk with full matrices; its errors; its cache."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor

from longtake.core.errors import ConfigError
from longtake.core.reduction import Reduction
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.nn.language.cache import GROWTH
from longtake.nn.language.walk import answer_rows, decode_step, extend, prefill
from tests.nn.tiny_language import DEPTH, REDUCERS, WIDTH, alone, drop, language, plain_walk, prompts

ONE = [(3, 24, 5)]


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@torch.no_grad()
def test_without_a_reducer_the_walk_is_the_models_own_forward(family: str) -> None:
    model, inputs = language(family), prompts(ONE)
    own = model(inputs_embeds=inputs.embeds, use_cache=True)
    out = prefill(model, inputs)
    close(out.hidden, own.last_hidden_state)
    for seed in range(3):
        new = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(seed))
        own = model(inputs_embeds=new, past_key_values=own.past_key_values, use_cache=True)
        close(decode_step(model, new, out.cache), own.last_hidden_state)


@pytest.mark.parametrize("rule", ["renumber", "keep"])
@pytest.mark.parametrize("name", REDUCERS)
@torch.no_grad()
def test_drops_scores_and_positions_equal_those_of_the_plain_walk(name: str, rule: Any) -> None:
    model, inputs = language(), prompts(ONE)
    out = prefill(model, inputs, reducer=REDUCERS[name], position_rule=rule)
    plain = plain_walk(model, inputs, REDUCERS[name], rule, lambda kept: [len(kept) - 1])
    assert torch.equal(out.kept[0], plain.kept)
    assert list(out.scores[0]) == list(plain.scores)
    for stage, scores in plain.scores.items():
        close(out.scores[0][stage], scores)
    close(out.hidden[0], plain.hidden)


@torch.no_grad()
def test_position_rules_differ_after_a_drop_and_only_then() -> None:
    model, inputs = language(), prompts(ONE)
    whole = [prefill(model, inputs, position_rule=rule).hidden for rule in ("renumber", "keep")]
    assert torch.equal(*whole)
    dropped = [
        prefill(model, inputs, reducer=drop("uniform"), position_rule=rule).hidden for rule in ("renumber", "keep")
    ]
    assert (dropped[0] - dropped[1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["uniform", "attention", "lp_comp"])
@torch.no_grad()
def test_next_positions_follow_the_rule(name: str) -> None:
    model, inputs = language(), prompts([(3, 24, 5), (2, 16, 9)])
    for rule in ("renumber", "keep"):
        cache = prefill(model, inputs, reducer=REDUCERS[name], position_rule=rule).cache
        assert cache is not None
        for new in range(3):
            for layer in range(DEPTH):
                ends = cache.lengths()[layer] if rule == "renumber" else [32 + new, 27 + new]
                assert cache.next_positions(layer, 1, inputs.embeds.device).flatten().tolist() == ends
            decode_step(model, torch.randn(2, 1, WIDTH), cache)


@torch.no_grad()
def test_cache_lengths_shrink_behind_each_drop_for_each_sample() -> None:
    inputs = prompts([(14, 256, 21), (3, 100, 4), (6, 0, 2)])
    reducer = ProgressiveDrop(kind="uniform", layers=(1, 2, 3), ratios=(1.0, 0.5, 0.25, 0.125))
    out = prefill(language(), inputs, reducer=reducer)
    assert out.cache is not None
    assert out.cache.lengths() == [[291, 107, 8], [163, 57, 8], [99, 32, 8], [67, 19, 8]]
    assert out.mask.sum(1).tolist() == [67, 19, 8]
    assert out.hidden.shape == (3, 67, WIDTH)


@pytest.mark.parametrize("rule", ["renumber", "keep"])
@torch.no_grad()
def test_decoding_past_the_growth_of_the_cache_equals_one_extension(rule: Any) -> None:
    model, inputs = language(), prompts([(3, 24, 5), (2, 16, 9)])
    new = torch.randn(2, 2 * GROWTH + 3, WIDTH, generator=torch.Generator().manual_seed(7))
    caches = [prefill(model, inputs, reducer=drop("attention"), position_rule=rule).cache for _ in range(2)]
    assert caches[0] is not None and caches[1] is not None
    steps = [decode_step(model, new[:, i : i + 1], caches[0]) for i in range(new.shape[1])]
    close(torch.cat(steps, 1), extend(model, new, caches[1]))
    assert caches[0].lengths() == caches[1].lengths()
    assert caches[0].num_bytes() >= sum(sum(layer) for layer in caches[0].lengths()) * 2 * 2 * 8 * 4


@torch.no_grad()
def test_rewinding_forgets_what_was_appended() -> None:
    model, inputs = language(), prompts([(3, 24, 5), (2, 16, 9)])
    cache = prefill(model, inputs, reducer=drop("attention")).cache
    assert cache is not None
    mark, lengths = cache.mark(), cache.lengths()
    new = torch.randn(2, 4, WIDTH)
    first = extend(model, new, cache)
    extend(model, torch.randn(2, 9, WIDTH), cache)
    cache.rewind(mark)
    assert cache.lengths() == lengths
    assert torch.equal(extend(model, new, cache), first)


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        ([-100, -100, 5, 6, -100, 7], [1, 4]),
        ([-100, -100, -100], []),
        ([5, 6, -100, 7], [2]),  # nothing stands before the first label
        ([5, 6, 7], []),
        ([-100, 0], [0]),  # id 0 counts
    ],
)
def test_answer_rows_are_those_before_each_span(labels: list[int], rows: list[int]) -> None:
    assert answer_rows(torch.tensor(labels)) == rows


def labels_right_behind_the_video(start: int, visual: int, after: int) -> Tensor:
    """As training text has it: the newline behind the placeholder counts, then some masked text, then an answer."""
    labels = torch.full((start + visual + after,), -100)
    labels[start + visual] = 11
    labels[-2:] = 12
    return labels


@pytest.mark.parametrize("rule", ["renumber", "keep"])
@pytest.mark.parametrize("name", [name for name in REDUCERS if name != "none"])
@torch.no_grad()
def test_score_rows_of_training_follow_the_moved_labels(name: str, rule: Any) -> None:
    model, inputs = language(), prompts([(3, 24, 6)])
    labels = labels_right_behind_the_video(3, 24, 6)
    inputs = dataclasses.replace(inputs, score_rows=[answer_rows(labels)])
    assert inputs.score_rows == [[26, 30]]  # the last visual token is one of them
    out = prefill(model, inputs, reducer=REDUCERS[name], position_rule=rule)
    plain = plain_walk(model, inputs, REDUCERS[name], rule, lambda kept: answer_rows(labels[kept]))
    assert torch.equal(out.kept[0], plain.kept)
    for stage, scores in plain.scores.items():
        close(out.scores[0][stage], scores)
    close(out.hidden[0], plain.hidden)
    assert torch.equal(out.move_labels(labels[None])[0], labels[plain.kept])


def test_labels_of_a_padded_batch_move_with_their_rows() -> None:
    inputs = prompts([(3, 24, 6), (2, 16, 4)])
    labels = torch.full((2, 33), -100)
    labels[0, 30:], labels[1, 20:22] = torch.tensor([1, 2, 3]), torch.tensor([4, 5])
    out = prefill(language(), inputs, reducer=drop("uniform"), use_cache=False)
    moved = out.move_labels(labels)
    assert moved.shape == out.mask.shape
    assert [row[row != -100].tolist() for row in moved] == [[1, 2, 3], [4, 5]]
    assert [int((row != -100).nonzero()[-1]) + 1 for row in moved] == out.mask.sum(1).tolist()


@torch.no_grad()
def test_sample_without_an_answer_stays_whole_where_attention_would_rank() -> None:
    model, inputs = language(), prompts([(3, 24, 5), (3, 24, 5)])
    inputs = dataclasses.replace(inputs, score_rows=[[31], []])
    out = prefill(model, inputs, reducer=drop("attention"))
    assert [len(kept) for kept in out.kept] == [8 + 4, 32]
    assert out.reductions[1] == {}
    whole = prefill(model, alone(inputs, 1))
    close(out.hidden[1], whole.hidden[0])


@pytest.mark.parametrize(("name", "left"), [("uniform", 4), ("lp_comp", 6), ("uniform0_attention", 16)])
@torch.no_grad()
def test_sample_without_an_answer_is_still_dropped_by_place(name: str, left: int) -> None:
    inputs = dataclasses.replace(prompts(ONE), score_rows=[[]])
    out = prefill(language(), inputs, reducer=REDUCERS[name])
    assert len(out.kept[0]) == 8 + left


@torch.no_grad()
def test_drops_compose_to_the_rows_that_are_left() -> None:
    out = prefill(language(), prompts(ONE), reducer=drop("attention"))
    visual = out.kept[0][(out.kept[0] >= 3) & (out.kept[0] < 27)] - 3
    assert torch.equal(out.visual_reduction(0, 24).kept, visual)


@torch.no_grad()
def test_drop_by_place_after_the_last_layer_shortens_only_the_output() -> None:
    reducer = ProgressiveDrop(kind="uniform", layers=(DEPTH,), ratios=(1.0, 0.5))
    out = prefill(language(), prompts(ONE), reducer=reducer)
    assert out.cache is not None
    assert out.cache.lengths() == [[32]] * DEPTH
    whole = prefill(language(), prompts(ONE)).hidden
    close(out.hidden[0], whole[0, out.kept[0]])


def test_drop_by_attention_after_the_last_layer_is_refused() -> None:
    reducer = ProgressiveDrop(kind="attention", layers=(DEPTH,), ratios=(1.0, 0.5))
    with pytest.raises(ConfigError, match=f"after layer {DEPTH} needs a next layer"):
        prefill(language(), prompts(ONE), reducer=reducer)


def test_drop_behind_the_model_is_refused() -> None:
    reducer = ProgressiveDrop(kind="uniform", layers=(DEPTH + 1,), ratios=(1.0, 0.5))
    with pytest.raises(ConfigError, match=f"after layer {DEPTH + 1}"):
        prefill(language(), prompts(ONE), reducer=reducer)


def test_padding_on_the_left_is_refused() -> None:
    inputs = prompts([(3, 24, 5), (2, 16, 4)])
    with pytest.raises(ConfigError, match="expects it on the right"):
        prefill(language(), dataclasses.replace(inputs, mask=inputs.mask.flip(1)))


@pytest.mark.parametrize(
    ("start", "visual"), [([30], [24]), ([-1], [24]), ([3], [-2]), ([3, 3], [24, 24]), ([3], [24, 24])]
)
def test_visual_block_that_does_not_lie_in_the_prompt_is_refused(start: list[int], visual: list[int]) -> None:
    inputs = dataclasses.replace(prompts(ONE), visual_start=start, num_visual=visual)
    with pytest.raises(ConfigError, match="visual"):
        prefill(language(), inputs, reducer=drop("uniform"))


@pytest.mark.parametrize("rows", [[[32]], [[-1]], [[31], [31]]])
def test_score_row_outside_the_prompt_is_refused(rows: list[list[int]]) -> None:
    inputs = dataclasses.replace(prompts(ONE), score_rows=rows)
    with pytest.raises(ConfigError, match="score_rows"):
        prefill(language(), inputs, reducer=drop("attention"))


def test_chunk_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="chunk_size is 0"):
        prefill(language(), prompts(ONE), chunk_size=0)


def test_reducer_that_keeps_another_count_than_it_announced_is_refused() -> None:
    class Greedy(LpComp):
        def __call__(self, point: Any, attention: Any) -> Reduction:
            return Reduction.identity(point.num_tokens)

    with pytest.raises(ConfigError, match="Greedy left 24 of 24 visual tokens"):
        prefill(language(), prompts(ONE), reducer=Greedy(tokens_per_frame=4))


@torch.no_grad()
def test_prefills_in_two_threads_do_not_disturb_each_other() -> None:
    model = language()
    jobs = [(prompts([(3, 40, 5)], seed), REDUCERS[name]) for seed, name in enumerate(["attention", "lp_comp"] * 2)]
    expected = [prefill(model, inputs, reducer=reducer, chunk_size=45).hidden for inputs, reducer in jobs]
    attributes = [{k: v for k, v in vars(m).items() if not k.startswith("_")} for m in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    got: dict[int, list[Tensor]] = {}
    together = threading.Barrier(len(jobs))

    def work(place: int) -> None:
        inputs, reducer = jobs[place]
        together.wait()
        with torch.no_grad():
            got[place] = [prefill(model, inputs, reducer=reducer, chunk_size=45).hidden for _ in range(10)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, wanted in enumerate(expected):
        assert all(torch.equal(hidden, wanted) for hidden in got[place])
    assert [{k: v for k, v in vars(m).items() if not k.startswith("_")} for m in model.modules()] == attributes
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


@torch.no_grad()
def test_two_prefills_taken_in_turns_keep_their_own_caches() -> None:
    model = language()
    first, second = prompts([(3, 24, 5)], 1), prompts([(2, 16, 4)], 2)
    new = torch.randn(1, 1, WIDTH)
    apart = [
        decode_step(model, new, prefill(model, inputs, reducer=drop("attention")).cache) for inputs in (first, second)
    ]
    caches = [prefill(model, inputs, reducer=drop("attention")).cache for inputs in (first, second)]
    assert all(torch.equal(decode_step(model, new, cache), one) for cache, one in zip(caches, apart, strict=True))


@pytest.mark.parametrize("name", [name for name in REDUCERS if name != "none"])
@torch.no_grad()
def test_half_precision_stays_half_precision(name: str) -> None:
    model, inputs = language(dtype=torch.bfloat16), prompts(ONE)
    inputs = dataclasses.replace(inputs, embeds=inputs.embeds.bfloat16())
    out = prefill(model, inputs, reducer=REDUCERS[name], chunk_size=7)
    assert out.hidden.dtype == torch.bfloat16
    assert out.cache is not None
    assert decode_step(model, inputs.embeds[:, :1], out.cache).isfinite().all()


@pytest.mark.parametrize("name", REDUCERS)
def test_gradients_reach_every_kept_row_and_every_weight_and_equal_the_plain_ones(name: str) -> None:
    model, inputs = language(), prompts(ONE)
    grads = []
    for walk in ("ours", "plain"):
        model.zero_grad()
        embeds = inputs.embeds.clone().requires_grad_()
        own = dataclasses.replace(inputs, embeds=embeds)
        if walk == "ours":
            hidden = prefill(model, own, reducer=REDUCERS[name], use_cache=False).hidden[0]
        else:
            hidden = plain_walk(model, own, REDUCERS[name], "renumber", lambda kept: [len(kept) - 1]).hidden
        hidden.square().sum().backward()
        weights = {key: value.grad for key, value in model.named_parameters() if "embed_tokens" not in key}
        assert all(grad is not None for grad in weights.values())
        grads.append({"embeds": embeds.grad, **weights})
    for key, grad in grads[0].items():
        torch.testing.assert_close(
            grad, grads[1][key], atol=2e-4, rtol=2e-3, msg=lambda text, key=key: f"{key}: {text}"
        )


def spread(model: Any, first_elsewhere: int) -> Any:
    """Put the later layers on another device, as accelerate does; the one that every machine has holds no data."""
    for part in [*model.layers[first_elsewhere:], model.norm]:
        for module in part.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    module._parameters[name] = torch.nn.Parameter(parameter.to("meta"))
            if module is part or list(module.parameters(recurse=False)):
                add_hook_to_module(module, AlignDevicesHook("meta"))
    return model


@pytest.mark.parametrize("rule", ["renumber", "keep"])
@pytest.mark.parametrize("name", ["none", "uniform", "lp_comp"])
@torch.no_grad()
def test_walk_follows_a_model_that_is_spread_over_devices(name: str, rule: Any) -> None:
    inputs, labels = prompts([(3, 24, 5), (2, 16, 4)]), torch.zeros(2, 32, dtype=torch.int64)
    whole = prefill(language(), inputs, reducer=REDUCERS[name], position_rule=rule)
    for chunk in (None, 9):
        out = prefill(spread(language(), 2), inputs, reducer=REDUCERS[name], position_rule=rule, chunk_size=chunk)
        assert out.cache is not None and whole.cache is not None
        assert [layer.keys.device.type for layer in out.cache.layers] == ["cpu", "cpu", "meta", "meta"]
        assert out.cache.lengths() == whole.cache.lengths()
        assert out.hidden.is_meta and out.hidden.shape == whole.hidden.shape
        assert all(torch.equal(*pair) for pair in zip(out.kept, whole.kept, strict=True))
        assert torch.equal(out.visual_reduction(0, 24).target, whole.visual_reduction(0, 24).target)
        assert out.move_labels(labels).device.type == "cpu"
        assert decode_step(spread(language(), 2), torch.randn(2, 1, WIDTH), out.cache).is_meta
