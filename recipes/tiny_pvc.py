"""Train tiny PVCs on FILMSTRIP's posters and test the paper's directions: docs/tiny_pvc.md.

`python recipes/tiny_pvc.py OUT [--arms pvc repeat pool] [--seeds 0 1 2] [--set recipe.field=value]` trains each arm
with each seed on one thread, measures it on posters of the test split shown 1, 2, 4 and 8 times, and writes
OUT/ARM-SEED.json and, over all that OUT holds, OUT/results.json. What is there already is not trained again. --save
keeps checkpoints.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longtake.cli.models import parse_settings
from longtake.convert.load import save
from longtake.core.errors import ConfigError
from longtake.eval.statistics import clustered_bootstrap, paired
from longtake.models.loaded import LoadedModel
from longtake.train.tiny_pvc import score, train_arm
from longtake.train.tiny_pvc_arms import TinyPvcRecipe, build_arm
from longtake.train.tiny_pvc_posters import CHANCE, Posters, PosterSpec, PosterTexts, draw_posters, poster_tokenizer

TRAIN_SEED, TEST_SEED = 0, 20_000_000
REPEATS = (1, 2, 4, 8)
# What the paper says (figure 3 and table 3), each as a difference: first arm and repeats, second arm and repeats, and
# which verdict confirms it.
DIRECTIONS: dict[str, tuple[tuple[str, int], tuple[str, int], str]] = {
    "repeats help PVC: 2 against 1": (("pvc", 2), ("pvc", 1), "better"),
    "repeats help PVC: 4 against 2": (("pvc", 4), ("pvc", 2), "better"),
    "repeats help PVC: 4 against 1": (("pvc", 4), ("pvc", 1), "better"),
    "repeats do not help naive repetition: 4 against 1": (("repeat", 4), ("repeat", 1), "not different"),
    "one repeat of PVC is worse than naive repetition's one": (("pvc", 1), ("repeat", 1), "worse"),
    "PVC beats naive repetition at 4 repeats": (("pvc", 4), ("repeat", 4), "better"),
    "PVC beats pooling at 4 repeats": (("pvc", 4), ("pool", 4), "better"),
    "beyond training: PVC, 8 against 4": (("pvc", 8), ("pvc", 4), ""),
}
Rights = Mapping[tuple[str, int, str, int], np.ndarray]  # (arm, seed, measure, repeats) → bool [films, cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", nargs="+", default=["pvc", "repeat", "pool"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--films", type=int, default=100)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="PART.FIELD=VALUE")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    recipe = recipe_of(given.settings)
    wanted = [(arm, seed) for seed in given.seeds for arm in given.arms]
    missing = [run for run in wanted if not run_path(given.out, *run).exists()]
    if missing:
        posters = draw_posters(recipe.poster, TRAIN_SEED, recipe.num_posters)
        unseen = draw_posters(recipe.poster, TEST_SEED, given.films)
        for arm, seed in missing:
            run = run_arm(arm, dataclasses.replace(recipe, seed=seed), posters, unseen, given)
            run_path(given.out, arm, seed).write_text(json.dumps(run) + "\n", encoding="utf-8")
    found = summarise([json.loads(path.read_text("utf-8")) for path in sorted(given.out.glob("*-*.json"))])
    (given.out / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for line in report_lines(found):
        logging.info("%s", line)


def recipe_of(settings: Sequence[str]) -> TinyPvcRecipe:
    """Build a recipe from `recipe.field=value` and `poster.field=value` texts.

    Raises: ConfigError for another form, part or field.
    """
    values = parse_settings(settings)
    if unknown := set(values) - {"recipe", "poster"}:
        raise ConfigError(f"--set names the part {min(unknown)!r}; expected recipe or poster; correct it")
    poster = PosterSpec.from_dict(values.get("poster", {}))
    return TinyPvcRecipe.from_dict(values.get("recipe", {}) | {"poster": poster})


def run_path(folder: Path, arm: str, seed: int) -> Path:
    """Return where a run is written down."""
    return folder / f"{arm}-{seed}.json"


def run_arm(
    arm: str, recipe: TinyPvcRecipe, posters: Posters, unseen: Posters, given: argparse.Namespace
) -> dict[str, Any]:
    """Train an arm with a seed and measure it; return what is written down."""
    tokenizer = poster_tokenizer()
    texts, model = PosterTexts(tokenizer), build_arm(recipe, arm, tokenizer)
    start, busy = time.perf_counter(), time.process_time()
    curve: list[dict[str, float]] = []

    def report(values: dict[str, float]) -> None:
        curve.append({name: round(value, 4) for name, value in values.items()})
        logging.info("%s-%d %s %.0f s", arm, recipe.seed, curve[-1], time.perf_counter() - start)

    places = train_arm(model, texts, posters, recipe, report)
    trained = {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(time.process_time() - busy, 1)}
    right: dict[str, dict[str, list[str]]] = {}
    for repeats in REPEATS:
        found = score(model, places, texts, unseen, repeats, asks=recipe.answering_steps > 0)
        for measure, cells in found.items():
            films = ["".join("01"[cell] for cell in film) for film in cells.tolist()]
            right.setdefault(measure, {})[str(repeats)] = films
    if given.save:
        save(LoadedModel(model, tokenizer, model.config, ""), given.out / f"{arm}-{recipe.seed}")
    return {
        "arm": arm,
        "seed": recipe.seed,
        "recipe": recipe.to_dict(),
        "parameters": sum(value.numel() for value in model.parameters()),
        "tokens_per_frame": recipe.tokens_per_frame,
        "test_seeds": [unseen.seeds[0], unseen.seeds[-1]],
        "machine": platform.machine(),
        "torch": torch.__version__,
        "curve": curve,
        "right": right,
    } | trained


def rights_of(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int, str, int], np.ndarray]:
    """Return for each run, measure and count of repeats which cells of which films are right.

    Raises: ConfigError if the runs differ in more than arm and seed: then they cannot be compared.
    """
    kinds = {json.dumps({**run["recipe"], "seed": None}, sort_keys=True) + str(run["test_seeds"]) for run in runs}
    if len(kinds) > 1:
        raise ConfigError(f"{len(kinds)} different recipes or test sets arrived; expected one; use another folder")
    return {
        (run["arm"], run["seed"], measure, int(repeats)): np.array([[cell == "1" for cell in film] for film in films])
        for run in runs
        for measure, cells in run["right"].items()
        for repeats, films in cells.items()
    }


def pooled(rights: Rights, arm: str, measure: str, repeats: int, seeds: Sequence[int]) -> np.ndarray:
    """Return the cells of some seeds one behind the other; float [seeds * films * cells]."""
    return np.concatenate([rights[arm, seed, measure, repeats].ravel() for seed in seeds]).astype(np.float64)


def film_groups(rights: Rights, arm: str, measure: str, repeats: int, seeds: Sequence[int]) -> list[str]:
    """Return the film of each of those cells: the same film under all seeds is one group."""
    shapes = [rights[arm, seed, measure, repeats].shape for seed in seeds]
    return [str(film) for films, cells in shapes for film in range(films) for _ in range(cells)]


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the table of arms and repeats, and the judged directions, for each measure.

    Intervals are of 95 %, by drawing films; what other training seeds would give is not in them, so the value of
    each seed stands beside.
    """
    rights = rights_of(runs)
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    seeds = {arm: sorted(run["seed"] for run in runs if run["arm"] == arm) for arm in arms}
    found: dict[str, Any] = {"chance": CHANCE, "seeds": seeds, "costs": {}, "table": {}, "directions": {}}
    for arm in arms:
        own = [run for run in runs if run["arm"] == arm]
        names = ("parameters", "tokens_per_frame", "cpu_seconds", "seconds")
        found["costs"][arm] = {name: [run[name] for run in own] for name in names}
    for measure in runs[0]["right"]:
        found["table"][measure] = {
            arm: {str(repeats): cell(rights, arm, measure, repeats, seeds[arm]) for repeats in REPEATS} for arm in arms
        }
        found["directions"][measure] = {
            text: judge(rights, measure, first, second, confirms, seeds)
            for text, (first, second, confirms) in DIRECTIONS.items()
            if first[0] in seeds and second[0] in seeds
        }
    return found


