"""`longtake bias`: how much selection depends on position."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from longtake.cli.output import err, out, print_json, progress_bars, waiting
from longtake.core.budget import Budget


def run(
    video: str,
    question: str,
    needle: str | None,
    target: str,
    rounds: int,
    budget: Budget,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Run the protocols, print a table and draw the plots."""
    from longtake.engine.figures import check_figure_path
    from longtake.models.prompt import check_question

    check_question(question)
    check_figure_path(target)
    from longtake.cli.models import TINY_NOTICE, load_model, selector_for
    from longtake.engine.bias import draw, measure
    from longtake.engine.ingest import ingest
    from longtake.engine.select import Selector

    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    with waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
    method = (selector_for(loaded, model) or Selector()).method
    with progress_bars(quiet=as_json) as advance:
        memory = ingest(video, loaded, budget, on_progress=advance)
        hidden = None if needle is None else ingest(needle, loaded, budget)
        report = measure(memory, question, loaded, method, needle=hidden, rounds=rounds, on_progress=advance)
    path = draw(report, target)
    if as_json:
        print_json({"figure": str(path)} | report.to_dict())
        return
    table = Table()
    for name in ("scored", "edge ratio", "KL from flat", "variance: place", "content", "recall at 10 %"):
        table.add_column(name)
    for way, row in report.to_dict().items():
        numbers = (row["null_edge_ratio"], row["null_kl"], row["shuffled_by_position"], row["shuffled_by_content"])
        table.add_row(way, *(f"{number:.3g}" for number in numbers), f"{row['needle_recall_at_10_percent']:.0%}")
    out.print(table)
    out.print(f"{path}", markup=False)
