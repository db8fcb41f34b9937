"""`longtake eval`: a task's figures, each with its n, interval, chance and baselines."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from longtake.cli.output import err, out, print_json, progress_bars, waiting
from longtake.core.budget import Budget
from longtake.core.errors import ConfigError, EvaluationError

STAGE_OTHER = "outside all stages"


def run(
    task_name: str,
    budget: dict[str, Any],
    model: dict[str, Any],
    options: dict[str, Any],
    as_json: bool,
) -> None:
    """Run a task, or one shard of it, and print what it says."""
    from longtake.engine.ledger import Ledger
    from longtake.eval.baselines import chosen_baselines
    from longtake.eval.statistics import scipy_stats

    started, ledger = time.perf_counter(), Ledger()
    shard = parse_shard(options["shard"])
    if shard is not None and options["out"] is None:
        raise ConfigError("--shard arrived without --out; expected the folder that all shards write to; name it")
    if options["ends_with_parent"]:
        end_with_parent()
    if shard is None:
        scipy_stats()  # the intervals at the end need it: better missed now than when all is asked
    baselines = chosen_baselines(options["without"])
    with ledger.stage("load"):
        task, limits = find_task(task_name, model, options, budget)
    folder = Path(options["out"] or tempfile.mkdtemp(prefix="longtake-eval-"))
    try:
        settings = {"task": task, "budget": limits, "baselines": baselines, **options}
        with ledger.stage("load"):
            planned = prepare(settings, model, quiet=as_json)
        if shard is None and options["processes"] > 1:
            spawn(folder, options["processes"])
        else:
            work(planned, folder, shard or (0, 1), ledger, quiet=as_json or shard is not None)
        if shard is not None:
            return
        finish(planned, folder, time.perf_counter() - started, options, as_json)
    finally:
        if options["out"] is None:
            shutil.rmtree(folder, ignore_errors=True)


def find_task(
    name: str, model: dict[str, Any], options: Mapping[str, Any], budget: dict[str, Any]
) -> tuple[Any, Budget]:
    """Build the task; its fields are taken out of the model's settings. A haystack's length sets the frame limit.

    Raises: ConfigError for an unknown task or field.
    """
    from longtake.cli.models import parse_settings
    from longtake.eval.task import build

    values = dict(parse_settings([text for text in model["settings"] if text.startswith("task.")]).get("task", {}))
    model["settings"] = [text for text in model["settings"] if not text.startswith("task.")]
    if options["data"] is not None:
        values["data"] = options["data"]
    if options["frames"] is not None:
        values["frames"] = [whole(text) for text in options["frames"].split(",")]
    task = build(name, values)
    limits = {key: value for key, value in budget.items() if value is not None}
    limits.setdefault("max_frames", -(-(task.max_frames() or 512) // 16) * 16)
    return task, Budget(**limits)


def whole(text: str) -> int:
    """Read a whole number.

    Raises: ConfigError if it is none.
    """
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"--frames has {text!r}; expected whole numbers, as in 1000,2000; correct it") from error


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Read `0/4` as shard 0 of 4.

    Raises: ConfigError for a text of another form.
    """
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise ConfigError(f"--shard arrived as {text!r}; expected N/COUNT, N from 0; write it so")
    return int(number), int(count)


def prepare(settings: Mapping[str, Any], model: dict[str, Any], *, quiet: bool) -> Any:
    """Load the model and put the run together; probes stand beside tasks that can choose from FILMSTRIP's."""
    from longtake.cli.models import TINY_NOTICE, load_model, model_options, selector_for
    from longtake.eval.filmstrip_tasks import probe_tasks
    from longtake.eval.runner import Run, check_arms

    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    with waiting("loading the model", quiet=quiet):
        loaded = load_model(**model)
        selector = selector_for(loaded, model)
    task, films = settings["task"], settings["probes"]
    tested: list[Any] = [kind for kind in ("compress", "reduce") if model[kind] is not None]
    tested += ["select"] if model["select"][0] is not None else []
    planned = Run(
        task=task,
        model=loaded,
        model_name=model_options(model),
        budget=settings["budget"],
        selector=selector,
        tested=tuple(tested),
        baselines=settings["baselines"],
        probes=probe_tasks(films, getattr(task, "form", "choices")) if films else {},
        limit=settings["limit"],
        seed=settings["seed"],
    )
    return leave_out(planned, check_arms(planned))


def leave_out(planned: Any, not_run: Mapping[str, str]) -> Any:
    """Return the run without the baselines that this model cannot have, and say which."""
    import dataclasses

    for name, reason in not_run.items():
        err.print(f"note: {name} is not run: {reason}", markup=False)
    kept = tuple(name for name in planned.baselines if name not in not_run)
    return dataclasses.replace(planned, baselines=kept, not_run=dict(not_run))


def work(planned: Any, folder: Path, shard: tuple[int, int], ledger: Any, *, quiet: bool) -> None:
    """Run one shard here."""
    from longtake.eval.runner import run_shard

    with progress_bars(quiet=quiet) as advance:
        on_item = None if advance is None else (lambda done, total: advance("answers", done, total))
        run_shard(planned, folder, shard, ledger=ledger, on_item=on_item)


