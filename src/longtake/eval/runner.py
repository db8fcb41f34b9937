"""Runs a task: every video once for all its questions and arms, every answer on disk before the next is asked."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from longtake.core.budget import Budget
from longtake.core.errors import ConfigError, LongtakeError, StorageError
from longtake.core.types import VideoMemory
from longtake.engine.ingest import default_rule
from longtake.engine.ledger import Ledger, peak_memory_bytes
from longtake.engine.select import Selector
from longtake.eval.baselines import Arms, MethodKind, Seen
from longtake.eval.reader import Reader, Reply, methods_set, proof_figures
from longtake.eval.result import (
    ITEMS,
    Manifest,
    Record,
    line,
    read_lines,
    text_hash,
    versions,
    write_run,
    write_text,
)
from longtake.eval.task import Item, Task
from longtake.media.sampling import SamplingRule
from longtake.media.video import Video, open_video
from longtake.models.loaded import LoadedModel

PARTS, PLAN = "parts", "plan.json"
MODEL_ARM, PROBE_PREFIX = "model", "probe "
# What is wrong with an item or its video. Anything else is a mistake of ours, and stops the run.
ITEM_ERRORS = (LongtakeError, OSError, RuntimeError, ValueError, ArithmeticError)
OnItem = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """All that a run is made of.

    tested: methods named by the user, which `random-drop` replaces. baselines: arms beside the model's own. probes:
    small tasks by name, asked of the model alone. limit: only so many items, the first ones. model_name: as typed.
    not_run: baselines that the model cannot have, with the reason.
    """

    task: Task
    model: LoadedModel
    model_name: str = ""
    budget: Budget = dataclasses.field(default_factory=Budget)
    rule: SamplingRule | None = None
    selector: Selector | None = None
    tested: tuple[MethodKind, ...] = ()
    baselines: tuple[str, ...] = ()
    probes: Mapping[str, Task] = dataclasses.field(default_factory=dict)
    limit: int | None = None
    seed: int = 0
    not_run: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def rule_in_force(self) -> SamplingRule:
        """Return the sampling rule: as given, else the task's, else the model's own."""
        return self.rule or self.task.rule() or default_rule(self.model)

    def items(self) -> list[Item]:
        """Return the items that are run.

        Raises: ConfigError if there are none.
        """
        found = list(self.task.items())[: self.limit]
        if not found:
            raise ConfigError(
                f"task {self.task.name} has no items (limit {self.limit}, {len(self.task.missing())} media missing); "
                "expected at least one; check the data folder"
            )
        return found

    @property
    def other_arms(self) -> tuple[str, ...]:
        """Return the names of the arms beside the model's own, probes last."""
        return (*self.baselines, *(f"{PROBE_PREFIX}{name}" for name in self.probes))

    def manifest(self) -> Manifest:
        """Return what is known before the first answer."""
        model: Any = self.model.model
        return Manifest(
            task=self.task.name,
            settings=self.task.to_dict(),
            model=self.model.fingerprint,
            model_name=self.model_name,
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=self.model.device.type,
            rule=self.rule_in_force.to_dict(),
            budget=self.budget.to_dict(),
            compress=_described(model.compressor),
            reduce=_described(model.reducer),
            select=_described(self.selector),
            template=self.task.template,
            parser=self.task.parser,
            dataset_hash=self.task.dataset_hash(),
            num_items=len(self.items()),
            limit=self.limit,
            seed=self.seed,
            baselines=self.other_arms,
            versions=versions(),
        )


def _described(method: Any) -> dict[str, Any] | None:
    """Return a method's class and fields as plain values."""
    if method is None:
        return None
    fields = method.to_dict() if hasattr(method, "to_dict") else {}
    return json.loads(json.dumps({"class": type(method).__name__, **fields}, default=str))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
    """Questions about one video, and the arms that they are asked in."""

    task: Task
    items: list[Item]
    arms: tuple[tuple[str, str], ...]  # name of the arm in a record, and what it does


