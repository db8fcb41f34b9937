"""The tiny PVC for films: its bank is what ingestion makes, its texts those of `ask`, and its lessons are learned."""

from __future__ import annotations

import dataclasses
import json
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.errors import ConfigError
from longtake.media.filmstrip import vocabulary
from longtake.models.loaded import LoadedModel
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.pvc_prompt import Shown, pvc_prompt, pvc_prompt_ids
from longtake.models.splice import Visual
from longtake.models.tiny import build_random, small_config, word_tokenizer
from longtake.train.film_bank import Asked, FilmBank, build_bank, compose
from longtake.train.film_clips import CLIP_FRAMES, ClipStream
from longtake.train.pvc_film import (
    PvcFilmRecipe,
    borrow_language,
    build_film_model,
    frame_tokens,
    pvc_form,
    train_seeing,
)
from longtake.train.tiny_language import LanguageRecipe, Texts, train_language
from longtake.train.tiny_pvc_posters import poster_tokenizer

SMALL = PvcFilmRecipe(
    image_size=16,
    patch_size=8,
    tower_width=32,
    tower_layers=2,
    temporal_layers=1,
    width=48,
    layers=2,
    heads=2,
    rank=4,
    steps=24,
    large_steps=12,
    films=2,
    clips_per_film=6,
    warmup_steps=4,
    report_every=1,
)
FILMS = ClipStream(image_size=16, film_frames=160, render_size=32)


def small_model(progressive: bool = True) -> PvcForConditionalGeneration:
    return build_film_model(dataclasses.replace(SMALL, progressive=progressive), poster_tokenizer())


@pytest.fixture(scope="module")
def bank() -> FilmBank:
    model = small_model().eval()
    return build_bank(lambda pixels: {1: frame_tokens(model, pixels)}, FILMS, 3)


@pytest.mark.parametrize("progressive", [True, False])
def test_the_bank_ends_half_way_through_the_projector(progressive: bool) -> None:
    model, pixels = small_model(progressive).eval(), FILMS(0).pixels[:2]
    with torch.no_grad():
        found = model.projector.mlp[2](frame_tokens(model, pixels)).flatten(0, 1)
        whole = model.visual_tokens(Visual(pixel_values=pixels.flatten(0, 1), modality="video"))
    assert found.shape == whole.shape == (2 * CLIP_FRAMES, SMALL.width)
    torch.testing.assert_close(found, whole)  # eight frames: the window covers them


def test_a_frame_knows_of_those_in_its_window_alone() -> None:
    model, pixels = small_model().eval(), FILMS(0).pixels[:4]
    other = pixels.clone()
    other[0, 0] += 1.0
    changed = (frame_tokens(model, pixels) != frame_tokens(model, other)).flatten(0, 1).any(-1)
    assert changed.tolist() == [True] * SMALL.window + [False] * (4 * CLIP_FRAMES - SMALL.window)
    static = small_model(progressive=False).eval()
    changed = (frame_tokens(static, pixels) != frame_tokens(static, other)).flatten(0, 1).any(-1)
    assert changed.tolist() == [True] + [False] * (4 * CLIP_FRAMES - 1)


def test_the_texts_of_training_are_those_of_a_question() -> None:
    tokenizer = poster_tokenizer()
    question, answer = "Which letter is on the card with the red star?", "K"
    packed = Texts(tokenizer, pvc_form()).packed(8, [Asked(question, answer, [0], {"red star": [0]})], CLIP_FRAMES)
    written = pvc_prompt_ids(tokenizer, pvc_prompt(question, [Shown(kind="video", entries=8, is_whole=True)])).tolist()
    asked, answered = packed.questions[0]
    assert [*packed.before, PLACEHOLDER_ID, *packed.after, *asked] == written
    assert tokenizer.decode(answered) == "K<|im_end|>"
    ends = [row for row, _ in packed.mentions[0]]
    assert [tokenizer.decode([asked[row]]) for row in ends] == [" star"]


