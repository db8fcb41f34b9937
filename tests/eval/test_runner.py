"""The runner: resumable to the byte, sharded, honest about what failed, and its seconds add up."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longtake.core.errors import ConfigError, StorageError
from longtake.eval.filmstrip_tasks import FilmstripTask
from longtake.eval.result import COSTS, ITEMS, MANIFEST, Record, read_lines, read_manifest, read_records
from longtake.eval.runner import PARTS, Run, merge, run_shard
from longtake.eval.summary import summarize
from longtake.eval.task import Item
from longtake.models.loaded import LoadedModel
from tests.eval.small import BASELINES, small_run, small_task

FILES = (ITEMS, MANIFEST)


def test_each_answer_is_kept_with_all_that_it_follows_from(finished: tuple[Run, Path]) -> None:
    run, folder = finished
    records, manifest = read_records(folder), read_manifest(folder)
    assert len(records) == 4 * 5 and [one.arm for one in records[:4]] == ["model"] * 4
    own = records[0]
    assert (own.frames, own.tokens, own.error) == (16, 256, None)
    assert own.extra["covered"] and own.extra["survived"]
    assert own.seconds["prefill"] > 0
    assert {one.tokens for one in records} == {256}  # every baseline has the same token budget
    assert {one.prompt_hash for one in records if one.id == own.id} == {own.prompt_hash}
    assert manifest.model == run.model.fingerprint
    assert manifest.dataset_hash == run.task.dataset_hash()
    assert manifest.frame_grid_hash and manifest.versions["torch"]
    assert manifest.identity() == run.manifest().identity()


def test_shards_and_a_second_merge_give_the_same_bytes(
    finished: tuple[Run, Path], loaded: LoadedModel, tmp_path: Path
) -> None:
    _, whole = finished
    run = small_run(loaded, baselines=BASELINES)
    for number in range(3):  # one of them has nothing to do
        run_shard(run, tmp_path, (number, 3))
    merge(run, tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name
    merge(run, tmp_path)
    assert (tmp_path / ITEMS).read_bytes() == (whole / ITEMS).read_bytes()


def test_killed_with_9_in_the_middle_of_two_processes_it_ends_the_same(
    finished: tuple[Run, Path], loaded: LoadedModel, tmp_path: Path
) -> None:
    run, (_, whole) = small_run(loaded, baselines=BASELINES), finished
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    script = str(Path(__file__).with_name("worker_process.py"))
    workers = [
        subprocess.Popen([sys.executable, script, str(tmp_path), str(number), "2", after], env=environment, cwd=root)
        for number, after in enumerate(("3", "6"))
    ]
    assert [worker.wait(280) for worker in workers] == [-signal.SIGKILL] * 2
    parts = [tmp_path / PARTS / f"shard-{number}-of-2.jsonl" for number in range(2)]
    assert [len(read_lines(part)) for part in parts] == [3, 6]
    with parts[0].open("ab") as file:  # what a kill in the middle of a write leaves
        file.write(b'{"record": {"arm": "mod')
    run_shard(run, tmp_path, (0, 2))  # heals its own part
    run_shard(run, tmp_path)  # and one process ends what two began
    merge(run, tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_ledger_adds_up_to_the_time_that_passed(loaded: LoadedModel, tmp_path: Path) -> None:
    run = small_run(loaded, small_task(films=2, questions=3), baselines=("blind",))
    started = time.perf_counter()
    run_shard(run, tmp_path)
    wall = time.perf_counter() - started
    merged = merge(run, tmp_path)
    found = summarize(merged, run.task, {})["ledger"]
    assert found["total_s"] == pytest.approx(wall, rel=0.02)
    assert found["unstaged_s"] <= 0.02 * wall
    assert {"draw", "open", "decode", "vision", "compress", "prefill", "decode_text", "write"} <= set(found["stages"])
    assert found["peak_memory_bytes"] > 10**8
    assert (tmp_path / COSTS).is_file()


def test_another_run_does_not_go_on_in_the_same_folder(finished: tuple[Run, Path], loaded: LoadedModel) -> None:
    _, folder = finished
    with pytest.raises(ConfigError, match="seed differ"):
        run_shard(small_run(loaded, baselines=BASELINES, seed=1), folder)


def test_two_writers_of_one_shard_are_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    import fcntl

    run = small_run(loaded)
    (tmp_path / PARTS).mkdir()
    with (tmp_path / PARTS / "shard-0-of-1.jsonl").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process"):
            run_shard(run, tmp_path)


def test_a_video_that_fails_is_counted_and_never_replaced(loaded: LoadedModel, tmp_path: Path) -> None:
    task = small_task()
    items = list(task.items())
    broken = [
        dataclasses.replace(item, media=tmp_path / "none.mp4", group="broken") if number < 2 else item
        for number, item in enumerate(items)
    ]
    run = small_run(loaded, _with(task, broken))
    run_shard(run, tmp_path / "run")
    merged = merge(run, tmp_path / "run")
    found = summarize(merged, run.task, {}, missing=["none.mp4"])
    assert (found["n"], found["failed"], found["quarantined"]["items"]) == (2, 2, 2)
    assert "VideoError" in found["quarantined"]["first"][0]["error"]
    assert any("2 items failed and 1 media are missing" in text for text in found["findings"])
    assert [one.id for one in merged.records] == [item.id for item in items]


def _with(task: FilmstripTask, items: list[Item]) -> FilmstripTask:
    """Return a copy of a task with other items."""
    copy = dataclasses.replace(task)
    copy.__dict__["_items"] = items
    return copy


def test_an_incomplete_run_is_not_merged(loaded: LoadedModel, tmp_path: Path) -> None:
    run = small_run(loaded)
    with pytest.raises(ConfigError, match="4 of 4 records are not there"):
        merge(run, tmp_path)


def test_records_and_manifest_read_back(finished: tuple[Run, Path], tmp_path: Path) -> None:
    _, folder = finished
    one = read_records(folder)[0]
    assert Record.from_dict({**one.result(), "seconds": dict(one.seconds)}) == one
    with pytest.raises(ConfigError, match="does not know"):
        Record.from_dict({**one.result(), "colour": "red"})
    with pytest.raises(ConfigError, match="no manifest"):
        read_manifest(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"b"\n{"c": 2}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2"):
        read_lines(tmp_path / "x.jsonl")
    assert json.loads((folder / MANIFEST).read_text())["task"] == "filmstrip-n1"