def run_shard(
    run: Run,
    folder: Path,
    shard: tuple[int, int] = (0, 1),
    *,
    ledger: Ledger | None = None,
    on_item: OnItem | None = None,
) -> None:
    """Run the items of one of n shards that no earlier run has done, and append their records.

    Items of a group are in one shard. Any number of shards may work in one folder, on one machine or on several that
    share it; how many there are changes no answer.

    Raises: ConfigError if the folder holds another run; StorageError if it cannot be written or another process works
        on this shard.
    """
    ledger = ledger or Ledger()
    with ledger.stage("plan"):
        begin(run, folder)
        works = _shared_out(run, *shard)
        reader = Reader(run.model, run.budget, run.rule_in_force, run.selector, ledger)
        arms = Arms(reader, run.tested, run.seed)
        total = sum(len(work.items) * len(work.arms) for work in works)
    with _Part(folder / PARTS / f"shard-{shard[0]}-of-{shard[1]}.jsonl", ledger) as part:
        done = part.done
        finished = sum((arm, item.id) in done for work in works for item in work.items for arm, _ in work.arms)
        for work in works:
            for record in _run_video(work, reader, arms, done):
                part.append(record)
                finished += 1
                if on_item is not None:
                    on_item(finished, total)
        part.close_account()


def begin(run: Run, folder: Path) -> None:
    """Make a folder the place of a run, or see that it is that of this very one.

    Raises: ConfigError naming what differs; StorageError if the folder cannot be made.
    """
    manifest, path = run.manifest(), folder / PLAN
    try:
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder} could not be made ({error}); expected a place to write; choose another"
        ) from error
    plain = json.loads(json.dumps(manifest.to_dict(), default=str))
    if not path.exists():
        write_text(path, json.dumps(plain, sort_keys=True, indent=1) + "\n")
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    differs = sorted(name for name in plain if plain[name] != there.get(name))
    if differs:
        what = "; ".join(f"{name} was {there.get(name)!r}, is {plain[name]!r}"[:300] for name in differs[:3])
        raise ConfigError(
            f"{folder} holds another run: {', '.join(differs)} differ ({what}); expected the same settings to go on "
            "with it; pass another --out"
        )


def _shared_out(run: Run, number: int, count: int) -> list[_Work]:
    """Return the work of a shard, video by video."""
    if not 0 <= number < count:
        raise ConfigError(f"shard {number} of {count} arrived; expected 0 to {count - 1}; correct it")
    own = ((MODEL_ARM, MODEL_ARM), *((name, name) for name in run.baselines))
    series = [(run.task, run.items(), own)]
    series += [(task, list(task.items()), ((f"{PROBE_PREFIX}{name}", MODEL_ARM),)) for name, task in run.probes.items()]
    works: list[_Work] = []
    for task, items, arms in series:
        clusters = {cluster: index for index, cluster in enumerate(dict.fromkeys(item.cluster for item in items))}
        by_media: dict[str, list[Item]] = {}
        for item in items:
            if clusters[item.cluster] % count == number:
                by_media.setdefault(item.media_key, []).append(item)
        works += [_Work(task=task, items=found, arms=arms) for found in by_media.values()]
    return works


def _run_video(work: _Work, reader: Reader, arms: Arms, done: set[tuple[str, str]]) -> Iterator[Record]:
    """Yield the records of one video that are not there yet."""
    todo = {name: [item for item in work.items if (name, item.id) not in done] for name, _ in work.arms}
    if not any(todo.values()):
        return
    first = work.items[0]
    try:
        with _opened(work.task, first, reader) as (video, memory):
            for name, kind in work.arms:
                if todo[name]:
                    yield from _run_arm(work.task, todo[name], (name, kind), arms, video, memory)
    except ITEM_ERRORS as error:
        failed = [(name, item) for name, items in todo.items() for item in items if (name, item.id) not in done]
        yield from (_failed(item, name, work.task, error) for name, item in failed)


