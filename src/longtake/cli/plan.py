"""`longtake plan`: what a question would cost, before any weight is loaded."""

from __future__ import annotations

from rich.table import Table

from longtake.cli.output import out, print_json


def run(
    video: str | None,
    duration_s: float | None,
    model: str,
    max_frames: int,
    max_new_tokens: int,
    dtype: str,
    as_json: bool,
) -> None:
    """Predict frames, tokens, memory and arithmetic."""
    from longtake.engine.plan import plan_for

    planned = plan_for(video, duration_s, model, max_frames=max_frames, max_new_tokens=max_new_tokens, dtype=dtype)
    if as_json:
        print_json(planned.to_dict())
        return
    table = Table(show_header=False)
    for name, value in planned.rows():
        table.add_row(name, value)
    out.print(table)
    for warning in planned.warnings:
        out.print(f"warning: {warning}", markup=False)
