"""Does selection find the needle? `python recipes/measure_selection.py CHECKPOINT [--level L5] [--films 6]`.

Films of the test split with cards at all depths, written to real mp4 files and read back. For each way to choose one
hundredth of the frames: how often a frame of the card is among them, by depth, and how often the answer is right when
it is written from those frames alone; beside it the answer from the whole film. Intervals by bootstrap over films.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from filmstrip_films import CLIP_FRAMES, TEST_SEED, drawn_film, film_memory

import longtake
from longtake.core.types import VideoMemory
from longtake.engine.select import clip_means, relevance, subset
from longtake.eval.statistics import clustered_bootstrap
from longtake.media.filmstrip import Question, ask_film, is_right
from longtake.methods.select.qc_comp import QcComp
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore

THIRDS = ("first third", "middle third", "last third")
METHODS: Mapping[str, QcComp | None] = {
    "segment-local": QcComp(clip_frames=CLIP_FRAMES),
    "segment-local, no position correction": QcComp(clip_frames=CLIP_FRAMES, position_correction=False),
    "global": QcComp(clip_frames=CLIP_FRAMES, window=0, position_correction=False, chunk_frames=1_000_000),
    "uniform": None,
    "random": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--level", default="L5")
    parser.add_argument("--films", type=int, default=6)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.01)
    given = parser.parse_args()
    model, start = longtake.load(given.checkpoint), time.perf_counter()
    found: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for number in range(given.films):
        measure_film(model, given, number, found)
    for name, columns in found.items():
        print(json.dumps({"method": name} | {column: figures(values) for column, values in columns.items()}))
    print(json.dumps({"seconds": round(time.perf_counter() - start, 1)}))


def measure_film(
    model: LoadedModel, given: argparse.Namespace, number: int, found: dict[str, dict[str, list[tuple[int, float]]]]
) -> None:
    """Write a film, ingest it, choose and ask; note what came of it under each method."""
    film = drawn_film(given.level, TEST_SEED + number, ("N1",))
    memory, budget = film_memory(film, model), longtake.Budget(max_new_tokens=8)
    prefixes, keep, asked = PrefixStore(), max(1, round(given.share * len(memory.frame_pts_s))), ask_film(film)
    asked = asked[: given.questions]
    for question in asked:
        whole = longtake.ask(memory, question.text, model, budget, prefixes=prefixes)
        found["all frames"]["right"].append((number, float(is_right(whole.text, question))))
    for name, method in METHODS.items():
        memory.kept.clear()  # each method reads the film its own way, once for all questions
        for place, question in enumerate(asked):
            clips = chosen(memory, question, model, name, method, keep, seed=1000 * number + place)
            depth = THIRDS[min(2, int(3 * question.spans_s[0][0] / memory.duration_s))]
            hit = float(shows(memory, clips, question))
            found[name]["recall"].append((number, hit))
            found[name][f"recall, {depth}"].append((number, hit))
            answer = longtake.ask(subset(memory, clips), question.text, model, budget)
            found[name]["right"].append((number, float(is_right(answer.text, question))))


def chosen(
    memory: VideoMemory, question: Question, model: LoadedModel, name: str, method: QcComp | None, keep: int, seed: int
) -> list[int]:
    """Return the clips that a method keeps, in order."""
    count = len(memory.frame_pts_s)
    if name == "random":
        return sorted(np.random.default_rng(seed).choice(count, size=keep, replace=False).tolist())
    if method is None:
        return np.linspace(0, count - 1, keep).round().astype(int).tolist()
    scores = clip_means(relevance(memory, question.text, model, method), memory)
    return sorted(scores.topk(keep).indices.tolist())


def shows(memory: VideoMemory, clips: list[int], question: Question) -> bool:
    """Say whether a frame of the proof is in one of the clips."""
    times = memory.frame_pts_s[clips].ravel()
    return any(bool(((times >= start) & (times < stop)).any()) for start, stop in question.spans_s)


def figures(values: list[tuple[int, float]]) -> list[float]:
    """Return the share, its 95 % interval and the count of questions."""
    shares = [value for _, value in values]
    bounds = clustered_bootstrap(shares, [str(film) for film, _ in values])
    return [round(float(np.mean(shares)), 4), round(bounds.low, 4), round(bounds.high, 4), len(shares)]


if __name__ == "__main__":
    main()
