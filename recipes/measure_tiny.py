"""Measure a checkpoint on FILMSTRIP films of the test split, through real video files: docs/tiny.md.

`python recipes/measure_tiny.py CHECKPOINT --level L1 --films 40 --task N1 [--frames N] [--blind]` prints one JSON line
for each kind of question: open answers (nothing to choose from), the share that is right with a 95 % interval by
bootstrap over films, the share for questions that name a pair of shape and colour never seen in training, and how often
the span that the answer looked at most lies in the proof. --blind asks about a black film.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filmstrip_films import TEST_SEED, drawn_film, film_memory

import longtake
from longtake.core.errors import ConfigError
from longtake.core.types import Answer
from longtake.eval.result import line, read_lines, write_text
from longtake.eval.statistics import clustered_bootstrap, paired
from longtake.media.filmstrip import Question, ask_film, is_right
from longtake.methods.compress.tome import ToMe
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore


class Told(NamedTuple):
    """What became of a question of a film: right or not, about a held-out pair or not, read from the proof or not."""

    film: int
    kind: str
    question: str
    is_right: bool
    is_held_out: bool
    is_proved: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--level", default="L1")
    parser.add_argument("--task", default="N1", help="one, or several with commas: planted in the same films")
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--first-seed", type=int, default=TEST_SEED)
    parser.add_argument("--tokens-per-frame", type=int, help="merge clips to another count than the checkpoint's own")
    parser.add_argument("--blind", action="store_true")
    parser.add_argument("--marks", type=Path, help="write what became of each question to this file")
    parser.add_argument("--against", type=Path, help="such a file of another model, to be compared with")
    given = parser.parse_args()
    theirs = None if given.against is None else read_lines(given.against)
    model, start = longtake.load(given.checkpoint), time.perf_counter()
    if given.tokens_per_frame is not None:
        model.model.use_compressor(ToMe(tokens_per_frame=given.tokens_per_frame))
    by_kind: dict[str, list[Told]] = defaultdict(list)
    for number in range(given.films):
        for told in measure_film(model, given, number):
            by_kind[told.kind].append(told)
    settings = {"level": given.level, "frames": given.frames, "blind": given.blind, "films": given.films}
    for kind, told in sorted(by_kind.items()):
        print(json.dumps(settings | {"kind": kind} | figures(told)))
    if given.marks is not None:
        write_marks(given.marks, by_kind)
    if theirs is not None:
        for kind, lead in leads(by_kind, theirs).items():
            print(json.dumps(settings | {"kind": kind, "against": given.against.name} | lead))
    print(json.dumps({"seconds": round(time.perf_counter() - start, 1)}))


def measure_film(model: LoadedModel, given: argparse.Namespace, number: int) -> list[Told]:
    """Write a film, ingest it, ask."""
    film = drawn_film(given.level, given.first_seed + number, tuple(given.task.split(",")), given.frames)
    asked = ask_film(film)[: given.questions]
    memory, budget = film_memory(film, model, is_black=given.blind), longtake.Budget(max_new_tokens=24)
    prefixes = PrefixStore()
    told = []
    for question in asked:
        answer = longtake.ask(memory, question.text, model, budget, prefixes=prefixes)
        right = is_right(answer.text, question)
        told.append(
            Told(number, question.kind, question.text, right, question.is_held_out, is_proved(answer, question))
        )
    return told


def is_proved(answer: Answer, question: Question) -> bool:
    """Say whether the middle of the span that was looked at most lies in a span of the proof."""
    if not answer.evidence:
        return False
    top = max(answer.evidence, key=lambda span: span.score or 0.0)
    middle = (top.start_s + top.end_s) / 2
    return any(start <= middle <= stop for start, stop in question.spans_s)


def figures(told: list[Told]) -> dict[str, object]:
    """Return what is to be told of the questions of a kind."""
    unseen = [one.is_right for one in told if one.is_held_out]
    return {
        "n": len(told),
        "right": share([one.is_right for one in told]),
        "interval_95": interval(told),
        "unseen_pairs": [share(unseen), len(unseen)] if unseen else None,
        "looked_at_proof": share([one.is_proved for one in told]),
    }


def write_marks(path: Path, by_kind: Mapping[str, list[Told]]) -> None:
    """Write a line for each question: its film, its kind, its text, and whether the answer was right."""
    rows = [[one.film, kind, one.question, one.is_right] for kind, told in by_kind.items() for one in told]
    names = ("film", "kind", "question", "is_right")
    write_text(path, "".join(line(dict(zip(names, row, strict=True))) for row in rows))


def leads(by_kind: Mapping[str, list[Told]], marks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, object]]:
    """Return for each kind by how much we are better than another model at the same questions.

    Raises: ConfigError if it was asked other ones.
    """
    found: dict[str, dict[str, object]] = {}
    for kind, told in sorted(by_kind.items()):
        theirs = [mark for mark in marks if mark["kind"] == kind]
        if [(mark["film"], mark["question"]) for mark in theirs] != [(one.film, one.question) for one in told]:
            raise ConfigError(
                f"the other model was asked other questions of kind {kind}; expected the same; measure it with the "
                "same options"
            )
        ours = [float(one.is_right) for one in told]
        test = paired(ours, [float(mark["is_right"]) for mark in theirs], [str(one.film) for one in told])
        bounds = [round(test.interval.low, 4), round(test.interval.high, 4)]
        found[kind] = {"lead": round(test.difference, 4), "interval_95": bounds, "verdict": test.verdict}
    return found


def share(values: list[bool]) -> float:
    """Return the share of true values, to four places."""
    return round(float(np.mean(values)), 4)


def interval(told: list[Told]) -> list[float]:
    """Return a 95 % interval of the share that is right; films are drawn, since their questions hang together."""
    found = clustered_bootstrap([float(one.is_right) for one in told], [str(one.film) for one in told])
    return [round(found.low, 4), round(found.high, 4)]


if __name__ == "__main__":
    main()