def _run_arm(
    task: Task, items: list[Item], arm: tuple[str, str], arms: Arms, video: Video | None, memory: VideoMemory
) -> Iterator[Record]:
    """Yield the records of one arm over one video."""
    name, kind = arm
    try:
        with arms.reader.ledger.stage("arrange"):
            seen = arms.see(kind, video, items[0], memory)
    except ITEM_ERRORS as error:
        yield from (_failed(item, name, task, error) for item in items)
        return
    for item in items:
        yield _asked(item, name, task, seen, arms.reader)


@contextmanager
def _opened(task: Task, item: Item, reader: Reader) -> Iterator[tuple[Video | None, VideoMemory]]:
    """Yield an item's open video and the memory of it; no video where the task puts the memory together itself."""
    composed = task.compose(item, reader.encode)
    if composed is not None:
        yield None, composed
        return
    with _media_file(item, reader.ledger) as source:
        with reader.ledger.stage("open"):
            video = open_video(source, folder_fps=item.folder_fps)
        try:
            yield video, reader.see(video, item.start_s, item.end_s)
        finally:
            with reader.ledger.stage("decode"):
                video.close()


def _asked(item: Item, arm: str, task: Task, seen: Seen, reader: Reader) -> Record:
    """Ask one question and score the reply."""
    try:
        with reader.ledger.stage("prompt"), methods_set(reader.model, reducer=seen.reducer):
            reply = reader.ask(seen.memory, item, task, seen.selector)
        with reader.ledger.stage("score"):
            return _record(item, arm, task, seen.memory, reply)
    except ITEM_ERRORS as error:
        return _failed(item, arm, task, error)


def _record(item: Item, arm: str, task: Task, memory: VideoMemory, reply: Reply) -> Record:
    scored = task.score(reply.text, item)
    return dataclasses.replace(
        _blank(item, arm, task),
        text=reply.text,
        parsed=scored.parsed,
        right=scored.right,
        score=scored.value,
        prompt_hash=text_hash(task.chat(item) or task.prompt(item)),
        frame_hash=reply.frame_hash,
        frames=reply.frames,
        tokens=reply.tokens,
        extra={**proof_figures(item, memory, reply), **scored.extra},
    )


def _blank(item: Item, arm: str, task: Task) -> Record:
    return Record(
        id=item.id,
        arm=arm,
        group=item.cluster,
        chance=task.chance(item),
        answer=item.answer,
        num_choices=len(item.choices),
        breakdowns=dict(task.breakdowns(item)),
        counts=task.counts(item),
    )


def _failed(item: Item, arm: str, task: Task, error: BaseException) -> Record:
    message = " ".join(str(error).split())
    return dataclasses.replace(_blank(item, arm, task), error=f"{type(error).__name__}: {message}")


