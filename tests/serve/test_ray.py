"""Ingest and serving on a cluster of this machine: two workers, of which one is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from longtake.cli.main import app
from longtake.core.budget import Budget
from longtake.core.errors import ConfigError, MemoryFormatError, MissingExtraError, StorageError, VideoError
from longtake.engine.ask import ask
from longtake.engine.remember import Wish, recall, remember
from longtake.media.synthetic import write_clock_video
from longtake.media.video import Video, open_video
from longtake.memory.reader import StoredMemory, memory_files
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import tiny_model
from longtake.serve.quarantine import FILE, Quarantine, Quarantined, state_of
from longtake.serve.ray_cluster import Cluster, count_workers, need_ray
from longtake.serve.ray_ingest import (
    ATTEMPTS_FOLDER,
    MOST_ATTEMPTS,
    Attempts,
    Encoder,
    Outcome,
    find_videos,
    ingest_on_ray,
)
from longtake.serve.settings import Limits, ServeSettings

SEGMENT_FRAMES = 32
LONG_FRAMES = 320
QUESTION = "What happens?"
SERVE_FRAMES = 16
START_LIMIT_S = 900  # every process of the cluster imports PyTorch: slow where others hold the processors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of twenty films: a long one, eighteen short ones of which two lie deeper, and a broken one."""
    found = tmp_path_factory.mktemp("films")
    (found / "deeper").mkdir()
    write_clock_video(found / "long.mp4", LONG_FRAMES, fps=1, size=(32, 48))
    for number in range(18):
        place = found / "deeper" if number < 2 else found
        write_clock_video(place / f"short{number}.mp4", 9 + number, fps=1, size=(32, 48))
    (found / "broken.mp4").write_bytes(b"no film at all")
    return found


def in_process(path: Path) -> Video:
    return open_video(path, isolate=False)


