"""Where text goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from longtake.core.errors import LongtakeError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object to standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def report_error(error: LongtakeError, *, as_json: bool) -> None:
    """Write an error as one line to standard error, and as JSON to standard output if asked for."""
    message = " ".join(str(error).split())  # what a library said may have lines of its own
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": message}})
    err.print(f"error: {message}", markup=False)


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Any]:
    """Show a bar for each stage on standard error; yields a function (stage, done, total)."""
    if quiet:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=err, transient=True) as progress:

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield advance


@contextmanager
def waiting(text: str, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show on standard error that something is under way; yields a function that takes it away early."""
    if quiet:
        yield lambda: None
        return
    status = err.status(text)
    status.start()
    try:
        yield status.stop
    finally:
        status.stop()


def ledger_table(ledger: Mapping[str, Any]) -> Table:
    """Lay out what each stage cost."""
    table = Table(title="what it cost", title_justify="left")
    for name in ("stage", "seconds", "MB", "tokens"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for name, cost in ledger["stages"].items():
        megabytes = f"{cost['bytes'] / 1e6:.1f}" if cost["bytes"] else ""
        table.add_row(name, f"{cost['seconds']:.3f}", megabytes, str(cost["tokens"] or ""))
    table.add_row("outside all stages", f"{ledger['unstaged_s']:.3f}", "", "")
    table.add_row("total", f"{ledger['total_s']:.3f}", "", "", style="bold")
    return table


def seconds_text(seconds: float) -> str:
    """Write a time as h:mm:ss.s."""
    tenths = round(max(0.0, seconds) * 10)
    hours, rest = divmod(tenths, 36_000)
    minutes, rest = divmod(rest, 600)
    return f"{hours}:{minutes:02d}:{rest / 10:04.1f}"
