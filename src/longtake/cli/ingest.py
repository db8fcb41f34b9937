"""`longtake ingest`: videos become memories on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.output import err, out, print_json, progress_bars, report_error, waiting
from longtake.core.budget import Budget
from longtake.core.errors import ConfigError, LongtakeError

if TYPE_CHECKING:
    from longtake.models.loaded import LoadedModel


def run(
    videos: list[str],
    target: str,
    store: str,
    budget: Budget,
    start_s: float | None,
    end_s: float | None,
    model: dict[str, Any],
    as_json: bool,
    cluster: dict[str, Any] | None = None,
    retry: bool = False,
) -> None:
    """Ingest one video after the other, or many at once; one that cannot be read does not keep the others from it."""
    keeps_keys = model["select"][0] is not None
    if cluster is not None and keeps_keys:
        raise ConfigError("--keys arrived with --ray; expected one of the two; make the keys with `ask --keep-keys`")
    if cluster is not None:
        wanted = {"budget": budget, "start_s": start_s, "end_s": end_s, "store": store}
        run_on_ray(videos, target, wanted, model, cluster, retry, as_json)
        return
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
            if keeps_keys:
                with waiting("keeping the keys of the video", quiet=as_json):
                    make_keys(path, loaded, model)
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


def make_keys(path: Path, loaded: LoadedModel, model: dict[str, Any]) -> None:
    """Put the keys of a video beside its memory; a picture, of which nothing is selected, has none."""
    from longtake.cli.models import model_options, selector_for
    from longtake.engine.remember import recall
    from longtake.engine.select import keep_keys

    memory, selector = recall(path, loaded, options=model_options(model)), selector_for(loaded, model)
    if selector is not None and memory.settings.get("kind") == "video":
        keep_keys(memory, loaded, selector.method)


def run_on_ray(
    videos: list[str],
    target: str,
    wanted: dict[str, Any],
    model: dict[str, Any],
    cluster: dict[str, Any],
    retry: bool,
    as_json: bool,
) -> None:
    """Share the videos out among the workers of a cluster."""
    from longtake.cli.memory import describe
    from longtake.cli.models import TINY_NOTICE, loader, model_options
    from longtake.engine.remember import Wish
    from longtake.memory.reader import StoredMemory, is_memory_file
    from longtake.serve.quarantine import FILE
    from longtake.serve.ray_cluster import Cluster
    from longtake.serve.ray_ingest import Outcome, ingest_on_ray

    if is_memory_file(target):
        raise ConfigError(f"one file {target} arrived with --ray; expected a folder; pass -o FOLDER")
    rows: list[dict[str, Any]] = []

    def tell(outcome: Outcome) -> None:
        if outcome.memory is None:
            err.print(f"error: {outcome.message}", markup=False)
            return
        with StoredMemory(outcome.memory) as stored:
            rows.append(describe(stored) | {"num_encoded": outcome.num_encoded})
        if not as_json:
            row = rows[-1]
            out.print(f"{outcome.memory}  {row['num_frames']} frames, {outcome.num_encoded} of them encoded now")

    wish = Wish(**wanted, options=model_options(model))
    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    done = ingest_on_ray(videos, target, loader(model), wish, Cluster(**cluster), retry=retry, on_outcome=tell)
    failures = [*(each for each in done.outcomes if each.memory is None), *done.left]
    if as_json:
        failed = [{"type": each.type, "message": each.message, "source": each.source} for each in failures]
        print_json({"memories": rows, "failed": failed})
    if done.left:
        err.print(f"{len(done.left)} videos that failed before were left alone; --retry tries them again", markup=False)
    if failures:
        err.print(f"{len(failures)} videos are in quarantine: {target}/{FILE}", markup=False)
        raise SystemExit(failures[0].exit_code)
