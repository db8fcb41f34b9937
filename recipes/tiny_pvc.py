"""Train tiny PVCs on FILMSTRIP's posters and test the paper's directions: docs/tiny_pvc.md.

`python recipes/tiny_pvc.py OUT [--arms pvc repeat pool] [--seeds 0 1 2] [--set recipe.field=value]` trains each arm
with each seed on one thread, measures it on posters of the test split in 1, 2, 4 and 8 tokens, and writes
OUT/ARM-SEED.json and, over all that OUT holds, OUT/results.json and OUT/results.png. What is there already is not
trained again. --save keeps checkpoints.
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
from longtake.convert.load import load, save
from longtake.core.errors import ConfigError
from longtake.engine.figures import new_figure, save_figure
from longtake.eval.statistics import clustered_bootstrap, paired
from longtake.models.loaded import LoadedModel
from longtake.train.tiny_pvc import Right, answered_right, read_right, score, train_answering, train_reading
from longtake.train.tiny_pvc_arms import ARMS, TinyPvcRecipe, build_arm
from longtake.train.tiny_pvc_posters import CHANCE, Posters, PosterSpec, PosterTexts, draw_posters, poster_tokenizer

TRAIN_SEED, TEST_SEED = 0, 20_000_000
TOKENS = (1, 2, 4, 8)
# What the paper says (figure 3 and table 3), each as a difference: first arm and tokens, second arm and tokens, and
# which verdict confirms it.
DIRECTIONS: dict[str, tuple[tuple[str, int], tuple[str, int], str]] = {
    "repeats help PVC: 2 against 1": (("pvc", 2), ("pvc", 1), "better"),
    "repeats help PVC: 4 against 2": (("pvc", 4), ("pvc", 2), "better"),
    "repeats help PVC: 4 against 1": (("pvc", 4), ("pvc", 1), "better"),
    "PVC, 8 against 4": (("pvc", 8), ("pvc", 4), ""),
    "repeats do not help naive repetition: 4 against 1": (("repeat", 4), ("repeat", 1), "not different"),
    "one repeat of PVC is worse than naive repetition's one": (("pvc", 1), ("repeat", 1), "worse"),
    "PVC beats naive repetition at 4 repeats": (("pvc", 4), ("repeat", 4), "better"),
    "PVC beats pooling at 4 tokens": (("pvc", 4), ("pool", 4), "better"),
}
Rights = Mapping[tuple[str, int, str, int], np.ndarray]  # (arm, seed, measure, tokens) → bool [films, cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--films", type=int, default=100)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="PART.FIELD=VALUE")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    recipe = recipe_of(given.settings)
    lessons = {"read": read_arm} | ({"answered": answer_arm} if recipe.answering_steps else {})
    runs = [(name, arm, seed) for name in lessons for seed in given.seeds for arm in given.arms]
    missing = [(name, arm, seed) for name, arm, seed in runs if not is_noted(given.out / f"{arm}-{seed}", name)]
    if missing:
        posters = draw_posters(recipe.poster, TRAIN_SEED, recipe.num_posters)
        unseen = draw_posters(recipe.poster, TEST_SEED, given.films)
        for name, arm, seed in missing:
            lessons[name](given.out / f"{arm}-{seed}", arm, dataclasses.replace(recipe, seed=seed), posters, unseen)
    found = summarise([json.loads(path.read_text("utf-8")) for path in sorted(given.out.glob("*-*.json"))])
    (given.out / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found, given.out / "results.png")
    for line in report_lines(found):
        logging.info("%s", line)


def recipe_of(settings: Sequence[str]) -> TinyPvcRecipe:
    """Build a recipe from `recipe.field=value` and `poster.field=value` texts.

    Raises: ConfigError for another form, part or field.
    """
    values = parse_settings(settings, ("recipe", "poster"))
    poster = PosterSpec.from_dict(values.get("poster", {}))
    return TinyPvcRecipe.from_dict(values.get("recipe", {}) | {"poster": poster})


def is_noted(out: Path, name: str) -> bool:
    """Say whether what an arm learned in a lesson is written down."""
    noted = out.with_suffix(".json")
    return noted.exists() and name in json.loads(noted.read_text("utf-8"))["right"]


def read_arm(out: Path, arm: str, recipe: TinyPvcRecipe, posters: Posters, unseen: Posters) -> None:
    """Teach an arm to put posters into tokens, and write down what its reader reads; OUT.json and the folder OUT."""
    tokenizer = poster_tokenizer()
    model, watch = build_arm(recipe, arm, tokenizer), Watch(out.name)
    places = train_reading(model, posters, recipe, watch)
    run = {
        "arm": arm,
        "seed": recipe.seed,
        "recipe": recipe.to_dict(),
        "parameters": sum(value.numel() for value in model.parameters()),
        "test_seeds": [unseen.seeds[0], unseen.seeds[-1]],
        "machine": platform.machine(),
        "torch": torch.__version__,
        "cost": {"read": watch.cost()},
        "curve": {"read": watch.curve},
        "right": {"read": marks(unseen, lambda part, tokens: read_right(model, places, part, tokens))},
    }
    save(LoadedModel(model, tokenizer, model.config, ""), out)
    out.with_suffix(".json").write_text(json.dumps(run) + "\n", encoding="utf-8")


def answer_arm(out: Path, arm: str, recipe: TinyPvcRecipe, posters: Posters, unseen: Posters) -> None:
    """Teach the language model of an arm to answer, and write down what it answers, beside what was read."""
    noted = out.with_suffix(".json")
    run = json.loads(noted.read_text("utf-8"))
    loaded = load(out, dtype=torch.float32)
    model: Any = loaded.model
    texts, watch = PosterTexts(poster_tokenizer()), Watch(out.name)
    train_answering(model, texts, posters, recipe, watch)
    run["cost"]["answered"], run["curve"]["answered"] = watch.cost(), watch.curve
    run["right"]["answered"] = marks(unseen, lambda part, tokens: answered_right(model, texts, part, tokens))
    save(dataclasses.replace(loaded, model=model), out.with_name(f"{out.name}-answering"))
    noted.write_text(json.dumps(run) + "\n", encoding="utf-8")


class Watch:
    """Keeps the curve of a lesson and what it costs."""

    def __init__(self, name: str) -> None:
        self.name, self.curve = name, list[dict[str, float]]()
        self.start, self.busy = time.perf_counter(), time.process_time()

    def __call__(self, values: dict[str, float]) -> None:
        """Keep a point of the curve."""
        self.curve.append({name: round(value, 4) for name, value in values.items()})
        logging.info("%s %s %.0f s", self.name, self.curve[-1], self.cost()["seconds"])

    def cost(self) -> dict[str, float]:
        """Return the seconds since the start, by the clock and of this process."""
        now = {"seconds": time.perf_counter() - self.start, "cpu_seconds": time.process_time() - self.busy}
        return {name: round(value, 1) for name, value in now.items()}


def marks(posters: Posters, right: Right) -> dict[str, list[str]]:
    """Return for each count of tokens a text for each poster: 1 for each cell that is right, 0 for the others."""
    found = {str(tokens): score(posters, tokens, right) for tokens in TOKENS}
    return {count: ["".join("01"[cell] for cell in film) for film in cells.tolist()] for count, cells in found.items()}


def rights_of(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int, str, int], np.ndarray]:
    """Return for each run, measure and count of tokens which cells of which films are right.

    Raises: ConfigError if the runs differ in more than arm and seed: then they cannot be compared.
    """
    kinds = {json.dumps({**run["recipe"], "seed": None}, sort_keys=True) + str(run["test_seeds"]) for run in runs}
    if len(kinds) > 1:
        raise ConfigError(f"{len(kinds)} different recipes or test sets arrived; expected one; use another folder")
    return {
        (run["arm"], run["seed"], measure, int(tokens)): np.array([[cell == "1" for cell in film] for film in films])
        for run in runs
        for measure, cells in run["right"].items()
        for tokens, films in cells.items()
    }


def pooled(rights: Rights, arm: str, measure: str, tokens: int, seeds: Sequence[int]) -> np.ndarray:
    """Return the cells of some seeds one behind the other; float [seeds * films * cells]."""
    return np.concatenate([rights[arm, seed, measure, tokens].ravel() for seed in seeds]).astype(np.float64)


def film_groups(rights: Rights, arm: str, measure: str, tokens: int, seeds: Sequence[int]) -> list[str]:
    """Return the film of each of those cells: the same film under all seeds is one group."""
    shapes = [rights[arm, seed, measure, tokens].shape for seed in seeds]
    return [str(film) for films, cells in shapes for film in range(films) for _ in range(cells)]


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the table of arms and tokens, and the judged directions, for each measure.

    Intervals are of 95 %, by drawing films; what other training seeds would give is not in them, so the value of
    each seed stands beside.
    """
    rights = rights_of(runs)
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    seeds = {arm: sorted(run["seed"] for run in runs if run["arm"] == arm) for arm in arms}
    found: dict[str, Any] = {"chance": CHANCE, "seeds": seeds, "costs": {}, "table": {}, "directions": {}}
    for arm in arms:
        own = [run for run in runs if run["arm"] == arm]
        found["costs"][arm] = {"parameters": own[0]["parameters"], "each": [run["cost"] for run in own]}
    for name in [name for name in runs[0]["right"] if all(name in run["right"] for run in runs)]:
        found["table"][name] = {
            arm: {str(tokens): cell(rights, arm, name, tokens, seeds[arm]) for tokens in TOKENS} for arm in arms
        }
        found["directions"][name] = {
            text: judge(rights, name, first, second, confirms, seeds)
            for text, (first, second, confirms) in DIRECTIONS.items()
            if first[0] in seeds and second[0] in seeds
        }
    return found


