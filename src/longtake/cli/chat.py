"""`longtake chat`: several questions about videos and pictures, encoded once."""

from __future__ import annotations

from typing import Any

from longtake.cli.ask import answer_json, printer, show_evidence
from longtake.cli.output import err, out, print_json, progress_bars, report_error, waiting
from longtake.core.budget import Budget
from longtake.core.errors import PromptError


def run(
    media: list[str], budget: Budget, start_s: float | None, end_s: float | None, model: dict[str, Any], as_json: bool
) -> None:
    """Read questions line by line until the input ends."""
    from longtake.cli.models import TINY_NOTICE, load_model, selector_for
    from longtake.engine.ask import Chat

    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    with waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
    with progress_bars(quiet=as_json) as advance:
        selector = selector_for(loaded, model)
        chat = Chat(media, loaded, budget, start_s=start_s, end_s=end_s, selector=selector, on_progress=advance)
    num_frames = sum(memory.num_frames for memory in chat.memories)
    err.print(f"{num_frames} frames read. Ask; an empty line or Ctrl-D ends.")
    while True:
        try:
            question = err.input("> ")
        except EOFError:
            return
        if not question.strip():
            return
        try:
            with waiting("reading the question", quiet=as_json) as stop_waiting:
                answer = chat.ask(question, on_token=None if as_json else printer(stop_waiting))
        except PromptError as error:
            report_error(error, as_json=as_json)
            continue
        if as_json:
            print_json(answer_json(answer))
        else:
            out.print()
            show_evidence(answer, media)
