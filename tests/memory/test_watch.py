"""Watch a file while it grows: the memory is the one that a single look at the finished file gives."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from longtake.core.budget import Budget
from longtake.core.errors import BudgetError, ConfigError, VideoError
from longtake.engine.ask import ask
from longtake.engine.remember import recall
from longtake.engine.watch import Watching, watch
from longtake.media.synthetic import write_clock_video
from longtake.memory.reader import StoredMemory
from longtake.memory.writer import MemoryWriter
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import tiny_model
from longtake.models.tiny_pvc import tiny_pvc
from tests.media.stream_server import serving

HOW = Watching(fps=1, clips_per_segment=2, poll_s=1, quiet_s=2)


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    return tiny_model()


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a transport stream of 43 seconds, as a camera or a recorder writes it."""
    folder = tmp_path_factory.mktemp("recording")
    return write_clock_video(folder / "live.ts", 43.0, fps=8, size=(64, 128), key_frame_every=8).read_bytes()


def growing(path: Path, data: bytes, num_parts: int) -> Callable[[float], None]:
    """Return a way of waiting in which the file grows by a part."""
    ends = iter(np.linspace(0, len(data), num_parts + 1).astype(int)[1:].tolist())
    path.write_bytes(data[: next(ends)])

    def wait(_: float) -> None:
        path.write_bytes(data[: next(ends, len(data))])

    return wait


def segments_of(path: Path) -> list[tuple]:
    with StoredMemory(path) as stored:
        stored.verify()
        found = [(*part.frame_pts_s.ravel().tolist(), part.first_frame) for part in stored.segments()]
        return [*found, json.dumps(stored.closing()), stored.header.identity.fingerprint()]  # pyright: ignore


@pytest.mark.parametrize("num_parts", [2, 12])
def test_a_live_memory_equals_that_of_the_finished_file(
    num_parts: int, recording: bytes, loaded: LoadedModel, tmp_path: Path
):
    growing_path, whole_path = tmp_path / "live.ts", tmp_path / "whole.ts"
    whole_path.write_bytes(recording)
    seen: list[int] = []
    wait = growing(growing_path, recording, num_parts)
    live = watch(
        growing_path,
        loaded,
        tmp_path / "live.ltm",
        HOW,
        wait=wait,
        on_segment=lambda stored: seen.append(stored.num_segments),
    )
    once = watch(whole_path, loaded, tmp_path / "once.ltm", HOW, wait=lambda _: None)
    assert segments_of(live) == segments_of(once)
    first, second = recall(live, loaded), recall(once, loaded)
    assert torch.equal(first.tokens.features, second.tokens.features)
    assert first.num_frames == 44 and first.frame_pts_s.ravel()[:3].tolist() == pytest.approx([0.5, 1.5, 2.5])
    assert seen == sorted(seen) and len(seen) >= min(num_parts, 3)


def test_questions_are_answered_while_the_film_goes_on(recording: bytes, loaded: LoadedModel, tmp_path: Path):
    path, answers = tmp_path / "live.ts", []

    def question(stored: StoredMemory) -> None:
        if not stored.is_complete:
            answers.append(ask(stored.path, "What happens?", loaded, Budget(max_new_tokens=1)))

    watch(path, loaded, tmp_path / "live.ltm", HOW, wait=growing(path, recording, 6), on_segment=question)
    assert len(answers) >= 3
    assert all("still being written" in answer.ledger["notes"][-1] for answer in answers)


def test_a_watch_that_was_stopped_is_gone_on_with(recording: bytes, loaded: LoadedModel, tmp_path: Path):
    path, target = tmp_path / "live.ts", tmp_path / "live.ltm"

    def stop(_: StoredMemory) -> None:
        raise InterruptedError

    for _ in range(2):
        with pytest.raises(InterruptedError):
            watch(path, loaded, target, HOW, wait=growing(path, recording, 5), on_segment=stop)
    watch(path, loaded, target, HOW, wait=lambda _: None)
    once = watch(path, loaded, tmp_path / "once.ltm", HOW, wait=lambda _: None)
    assert torch.equal(recall(target, loaded).tokens.features, recall(once, loaded).tokens.features)


