"""`longtake ask`: one question, one answer, with its evidence and its cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from longtake.cli.output import err, ledger_table, out, print_json, progress_bars, seconds_text, waiting
from longtake.core.budget import Budget
from longtake.core.types import Answer, Span

SPANS_SHOWN = 5


def run(
    media: list[str],
    question: str,
    budget: Budget,
    start_s: float | None,
    end_s: float | None,
    model: dict[str, Any],
    verifies: bool,
    pictures: str | None,
    as_json: bool,
) -> None:
    """Answer a question about videos and pictures."""
    check_early(question, len(media))
    check_wishes(media, verifies, pictures)
    from longtake.cli.models import RANDOM_NOTICE, load_model, model_options, selector_for
    from longtake.engine.ask import ask
    from longtake.engine.ledger import Ledger
    from longtake.engine.show import gather

    if model["name"] is None and model["recipe"] is None:
        err.print(RANDOM_NOTICE)
    ledger = Ledger()
    with ledger.stage("load"), waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
        selector = selector_for(loaded, model)
    with progress_bars(quiet=as_json) as advance:
        memories = gather(
            media,
            loaded,
            budget,
            question,
            start_s=start_s,
            end_s=end_s,
            options=model_options(model),
            ledger=ledger,
            on_progress=advance,
        )
    with waiting("reading the question", quiet=as_json) as stop_waiting:
        on_token = None if as_json else printer(stop_waiting)
        answer = ask(memories, question, loaded, budget, selector=selector, on_token=on_token, ledger=ledger)
    more: dict[str, Any] = {}
    if verifies:
        from longtake.engine.verify import verify

        with waiting("asking without the evidence", quiet=as_json):
            more["verify"] = verify(memories[0], question, loaded, answer, budget, selector=selector).to_dict()
    if pictures is not None:
        from longtake.engine.remember import save_pictures

        more["pictures"] = [str(path) for path in save_pictures(media[0], answer.evidence, pictures)]
    if as_json:
        print_json(answer_json(answer) | more)
        return
    out.print()
    show_evidence(answer, media)
    show_more(more)
    err.print(ledger_table(answer.ledger))


def check_wishes(media: Sequence[str], verifies: bool, pictures: str | None) -> None:
    """Refuse wishes that need one video, or one memory, where there is something else.

    Raises: ConfigError.
    """
    from longtake.core.errors import ConfigError
    from longtake.memory.reader import is_memory_file

    if verifies and len(media) > 1:
        raise ConfigError(f"--verify arrived with {len(media)} files; expected one video or memory; name one")
    if pictures is not None and (len(media) > 1 or not is_memory_file(media[0])):
        raise ConfigError(
            f"--pictures arrived with {', '.join(media)}; expected one memory, which keeps small pictures; run "
            "`longtake ingest` first"
        )


def show_more(more: dict[str, Any]) -> None:
    """Print what became of the answer without its evidence, and where its pictures are."""
    if check := more.get("verify"):
        out.print(f"without what it cites:  {check['without_cited']}", markup=False)
        out.print(f"without as much else:   {check['without_others']}", markup=False)
        holds = "the answer hangs on its evidence" if check["holds"] else "the answer does not hang on its evidence"
        out.print(holds)
    for path in more.get("pictures", ()):
        out.print(f"picture  {path}", markup=False)


def check_early(question: str, num_media: int) -> None:
    """Refuse what no model would take, before one is loaded.

    Raises: PromptError.
    """
    from longtake.core.chat import PLACEHOLDER
    from longtake.models.prompt import check_question, place_media

    check_question(question.replace(PLACEHOLDER, " "))
    place_media(question, [PLACEHOLDER] * num_media, [])


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
        "evidence": [_span_json(span) for span in answer.evidence],
        "finish_reason": answer.finish_reason,
        "ledger": answer.ledger,
    }


def _span_json(span: Span) -> dict[str, Any]:
    """Return the plain form of a span; which of several it is of is said where there are several."""
    values = dataclasses.asdict(span)
    return values if span.medium is not None else {key: values[key] for key in values if key != "medium"}


def show_evidence(answer: Answer, media: Sequence[str] = ()) -> None:
    """Print the spans that an answer rests on, with the names of their files where there are several."""
    for span in answer.evidence[:SPANS_SHOWN]:
        score = span.score or 0.0
        text = f"{score:.2f} times the mean relevance"
        if answer.evidence_kind == "attention":
            text = f"{score:.0%} of the attention"
        name = "" if span.medium is None else f"{media[span.medium - 1]}  "
        times = f"{seconds_text(span.start_s)} – {seconds_text(span.end_s)}  " if span.end_s > span.start_s else ""
        if name or times:  # of a picture that is alone there is nothing to tell
            out.print(f"  {name}{times}{text}", markup=False)
    if len(answer.evidence) > SPANS_SHOWN:
        out.print(f"  and {len(answer.evidence) - SPANS_SHOWN} more spans that were read")
    for note in answer.ledger["notes"]:  # pyright: ignore[reportGeneralTypeIssues]
        err.print(f"note: {note}", markup=False)
