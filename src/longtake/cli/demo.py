"""`longtake demo`: five questions about a film whose answers are known, with the proof and the cost of each stage."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.ask import show_evidence
from longtake.cli.models import TINY_NOTICE, load_model
from longtake.cli.output import err, ledger_table, out, print_json, progress_bars
from longtake.core.budget import Budget
from longtake.core.types import Answer

if TYPE_CHECKING:
    from longtake.media.filmstrip import Film, Question

SEED = 20_000_000  # the first of the test split: nothing that was trained has seen this film
NUM_FRAMES = 600
QUESTIONS = ("N1", "N1", "N1", "OR first", "MO")


def demo_film(seed: int = SEED) -> tuple[Film, list[Question]]:
    """Build ten minutes of FILMSTRIP, a frame a second, and choose five questions: the first of each kind in turn."""
    from longtake.media.filmstrip import ask_film, build_film, level_spec

    film = build_film(
        level_spec("L2", seed, ("N1", "OR", "MO"), num_frames=NUM_FRAMES, needle_s=4.0, num_cards=12, num_motions=3)
    )
    left, chosen = ask_film(film, paraphrase=0), []
    for kind in QUESTIONS:
        chosen.append(next(one for one in left if one.kind == kind))
        left.remove(chosen[-1])
    return film, chosen


def run(video: str | None, video_only: str | None, as_json: bool) -> None:
    """Render a film (or open the user's), ingest it, ask five questions, and show answers, truth, proof and cost."""
    from longtake.engine.ledger import Ledger
    from longtake.media.filmstrip import write_film

    film, questions = demo_film()
    if video_only is not None:
        write_film(film, video_only)
        out.print(f"{video_only}: {film.spec.duration_s:.0f} s")
        return
    (err if as_json else out).print(TINY_NOTICE if video is None else f"{TINY_NOTICE} The truth is not known here.")
    ledger = Ledger()
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        path = video
        if path is None:
            with ledger.stage("render"):
                path = str(write_film(film, Path(folder) / "film.mp4"))
        answers = _ask_all(path, questions, ledger, quiet=as_json)
    ledger.close()
    truths = [None if video else question.answer for question in questions]
    shown = [_told(*one) for one in zip(questions, answers, truths, strict=True)]
    if as_json:
        print_json({"answers": shown, "ledger": ledger.to_dict()})
        return
    for one, answer in zip(shown, answers, strict=True):
        out.print(f"\n{one['question']}", markup=False)
        out.print(f"  {one['answer']}{_verdict(one)}", markup=False)
        show_evidence(dataclasses.replace(answer, evidence=answer.evidence[:2]))
    if video is None:
        out.print(f"\n{sum(one['correct'] for one in shown)} of {len(shown)} right")
    out.print(ledger_table(ledger.to_dict()))


def _ask_all(path: str, questions: list[Question], ledger: Any, *, quiet: bool) -> list[Answer]:
    """Ingest a video and ask questions about it; the language model reads the video once."""
    from longtake.engine.ask import ask
    from longtake.engine.ingest import ingest
    from longtake.models.prefix import PrefixStore

    with ledger.stage("load"):
        loaded = load_model(None)
    budget, prefixes, answers = Budget(max_frames=NUM_FRAMES, max_new_tokens=16), PrefixStore(), []
    with progress_bars(quiet=quiet) as advance:
        memory = ingest(path, loaded, budget, ledger=ledger, on_progress=advance)
    for question in questions:
        with ledger.stage("ask"):
            answers.append(ask(memory, question.text, loaded, budget, prefixes=prefixes))
    return answers


def _told(question: Question, answer: Answer, truth: str | None) -> dict[str, Any]:
    """Return the plain form of an answer with its truth; whether it is right is only known where that is."""
    from longtake.media.filmstrip import is_right

    correct = None if truth is None else is_right(answer.text, question)
    evidence = [{"start_s": span.start_s, "end_s": span.end_s, "score": span.score} for span in answer.evidence]
    spans = None if truth is None else [list(span) for span in question.spans_s]
    shown = {"question": question.text, "answer": answer.text, "truth": truth, "correct": correct}
    return shown | {"truth_spans_s": spans, "evidence": evidence}


def _verdict(one: dict[str, Any]) -> str:
    if one["truth"] is None:
        return ""
    spans = ", ".join(f"{start:g} to {stop:g} s" for start, stop in one["truth_spans_s"])
    return f"   {'right' if one['correct'] else 'wrong'}: the film shows {one['truth']} at {spans}"
