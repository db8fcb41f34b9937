"""`longtake ingest`: videos become memories on disk."""

from __future__ import annotations

from typing import Any

from longtake.cli.output import err, out, print_json, progress_bars, report_error, waiting
from longtake.core.budget import Budget
from longtake.core.errors import ConfigError, LongtakeError


def run(
    videos: list[str],
    target: str,
    store: str,
    budget: Budget,
    start_s: float | None,
    end_s: float | None,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Ingest one video after the other; one that cannot be read does not keep the others from it."""
    from longtake.cli.memory import describe
    from longtake.cli.models import TINY_NOTICE, load_model, model_options
    from longtake.engine.remember import Wish, remember
    from longtake.memory.reader import StoredMemory, is_memory_file

    if is_memory_file(target) and len(videos) > 1:
        raise ConfigError(f"{len(videos)} videos arrived for one file {target}; expected a folder; pass -o FOLDER")
    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    with waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
    wish = Wish(budget=budget, start_s=start_s, end_s=end_s, store=store, options=model_options(model))
    rows: list[dict[str, Any]] = []
    failures: list[LongtakeError] = []
    for video in videos:
        try:
            with progress_bars(quiet=as_json) as advance:
                path = remember(video, loaded, target, wish, on_progress=advance)
        except LongtakeError as error:
            if len(videos) == 1:
                raise
            report_error(error, as_json=False)
            failures.append(error)
            continue
        with StoredMemory(path) as stored:
            rows.append(describe(stored))
        if not as_json:
            row = rows[-1]
            out.print(f"{path}  {row['num_frames']} frames, {row['tokens']} tokens, {row['bytes'] / 1e6:.2f} MB")
    if as_json:
        failed = [{"type": type(error).__name__, "message": str(error)} for error in failures]
        print_json({"memories": rows, "failed": failed})
    if failures:
        raise SystemExit(failures[0].exit_code)