@contextmanager
def _media_file(item: Item, ledger: Ledger) -> Iterator[Path]:
    """Yield the item's video as a file; one that is drawn is removed afterwards."""
    if isinstance(item.media, Path):
        yield item.media
        return
    folder = Path(tempfile.mkdtemp(prefix="longtake-eval-"))
    try:
        with ledger.stage("draw") as cost:
            path = item.media.write(folder / f"{item.media.key}{item.media.suffix}")
            cost.add(bytes=path.stat().st_size)
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Part:
    """The file that one shard appends its records to: one line a record, on disk before the next one begins.

    Nobody else can append meanwhile. A line that a kill cut off is removed. done: arm and id of all records of the
    run, by whichever shard.
    """

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path, self.ledger = path, ledger
        self.done: set[tuple[str, str]] = set()
        self._file: IO[bytes] | None = None
        self._staged: dict[str, float] = {}
        self._since = time.perf_counter() - ledger.total_s

    def __enter__(self) -> _Part:
        try:
            self._file = self.path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__()
            raise StorageError(
                f"{self.path} is being written by another process; expected one process a shard; wait for it to end"
            ) from error
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written ({error}); choose another folder") from error
        whole = self.path.read_bytes()
        self._file.truncate(whole.rfind(b"\n") + 1)
        for path in sorted(self.path.parent.glob("*.jsonl")):
            rows = [row["record"] for row in read_lines(path)]
            self.done |= {(record["arm"], record["id"]) for record in rows if record is not None}
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, record: Record) -> None:
        """Write a record with all the time that passed since the last one."""
        self._write(record.result())
        self.done.add(record.key)

    def close_account(self) -> None:
        """Write down the time that passed since the last record."""
        self._write(None)

    def _write(self, record: dict[str, Any] | None) -> None:
        assert self._file is not None, "a part is written inside its context"
        text = line({"record": record, "seconds": self._passed(), **self._peaks()})
        with self.ledger.stage("write"):
            try:
                self._file.write(text.encode())
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise StorageError(f"{self.path} could not be written ({error}); free some space") from error

    def _passed(self) -> dict[str, float]:
        """Return the seconds of each stage since the last call; `unstaged` is what is left of the time that passed."""
        now, staged = time.perf_counter(), {name: cost.seconds for name, cost in self.ledger.stages.items()}
        passed = {name: seconds - self._staged.get(name, 0.0) for name, seconds in staged.items()}
        passed["unstaged"] = now - self._since - sum(passed.values())
        self._staged, self._since = staged, now
        return {name: round(seconds, 6) for name, seconds in passed.items() if seconds}

    def _peaks(self) -> dict[str, int]:
        found = {"peak_memory_bytes": peak_memory_bytes()}
        if torch.cuda.is_available():
            found["peak_device_bytes"] = int(torch.cuda.max_memory_allocated())
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merged:
    """A complete run: its manifest and records in order, the cost by stage, peaks of memory in bytes."""

    manifest: Manifest
    records: list[Record]
    stages: Mapping[str, float]
    peaks: Mapping[str, int]


def merge(run: Run, folder: Path) -> Merged:
    """Put the parts of all shards together and write the run's files; which shard did what leaves no trace in them.

    Raises: ConfigError if items are missing; StorageError if the files cannot be written.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    stages: dict[str, float] = {}
    peaks: dict[str, int] = {}
    for path in sorted((folder / PARTS).glob("*.jsonl")):
        for row in read_lines(path):
            if row["record"] is not None:
                rows.setdefault((row["record"]["arm"], row["record"]["id"]), row)
            for name, seconds in row["seconds"].items():
                stages[name] = stages.get(name, 0.0) + seconds
            for name in ("peak_memory_bytes", "peak_device_bytes"):
                if name in row:
                    peaks[name] = max(peaks.get(name, 0), row[name])
    works = _shared_out(run, 0, 1)
    wanted = [(arm, item.id) for work in works for arm, _ in work.arms for item in work.items]
    wanted.sort(key=lambda key: (MODEL_ARM, *run.other_arms).index(key[0]))
    lost = [key for key in wanted if key not in rows]
    if lost:
        raise ConfigError(
            f"{len(lost)} of {len(wanted)} records are not there yet (first: {lost[0][1]}, {lost[0][0]}); expected all "
            "of them; run the same command again to go on"
        )
    records = [Record.from_dict({**rows[key]["record"], "seconds": rows[key]["seconds"]}) for key in wanted]
    grid = text_hash([one.frame_hash for one in records if one.arm == MODEL_ARM])
    manifest = dataclasses.replace(run.manifest(), frame_grid_hash=grid)
    write_run(folder, manifest, records)
    return Merged(manifest=manifest, records=records, stages=stages, peaks=peaks)


def is_complete(folder: Path) -> bool:
    """Say whether a run's merged records are there."""
    return (folder / ITEMS).is_file()


def check_arms(run: Run) -> dict[str, str]:
    """Return the baselines that this model cannot have, each with the reason."""
    arms = Arms(Reader(run.model, run.budget), run.tested, run.seed)
    reasons = {name: arms.why_not(name, run.task) for name in run.baselines}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def first_error(records: Sequence[Record]) -> str | None:
    """Return the first error of a run of which nothing succeeded; none if anything did."""
    own = [one for one in records if one.arm == MODEL_ARM]
    return own[0].error if own and all(one.error is not None for one in own) else None