@pytest.fixture(scope="module")
def serial(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the memories that one process makes, one after the other."""
    target, model = tmp_path_factory.mktemp("serial"), tiny_model()
    for source in find_videos([str(folder)]):
        if "broken" not in source:
            remember(source, model, target, opener=in_process)
    return target


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield Cluster(workers=2)
    ray.shutdown()


def processes(mark: str) -> list[psutil.Process]:
    """Return the living processes of the cluster whose title holds a mark."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(mark in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(holds: Callable[[], Any], limit_s: float = START_LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.01)
    return found


def segments_of(target: Path, stem: str) -> int:
    for path in target.glob(f"{stem}-*.ltm"):
        try:
            with StoredMemory(path) as stored:
                return stored.num_segments
        except MemoryFormatError:  # its header is being written
            return 0
    return 0


def kill_in_the_middle(target: Path, told: list[int]) -> None:
    """Kill the worker that has the long film open once a part of it is on disk; tell its id and how much there is."""
    until(lambda: segments_of(target, "long"))
    (killed,) = [
        process
        for process in processes("ray::MapWorker")
        if any(Path(each.path).name.startswith("long-") for each in process.open_files())
    ]
    killed.kill()
    killed.wait(30)
    told += [killed.pid, segments_of(target, "long")]


@pytest.mark.timeout(START_LIMIT_S)
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_loses_nothing_and_a_second_run_does_nothing(
    cluster: Cluster, folder: Path, serial: Path, tmp_path: Path
) -> None:
    told: list[int] = []
    killer = threading.Thread(target=kill_in_the_middle, args=(tmp_path, told), daemon=True)
    killer.start()
    first = ingest_on_ray([str(folder)], tmp_path, tiny_model, cluster=cluster)
    killer.join(60)
    killed, num_segments = told
    outcomes = {Path(each.source).stem: each for each in first.outcomes}
    assert len(first.outcomes) == len(outcomes) == 20, "every video once"
    assert first.left == () and 0 < num_segments < LONG_FRAMES // SEGMENT_FRAMES
    long = outcomes["long"]
    assert long.num_encoded == LONG_FRAMES - num_segments * SEGMENT_FRAMES, "gone on with where the dead one was"
    assert long.worker != killed
    assert [name for name, each in outcomes.items() if each.memory is None] == ["broken"]
    assert same_memories(tmp_path, serial)

    (listed,) = json.loads((tmp_path / FILE).read_text())["videos"]
    assert listed["type"] == "VideoError" and listed["exit_code"] == VideoError.exit_code
    assert "broken.mp4 cannot be opened as a video" in listed["message"]
    assert not list((tmp_path / ATTEMPTS_FOLDER).iterdir())

    # A second run, of which one memory is missing and another one was interrupted.
    half = next(tmp_path.glob("long-*.ltm"))
    half.unlink()
    interrupted(folder / "long.mp4", tmp_path, num_segments=3)
    before = {path: path.stat().st_mtime_ns for path in memory_files(tmp_path)}
    second = ingest_on_ray([str(folder)], tmp_path, tiny_model, cluster=Cluster(workers=1))
    encoded = {Path(each.source).stem: each.num_encoded for each in second.outcomes if each.num_encoded}
    assert encoded == {"long": LONG_FRAMES - 3 * SEGMENT_FRAMES}
    assert [Path(each.source).name for each in second.left] == ["broken.mp4"]
    changed = [path for path in memory_files(tmp_path) if before.get(path) != path.stat().st_mtime_ns]
    assert changed == [half] and same_memories(tmp_path, serial)


def interrupted(source: Path, target: Path, num_segments: int) -> None:
    """Leave a memory as a process that was killed leaves it."""

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "decode" and done > num_segments * SEGMENT_FRAMES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remember(str(source), tiny_model(), target, on_progress=stop, opener=in_process)
    assert segments_of(target, source.stem) == num_segments


def same_memories(found: Path, expected: Path) -> bool:
    """Say whether two folders hold the same memories: names, tokens, times and answers."""
    names = [[path.name for path in memory_files(each)] for each in (found, expected)]
    assert names[0] == names[1]
    model = tiny_model()
    for number, name in enumerate(names[0]):
        one, other = recall(found / name, model), recall(expected / name, model)
        assert torch.equal(one.tokens.features, other.tokens.features)
        assert torch.equal(one.tokens.frame_weight, other.tokens.frame_weight)
        assert (one.frame_pts_s == other.frame_pts_s).all() and one.duration_s == other.duration_s
        if number < 2:
            answers = [ask(each, QUESTION, model, Budget(max_new_tokens=4)) for each in (one, other)]
            assert answers[0].text == answers[1].text and answers[0].evidence == answers[1].evidence
    return True


def test_what_meets_every_video_ends_the_run_with_its_own_error(tmp_path: Path, folder: Path) -> None:
    def no_model() -> LoadedModel:
        raise ConfigError("there is no model; expected one; name it")

    outcome = Encoder(no_model, str(tmp_path), Wish()).work(str(folder / "short5.mp4"))
    assert (outcome.type, outcome.exit_code, outcome.is_fatal) == ("ConfigError", 2, True)
    assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
    broken = Encoder(tiny_model, str(tmp_path), Wish()).work(str(folder / "broken.mp4"))
    assert (broken.type, broken.is_fatal, broken.memory) == ("VideoError", False, None)


def test_a_video_that_ends_its_workers_is_given_up(tmp_path: Path, folder: Path) -> None:
    source = str(folder / "short5.mp4")
    attempts = Attempts(tmp_path, source)
    assert [attempts.begin() for _ in range(MOST_ATTEMPTS)] == [0, 1, 2]
    encoder = Encoder(tiny_model, str(tmp_path), Wish())
    given_up = encoder.work(source)
    assert given_up.type == "VideoError" and f"{MOST_ATTEMPTS} workers" in given_up.message
    assert not attempts.path.exists() and not memory_files(tmp_path)
    for _ in range(5):
        assert attempts.begin() < MOST_ATTEMPTS
        attempts.advance()  # it died as often, but each time a segment further
    made = encoder.work(source)
    assert made.memory is not None and made.num_encoded == 8 and not attempts.path.exists()


def test_a_memory_that_somebody_writes_is_waited_for(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longtake.serve import ray_ingest

    monkeypatch.setattr(ray_ingest, "BUSY_PAUSE_S", 0.05)
    source, started = str(folder / "short6.mp4"), threading.Event()

    def slowly(stage: str, done: int, total: int) -> None:
        started.set()
        time.sleep(0.3)

    other = threading.Thread(target=lambda: remember(source, tiny_model(), tmp_path, on_progress=slowly))
    other.start()
    assert started.wait(30)
    outcome = Encoder(tiny_model, str(tmp_path), Wish()).work(source)
    other.join(30)
    assert outcome.memory is not None and outcome.num_encoded == 0, "made once"


def test_videos_of_a_folder_come_largest_first_and_once(folder: Path, tmp_path: Path) -> None:
    found = find_videos([str(folder), str(folder / "long.mp4")])
    sizes = [Path(each).stat().st_size for each in found]
    assert len(found) == 20 and sizes == sorted(sizes, reverse=True) and Path(found[0]).name == "long.mp4"
    assert sum("deeper" in each for each in found) == 2
    with pytest.raises(ConfigError, match="holds no video"):
        find_videos([str(tmp_path)])
    (tmp_path / "1.png").touch()
    assert find_videos([str(tmp_path)]) == [str(tmp_path)], "pictures are one video"


def test_quarantine_holds_a_file_until_it_changes(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"broken")
    size, mtime_ns = state_of(str(film))
    failed = Quarantined(
        source=str(film), bytes=size, mtime_ns=mtime_ns, type="VideoError", message="it broke", exit_code=3
    )
    quarantine = Quarantine(tmp_path)
    quarantine.add(failed)
    quarantine.write()
    assert list(Quarantine(tmp_path)) == [failed] and Quarantine(tmp_path).holds(str(film))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", FILE], "nothing lies beside it"
    film.write_bytes(b"whole again")
    assert not Quarantine(tmp_path).holds(str(film))
    quarantine.drop(str(film))
    quarantine.write()
    assert list(Quarantine(tmp_path)) == []
    (tmp_path / FILE).write_text("[")
    with pytest.raises(ConfigError, match="quarantine.json cannot be read"):
        Quarantine(tmp_path)


def test_a_list_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = Quarantine(tmp_path)
    (tmp_path / FILE).write_text('{"videos": []}')

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    failed = Quarantined(source="a", bytes=1, mtime_ns=1, type="VideoError", message="it broke", exit_code=3)
    with pytest.raises(StorageError, match="No space left"):
        quarantine.add(failed)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).read_text() == '{"videos": []}'


@pytest.mark.parametrize(
    "values, resources, expected",
    [
        ({}, {"CPU": 4.0}, 4),
        ({"gpus": 0.5}, {"CPU": 16.0, "GPU": 2.0}, 4),
        ({"gpus": 1}, {"CPU": 2.0, "GPU": 8.0}, 2),
        ({"workers": 3}, {"CPU": 4.0}, 3),
    ],
)
def test_as_many_workers_as_there_is_room_for(
    values: dict[str, Any], resources: dict[str, float], expected: int
) -> None:
    assert count_workers(Cluster(**values), resources) == expected


@pytest.mark.parametrize("values", [{"workers": 5}, {"gpus": 1}, {"cpus": 8}])
def test_too_little_room_is_told(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="were asked for; the cluster has 4 and 0"):
        count_workers(Cluster(**values), {"CPU": 4.0})
    with pytest.raises(ConfigError, match="expected at least one worker"):
        Cluster(workers=0)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"longtake\[ray\]"):
        need_ray("data")