def cell(rights: Rights, arm: str, measure: str, tokens: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Return a cell of the table: the share that is right, its interval, and the share of each seed."""
    values = pooled(rights, arm, measure, tokens, seeds)
    found = clustered_bootstrap(values.tolist(), film_groups(rights, arm, measure, tokens, seeds))
    each = [round(float(rights[arm, seed, measure, tokens].mean()), 4) for seed in seeds]
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
    ours, theirs = (pooled(rights, arm, measure, tokens, both).tolist() for arm, tokens in (first, second))
    found = paired(ours, theirs, film_groups(rights, first[0], measure, first[1], both))
    shares = [[float(rights[arm, seed, measure, tokens].mean()) for arm, tokens in (first, second)] for seed in both]
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
        lines += [f"{measure}:", "", f"| arm | {' | '.join(map(str, TOKENS))} |", "|---" * (1 + len(TOKENS)) + "|"]
        for arm, cells in table.items():
            shown = [percent(one["right"], one["interval"]) for one in cells.values()]
            lines.append(f"| {arm} | {' | '.join(shown)} |")
        lines += ["", "| direction | difference | by seed | verdict | the paper's |", "|---|---|---|---|---|"]
        for text, one in found["directions"][measure].items():
            each = ", ".join(f"{100 * value:.1f}" for value in one["seeds"])
            holds = {True: "yes", False: "no", None: ""}[one["holds"]]
            shown = percent(one["difference"], one["interval"])
            lines.append(f"| {text} | {shown} | {each} | {one['verdict']} | {holds} |")
        lines.append("")
    return lines


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw a panel for each measure: accuracy against tokens, a line with intervals for each arm."""
    figure = new_figure(1.2 + 3.8 * len(found["table"]), 3.2)
    panels = figure.subplots(1, len(found["table"]), squeeze=False)[0]
    for panel, (measure, table) in zip(panels, found["table"].items(), strict=True):
        for arm, cells in table.items():
            middle = np.array([100 * one["right"] for one in cells.values()])
            low, high = 100 * np.array([one["interval"] for one in cells.values()]).T
            panel.errorbar(TOKENS, middle, yerr=[middle - low, high - middle], label=arm, marker="o", capsize=3)
        panel.axhline(100 * CHANCE, color="grey", linestyle=":", linewidth=1)
        panel.set_xscale("log", base=2)
        panel.set_xticks(TOKENS, [str(tokens) for tokens in TOKENS])
        panel.set(xlabel="tokens of a poster", ylabel=f"letters {measure} right, %", ylim=(0, 105))
    panels[0].legend(frameon=False, loc="upper left")
    save_figure(figure, path)


def percent(value: float, interval: Sequence[float]) -> str:
    """Write a share and its interval in hundredths."""
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


if __name__ == "__main__":
    main()