def spawn(folder: Path, processes: int) -> None:
    """Run every shard in a process of its own: this very command, with --shard."""
    from longtake.eval.processes import run_processes

    own = [sys.executable, "-m", "longtake.cli.main", *without_output(sys.argv[1:]), "--out", str(folder)]
    with waiting(f"{processes} processes work in {folder}", quiet=False):
        run_processes(lambda number: [*own, "--shard", f"{number}/{processes}", "--ends-with-parent"], processes)


def without_output(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command without --out, --json and --processes."""
    found: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--out", "--processes"):
            skip = True
        elif not argument.startswith(("--out=", "--processes=")) and argument != "--json":
            found.append(argument)
    return found


def end_with_parent() -> None:
    """End this process as soon as its standard input closes: no worker outlives the process that started it."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def finish(planned: Any, folder: Path, wall_s: float, options: Mapping[str, Any], as_json: bool) -> None:
    """Put the shards together, write the summary and print it.

    Raises: EvaluationError if not one item could be answered.
    """
    from longtake.eval.needles.grid import heat_map
    from longtake.eval.result import SUMMARY, write_text
    from longtake.eval.runner import first_error, merge
    from longtake.eval.summary import summarize

    merged = merge(planned, folder)
    summary = summarize(merged, planned.task, planned.not_run, planned.task.missing())
    summary["ledger"]["wall_s"] = wall_s
    summary["ledger"]["processes"] = options["processes"]
    if options["heat_map"] is not None:
        cells = summary["figures"].get("grid") or []
        summary["heat_map"] = str(heat_map(cells, options["heat_map"], f"{planned.task.name}: {planned.model_name}"))
    text = json.dumps(summary, indent=1, sort_keys=True, default=str)
    write_text(folder / SUMMARY, text + "\n")
    error = first_error(merged.records)
    if as_json:
        print_json(summary)
    else:
        show(summary)
    if error is not None:
        raise EvaluationError(f"not one item could be answered; the first error: {error}")


def show(summary: Mapping[str, Any]) -> None:
    """Print the figures: what to beware of first."""
    for finding in summary["findings"]:
        out.print(f"! {finding}", markup=False)
    out.print(arms_table(summary))
    for title, rows in (("probes", summary["probes"]), *sorted(summary["breakdowns"].items())):
        if rows:
            out.print(rows_table(title, rows))
    for name, value in summary["figures"].items():
        if name != "grid":
            out.print(f"{name}: {value}", markup=False)
    failed, missing = summary["quarantined"], summary["missing_media"]
    for entry in failed["first"]:
        err.print(f"failed: {entry['id']} ({entry['arm']}): {entry['error']}", markup=False)
    if missing["count"]:
        err.print(f"{missing['count']} media are missing, first: {', '.join(missing['first'][:3])}", markup=False)
    out.print(ledger_rows(summary["ledger"]))


def percent(value: float | None) -> str:
    """Write a share; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}"


def bounds(figures: Mapping[str, Any]) -> str:
    """Write an interval."""
    found = figures.get("interval")
    return "–" if found is None else f"{percent(found[0])} to {percent(found[1])}"


def arms_table(summary: Mapping[str, Any]) -> Table:
    """Lay out the model and its baselines."""
    table = Table(title=f"{summary['task']}: accuracy in %", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("", "right", "95 % interval", "n", "films", "unparsed", "lead", "p"):
        table.add_column(name, justify="right" if name else "left", no_wrap=name in ("", "95 % interval"))

    def add(name: str, figures: Mapping[str, Any], *more: str) -> None:
        cells = (percent(figures["accuracy"]), bounds(figures), str(figures["n"]), str(figures["groups"]))
        table.add_row(name, *cells, str(figures.get("unparsed", "–")), *more)

    add("model", summary, "", "")
    for name, figures in summary["baselines"].items():
        if "not_run" in figures:
            table.add_row(name, "not run", "", "", "", "", "", "")
            continue
        difference, p = figures.get("model_minus_this"), figures.get("mcnemar_p")
        add(name, figures, percent(difference), "–" if p is None else f"{p:.3f}")
    table.add_row("chance", percent(summary["chance"]), "", "", "", "", "", "")
    table.add_row("best constant", percent(summary.get("best_constant_answer")), "", "", "", "", "", "")
    return table


def rows_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Lay out figures by name."""
    table = Table(title=title, title_justify="left")
    for name in (title, "accuracy", "95 % interval", "chance", "n"):
        table.add_column(name, justify="left" if name == title else "right")
    for name, figures in rows.items():
        table.add_row(
            name, percent(figures["accuracy"]), bounds(figures), percent(figures["chance"]), str(figures["n"])
        )
    return table


def ledger_rows(ledger: Mapping[str, Any]) -> Table:
    """Lay out what the run cost, over all of its processes."""
    table = Table(title="what it cost", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, seconds in ledger["stages"].items():
        table.add_row(name, f"{seconds:.2f}")
    table.add_row(STAGE_OTHER, f"{ledger['unstaged_s']:.2f}")
    table.add_row("total of all processes", f"{ledger['total_s']:.2f}", style="bold")
    table.add_row("from start to end", f"{ledger['wall_s']:.2f}")
    table.add_row("peak memory, MB", f"{ledger.get('peak_memory_bytes', 0) / 1e6:.0f}")
    return table
