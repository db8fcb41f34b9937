"""Measure a checkpoint on FILMSTRIP films of the test split, through real video files: docs/tiny.md.

`python recipes/measure_tiny.py CHECKPOINT --level L1 --films 40 --task N1 [--frames N] [--blind]` prints one JSON
line: open answers (nothing to choose from), the share that is right, a 95 % interval by bootstrap over films, and the
share for questions that name a pair of shape and colour never seen in training. --blind asks about a black film.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

import longtake
from longtake.media.filmstrip import Question, ask_film, build_film, level_spec, write_film
from longtake.media.sampling import SamplingRule

TEST_SEED = 20_000_000
CLIP_FRAMES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--level", default="L1")
    parser.add_argument("--task", default="N1")
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--first-seed", type=int, default=TEST_SEED)
    parser.add_argument("--blind", action="store_true")
    given = parser.parse_args()
    model = longtake.load(given.checkpoint)
    start, films = time.perf_counter(), []
    for number in range(given.films):
        films.append(measure_film(model, given, given.first_seed + number))
    rights = [[right for right, _ in film] for film in films]
    seen = [right for film in films for right, is_held_out in film if not is_held_out]
    unseen = [right for film in films for right, is_held_out in film if is_held_out]
    found = {
        "level": given.level,
        "task": given.task,
        "blind": given.blind,
        "films": len(films),
        "n": sum(map(len, rights)),
        "right": round(float(np.mean([right for film in rights for right in film])), 4),
        "interval_95": interval(rights),
        "seen_pairs": [round(float(np.mean(seen)), 4), len(seen)],
        "unseen_pairs": [round(float(np.mean(unseen)), 4), len(unseen)] if unseen else None,
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(found))


def measure_film(model, given: argparse.Namespace, seed: int) -> list[tuple[bool, bool]]:
    """Write a film, ingest it, ask; say of each answer whether it is right, and whether its pair was held out."""
    overrides = {} if given.frames is None else {"num_frames": given.frames}
    film = build_film(level_spec(given.level, seed, (given.task,), **overrides))
    asked = ask_film(film)[: given.questions]
    frames = film.spec.num_frames // CLIP_FRAMES * CLIP_FRAMES
    rule = SamplingRule(fps=film.spec.fps, frame_multiple=CLIP_FRAMES, min_frames=CLIP_FRAMES)
    budget = longtake.Budget(max_frames=frames, max_new_tokens=16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        if given.blind:
            black = np.zeros((frames, 128, 128, 3), dtype=np.uint8)
            memory = longtake.ingest(
                {"pixels": black, "pts_s": np.arange(frames) / film.spec.fps}, model, budget, rule=rule
            )
        else:
            memory = longtake.ingest(write_film(film, path), model, budget, rule=rule)
    return [(is_right(longtake.ask(memory, one.text, model, budget).text, one), one.is_held_out) for one in asked]


def is_right(text: str, question: Question) -> bool:
    """Compare as plain text, blanks and a full stop at the end left out."""
    return text.strip().rstrip(".") == question.answer


def interval(films: list[list[bool]], rounds: int = 2000) -> list[float]:
    """Return a 95 % interval of the share that is right; films are drawn, since their questions hang together."""
    rng = np.random.default_rng(0)
    sums, counts = np.array([sum(film) for film in films]), np.array([len(film) for film in films])
    drawn = rng.integers(len(films), size=(rounds, len(films)))
    shares = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [round(float(v), 4) for v in np.quantile(shares, [0.025, 0.975])]


if __name__ == "__main__":
    main()
