"""`longtake explain`: what a question looks at, drawn."""

from __future__ import annotations

from typing import Any

from longtake.cli.output import err, out, print_json, progress_bars, seconds_text, waiting
from longtake.core.budget import Budget


def run(
    video: str,
    question: str,
    target: str,
    budget: Budget,
    start_s: float | None,
    end_s: float | None,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Score the frames of a video for a question and draw the result."""
    from longtake.engine.figures import check_figure_path
    from longtake.models.prompt import check_question

    check_question(question)
    check_figure_path(target)
    from longtake.cli.models import TINY_NOTICE, load_model, selector_for
    from longtake.engine.explain import draw, explain

    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    with waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
    selector = selector_for(loaded, model)
    with progress_bars(quiet=as_json) as advance:
        explanation = explain(
            video, question, loaded, budget, selector=selector, start_s=start_s, end_s=end_s, on_progress=advance
        )
    path = draw(explanation, target)
    if as_json:
        print_json({"figure": str(path)} | explanation.to_dict())
        return
    for time_s in explanation.top.pts_s:
        out.print(f"  {seconds_text(float(time_s))}")
    out.print(f"{path}", markup=False)
