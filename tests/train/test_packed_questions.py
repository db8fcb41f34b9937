"""Packed questions: each is read as if it were the only one."""

from __future__ import annotations

import pytest
import torch

from longtake.core.chat import IGNORE_LABEL
from longtake.models.tiny import build_random
from longtake.train.packed_questions import FILM, PADDING, PackedText, block_mask, pack, spread_positions
from longtake.train.tiny_language import lesson

QUESTIONS = [([11, 12, 13], [40, 41]), ([21, 22], [42]), ([31, 32, 33, 34], [43, 44, 45])]


def text(questions: list[tuple[list[int], list[int]]]) -> PackedText:
    return PackedText([1, 2, 3], [4, 5], questions)


def packed(films: list[torch.Tensor], texts: list[PackedText], longest: int = 0):
    model = build_random()
    return model, pack(model.language.embed_tokens, films, texts, longest, torch.Generator().manual_seed(0))


@torch.no_grad()
def test_packed_questions_get_the_hidden_states_that_they_get_alone() -> None:
    film = torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
    model, together = packed([film], [text(QUESTIONS)])
    read = model.language(
        inputs_embeds=together.embeds,
        attention_mask=together.mask,
        position_ids=together.positions,
        use_cache=False,
    )
    whole, start = read.last_hidden_state[0], 3 + 7 + 2
    for question in QUESTIONS:
        length = len(question[0]) + len(question[1])
        alone = model.language(inputs_embeds=packed([film], [text([question])])[1].embeds, use_cache=False)
        torch.testing.assert_close(whole[start : start + length], alone.last_hidden_state[0, 12:], atol=2e-6, rtol=1e-5)
        start += length


def test_only_answers_are_learned_and_the_loss_is_the_mean_over_them() -> None:
    films = [torch.randn(n, 64, generator=torch.Generator().manual_seed(n)) for n in (7, 4)]
    model, both = packed(films, [text(QUESTIONS), text(QUESTIONS[:1])])
    assert both.labels[both.labels != IGNORE_LABEL].tolist() == [40, 41, 42, 43, 44, 45, 40, 41]
    taught = lesson(model, both)
    assert taught.num_answers == 4
    parts = [
        lesson(model, packed([film], [text([question])])[1]).answer * len(question[1])
        for film, questions in zip(films, (QUESTIONS, QUESTIONS[:1]), strict=True)
        for question in questions
    ]
    torch.testing.assert_close(taught.answer, torch.stack(parts).sum() / 8, atol=1e-5, rtol=1e-5)


def test_looking_is_the_share_of_the_attention_that_the_model_itself_pays_to_proofs() -> None:
    film = torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
    whole = PackedText([1, 2, 3], [4, 5], QUESTIONS, [[0, 1], [6], []])
    model, batch = packed([film], [whole])
    assert batch.proofs[0].rows.tolist() == [14, 18, 23]
    layer = model.config.num_hidden_layers - 1
    taught = lesson(model, batch, (layer,))
    model.language.set_attn_implementation("eager")
    seen = model.language(
        inputs_embeds=batch.embeds,
        attention_mask=torch.where(batch.mask, 0.0, -1e9),
        position_ids=batch.positions,
        use_cache=False,
        output_attentions=True,
    ).attentions[layer][0]
    to_film = seen[:, [14, 18], 3:10]
    share = torch.stack([to_film[:, 0, :2].sum(-1), to_film[:, 1, 6]]) / to_film.sum(-1).mT  # [2, heads]
    torch.testing.assert_close(taught.looking, -share.mean(1).log().mean(), atol=1e-5, rtol=1e-5)


def test_a_question_never_sees_another_and_nobody_sees_padding() -> None:
    blocks = torch.tensor([[FILM, FILM, 1, 1, 2, 2, PADDING]])
    mask = block_mask(blocks)[0, 0]
    assert mask[4].tolist() == [True, True, False, False, True, False, False]
    assert mask[3].tolist() == [True, True, True, True, False, False, False]
    assert not mask[:6, 6].any() and mask[6].tolist() == [False] * 6 + [True]


@pytest.mark.parametrize("longest", [10, 500, 12_000])
def test_spread_positions_ascend_and_reach_far(longest: int) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [spread_positions(20, 5, longest, generator, dense_share=0.25) for _ in range(60)]
    for places in drawn:
        assert len(places) == 20 and int(places[0]) >= 5 and bool((places.diff() > 0).all())
    furthest = max(int(places[-1]) for places in drawn)
    assert furthest == 24 if longest <= 20 else longest // 3 < furthest < 5 + longest
