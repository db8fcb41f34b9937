"""Calibrate when to say "no evidence found", on FILMSTRIP films that are neither trained on nor tested with.

`python recipes/calibrate.py CHECKPOINT --level L1 --films 60 --rate 0.05 [--frames N] [--write]` asks for letters of
cards that films show and of cards that they do not, and prints one JSON line: for each score (the strongest span's
share of the attention; how well the best token names the question) the threshold, what it does on films that it was
not chosen from, and how far the score separates the two kinds. --write puts the better one into
CHECKPOINT/evidence.json, from where every answer takes it. CHECKPOINT may be `random`: the figures then say nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

from filmstrip_films import CALIBRATION_SEED, drawn_film, film_memory, load_model, open_questions

import longtake
from longtake.engine.calibrate import calibrate
from longtake.engine.evidence import evidence_score
from longtake.models.evidence_threshold import EvidenceThreshold, write_threshold
from longtake.models.loaded import LoadedModel

SCORES = ("attention", "naming")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--level", default="L1")
    parser.add_argument("--films", type=int, default=60)
    parser.add_argument("--questions", type=int, default=8, help="of each kind and film, at most")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--first-seed", type=int, default=CALIBRATION_SEED)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    # What was calibrated before must not hide the spans whose score is measured.
    model, start = dataclasses.replace(load_model(given.checkpoint), evidence=None), time.perf_counter()
    rows = [row for number in range(given.films) for row in measure_film(model, given, given.first_seed + number)]
    films, marks = [row["film"] for row in rows], [row["has_evidence"] for row in rows]
    found = {score: calibrate([row[score] for row in rows], marks, films, given.rate) for score in SCORES}
    best = max(SCORES, key=lambda score: found[score].separation)
    made_with = f"FILMSTRIP {given.level}, {given.films} films from seed {given.first_seed}, {len(rows)} questions"
    said: dict[str, object] = {"level": given.level, "frames": given.frames, "films": given.films, "best": best}
    said |= {score: dataclasses.asdict(one) for score, one in found.items()}
    if given.write:
        threshold = EvidenceThreshold(
            threshold=found[best].threshold,
            score=best,
            false_alarm_rate=given.rate,
            model=model.fingerprint,
            made_with=made_with,
        )
        said["written"] = str(write_threshold(threshold, given.checkpoint))
    print(json.dumps(said | {"seconds": round(time.perf_counter() - start, 1)}))


def measure_film(model: LoadedModel, given: argparse.Namespace, seed: int) -> list[dict]:
    """Return the scores of a film's questions, of both kinds."""
    film = drawn_film(given.level, seed, ("AB",), given.frames)
    memory, budget = film_memory(film, model), longtake.Budget(max_new_tokens=1)
    rows = []
    for has_evidence in (True, False):
        for one in open_questions(film, given.questions, is_shown=has_evidence):
            spans = longtake.ask(memory, one.text, model, budget).evidence
            scores = {score: evidence_score(score, spans, memory, one.text, model) for score in SCORES}
            rows.append(scores | {"film": str(seed), "has_evidence": has_evidence})
    return rows


if __name__ == "__main__":
    main()
