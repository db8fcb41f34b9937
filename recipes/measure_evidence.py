"""Measure what answers cite on FILMSTRIP films of the test split: recall, precision, and whether answers hang on it.

`python recipes/measure_evidence.py CHECKPOINT --level L1 --films 40 [--task N1] [--frames N] [--verify]` prints one
JSON line. recall: the share of the seconds that prove an answer which is cited; precision: the share of the cited
seconds which prove it; found: how often any is cited; each as the mean over questions, with a 95 % interval by
bootstrap over films, of all answers and of the right ones. --verify: how often the answer is another one without the
cited clips, and without as many others. CHECKPOINT may be `random`: the figures then say nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
from filmstrip_films import TEST_SEED, drawn_film, film_memory, load_model, open_questions

import longtake
from longtake.core.errors import ConfigError
from longtake.core.types import Answer, VideoMemory
from longtake.engine.verify import verify
from longtake.eval.statistics import clustered_bootstrap
from longtake.media.filmstrip import Question, is_right
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore

Spans = Sequence[tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--level", default="L1")
    parser.add_argument("--task", default="N1")
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--first-seed", type=int, default=TEST_SEED)
    parser.add_argument("--verify", action="store_true")
    given = parser.parse_args()
    model, start = load_model(given.checkpoint), time.perf_counter()
    rows = [row for number in range(given.films) for row in measure_film(model, given, given.first_seed + number)]
    right = [row for row in rows if row["right"]]
    names = ("recall", "precision", "found")
    said = {"level": given.level, "task": given.task, "frames": given.frames, "films": given.films, "n": len(rows)}
    said |= {"right": summary(rows, "right"), "all": {name: summary(rows, name) for name in names}}
    said |= {"right_answers": {name: summary(right, name) for name in names}}
    if given.verify:
        checked = [row for row in rows if "changes_without_cited" in row]
        verdicts = ("changes_without_cited", "changes_without_others", "holds")
        said["verify"] = {
            "could_not": len(rows) - len(checked),
            "all": {name: summary(checked, name) for name in verdicts},
            "right_answers": {name: summary([row for row in checked if row["right"]], name) for name in verdicts},
        }
    print(json.dumps(said | {"seconds": round(time.perf_counter() - start, 1)}))


def measure_film(model: LoadedModel, given: argparse.Namespace, seed: int) -> list[dict]:
    """Ask of a film, and hold what is cited against what proves the answers."""
    film = drawn_film(given.level, seed, (given.task,), given.frames)
    memory, prefixes, budget = film_memory(film, model), PrefixStore(), longtake.Budget(max_new_tokens=16)
    rows = []
    for one in open_questions(film, given.questions):
        answer = longtake.ask(memory, one.text, model, budget, prefixes=prefixes)
        cited = [(span.start_s, span.end_s) for span in answer.evidence]
        row = compared(cited, one.spans_s) | {"film": str(seed), "right": is_right(answer.text, one)}
        rows.append(row | (without(memory, one, model, answer, budget) if given.verify else {}))
    return rows


def compared(cited: Spans, proof: Spans) -> dict[str, float]:
    """Return which share of the proof is cited, which share of what is cited is proof, and whether any is."""
    both = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in merged(cited) for b in merged(proof))
    cited_s, proof_s = (sum(stop - start for start, stop in merged(spans)) for spans in (cited, proof))
    return {"recall": both / proof_s, "precision": both / cited_s if cited_s else 0.0, "found": float(both > 0)}


def merged(spans: Spans) -> list[tuple[float, float]]:
    """Put spans that overlap together, so that no second counts twice."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found


def without(
    memory: VideoMemory, question: Question, model: LoadedModel, answer: Answer, budget: longtake.Budget
) -> dict[str, bool]:
    """Say whether the answer changes without the cited clips, and without others; nothing where that cannot be done."""
    try:
        check = verify(memory, question.text, model, answer, budget)
    except ConfigError:
        return {}
    names = ("changes_without_cited", "changes_without_others", "holds")
    return {name: getattr(check, name) for name in names}


def summary(rows: Sequence[dict], name: str) -> dict[str, object] | None:
    """Return the mean of a figure with its interval over films; none where there is no question."""
    if not rows:
        return None
    values = [float(row[name]) for row in rows]
    interval = clustered_bootstrap(values, [row["film"] for row in rows])
    return {
        "mean": round(float(np.mean(values)), 4),
        "interval_95": [round(interval.low, 4), round(interval.high, 4)],
        "n": len(rows),
    }


if __name__ == "__main__":
    main()