def test_the_language_model_begins_as_the_donors() -> None:
    donor_words = word_tokenizer([*vocabulary(), "user", "assistant"])
    config = small_config(donor_words)
    config.vision = dict(config.vision or {}) | {"width": 32, "image_size": 16, "heads": 2, "pretrained_grid": 2}
    config.mm_hidden_size = 32
    donor = LoadedModel(build_random(config), donor_words, config, "")
    own_words = poster_tokenizer()
    model = build_film_model(dataclasses.replace(SMALL, width=192, layers=4, heads=6), own_words).eval()
    borrow_language(model, own_words, donor, 0)
    text = "Which letter is on the card with the red star?"
    rows = [
        one.language(input_ids=torch.tensor([words(text)["input_ids"]])).last_hidden_state
        for one, words in ((donor.model, donor_words), (model, own_words))
    ]
    torch.testing.assert_close(rows[0], rows[1])
    assert model.lm_head.weight is model.language.embed_tokens.weight
    with pytest.raises(ConfigError, match="192 wide and has 4 layers, ours is 48 wide and has 2"):
        borrow_language(small_model(), own_words, donor, 0)


@pytest.mark.parametrize("progressive", [True, False])
def test_a_tower_learns_to_put_a_frame_into_a_token(progressive: bool) -> None:
    losses: list[float] = []
    recipe = dataclasses.replace(SMALL, progressive=progressive)
    train_seeing(build_film_model(recipe, poster_tokenizer()), recipe, FILMS, lambda v: losses.append(v["loss"]))
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def test_the_language_lesson_leaves_the_tower_alone(bank: FilmBank) -> None:
    model, losses = small_model(), list[float]()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    phases = {"first_steps": 2, "short_steps": 5, "growth_steps": 9, "most_clips": 20}
    recipe = LanguageRecipe(
        steps=16,
        tokens=600,
        warmup_steps=2,
        report_every=1,
        budgets=(1,),
        mentioning_layers=(0,),
        looking_layers=(1,),
        placing_weight=0.3,
        keeps_times=True,
        **phases,
    )
    train_language(
        model,
        bank,
        poster_tokenizer(),
        recipe,
        lambda values: losses.append(values["loss"]),
        form=pvc_form(),
        connector=model.projector.mlp[2],
    )
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, kept[name])}
    assert "projector.mlp.2.weight" in changed
    assert not {name for name in changed if name.startswith(("vision", "compressor", "projector.mlp.0"))}


@pytest.mark.parametrize("seed", range(5))
def test_composed_films_may_keep_the_order_of_their_clips_places(bank: FilmBank, seed: int) -> None:
    film = compose(bank, np.random.default_rng(seed), 20, 0.6, keeps_times=True)
    places = [bank.place(clip) for clip in film.clips]
    ends = [place for place, (one, other) in enumerate(pairwise(film.clips), 1) if other != one + 1]
    starts = [places[place] for place in (0, *ends)]
    assert len(film.clips) == 20 and starts == sorted(starts)


def test_clips_come_in_rows() -> None:
    every, found = FILMS(2), FILMS(2, 6, 3)
    for row in found.pixels.unflatten(0, (2, 3)):
        first = next(start for start in range(len(every.pixels)) if torch.equal(every.pixels[start], row[0]))
        assert torch.equal(every.pixels[first : first + 3], row)


def test_the_page_says_what_was_measured() -> None:
    docs = Path(__file__).parents[2] / "docs"
    lines = (docs / "results" / "tiny-pvc-films-measured.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if not row.get("blind")]
    page = " ".join((docs / "tiny_pvc.md").read_text("utf-8").split())

    def percent(value: float) -> str:
        return f"{Decimal(repr(value)).scaleb(2).quantize(Decimal('0.1'), ROUND_HALF_UP)}"

    def found(arm: str, level: str, kind: str, value: str, *, against: bool = False) -> str:
        own = [row for row in rows if (row["arm"], row["level"], row["kind"]) == (arm, level, kind)]
        row = next(row for row in own if ("against" in row) == against)
        low, high = row["interval_95"]
        signs = [f"{'+' if one > 0 and against else ''}{percent(one)}" for one in (row[value], low, high)]
        return f"{signs[0]} ({signs[1]} to {signs[2]})"

    for level, kind in {(row["level"], row["kind"]) for row in rows}:
        lead = next(row for row in rows if (row["level"], row["kind"]) == (level, kind) and "against" in row)
        told = [found(arm, level, kind, "right") for arm in ("pvc", "static")]
        text = f"{' | '.join(told)} | {found('pvc', level, kind, 'lead', against=True)}"
        assert f"{text}, {lead['verdict']}" in page, (level, kind, text)
