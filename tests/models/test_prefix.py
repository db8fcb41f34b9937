"""A video that is read once for many questions: the same numbers, cold and warm, and never those of another video."""

from __future__ import annotations

import pytest
import torch

from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.errors import PromptError
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.generation import Step
from longtake.models.prefix import PrefixStore
from longtake.models.tiny import build_random, tiny_config
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration

BLIND = [None, LpComp(tokens_per_frame=8)]


def model(reducer: object = None) -> VideoChatFlashForConditionalGeneration:
    made = build_random(tiny_config(), 3)
    made.reducer = reducer  # pyright: ignore[reportAttributeAccessIssue]
    return made


def prompt(*text: int) -> torch.Tensor:
    return torch.tensor([[5, 6, PLACEHOLDER_ID, *text]])


def video(seed: int, count: int = 32) -> torch.Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))


def first(made: VideoChatFlashForConditionalGeneration, ids: torch.Tensor, tokens: torch.Tensor, store=None):
    return list(made.stream(ids, [tokens], max_new_tokens=4, prefixes=store))


@pytest.mark.parametrize("reducer", BLIND)
def test_a_second_question_costs_its_own_tokens_and_gives_the_numbers_of_a_first(reducer: object) -> None:
    made, tokens, store = model(reducer), video(0), PrefixStore()
    for number, ids in enumerate((prompt(7, 8, 9), prompt(9, 9), prompt(7, 8, 9))):
        warm, cold, plain = (
            first(made, ids, tokens, store),
            first(made, ids, tokens, PrefixStore()),
            first(made, ids, tokens),
        )
        assert warm[0].num_read == (ids.shape[1] - 3 if number else ids.shape[1] - 1 + 32)
        for one, two, three in zip(warm, cold, plain, strict=True):
            assert torch.equal(one.logits, two.logits)
            assert torch.allclose(one.logits, three.logits, atol=1e-5)
        assert torch.allclose(warm[0].walked.entering_last, plain[0].walked.entering_last, atol=1e-5)
        assert torch.equal(warm[0].walked.kept[0], plain[0].walked.kept[0])
        assert warm[0].num_prompt_tokens == plain[0].num_prompt_tokens


@pytest.mark.parametrize("reducer", BLIND)
def test_what_every_question_says_of_the_video_is_read_with_it(reducer: object) -> None:
    made, tokens, store = model(reducer), video(0), PrefixStore()

    def said(ids: torch.Tensor, kept: PrefixStore | None) -> Step:
        return next(made.stream(ids, [tokens], max_new_tokens=1, prefixes=kept, num_said=2))

    said(prompt(7, 8, 9), store)
    for ids, num_read in ((prompt(7, 8, 3, 4), 2), (prompt(7, 6, 3), 3 + 32 + 2)):  # the second says something else
        warm, cold, plain = said(ids, store), said(ids, PrefixStore()), said(ids, None)
        assert warm.num_read == num_read
        assert torch.equal(warm.logits, cold.logits)
        assert torch.allclose(warm.logits, plain.logits, atol=1e-5)
        assert torch.equal(warm.walked.kept[0], plain.walked.kept[0])
    assert said(prompt(7), store).num_read > 0  # a text no longer than what is said keeps a token of its own


def test_a_drop_that_ranks_by_the_question_reads_everything_each_time() -> None:
    made, tokens, store = (
        model(ProgressiveDrop(layers=(2,), ratios=(1.0, 0.5), kind="attention")),
        video(0),
        PrefixStore(),
    )
    for ids in (prompt(7, 8), prompt(9, 10)):
        assert first(made, ids, tokens, store)[0].num_read == 36


def test_another_video_beginning_or_reducer_is_never_answered_from_the_old_one() -> None:
    made, store = model(), PrefixStore()
    first(made, prompt(7), video(0), store)
    for ids, tokens in ((prompt(7), video(1)), (torch.tensor([[6, 6, PLACEHOLDER_ID, 7]]), video(1))):
        assert torch.equal(first(made, ids, tokens, store)[0].logits, first(made, ids, tokens, PrefixStore())[0].logits)
    tokens = video(2)
    first(made, prompt(7), tokens, store)
    made.reducer = LpComp(tokens_per_frame=8)
    assert torch.equal(
        first(made, prompt(7), tokens, store)[0].logits, first(made, prompt(7), tokens, PrefixStore())[0].logits
    )


def test_a_prompt_beyond_the_context_is_refused_warm_as_cold() -> None:
    made, tokens, store = model(), video(0), PrefixStore()
    made.config.tokenizer_model_max_length = 40
    first(made, prompt(7), tokens, store)
    with pytest.raises(PromptError, match="44 tokens long"):
        first(made, prompt(*range(1, 11)), tokens, store)
