"""The lessons of the tiny model: labels follow the merged tokens, composed films are consistent, and losses fall."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from longtake.core.errors import ConfigError
from longtake.core.protocols import Compressed
from longtake.core.reduction import Reduction
from longtake.media.filmstrip.attributes import COLOURS, LETTERS, SHAPES, split_of
from longtake.media.filmstrip.phrases import PHRASES
from longtake.models.tiny import build_random, small_config, word_tokenizer
from longtake.nn.vision.umt import UmtConfig, UmtTower
from longtake.train.film_bank import (
    TRAINING_WORDS,
    Composed,
    FilmBank,
    build_bank,
    compose,
    merged_by_tome,
    roughen,
    training_questions,
    whole_film,
)
from longtake.train.film_clips import CLASSES, NUM_CARD_CLASSES, ClipStream
from longtake.train.steps import learning_rate_share
from longtake.train.tiny_language import LanguageRecipe, compose_films, match_by_content, train_language
from longtake.train.tiny_vision import VisionRecipe, card_means, token_labels, train_vision

MIX = {"N1": 1.0, "NH pointer": 1.0, "OR": 1.0, "OR first": 1.0, "CO": 1.0}
SMALL = ClipStream(image_size=16, render_size=32)
TOWER = UmtConfig(image_size=16, patch_size=8, width=32, depth=2, num_heads=2, stem="convolution", pretrained_grid=2)


@pytest.fixture(scope="module")
def bank() -> FilmBank:
    torch.manual_seed(0)
    return build_bank(merged_by_tome(UmtTower(TOWER).eval(), (1, 2)), SMALL, 3)


def test_clips_show_what_their_labels_say() -> None:
    clips = SMALL(4, 6)
    again = SMALL(4, 6)
    assert clips.pixels.shape == (6, 4, 3, 16, 16) and torch.equal(clips.pixels, again.pixels)
    assert split_of(clips.film.spec.seed) == "train"
    assert clips.labels.shape[-1] == len(CLASSES)
    for label, card in zip(clips.labels.flatten(0, 1).tolist(), clips.card.flatten().tolist(), strict=True):
        if card < 0:
            assert label[:NUM_CARD_CLASSES] == [0] * NUM_CARD_CLASSES
        else:
            shown = clips.film.cards[card]
            assert (COLOURS[label[0] - 1], SHAPES[label[1] - 1], LETTERS[label[2] - 1]) == (*shown.key, shown.letter)
    inside = clips.patch_labels(4)
    assert inside.shape == (6, 4 * 16, len(CLASSES))
    assert ((inside[..., 0] > 0).any(1) == (clips.card >= 0).any(1)).all()


def test_a_merged_token_is_labelled_by_the_frame_that_gave_it_most() -> None:
    target = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 0]])  # two frames of four patches
    compressed = Compressed(torch.zeros(1, 2, 8), Reduction(target, 2))
    assert token_labels(compressed, torch.tensor([[[5], [9]]])).tolist() == [[[5], [9]]]


def test_a_card_is_averaged_over_its_own_patches() -> None:
    patches = torch.arange(16.0).view(1, 16, 1)  # four frames of four patches
    inside = torch.zeros(1, 16, 1, dtype=torch.int64)
    inside[0, [1, 3]] = 1
    assert card_means(patches, inside).flatten().tolist() == [2.0, 5.5, 9.5, 13.5]


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [learning_rate_share(step, 10, 100) for step in range(100)]
    assert shares[0] == 0.1 and max(shares) == 1.0 == shares[10] and 0.02 < shares[-1] < 0.03
    assert shares[:10] == sorted(shares[:10]) and shares[10:] == sorted(shares[10:], reverse=True)


def test_a_bank_knows_what_its_clips_show(bank: FilmBank) -> None:
    assert bank.first_clip[0] == 0 and bank.first_clip[-1] == bank.num_clips == len(bank.happened)
    assert bank.tokens[1].shape == (bank.num_clips, 4, 32) and bank.tokens[2].shape == (bank.num_clips, 8, 32)
    clips = SMALL(1)
    start = bank.first_clip[1]
    for offset, frames in enumerate(clips.card.tolist()):
        shown = [bank.cards[card] for card in bank.shown[start + offset]]
        assert shown == [clips.film.cards[card] for card in dict.fromkeys(frames) if card >= 0]


@pytest.mark.parametrize("seed", range(5))
def test_a_composed_film_never_shows_one_key_twice(bank: FilmBank, seed: int) -> None:
    film = compose(bank, np.random.default_rng(seed), 20, 0.6)
    cards = list(dict.fromkeys(card for clip in film.clips for card in bank.shown[clip]))
    assert len(film.clips) == 20 and film.cards == cards
    assert len({bank.cards[card].key for card in cards}) == len(cards)


@pytest.mark.parametrize("seed", range(5))
def test_chains_are_composed_that_lead_to_an_end(bank: FilmBank, seed: int) -> None:
    """Pictures of cards of different films may lead in a circle: nothing is asked about such a chain."""
    rng = np.random.default_rng(seed)
    film = compose(bank, rng, 24, 0.7, chain_share=0.9)
    cards = [bank.cards[card] for card in film.cards]
    keys = {card.key for card in cards}
    assert any(card.points_to in keys for card in cards)
    first, second = cards[0], cards[1]
    circle = [dataclasses.replace(first, points_to=second.key), dataclasses.replace(second, points_to=first.key)]
    turned = dataclasses.replace(bank, cards=bank.cards[: film.cards[0]] + circle + bank.cards[film.cards[0] + 2 :])
    assert (
        training_questions(turned, Composed([], [film.cards[0], film.cards[0] + 1], []), rng, 8, {"NH trace": 1.0})
        == []
    )


@pytest.mark.parametrize("make", [lambda bank, rng: compose(bank, rng, 24, 0.7), whole_film])
def test_questions_about_composed_films_are_answered_by_what_they_show(bank: FilmBank, make) -> None:
    rng = np.random.default_rng(3)
    film = make(bank, rng)
    cards = {str(bank.cards[card].key): bank.cards[card] for card in film.cards}
    names = list(cards)
    asked = training_questions(bank, film, rng, 60, MIX)
    assert len(asked) > 40
    for text, answer, proof, _ in asked:
        shown = {card for clip in proof for card in bank.shown[film.clips[clip]]}
        named = [name for name in names if name in text]
        if "times" in text or "often" in text or text.startswith("Count"):
            kind = next(kind for kind in ("flash", "ring", "curtain") if kind in text)
            assert int(answer) == sum(one == kind for clip in film.clips for one in bank.happened[clip])
        elif not named:
            assert answer == names[0]
        elif len(named) == 2:
            assert answer == min(named, key=names.index)
        else:
            assert answer in (cards[named[0]].letter, str(cards[named[0]].points_to))
            assert any(bank.cards[card] is cards[named[0]] for card in shown)


def test_rough_questions_keep_what_they_ask_about_and_no_word_of_the_wording_kept_for_the_test() -> None:
    rng = np.random.default_rng(0)
    for wordings in PHRASES.values():
        rough = [roughen(wordings[0], rng) for _ in range(40)]
        gaps = [word for word in wordings[0].split() if "{" in word]
        assert all(gap in text for text in rough for gap in gaps)
        assert len(set(rough)) > 10
        assert {word for text in rough for word in text.split()} <= {*TRAINING_WORDS, *wordings[0].split()}
    assert "First" not in TRAINING_WORDS  # only the wording kept for the test begins so


def test_a_tower_learns_from_merged_tokens() -> None:
    torch.manual_seed(0)
    losses: list[float] = []
    recipe = VisionRecipe(steps=24, films=2, clips_per_film=6, warmup_steps=4, report_every=1)
    train_vision(UmtTower(TOWER), recipe, SMALL, lambda values: losses.append(values["loss"]))
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def test_a_language_model_learns_from_a_bank_and_a_step_follows_from_its_number(bank: FilmBank) -> None:
    tokenizer = word_tokenizer(["Which letter is on the card with the red star?"])
    config = small_config(tokenizer)
    config.vision = dict(config.vision or {}) | {"width": 32, "image_size": 16, "heads": 2, "pretrained_grid": 2}
    config.mm_hidden_size = 32
    phases = {"first_steps": 2, "short_steps": 5, "growth_steps": 9, "most_clips": 20}
    recipe = LanguageRecipe(steps=16, tokens=600, warmup_steps=2, report_every=1, budgets=(1, 2), **phases)
    curves = []
    for _ in range(2):
        losses: list[float] = []
        train_language(build_random(config), bank, tokenizer, recipe, lambda v, seen=losses: seen.append(v["loss"]))
        curves.append(losses)
    assert curves[0] == curves[1]
    assert np.mean(curves[0][-3:]) < 0.8 * curves[0][0]


def test_films_grow_in_phases(bank: FilmBank) -> None:
    phases = {"first_steps": 2, "short_steps": 4, "short_clips": 3, "growth_steps": 40, "most_clips": 30}
    recipe = LanguageRecipe(whole_share=0.0, **phases)
    lengths = {}
    for step in range(60):
        films = compose_films(bank, recipe, step, np.random.default_rng(step))
        lengths[step] = len(films[0].clips)
        assert all(len(film.clips) == lengths[step] for film in films)
    assert [lengths[step] for step in range(4)] == [1, 1, 3, 3]
    assert max(lengths[step] for step in range(4, 10)) <= 8 < max(lengths[step] for step in range(40, 60)) <= 30


def test_keys_that_start_as_queries_attract_what_is_alike() -> None:
    config = small_config(word_tokenizer(["Which letter is on the card with the red star?"]))
    config.num_key_value_heads = 2
    language = build_random(config).language
    match_by_content(language, torch.Generator().manual_seed(0))
    x = torch.nn.functional.normalize(torch.randn(5, config.hidden_size), dim=-1) * config.hidden_size**0.5
    attention = language.layers[1].self_attn
    query, key = attention.q_proj(x).unflatten(-1, (2, 3, -1))[:, :, 0], attention.k_proj(x).unflatten(-1, (2, -1))
    scores = torch.einsum("ihd,jhd->hij", query, key)
    assert (scores.argmax(-1) == torch.arange(5)).all()
    assert not torch.equal(language.layers[0].self_attn.k_proj.weight, language.layers[0].self_attn.q_proj.weight[:64])


def test_a_misspelt_setting_of_a_lesson_is_named() -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        LanguageRecipe.from_dict({"learning_rat": 1.0})
    assert dataclasses.replace(VisionRecipe(), steps=3).steps == 3
