"""Many videos become memories on a Ray cluster: names go out, names and counts come back, pictures stay where they are.

A worker is one process with one model. It takes a video at a time; the pictures come to it from a decoder's process of
its own through a pipe, which holds about a megabyte: the decoder works ahead by that much and then waits. A memory is
committed segment by segment, so that whoever takes a video up after a death goes on where it was.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from longtake.core import errors
from longtake.core.config import StrictConfig
from longtake.core.errors import (
    BudgetError,
    ConfigError,
    LongtakeError,
    MemoryBusyError,
    MemoryFormatError,
    VideoError,
)
from longtake.core.files import make_folder
from longtake.engine.remember import Wish, remember
from longtake.media.sources import IMAGE_SUFFIXES
from longtake.models.loaded import LoadedModel
from longtake.serve.quarantine import Quarantine, Quarantined, state_of
from longtake.serve.ray_cluster import Cluster, ModelLoader, connected, need_ray

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
                  ".ogv", ".3gp", ".wmv", ".gif")  # fmt: skip
ATTEMPTS_FOLDER = ".attempts"
MOST_ATTEMPTS = 3
BUSY_PAUSE_S = 1.0
MOST_VIDEOS_A_TASK = 16
TASKS_A_WORKER = 8
# Of one video, so that the others can go on; any other error of ours would meet every video, and ends the run.
OF_ONE_VIDEO = (VideoError, BudgetError, MemoryFormatError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome(StrictConfig):
    """What became of one video: the path of its memory, or an error.

    num_encoded: frames that were encoded now; none where the memory was there. is_fatal: no other video would fare
    better. worker: the process.
    """

    source: str
    memory: str | None = None
    num_encoded: int = 0
    type: str = ""
    message: str = ""
    exit_code: int = 0
    is_fatal: bool = False
    worker: int = 0


def find_videos(named: Sequence[str]) -> list[str]:
    """Return the absolute paths of all videos that were named or lie below a folder that was; the largest come first.

    A folder of nothing but pictures is one video, as everywhere.

    Raises: ConfigError for a folder that holds neither.
    """
    found: dict[str, int] = {}
    for name in named:
        path = Path(name).absolute()
        inside = _inside(path) if path.is_dir() else [path]
        found |= {str(each): state_of(str(each))[0] for each in inside}
    return sorted(found, key=lambda source: (-found[source], source))


def _inside(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    videos = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not videos and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()):
        return [folder]
    if not videos:
        raise ConfigError(f"the folder {folder} holds no video; expected files such as film.mp4; name another")
    return videos


class Attempts:
    """Counts, in a file, the workers that took a video up and were gone before they had finished a segment of it."""

    def __init__(self, target: Path, source: str) -> None:
        self.path = target / ATTEMPTS_FOLDER / hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()

    def begin(self) -> int:
        """Note another one, and return how many there were before it."""
        make_folder(self.path.parent)
        with self.path.open("ab") as file:
            before = file.tell()
            file.write(b".")
        return before

    def advance(self) -> None:
        """Note that a segment was finished: whatever happens next, it is not the video that kills."""
        self.path.write_bytes(b".")

    def end(self) -> None:
        """Forget the video: it is remembered, or in quarantine."""
        self.path.unlink(missing_ok=True)


class Encoder:
    """A worker of the cluster."""

    def __init__(self, load: ModelLoader, target: str, wish: Wish) -> None:
        self._load, self.target, self.wish, self.process = load, Path(target), wish, os.getpid()

    @functools.cached_property
    def model(self) -> LoadedModel:
        """Load the model once it is needed, so that what is wrong with it can be told."""
        return self._load()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Turn the video of a row into its memory; the outcome is one line of JSON."""
        return {"outcome": json.dumps(self.work(str(row["source"])).to_dict())}

    def work(self, source: str) -> Outcome:
        """Remember a video, once nobody else is at it."""
        attempts, encoded = Attempts(self.target, source), [0]

        def advance(stage: str, done: int, total: int) -> None:
            if stage == "encode":
                encoded[0] = done
                attempts.advance()

        try:
            if attempts.begin() >= MOST_ATTEMPTS:
                raise VideoError(
                    f"{source} was taken up by {MOST_ATTEMPTS} workers that were gone before a segment of it was "
                    "finished; expected a video that does not end them; see how much memory they have, or pass fewer "
                    "--max-frames, then try again with --retry"
                )
            path = self._remembered(source, advance)
        except Exception as error:  # noqa: BLE001 (the run must outlive any video; the error is told with its type)
            attempts.end()
            return self._failed(source, error)
        attempts.end()
        return Outcome(source=source, memory=str(path), num_encoded=encoded[0], worker=self.process)

    def _remembered(self, source: str, advance: Callable[[str, int, int], None]) -> Path:
        while True:
            try:
                return remember(source, self.model, self.target, self.wish, on_progress=advance)
            except MemoryBusyError:  # another worker has it, one that was taken for dead perhaps
                time.sleep(BUSY_PAUSE_S)

    def _failed(self, source: str, error: Exception) -> Outcome:
        return Outcome(
            source=source,
            type=type(error).__name__,
            message=" ".join(str(error).split()),
            exit_code=error.exit_code if isinstance(error, LongtakeError) else 1,
            is_fatal=isinstance(error, LongtakeError) and not isinstance(error, OF_ONE_VIDEO),
            worker=self.process,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingested:
    """What a run came to: outcomes in the order in which they came, and the videos that were left in quarantine."""

    outcomes: tuple[Outcome, ...]
    left: tuple[Quarantined, ...]


def ingest_on_ray(
    named: Sequence[str],
    target: str | Path,
    load: ModelLoader,
    wish: Wish | None = None,
    cluster: Cluster | None = None,
    *,
    retry: bool = False,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Ingested:
    """Turn videos, or all videos below folders, into memories in one folder that every worker can write.

    A memory that is there under its key is left as it is, one that is unfinished is gone on with; both are found out
    by reading the video. What failed is listed in `quarantine.json` and left alone while its file stays the same,
    unless `retry`. load: makes the model, in every worker; it must be importable there.

    Raises: ConfigError, CheckpointError, StorageError, MissingExtraError for what would meet every video.
    """
    folder = Path(target).absolute()
    make_folder(folder)
    quarantine, sources = Quarantine(folder), find_videos(named)
    left = () if retry else tuple(quarantine.get(source) for source in sources if quarantine.holds(source))
    wanted = [source for source in sources if retry or not quarantine.holds(source)]
    outcomes: list[Outcome] = []
    try:
        with closing(_outcomes(wanted, str(folder), load, wish or Wish(), cluster or Cluster())) as coming:
            for outcome in coming:
                if outcome.is_fatal:
                    raise _error_of(outcome)
                _note(quarantine, outcome)
                outcomes.append(outcome)
                if on_outcome is not None:
                    on_outcome(outcome)
    finally:
        quarantine.write()
    return Ingested(outcomes=tuple(outcomes), left=left)


def _outcomes(
    sources: list[str], target: str, load: ModelLoader, wish: Wish, cluster: Cluster
) -> Generator[Outcome, None, None]:
    """Yield what becomes of each video, as soon as the few that went out with it are done."""
    if not sources:
        return
    ray = need_ray("data")
    with connected(cluster) as room:
        workers = min(room, len(sources))
        a_task = max(1, min(MOST_VIDEOS_A_TASK, len(sources) // (workers * TASKS_A_WORKER)))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        tasks = -(-len(sources) // a_task)
        # Dealt out like cards: the large videos come first in every task.
        dealt = [{"source": source} for first in range(tasks) for source in sources[first::tasks]]
        rows = ray.data.from_items(dealt, override_num_blocks=tasks)
        strategy = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2)
        done = rows.map(Encoder, fn_constructor_args=(load, target, wish), compute=strategy, **cluster.share)
        for row in done.iter_rows():
            yield Outcome.from_dict(json.loads(row["outcome"]))


def _note(quarantine: Quarantine, outcome: Outcome) -> None:
    if outcome.memory is not None:
        quarantine.drop(outcome.source)
        return
    size, mtime_ns = state_of(outcome.source)
    quarantine.add(
        Quarantined(
            source=outcome.source,
            bytes=size,
            mtime_ns=mtime_ns,
            type=outcome.type,
            message=outcome.message,
            exit_code=outcome.exit_code,
        )
    )


def _error_of(outcome: Outcome) -> LongtakeError:
    """Return the error that a worker told, under its own type."""
    return getattr(errors, outcome.type, LongtakeError)(outcome.message)
