"""The tiny PVC: posters say what they show, arms cost the same tokens, losses fall, directions are judged by hand."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from longtake.core.errors import ConfigError
from longtake.media.filmstrip.attributes import LETTERS
from longtake.media.filmstrip.questions import PHRASES
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.pvc_prompt import Shown, pvc_prompt, pvc_prompt_ids
from longtake.train.tiny_pvc import (
    answer,
    answered_right,
    ask_all,
    ask_some,
    read_right,
    score,
    train_answering,
    train_reading,
)
from longtake.train.tiny_pvc_arms import ARMS, TinyPvcRecipe, build_arm, poster_config, show
from longtake.train.tiny_pvc_posters import Posters, PosterSpec, PosterTexts, draw_posters, poster_tokenizer
from longtake.train.tiny_pvc_reader import PlaceReader, patch_letters

SMALL = TinyPvcRecipe(
    poster=PosterSpec(side=2, image_size=28),
    tower_width=32,
    tower_layers=2,
    temporal_layers=1,
    width=32,
    layers=1,
    heads=2,
    rank=4,
    tokens=(4,),
    seeing_steps=12,
    reading_steps=12,
    answering_steps=12,
    batch=8,
    questions=3,
    warmup_steps=2,
    learning_rate=5e-3,
    report_every=1,
)


@pytest.fixture(scope="module")
def texts() -> PosterTexts:
    return PosterTexts(poster_tokenizer())


@pytest.fixture(scope="module")
def posters() -> Posters:
    return draw_posters(SMALL.poster, 0, 24)


@pytest.fixture(scope="module")
def recipe_module() -> ModuleType:
    path = Path(__file__).parents[2] / "recipes" / "tiny_pvc.py"
    spec = importlib.util.spec_from_file_location("recipe_of_the_tiny_pvc", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_posters_follow_from_their_seeds_whatever_the_count(posters: Posters) -> None:
    again = draw_posters(SMALL.poster, 3, 2)
    assert torch.equal(again.pixels, posters.pixels[3:5]) and torch.equal(again.letters, posters.letters[3:5])
    assert posters.pictures().shape == (24, 3, 28, 28) and posters.side == 2
    alike = [(i, j) for i in range(24) for j in range(i) if torch.equal(posters.letters[i], posters.letters[j])]
    assert not alike


def test_a_patch_is_named_by_the_letter_of_its_cell(posters: Posters, texts: PosterTexts) -> None:
    grid = build_arm(SMALL, "repeat", texts.tokenizer).vision.grid(1)
    letters = torch.tensor([[7, 8, 9, 10]])
    assert patch_letters(letters, grid).tolist() == [[7, 8, 9, 10]]
    assert patch_letters(letters, dataclasses.replace(grid, rows=4, columns=4)).tolist() == [
        [7, 7, 8, 8, 7, 7, 8, 8, 9, 9, 10, 10, 9, 9, 10, 10]
    ]


@pytest.mark.parametrize("wording", range(4))
def test_packed_prompts_are_those_of_ask(texts: PosterTexts, wording: int) -> None:
    pieces = [*texts.before, -200, *texts.after, *texts.question(wording, 5, 4)]
    prompt = pvc_prompt(PHRASES["DE"][wording].format(a=2, b=2), [Shown(kind="image", entries=1)])
    asked = pvc_prompt_ids(texts.tokenizer, prompt).tolist()
    assert [i for i in pieces if i >= 0] == [i for i in asked if i >= 0] and asked[len(texts.before)] < 0
    assert texts.tokenizer.decode(texts.answer(10)) == f"{LETTERS[10]}<|im_end|>"


def test_arms_spend_the_same_tokens_and_copies_of_a_still_differ_in_pvc_alone(
    posters: Posters, texts: PosterTexts
) -> None:
    few = posters.at([0, 1, 2])
    for arm in ARMS:
        model = build_arm(SMALL, arm, texts.tokenizer)
        for count in (1, 2, 4):
            tokens = show(model, few.pictures(), count)
            assert tokens.shape == (3, count, SMALL.width)
            apart = float((tokens - tokens[:, :1]).abs().max().detach())
            assert (apart > 1e-3) == (count > 1 and arm != "repeat"), (arm, count)


def test_pooled_tokens_are_means_of_blocks_of_one_copy(posters: Posters, texts: PosterTexts) -> None:
    model = build_arm(SMALL, "pool", texts.tokenizer).eval()
    with torch.no_grad():
        patches = model.compressor.norm(model.vision(posters.at([0]).pictures(), [1])[:, 1:])
        halves = patches.unflatten(1, (2, 2)).mean(1)  # 2 x 2 patches: left and right
        rows = patches.unflatten(1, (2, 2)).mean(2)  # above and below
        shown = show(model, posters.at([0]).pictures(), 2)
        assert any(torch.allclose(shown, model.projector(means), atol=1e-5) for means in (halves, rows))


def test_an_unknown_arm_is_named(texts: PosterTexts) -> None:
    with pytest.raises(ConfigError, match="did you mean 'repeat'"):
        poster_config(SMALL, "repeats", texts.tokenizer)


def test_questions_ask_each_cell_once_and_never_in_the_held_out_wording(posters: Posters) -> None:
    asked = ask_some(posters, 3, np.random.default_rng(0))
    assert all(len(set(cells)) == 3 for cells in asked.cells)
    every = ask_all(posters)
    assert every.cells[0] == [0, 1, 2, 3]
    assert {wording for row in (*asked.wordings, *every.wordings) for wording in row} == {0, 1, 2}


def test_an_answer_sees_its_own_question_and_picture_only(posters: Posters, texts: PosterTexts) -> None:
    model = build_arm(SMALL, "repeat", texts.tokenizer).eval()
    few = posters.at([0, 1])
    visuals = show(model, few.pictures(), 2)
    asked = ask_all(few)
    with torch.no_grad():
        together = answer(model, texts, few, asked, visuals).logits
        last = dataclasses.replace(asked, cells=[[3], [3]], wordings=[row[3:] for row in asked.wordings])
        alone = answer(model, texts, few, last, visuals).logits
    # Four questions of two answer tokens each: the last of the first picture stands at 6, of the second at 14.
    torch.testing.assert_close(together[[6, 7, 14, 15]], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arm", ARMS)
def test_a_few_steps_lower_the_loss_of_every_lesson(arm: str, posters: Posters, texts: PosterTexts) -> None:
    def read() -> tuple[PvcForConditionalGeneration, PlaceReader, list[float]]:
        model, losses = build_arm(SMALL, arm, texts.tokenizer), []
        return model, train_reading(model, posters, SMALL, lambda values: losses.append(values["loss"])), losses

    model, places, curve = read()
    assert arm != "pvc" or read()[2] == curve  # everything follows from the seed
    seeing, reading, answering = curve[:12], curve[12:], []
    few = posters.at(list(range(5)))
    shown = show(model, few.pictures(), 4)
    train_answering(model, texts, posters, SMALL, lambda values: answering.append(values["loss"]))
    torch.testing.assert_close(show(model, few.pictures(), 4), shown, atol=0, rtol=0)  # tokens stay as they are
    assert np.mean(seeing[-3:]) < np.mean(seeing[:3])
    assert np.mean(reading[-3:]) < np.mean(reading[:3])
    assert np.mean(answering[-3:]) < 0.8 * np.mean(answering[:3])
    assert score(few, 4, lambda part, tokens: read_right(model, places, part, tokens), batch=2).shape == (5, 4)
    assert score(few, 4, lambda part, tokens: answered_right(model, texts, part, tokens), batch=2).shape == (5, 4)


def test_a_score_is_the_share_of_places_that_a_reader_names(posters: Posters, texts: PosterTexts) -> None:
    model = build_arm(SMALL, "repeat", texts.tokenizer).eval()

    class AlwaysA(PlaceReader):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.zeros(len(tokens), 4, dtype=torch.int64), 26).float()

    found = score(posters, 1, lambda part, tokens: read_right(model, AlwaysA(32, 2, 2, 1.0), part, tokens))
    assert torch.equal(found, posters.letters == 0)


def run_of(arm: str, seed: int, films: dict[str, list[str]], **recipe: object) -> dict[str, Any]:
    return {
        "arm": arm,
        "seed": seed,
        "recipe": {"seed": seed, **recipe},
        "test_seeds": [0, 1],
        "right": {"read": films, "answered": films},
        "parameters": 1,
        "cost": {"read": {"seconds": 1.0, "cpu_seconds": 1.0}},
    }


def test_a_table_and_directions_are_those_worked_out_by_hand(recipe_module: ModuleType, tmp_path: Path) -> None:
    # Eight films of four cells. PVC: one right of four at one repeat, two at two, all at four and eight.
    pvc = {"1": ["1000"] * 8, "2": ["1100"] * 8, "4": ["1111"] * 8, "8": ["1111"] * 8}
    repeat = {count: ["1100"] * 4 + ["1110"] * 4 for count in ("1", "2", "4", "8")}
    runs = [run_of(arm, seed, films) for arm, films in (("pvc", pvc), ("repeat", repeat)) for seed in (0, 1)]
    found = recipe_module.summarise(runs)
    row = found["table"]["read"]
    assert [row["pvc"][count]["right"] for count in ("1", "2", "4")] == [0.25, 0.5, 1.0]
    assert row["repeat"]["4"]["right"] == 0.625 and row["repeat"]["4"]["n"] == 64
    assert row["repeat"]["4"]["seeds"] == [0.625, 0.625]
    judged = found["directions"]["read"]
    assert not any("pool" in text for text in judged)  # that arm was not run
    worse = judged["one repeat of PVC is worse than naive repetition's one"]
    assert worse["difference"] == -0.375 and worse["verdict"] == "worse" and worse["holds"]
    assert worse["interval"][0] < -0.375 < worse["interval"][1] < 0
    assert judged["repeats help PVC: 4 against 1"]["difference"] == 0.75
    still = judged["repeats do not help naive repetition: 4 against 1"]
    assert still["difference"] == 0 and still["verdict"] == "not different" and still["holds"]
    assert judged["PVC, 8 against 4"]["holds"] is None
    assert any(line.startswith("| pvc | 25.0 [") for line in recipe_module.report_lines(found))
    recipe_module.draw(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_the_page_shows_the_report_of_the_results(recipe_module: ModuleType) -> None:
    docs = Path(__file__).parents[2] / "docs"
    found = json.loads((docs / "results" / "tiny-pvc.json").read_text("utf-8"))
    page = (docs / "tiny_pvc.md").read_text("utf-8").splitlines()
    assert all(line in page for line in recipe_module.report_lines(found))
    runs = [json.loads(line) for line in (docs / "results" / "tiny-pvc-runs.jsonl").read_text("utf-8").splitlines()]
    assert recipe_module.summarise(runs) == found
    assert {**runs[0]["recipe"], "seed": 0} == json.loads(json.dumps(TinyPvcRecipe().to_dict()))


def test_a_film_under_several_seeds_is_one_group(recipe_module: ModuleType) -> None:
    runs = [run_of("pvc", seed, {"1": ["10", "01", "11"]}) for seed in (0, 1)]
    rights = recipe_module.rights_of(runs)
    assert recipe_module.film_groups(rights, "pvc", "read", 1, [0, 1]) == list("001122001122")
    assert recipe_module.pooled(rights, "pvc", "read", 1, [0, 1]).tolist() == [1, 0, 0, 1, 1, 1] * 2


def test_runs_of_different_recipes_are_not_compared(recipe_module: ModuleType) -> None:
    runs = [run_of("pvc", 0, {}, width=32), run_of("repeat", 0, {}, width=64)]
    with pytest.raises(ConfigError, match="2 different recipes"):
        recipe_module.rights_of(runs)
    with pytest.raises(ConfigError, match="tower_width"):
        recipe_module.recipe_of(["recipe.tower_with=3"])
    assert recipe_module.recipe_of(["poster.side=3", "recipe.width=48"]).poster.side == 3