def test_a_memory_of_limited_size_forgets_detail_first(
    recording: bytes, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    append = MemoryWriter.append

    def size_of(writer: MemoryWriter) -> int:
        return writer.path.stat().st_size

    path, sizes = tmp_path / "live.ts", []
    how = Watching(fps=4, clips_per_segment=2, poll_s=1, quiet_s=2, max_bytes=300_000)
    target = watch(
        path,
        loaded,
        tmp_path / "live.ltm",
        how,
        wait=growing(path, recording, 12),
        on_segment=lambda stored: sizes.append(stored.num_bytes),
    )
    assert len(sizes) > 5 and max(sizes) <= 300_000
    at_once, seen = tmp_path / "once.ltm", []
    monkeypatch.setattr(MemoryWriter, "append", lambda self, data: (append(self, data), seen.append(size_of(self)))[0])
    watch(path, loaded, at_once, how, wait=lambda _: None)
    assert len(seen) > 20 and max(seen) <= 300_000
    with StoredMemory(target) as stored:
        counts = [len(part.tokens) / part.frame_pts_s.size for part in stored.segments()]
        assert stored.memory().frame_pts_s[-1, -1] > 42
    assert counts == sorted(counts) and counts[-1] == 16 and counts[0] < 16


def test_a_recording_that_goes_away_is_said_to(recording: bytes, loaded: LoadedModel, tmp_path: Path):
    path = tmp_path / "live.ts"
    path.write_bytes(recording)
    with pytest.raises(VideoError, match="No such file"):
        watch(path, loaded, tmp_path / "live.ltm", HOW, wait=lambda _: path.unlink())


def test_what_cannot_be_watched_is_refused(recording: bytes, loaded: LoadedModel, tmp_path: Path):
    path = tmp_path / "live.ts"
    path.write_bytes(recording)
    with pytest.raises(ConfigError, match="of kind ftp"):
        watch("ftp://camera/1", loaded, tmp_path / "live.ltm", HOW)
    with pytest.raises(VideoError, match="No such file"):
        watch("camera:/dev/video987", loaded, tmp_path / "live.ltm", HOW, wait=pause)
    with pytest.raises(ConfigError, match="in the light of those before"):
        watch(path, tiny_pvc(), tmp_path / "live.ltm", HOW)
    with pytest.raises(ConfigError, match="positive fps"):
        watch(path, loaded, tmp_path / "live.ltm", Watching(fps=0))
    path.write_bytes(b"no video" * 1000)
    with pytest.raises(VideoError):
        watch(path, loaded, tmp_path / "live.ltm", HOW, wait=lambda _: None)


def pause(_: float) -> None:
    """Wait as long as a recorder in a process of its own needs to come on."""
    time.sleep(0.05)


@pytest.mark.parametrize("num_cuts", [0, 1])
def test_the_memory_of_a_stream_is_that_of_the_file(
    num_cuts: int, recording: bytes, loaded: LoadedModel, tmp_path: Path
):
    (tmp_path / "film.ts").write_bytes(recording)
    whole = watch(tmp_path / "film.ts", loaded, tmp_path / "once.ltm", HOW, wait=lambda _: None)
    seen: list[int] = []
    with serving(tmp_path, num_cuts=num_cuts) as server:
        how = dataclasses.replace(HOW, piece_s=5, quiet_s=20)
        live = watch(
            server.address("film.ts"),
            loaded,
            tmp_path / "live.ltm",
            how,
            wait=pause,
            on_segment=lambda stored: seen.append(stored.num_segments),
        )
    with StoredMemory(live) as one, StoredMemory(whole) as other:
        one.verify()
        assert one.closing()["duration_s"] == other.closing()["duration_s"]
        for ours, theirs in zip(one.segments(), other.segments(), strict=True):
            assert torch.equal(ours.tokens.features, theirs.tokens.features)
            assert torch.equal(ours.tokens.frame_weight, theirs.tokens.frame_weight)
            assert np.array_equal(ours.frame_pts_s, theirs.frame_pts_s) and ours.thumbnail == theirs.thumbnail
    assert not (tmp_path / "live.recording").exists()
    assert ask(live, "What happens?", loaded, Budget(max_new_tokens=1)).text is not None


def test_a_stream_is_gone_on_with_and_its_recording_stays_small(recording: bytes, loaded: LoadedModel, tmp_path: Path):
    (tmp_path / "film.ts").write_bytes(recording)
    target, folder, sizes = tmp_path / "live.ltm", tmp_path / "live.recording", []
    how = dataclasses.replace(HOW, piece_s=2, quiet_s=20, max_bytes=len(recording) * 2)

    def stop(_: StoredMemory) -> None:
        sizes.append(sum(path.stat().st_size for path in (*folder.glob("*.mp4"), target)))
        if len(sizes) < 3:
            raise InterruptedError

    with serving(tmp_path) as server:
        for _ in range(2):
            with pytest.raises(InterruptedError):
                watch(server.address("film.ts"), loaded, target, how, wait=pause, on_segment=stop)
        watch(server.address("film.ts"), loaded, target, how, wait=pause, on_segment=stop)
        assert watch(server.address("film.ts"), loaded, target, how) == target  # it is finished: nothing is recorded
        with pytest.raises(BudgetError, match="one segment of .* takes more than"):
            watch(
                server.address("film.ts"),
                loaded,
                tmp_path / "small.ltm",
                dataclasses.replace(how, max_bytes=len(recording) // 8),
                wait=pause,
            )
    whole = watch(tmp_path / "film.ts", loaded, tmp_path / "once.ltm", HOW, wait=lambda _: None)
    assert max(sizes) <= how.max_bytes  # pyright: ignore[reportOperatorIssue]
    with StoredMemory(target) as one, StoredMemory(whole) as other:
        ours, theirs = ([part.frame_pts_s for part in stored.segments()] for stored in (one, other))
    assert np.array_equal(np.concatenate(ours), np.concatenate(theirs))
