"""Train a tiny PVC on FILMSTRIP's films: `python recipes/tiny_pvc_films.py OUT [--arms pvc static]`.

Two arms: `pvc`, in which a frame's token knows of earlier frames and of the time, and `static`, the same tower and
compressor without. 1. The tower learns to put each frame of a clip into one token. 2. Films are encoded once into a
bank. 3. The language model, which begins as that of longtake-tiny, learns to answer from such tokens. An arm is saved
as OUT/ARM, a checkpoint like any other, its curve as OUT/ARM.jsonl; a run that was stopped goes on with the part that
it was in, an arm that is saved is left as it is. What came of it: docs/tiny_pvc.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny import BANK_SEED, NUM_BANK_FILMS, Curve

import longtake
from longtake.cli.models import parse_settings
from longtake.convert.load import save
from longtake.core.errors import ConfigError
from longtake.core.files import write_whole
from longtake.models.loaded import LoadedModel
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.tiny import bundled_tiny
from longtake.train.film_bank import build_bank
from longtake.train.film_clips import ClipStream
from longtake.train.pvc_film import (
    PvcFilmRecipe,
    borrow_language,
    build_film_model,
    frame_tokens,
    pvc_form,
    train_seeing,
)
from longtake.train.tiny_language import LanguageRecipe, train_language
from longtake.train.tiny_pvc_posters import poster_tokenizer

ARMS = {"pvc": True, "static": False}
# The tower's lesson goes on with films that it has not seen, and with what is hard to see weighed more.
POLISH: tuple[dict[str, Any], ...] = (
    {"steps": 1000, "large_steps": 500, "head_weights": (("shape", 5.0), ("next_shape", 2.0))},
    {
        "steps": 1200,
        "large_steps": 0,
        "head_weights": (("shape", 3.0), ("letter", 3.0), ("next_colour", 0.3), ("next_shape", 0.3)),
    },
    {
        "steps": 1000,
        "large_steps": 1000,
        "large_size": 0.3,
        "learning_rate": 2e-3,
        "wide_share": 0.15,
        "head_weights": (("shape", 3.0), ("letter", 3.0), ("next_colour", 0.1), ("next_shape", 0.1)),
    },
)
FIRST_FILMS = (0, 500_000, 600_000, 700_000)  # of the legs: each has films of its own
SEEING_PARTS = ("vision", "compressor", "projector")
LANGUAGE: dict[str, Any] = {
    "steps": 700,
    "learning_rate": 8e-4,
    "warmup_steps": 30,
    "first_steps": 80,
    "short_steps": 200,
    "growth_steps": 400,
    "whole_share": 0.3,
    "motion_share": 0.25,
    "budgets": (1,),
    "placing_weight": 0.3,
    "keeps_times": True,
    "first_mix": (("N1", 0.6), ("OR first", 0.2), ("OR", 0.2)),
    "mix": (("N1", 0.45), ("OR", 0.2), ("OR first", 0.05), ("MO", 0.22), ("AB", 0.08)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--films", type=int, default=NUM_BANK_FILMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="PART.FIELD=VALUE")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    values = parse_settings(given.settings, ("seeing", "polish", "language"))
    language = LanguageRecipe.from_dict(LANGUAGE | {"seed": given.seed} | values.get("language", {}))
    given.out.mkdir(parents=True, exist_ok=True)
    for arm in [arm for arm in given.arms if not (given.out / arm).exists()]:
        own = {"progressive": ARMS[arm], "seed": given.seed} | values.get("seeing", {})
        legs = [PvcFilmRecipe.from_dict(own | leg | values.get("polish", {})) for leg in POLISH]
        train_arm(given.out / arm, [PvcFilmRecipe.from_dict(own), *legs], language, given.films)


def train_arm(out: Path, seeing: Sequence[PvcFilmRecipe], language: LanguageRecipe, num_films: int) -> None:
    """Train an arm and save it; seeing: the tower's lesson, leg by leg.

    Raises: ConfigError if a leg was learned by another recipe.
    """
    tokenizer, curve = poster_tokenizer(), Curve(out.with_suffix(".jsonl"))
    model, clips = build_film_model(seeing[0], tokenizer), ClipStream(image_size=seeing[0].image_size)
    for number, (leg, first_seed) in enumerate(zip(seeing, FIRST_FILMS, strict=True)):
        learned = out.with_suffix(f".seeing-{number}.pt")
        if learned.exists():
            take_over(model, leg, learned)
        else:
            train_seeing(model, leg, dataclasses.replace(clips, first_seed=first_seed), curve.stage(f"seeing {number}"))
            keep(model, leg, learned)
    bank = build_bank(
        lambda pixels: {1: frame_tokens(model, pixels)}, dataclasses.replace(clips, first_seed=BANK_SEED), num_films
    )
    borrow_language(model, tokenizer, longtake.load(bundled_tiny(), dtype=torch.float32), language.seed)
    train_language(
        model,
        bank,
        tokenizer,
        language,
        curve.stage("language"),
        is_new=False,
        form=pvc_form(),
        connector=model.projector.mlp[2],
    )
    save(LoadedModel(model, tokenizer, model.config, ""), out)


def keep(model: PvcForConditionalGeneration, leg: PvcFilmRecipe, path: Path) -> None:
    """Write down what a leg has taught, with its recipe; the file appears whole or not at all."""
    data = io.BytesIO()
    parts = {part: getattr(model, part).state_dict() for part in SEEING_PARTS}
    torch.save({"recipe": json.dumps(leg.to_dict(), sort_keys=True), "parts": parts}, data)
    write_whole(path, data.getvalue())


def take_over(model: PvcForConditionalGeneration, leg: PvcFilmRecipe, path: Path) -> None:
    """Go on from what a leg has taught.

    Raises: ConfigError if that was by another recipe.
    """
    kept = torch.load(path, weights_only=True)
    if kept["recipe"] != json.dumps(leg.to_dict(), sort_keys=True):
        raise ConfigError(f"{path} was learned by another recipe; expected {leg}; name another folder, or remove it")
    for part, state in kept["parts"].items():
        getattr(model, part).load_state_dict(state)


if __name__ == "__main__":
    main()