@pytest.mark.parametrize("options", (["--workers", "2"], ["--gpus", "0.5"], ["--retry"], ["--ray-address", "auto"]))
def test_options_of_a_cluster_need_one(options: list[str], folder: Path) -> None:
    with pytest.raises(ConfigError, match="expected both; add --ray"):
        app(args=["ingest", str(folder), *options], standalone_mode=False)


def test_one_file_for_many_memories_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder"):
        app(args=["ingest", str(folder), "--ray", "-o", "all.ltm"], standalone_mode=False)


@pytest.fixture(scope="module")
def address(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of two servers over one store."""
    from longtake.serve import ray_serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    limits = Limits(max_frames=SERVE_FRAMES, max_tokens=16, grace_s=1)
    settings = ServeSettings(store=str(tmp_path_factory.mktemp("store")), port=port, limits=limits)
    yield ray_serve.start(tiny_model, settings, cluster, 2)
    ray_serve.stop()


def asked(http: httpx.Client, video_id: str) -> tuple[str, list[float], int]:
    """Return an answer, the scores of its evidence, and how many tokens the replica had read before."""
    reply = http.post(f"/v1/videos/{video_id}/ask", json={"question": QUESTION, "max_tokens": 6})
    assert reply.status_code == 200, reply.text
    shown = reply.json()
    assert shown["video"] == video_id
    cached = shown["usage"]["prompt_tokens_details"]["cached_tokens"]
    return shown["answer"], [span["score"] for span in shown["evidence"]], cached


def expected_of(film: Path, target: Path) -> tuple[str, list[float | None]]:
    model = tiny_model()
    wish = Wish(budget=Budget(max_frames=SERVE_FRAMES))
    memory = recall(remember(str(film), model, target, wish, opener=in_process), model)
    answer = ask(memory, QUESTION, model, Budget(max_new_tokens=6))
    return answer.text, [span.score for span in answer.evidence]


@pytest.mark.timeout(START_LIMIT_S)
@pytest.mark.filterwarnings("ignore")
def test_a_video_stays_with_its_replica_and_a_killed_one_comes_back(address: str, folder: Path, tmp_path: Path) -> None:
    films = [folder / f"short{number}.mp4" for number in (7, 9, 11, 13, 15, 17)]
    expected = [expected_of(film, tmp_path) for film in films]
    assert len({tuple(scores) for _, scores in expected}) == len(films), "another video's answer would be noticed"

    def all_right(answers: list[tuple[str, list[float], int]]) -> bool:
        for (text, scores, _), (wanted, wanted_scores) in zip(answers, expected, strict=True):
            assert text == wanted.strip() and scores == pytest.approx(wanted_scores, rel=1e-4)
        return True

    with httpx.Client(base_url=address, timeout=120, trust_env=False) as http:
        sent = [http.post("/v1/videos", files={"file": (film.name, film.read_bytes())}) for film in films]
        assert [reply.status_code for reply in sent] == [202] * len(films)
        ids = [reply.json()["id"] for reply in sent]
        again = http.post("/v1/videos", files={"file": (films[0].name, films[0].read_bytes())}).json()
        assert again["id"] == ids[0], "the same video, whichever replica takes it in"
        first, *later = [[asked(http, video_id) for video_id in ids] for _ in range(4)]
        assert all(map(all_right, (first, *later)))
        assert [cached for _, _, cached in first] == [0] * len(ids)
        assert all(cached > 0 for answers in later for _, _, cached in answers), "each at the replica that has read it"
        assert {http.get(f"/v1/videos/{video_id}").json()["status"] for video_id in ids} == {"ready"}

        replicas = processes("ray::ServeReplica:longtake")
        assert len(replicas) == 2
        victim = busiest(replicas, lambda: [asked(http, ids[0]) for _ in range(10)])
        victim.send_signal(signal.SIGKILL)
        victim.wait(30)
        moved = [asked(http, video_id) for video_id in ids]
        assert all_right(moved) and moved[0][2] == 0, "the video of the dead one was read anew by the other"
        until(lambda: len({each.pid for each in processes("ray::ServeReplica:longtake")} - {victim.pid}) == 2)
        until(lambda: all(cached > 0 for _, _, cached in [asked(http, video_id) for video_id in ids]))
        assert all_right([asked(http, video_id) for video_id in ids])


def busiest(replicas: list[psutil.Process], work: Callable[[], Any]) -> psutil.Process:
    """Return the replica that spends the most time on some work."""
    before = [sum(each.cpu_times()[:2]) for each in replicas]
    work()
    spent = [sum(each.cpu_times()[:2]) - start for each, start in zip(replicas, before, strict=True)]
    return replicas[spent.index(max(spent))]


@pytest.mark.filterwarnings("ignore")
def test_the_video_is_found_in_a_request_as_the_proxy_hands_it_on() -> None:
    pytest.importorskip("ray")
    from ray.serve._private.proxy_request_response import ASGIProxyRequest

    from longtake.serve.ray_serve import video_of

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    def handed_on(path: str) -> object:
        scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": [(b"host", b"localhost")]}
        return ASGIProxyRequest(scope, nothing, nothing).serialized_replica_arg("proxy")

    video = "video-" + "0123456789ab" * 2
    assert video_of(handed_on(f"/v1/videos/{video}/ask")) == video
    assert video_of(handed_on(f"/v1/videos/{video}")) == video
    assert video_of(handed_on("/v1/videos")) is video_of(handed_on(f"/v1/videos/{video}0/ask")) is None
