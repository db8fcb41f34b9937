"""Train `longtake-tiny` from scratch on FILMSTRIP, on a CPU: `python recipes/tiny.py OUT [--set part.field=value]`.

1. The tower learns from merged tokens what clips show; a second, shorter run weighs what is hard to see anew. 2. Films
are encoded once into a bank. 3. The language model learns to answer packed questions about films put together from the
bank; later runs ask more of what more than one card is about. 4. The checkpoint is saved as any other. What it cost and
how well it answers: docs/tiny.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from longtake.cli.models import parse_settings
from longtake.convert.load import save
from longtake.core.chat import render_chat, time_message
from longtake.media.filmstrip import vocabulary
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import small_config, word_tokenizer
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.nn.vision.umt import UmtTower
from longtake.train.film_bank import build_bank, merged_by_tome
from longtake.train.film_clips import ClipStream
from longtake.train.tiny_language import LanguageRecipe, train_language
from longtake.train.tiny_vision import VisionRecipe, train_vision

POLISH = {
    "steps": 800,
    "large_steps": 0,
    "learning_rate": 1e-3,
    "head_weights": (("letter", 3.0), ("next_shape", 2.0)),
}
POLISH_SEED = 500_000
ORDER: dict[str, Any] = {
    "steps": 900,
    "learning_rate": 8e-4,
    "warmup_steps": 20,
    "first_steps": 0,
    "short_steps": 160,
    "growth_steps": 420,
    "whole_share": 0.25,
    "chain_share": 0.45,
    "placing_weight": 0.5,
    "most_clips": 512,
    "most_tokens": 2048,
    "first_mix": (("N1", 0.1), ("NH trace", 0.3), ("NH pointer", 0.1), ("OR", 0.5)),
    "mix": (
        ("N1", 0.2),
        ("NH pointer", 0.1),
        ("NH trace", 0.34),
        ("NH", 0.01),
        ("OR", 0.18),
        ("OR first", 0.04),
        ("CO", 0.07),
        ("MO", 0.05),
        ("AB", 0.01),
    ),
}
REFINE: tuple[dict[str, Any], ...] = (  # each goes on from the one before with more of what was not yet learned
    {
        "steps": 900,
        "learning_rate": 1e-3,
        "warmup_steps": 30,
        "first_steps": 150,
        "short_steps": 400,
        "growth_steps": 650,
        "whole_share": 0.25,
        "chain_share": 0.35,
        "first_mix": (("N1", 0.25), ("NH pointer", 0.45), ("OR", 0.25), ("OR first", 0.05)),
        "mix": (
            ("N1", 0.27),
            ("NH pointer", 0.15),
            ("NH trace", 0.14),
            ("NH", 0.04),
            ("OR", 0.14),
            ("OR first", 0.05),
            ("CO", 0.08),
            ("MO", 0.06),
            ("MO turn", 0.03),
            ("AB", 0.04),
        ),
    },
    {
        "steps": 600,
        "learning_rate": 8e-4,
        "warmup_steps": 20,
        "first_steps": 80,
        "short_steps": 280,
        "growth_steps": 380,
        "whole_share": 0.3,
        "chain_share": 0.35,
        "first_mix": (("N1", 0.1), ("NH pointer", 0.55), ("OR", 0.3), ("OR first", 0.05)),
        "mix": (
            ("N1", 0.27),
            ("NH pointer", 0.22),
            ("NH trace", 0.14),
            ("NH", 0.03),
            ("OR", 0.18),
            ("OR first", 0.04),
            ("CO", 0.05),
            ("MO", 0.04),
            ("MO turn", 0.01),
            ("AB", 0.02),
        ),
    },
    {
        "steps": 560,
        "learning_rate": 8e-4,
        "warmup_steps": 20,
        "first_steps": 10,
        "short_steps": 220,
        "growth_steps": 320,
        "whole_share": 0.3,
        "chain_share": 0.5,
        "first_mix": (("N1", 0.1), ("NH trace", 0.55), ("NH pointer", 0.15), ("OR", 0.2)),
        "mix": (
            ("N1", 0.17),
            ("NH pointer", 0.1),
            ("NH trace", 0.42),
            ("NH", 0.02),
            ("OR", 0.16),
            ("OR first", 0.03),
            ("CO", 0.05),
            ("MO", 0.04),
            ("AB", 0.01),
        ),
    },
    ORDER,
    ORDER
    | {
        "steps": 480,
        "short_steps": 60,
        "growth_steps": 120,
        "placing_weight": 0.3,
        "rough_share": 0.5,
        "mix": (("N1", 0.25), ("NH pointer", 0.09), ("NH trace", 0.3), *ORDER["mix"][3:]),
    },
)
BANK_SEED = 1_000_000  # films that the tower has not been trained on, in the training split all the same
NUM_BANK_FILMS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--films", type=int, default=NUM_BANK_FILMS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    values = parse_settings(given.settings, ("vision", "polish", "language", "refine"))
    vision = VisionRecipe.from_dict(values.get("vision", {}))
    polish = VisionRecipe.from_dict(POLISH | values.get("polish", {}))
    language = LanguageRecipe.from_dict({"seed": given.seed} | values.get("language", {}))
    later = values.get("refine", {})
    refine = [LanguageRecipe.from_dict(leg | {"seed": given.seed + n} | later) for n, leg in enumerate(REFINE, 1)]
    given.out.mkdir(parents=True, exist_ok=True)
    curve = Curve(given.out / "curve.jsonl")

    tokenizer = word_tokenizer([*vocabulary(), render_chat([]), time_message(64.0, 64)])
    config = small_config(tokenizer)
    torch.manual_seed(given.seed)
    tower = UmtTower(config.vision_config)
    clips = ClipStream(image_size=config.vision_config.image_size)
    reader = train_vision(tower, vision, clips, curve.stage("vision"))
    other_clips = dataclasses.replace(clips, first_seed=POLISH_SEED)
    train_vision(tower, polish, other_clips, curve.stage("polish"), reader)
    torch.manual_seed(given.seed)
    model = VideoChatFlashForConditionalGeneration(config)
    model.vision.load_state_dict(tower.state_dict())
    model.vision.eval()
    own_clips = dataclasses.replace(clips, first_seed=BANK_SEED)
    bank = build_bank(merged_by_tome(model.vision, language.budgets), own_clips, given.films)
    train_language(model, bank, tokenizer, language, curve.stage("language"))
    for number, leg in enumerate(refine, 1):
        train_language(model, bank, tokenizer, leg, curve.stage(f"refine {number}"), is_new=False)
    save(LoadedModel(model, tokenizer, config, ""), given.out / "longtake-tiny")


class Curve:
    """Writes one line of JSON for each report, with the seconds since the beginning."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.perf_counter()

    def stage(self, name: str) -> Callable[[dict[str, float]], None]:
        def report(values: dict[str, float]) -> None:
            line = {"stage": name, "seconds": round(time.perf_counter() - self.start, 1)} | values
            logging.info("%s", line)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

        return report


if __name__ == "__main__":
    main()
