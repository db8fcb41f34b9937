"""`longtake ask`: one question, one answer, with its evidence and its cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from longtake.cli.output import err, ledger_table, out, print_json, progress_bars, seconds_text, waiting
from longtake.core.budget import Budget
from longtake.core.types import Answer

SPANS_SHOWN = 5


def run(
    video: str,
    question: str,
    budget: Budget,
    start_s: float | None,
    end_s: float | None,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Answer a question about a video."""
    from longtake.models.prompt import check_question

    check_question(question)
    from longtake.cli.models import RANDOM_NOTICE, load_model, selector_for
    from longtake.engine.ask import ask
    from longtake.engine.ingest import ingest
    from longtake.engine.ledger import Ledger

    if model["name"] is None and model["recipe"] is None:
        err.print(RANDOM_NOTICE)
    ledger = Ledger()
    with ledger.stage("load"), waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
        selector = selector_for(loaded, model)
    with progress_bars(quiet=as_json) as advance:
        memory = ingest(video, loaded, budget, start_s=start_s, end_s=end_s, ledger=ledger, on_progress=advance)
    with waiting("reading the question", quiet=as_json) as stop_waiting:
        on_token = None if as_json else printer(stop_waiting)
        answer = ask(memory, question, loaded, budget, selector=selector, on_token=on_token, ledger=ledger)
    if as_json:
        print_json(answer_json(answer))
        return
    out.print()
    show_evidence(answer)
    err.print(ledger_table(answer.ledger))


def printer(first: Callable[[], None]) -> Callable[[str], None]:
    """Return a function that prints pieces of an answer as they come; `first` is called before each."""

    def show(piece: str) -> None:
        first()
        out.print(piece, end="", markup=False)

    return show


def answer_json(answer: Answer) -> dict[str, Any]:
    """Return the plain form of an answer; what its scores mean is said where it is not the attention."""
    kind = {} if answer.evidence_kind == "attention" else {"evidence_kind": answer.evidence_kind}
    return kind | {
        "answer": answer.text,
        "evidence": [dataclasses.asdict(span) for span in answer.evidence],
        "finish_reason": answer.finish_reason,
        "ledger": answer.ledger,
    }


def show_evidence(answer: Answer) -> None:
    """Print the spans that an answer rests on."""
    for span in answer.evidence[:SPANS_SHOWN]:
        score = span.score or 0.0
        text = f"{score:.2f} times the mean relevance"
        if answer.evidence_kind == "attention":
            text = f"{score:.0%} of the attention"
        out.print(f"  {seconds_text(span.start_s)} – {seconds_text(span.end_s)}  {text}")
    if len(answer.evidence) > SPANS_SHOWN:
        out.print(f"  and {len(answer.evidence) - SPANS_SHOWN} more spans that were read")
    for note in answer.ledger["notes"]:  # pyright: ignore[reportGeneralTypeIssues]
        err.print(f"note: {note}", markup=False)