def cell(rights: Rights, arm: str, measure: str, repeats: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Return a cell of the table: the share that is right, its interval, and the share of each seed."""
    values = pooled(rights, arm, measure, repeats, seeds)
    found = clustered_bootstrap(values.tolist(), film_groups(rights, arm, measure, repeats, seeds))
    each = [round(float(rights[arm, seed, measure, repeats].mean()), 4) for seed in seeds]
    interval = [round(found.low, 4), round(found.high, 4)]
    return {"right": round(float(values.mean()), 4), "interval": interval, "n": len(values), "seeds": each}


def judge(
    rights: Rights,
    measure: str,
    first: tuple[str, int],
    second: tuple[str, int],
    confirms: str,
    seeds: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Return the difference of two cells on the same questions, over the seeds that both arms have.

    holds: whether the verdict is the paper's; none where the paper says nothing.
    """
    both = sorted(set(seeds[first[0]]) & set(seeds[second[0]]))
    ours, theirs = (pooled(rights, arm, measure, repeats, both).tolist() for arm, repeats in (first, second))
    found = paired(ours, theirs, film_groups(rights, first[0], measure, first[1], both))
    shares = [[float(rights[arm, seed, measure, repeats].mean()) for arm, repeats in (first, second)] for seed in both]
    return {
        "difference": round(found.difference, 4),
        "interval": [round(found.interval.low, 4), round(found.interval.high, 4)],
        "p": float(f"{found.p:.3g}"),
        "verdict": found.verdict,
        "seeds": [round(one - other, 4) for one, other in shares],
        "holds": found.verdict == confirms if confirms else None,
    }


def report_lines(found: Mapping[str, Any]) -> list[str]:
    """Write the table and the directions as Markdown."""
    lines: list[str] = []
    for measure, table in found["table"].items():
        lines += [f"{measure}:", "", f"| arm | {' | '.join(map(str, REPEATS))} |", "|---" * (1 + len(REPEATS)) + "|"]
        for arm, cells in table.items():
            shown = [percent(one["right"], one["interval"]) for one in cells.values()]
            lines.append(f"| {arm} | {' | '.join(shown)} |")
        lines += ["", "| direction | difference | by seed | verdict |", "|---|---|---|---|"]
        for text, one in found["directions"][measure].items():
            each = ", ".join(f"{100 * value:.1f}" for value in one["seeds"])
            lines.append(f"| {text} | {percent(one['difference'], one['interval'])} | {each} | {one['verdict']} |")
        lines.append("")
    return lines


def percent(value: float, interval: Sequence[float]) -> str:
    """Write a share and its interval in hundredths."""
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


if __name__ == "__main__":
    main()
