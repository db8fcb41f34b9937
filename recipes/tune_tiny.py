"""XComp's ablation on the tiny model, training-free and tuned: `python recipes/tune_tiny.py CHECKPOINT OUT`.

Every arm drops the tokens of a film in another way between the layers, from 4 a frame down to 1 (the arm `none` drops
none). Tuned arms start from CHECKPOINT and learn, once for each of --seeds, the same films in the same order for as
many steps; all arms are asked the same questions about the same mp4 files of the test split. Prints JSON, writes it to
OUT/tuning-….json; docs/tiny.md has the table. Arms that are in OUT already are not tuned again.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filmstrip_films import TEST_SEED, drawn_film, film_memory

import longtake
from longtake.core.types import VideoMemory
from longtake.eval.result import write_text
from longtake.eval.statistics import interval, paired
from longtake.media.filmstrip import Question, ask_film, is_right
from longtake.methods.compress.tome import ToMe
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.loaded import LoadedModel
from longtake.train.film_bank import FilmBank, build_bank, merged_by_tome
from longtake.train.film_clips import ClipStream
from longtake.train.tiny_tuning import TuningRecipe, tune

BANK_SEED = 1_000_000
ARMS: Mapping[str, Any] = {
    "none": LpComp(tokens_per_frame=4, schedule_kind="none"),
    "attention (heuristic)": ProgressiveDrop(kind="attention", layers=(1, 2), ratios=(1.0, 0.5, 0.25)),
    "step, suffix": LpComp(tokens_per_frame=4, schedule_kind="step", step_layers=(1, 2), step_strides=(2, 2)),
    "linear, suffix": LpComp(tokens_per_frame=4, schedule_kind="linear"),
    "cosine, suffix": LpComp(tokens_per_frame=4),
    "cosine, uniform": LpComp(tokens_per_frame=4, survivors="uniform"),
}


class Test(NamedTuple):
    """A film of the test split as the model reads it, and what is asked about it."""

    film: int
    memory: VideoMemory
    questions: list[Question]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="of the films that are learned, and their order"
    )
    parser.add_argument("--bank-films", type=int, default=300)
    parser.add_argument("--bank", type=Path, help="a bank saved before")
    parser.add_argument("--level", default="L1")
    parser.add_argument("--task", default="N1", help="one, or several with commas: planted in the same films")
    parser.add_argument("--kind", default="N1", help="of the questions that are asked")
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--questions", type=int, default=8)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given.out.mkdir(parents=True, exist_ok=True)
    loaded = longtake.load(given.checkpoint)
    loaded.model.use_compressor(ToMe(tokens_per_frame=4))
    tests = [test_film(loaded, number, given) for number in range(given.films)]
    original = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    bank = bank_of(loaded, given)
    rights: dict[str, list[bool]] = {}
    for name in given.arms:
        loaded.model.load_state_dict(original)
        rights[f"{name} | free"] = ask_all(loaded, ARMS[name], tests)
        rights[f"{name} | tuned"] = []
        for seed in given.seeds:
            loaded.model.load_state_dict(original)
            tuned(loaded, bank, name, seed, given)
            rights[f"{name} | tuned"] += ask_all(loaded, ARMS[name], tests)
        logging.info("%s", {key: sum(values) / len(values) for key, values in rights.items()})
    groups = [str(test.film) for test in tests for _ in test.questions]
    found = {name: figures(values, rights, name, groups) for name, values in rights.items()}
    text = json.dumps({"arms": found, "seeds": given.seeds, "rights": rights, "films": groups}, indent=1)
    write_text(given.out / f"tuning-{given.level}-{given.kind.replace(' ', '-')}.json", text)
    print(json.dumps(found, indent=1))


def test_film(loaded: LoadedModel, number: int, given: argparse.Namespace) -> Test:
    """Write a film, read it back, encode it; the tower is the same for all arms."""
    film = drawn_film(given.level, TEST_SEED + number, tuple(given.task.split(",")))
    asked = [question for question in ask_film(film) if question.kind == given.kind]
    return Test(number, film_memory(film, loaded), asked[: given.questions])


def bank_of(loaded: LoadedModel, given: argparse.Namespace) -> FilmBank:
    """Encode films of the training split, or take a bank that is there."""
    if given.bank is not None:
        return torch.load(given.bank, weights_only=False)
    clips = ClipStream(image_size=loaded.config.vision_config.image_size, first_seed=BANK_SEED)
    return build_bank(merged_by_tome(loaded.model.vision, (4,)), clips, given.bank_films)


def tuned(loaded: LoadedModel, bank: FilmBank, name: str, seed: int, given: argparse.Namespace) -> None:
    """Tune the model for an arm with a seed, or take what was tuned before."""
    path = given.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.pt"
    loaded.model.reducer = ARMS[name]
    if path.exists():
        loaded.model.load_state_dict(torch.load(path))
        return
    recipe = TuningRecipe(steps=given.steps, seed=seed)
    tune(loaded.model, bank, loaded.tokenizer, recipe, lambda values: logging.info("%s %s", name, values))
    torch.save(loaded.model.state_dict(), path)


def ask_all(loaded: LoadedModel, reducer: Any, tests: list[Test]) -> list[bool]:
    """Ask every question about every film with a reducer at work."""
    loaded.model.reducer = reducer
    budget = longtake.Budget(max_new_tokens=12)
    return [
        is_right(longtake.ask(test.memory, question.text, loaded, budget).text, question)
        for test in tests
        for question in test.questions
    ]


def figures(values: list[bool], rights: Mapping[str, list[bool]], name: str, films: list[str]) -> dict[str, Any]:
    """Return an arm's share with its interval over films, that of each seed, and how it stands against none alike.

    A film under all seeds is one group: what further seeds would give is not in the interval.
    """
    groups = films * (len(values) // len(films))
    own, bounds = [float(value) for value in values], interval([float(value) for value in values], groups)
    seeds = [sum(part) / len(films) for part in (own[at : at + len(films)] for at in range(0, len(own), len(films)))]
    found: dict[str, Any] = {"right": sum(own) / len(own), "n": len(own), "interval": [bounds.low, bounds.high]}
    found["seeds"] = seeds
    other = f"none | {name.rpartition(' | ')[2]}"
    if name != other and other in rights:
        test = paired(own, [float(value) for value in rights[other]], groups)
        found |= {"minus_none": test.difference, "difference_interval": [test.interval.low, test.interval.high]}
    return found


if __name__ == "__main__":
    main()
