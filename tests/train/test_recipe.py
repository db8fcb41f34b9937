"""Recipes: the released values, and settings on top of them."""

from __future__ import annotations

import json

import pytest

from longtake.cli.main import main
from longtake.core.errors import ConfigError
from longtake.recipes import RECIPES, find_recipe
from longtake.train.recipe import Recipe, recipe_from_dict, with_settings

# name, (tower, connector, language), frames at most, template, samples a step on the released devices, tokens of text
RELEASED = [
    ("stage1", (0.0, 1e-3, 0.0), 4, "plain", 16 * 4 * 8, 8192),
    ("stage2", (2e-6, 1e-5, 1e-5), 8, "qwen_2", 1 * 8 * 32, 32768),
    ("stage3", (2e-6, 1e-5, 1e-5), 512, "qwen_2", 256, 32768),
    ("stage4", (2e-6, 1e-5, 0.0), 512, "qwen_2", 256, 32768),
    ("xcomp", (0.0, 1e-5, 1e-5), 1024, "qwen_2", 1 * 4 * 8, 32768),
]


@pytest.mark.parametrize(("name", "rates", "frames", "template", "batch", "length"), RELEASED)
def test_a_recipe_has_the_released_values(
    name: str, rates: tuple, frames: int, template: str, batch: int, length: int
) -> None:
    recipe = find_recipe(name)
    devices = {"stage1": 8, "xcomp": 8}.get(name, 32)
    assert (recipe.rates.tower, recipe.rates.connector, recipe.rates.language) == rates
    assert (recipe.data.max_frames, recipe.data.template, recipe.data.max_length) == (frames, template, length)
    assert recipe.optim.batch * recipe.optim.accumulation * devices == batch
    optim = recipe.optim
    assert (optim.epochs, optim.schedule, optim.warmup, optim.weight_decay, optim.clip) == (1, "cosine", 0.03, 0.0, 1.0)
    assert recipe.precision == "bfloat16" and recipe.gradient_checkpointing


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_comes_back_from_json(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("rates.tower=3e-6", lambda recipe: recipe.rates.tower == 3e-6),
        ("optim.max_steps=7", lambda recipe: recipe.optim.max_steps == 7),
        ("optim.max_steps=none", lambda recipe: recipe.optim.max_steps is None),
        ("data.rule.fps=2", lambda recipe: recipe.data.rule.fps == 2.0),
        ("data.isolate=false", lambda recipe: recipe.data.isolate is False),
        ("lora.parts=language,connector", lambda recipe: recipe.lora.parts == ("language", "connector")),
        ("compression.budgets=[16, 4]", lambda recipe: recipe.compression.budgets == (16, 4)),
        (
            'compression.fields={"survivors": "uniform"}',
            lambda recipe: recipe.compression.fields["survivors"] == "uniform",
        ),
        ("precision=float32", lambda recipe: recipe.precision == "float32"),
        ("out=a=b", lambda recipe: recipe.out == "a=b"),
    ],
)
def test_a_setting_is_read_as_the_type_of_its_field(setting: str, expected) -> None:
    assert expected(with_settings(find_recipe("stage2"), [setting]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rates.towr=1", "did you mean 'tower'"),
        ("optm.batch=1", "did you mean 'optim'"),
        ("data.rule.fsp=1", "did you mean 'fps'"),
        ("data.rule=1", "write data.rule.FIELD=value"),
        ("seed.x=1", "seed has no fields"),
        ("optim.batch=x", "expected a value of the type int"),
        ("optim.batch=1.5", "expected a value of the type int"),
        ("optim.batch=0", "at least 1"),
        ("rates.tower=-1", "none below 0"),
        ("rates.tower=nan", "none below 0"),
        ("data.isolate=maybe", "expected a value of the type bool"),
        ("precision=fp8", "known: bfloat16, float32"),
        ("lora.parts=towr", "language"),
        ("lora.rank=-1", "rank of at least 0"),
        ("compression.budgets=0", "at least 1"),
        ("compression.fields=[", "expected a value of the type dict"),
        ("data.keep_share=0", "keep_share"),
        ("saving.every=0", "at least 1"),
        ("optim.warmup=1", "warmup < 1"),
        ("rates.tower", "path=value"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_was_meant(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(find_recipe("stage2"), [setting])


def test_the_command_line_refuses_an_unknown_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "stage1", "--set", "optm.batch=1"])
    assert caught.value.code == ConfigError.exit_code
    assert "did you mean 'optim'" in capsys.readouterr().err


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'stage1'"):
        find_recipe("stag1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:made", "was not found"),
        ("longtake.recipes.sct:nothing", "was not found"),
        ("builtins:dict", "returned a dict"),
    ],
)
def test_a_function_that_makes_no_recipe_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_recipe(name)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="one above"):
        recipe_from_dict({"name": "x", "rates": {}})
    with pytest.raises(ConfigError, match="did you mean 'rates'"):
        recipe_from_dict({"name": "x", "rate": {}})
    assert isinstance(recipe_from_dict({"name": "x", "rates": {"tower": 1e-5}}), Recipe)
