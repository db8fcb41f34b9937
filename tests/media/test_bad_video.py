"""What cannot be opened says so at once, with a typed error in three parts; nothing hangs, nothing grows."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from longtake.core.errors import ConfigError, DecodeTimeoutError, LongtakeError, VideoError
from longtake.media import process
from longtake.media.video import open_video
from tests.media.places import GOLDEN


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def header_only(path: Path) -> Path:
    """Write an mp4 with a video stream and not one frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=64, pix_fmt="yuv420p")
        container.mux(stream.encode(None))
    return path


def playlist(path: Path) -> Path:
    return written(
        path, b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n"
    )


def empty_folder(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").write_text("no pictures here")
    return path


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path, "does not exist"),
    "empty": (lambda path: written(path, b""), "is empty"),
    "text": (lambda path: written(path, b"not a video\n" * 30), "cannot be opened"),
    "noise": (lambda path: written(path, np.random.default_rng(1).bytes(8192)), "cannot be opened"),
    "sound only": (sound_only, "no video stream .streams: audio"),
    "no frames": (header_only, "expected"),
    "no index": (lambda path: written(path, (GOLDEN / "truncated_no_moov.mp4").read_bytes()), "moov"),
    "folder without pictures": (empty_folder, "holds no pictures"),
    "playlist of addresses": (playlist, "expected"),
    "name far too long": (lambda path: path.with_name("x" * 400), "cannot be read|does not exist"),
}


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_video_is_refused_at_once(name: str, isolate: bool, tmp_path: Path):
    make, message = BAD[name]
    path = make(tmp_path / "bad.mp4")
    start = time.monotonic()
    with pytest.raises(VideoError, match=message) as raised:
        open_video(path, isolate=isolate)
    assert time.monotonic() - start < 10
    text = str(raised.value)
    assert "expected" in text and ";" in text
    assert path.name in text


@pytest.mark.parametrize("source", ["", b""])
def test_nothing_at_all_is_refused(source: str | bytes):
    with pytest.raises(VideoError, match="expected"):
        open_video(source)


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="neither a file nor a folder"):
        open_video(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("time_limit_s", [0, -1.0, float("nan")])
def test_a_time_limit_that_is_none_is_refused(time_limit_s: float):
    with pytest.raises(ConfigError, match="time_limit_s"):
        open_video(GOLDEN / "base.mp4", time_limit_s=time_limit_s)


def test_a_file_cut_short_gives_what_it_has_and_says_so():
    with open_video(GOLDEN / "truncated_faststart_55pct.mp4") as video:
        assert any("promises 150 frames, 76 are there" in warning for warning in video.warnings)
        assert video.info.duration_s == pytest.approx(2.636, abs=0.05)
        frames = list(video.frames_at(video.clock.pts_s, size=(36, 64)))
    damaged = np.concatenate([chunk.damaged for chunk in frames if chunk.damaged is not None])
    assert len(damaged) == 76
    assert not damaged[:70].any()
    assert damaged[-1]


def test_damage_in_the_middle_costs_no_frame_and_is_marked():
    with open_video(GOLDEN / "corrupt_middle_bytes.mp4") as video:
        frames = list(video.frames_at(video.clock.pts_s, size=(36, 64)))
        assert any("damaged" in warning and "packets could not be decoded" in warning for warning in video.warnings)
    with open_video(GOLDEN / "base.mp4") as whole:
        wanted = np.concatenate([chunk.pixels for chunk in whole.frames_at(whole.clock.pts_s, size=(36, 64))])
    pixels = np.concatenate([chunk.pixels for chunk in frames])
    damaged = np.concatenate([chunk.damaged for chunk in frames if chunk.damaged is not None])
    assert len(pixels) == 150
    assert 9 <= damaged.sum() < 150
    assert np.array_equal(pixels[~damaged], wanted[~damaged])  # what is not marked is untouched


MOTHERS = ("base.mp4", "start_at_100s.ts", "vfr_gap20s.mkv", "flower.gif", "fragmented.mp4")


def spoilt(mother: str, seed: int) -> bytes:
    """Return a file with bits flipped, or cut, or both."""
    rng = np.random.default_rng(seed)
    data = bytearray((GOLDEN / mother).read_bytes())
    if seed % 3 != 0:
        for place in rng.integers(0, len(data), size=int(rng.integers(1, 200))):
            data[place] ^= 1 << int(rng.integers(8))
    if seed % 3 != 1:
        del data[int(rng.integers(1, len(data))) :]
    return bytes(data)


def check_survives(path: Path, *, isolate: bool) -> None:
    try:
        with open_video(path, isolate=isolate, time_limit_s=20.0) as video:
            times_s = np.linspace(float(video.clock.pts_s[0]), float(video.clock.pts_s[-1]), 9)
            assert sum(len(frames) for frames in video.frames_at(times_s, size=(24, 32))) == 9
    except VideoError as error:
        assert not isinstance(error, DecodeTimeoutError)
        assert "expected" in str(error)


@pytest.mark.parametrize("mother", MOTHERS)
def test_spoilt_files_give_frames_or_a_typed_error(mother: str, tmp_path: Path):
    for seed in range(12):
        check_survives(written(tmp_path / f"{seed}{Path(mother).suffix}", spoilt(mother, seed)), isolate=False)


def test_spoilt_files_in_a_worker_leave_the_caller_whole(tmp_path: Path):
    for seed in range(12):
        mother = MOTHERS[seed % len(MOTHERS)]
        check_survives(written(tmp_path / f"{seed}{Path(mother).suffix}", spoilt(mother, 100 + seed)), isolate=True)


def test_three_hundred_opens_take_no_memory(tmp_path: Path):
    bad = written(tmp_path / "bad.mp4", spoilt("base.mp4", 5))
    me = psutil.Process()

    def open_all(times: int) -> None:
        for number in range(times):
            path = (GOLDEN / "vfr_gap20s.mkv", GOLDEN / "single_frame.mp4", bad)[number % 3]
            try:
                with open_video(path, isolate=False, backend="pyav") as video:
                    next(video.frames_at(video.clock.pts_s[:1], size=(24, 32)))
            except VideoError:
                continue

    open_all(60)
    before, files = me.memory_info().rss, me.num_fds()
    open_all(300)
    assert me.memory_info().rss - before < 8 << 20
    assert me.num_fds() == files


def test_opens_in_workers_leave_no_process_and_no_file_behind(tmp_path: Path):
    me = psutil.Process()
    with open_video(GOLDEN / "single_frame.mp4"):
        pass
    files = me.num_fds()
    for number in range(8):
        video = open_video((GOLDEN / "single_frame.mp4").read_bytes() if number % 2 else GOLDEN / "single_frame.mp4")
        next(video.frames_at(np.zeros(1)))
        if number % 3:
            video.close()
        del video
    assert [child for child in me.children() if child.status() != psutil.STATUS_ZOMBIE] == []
    assert me.num_fds() == files


def fake_worker(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let a program stand in for the worker: it gets requests, and does what a broken decoder might do."""
    monkeypatch.setattr(process, "START", f"import sys, time, os, json\nask = sys.stdin.buffer.readline()\n{body}")


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("time.sleep(600)", DecodeTimeoutError, "no progress for 0.5 s"),
        ("os.kill(os.getpid(), 11)", VideoError, "exit -11"),
        ("sys.exit('a library is missing')", VideoError, "exit 1, a library is missing"),
        ("sys.stdout.buffer.write(b'x' * (1 << 21)); sys.stdout.flush(); time.sleep(600)", VideoError, "ended"),
        ('os.write(1, b\'{"kind": "scan", "bytes": 9999}\\n\'); time.sleep(600)', DecodeTimeoutError, "no progress"),
    ],
    ids=["hangs", "crashes", "cannot start", "talks nonsense", "stops in the middle"],
)
def test_a_worker_that_fails_becomes_an_error(
    monkeypatch: pytest.MonkeyPatch, body: str, error: type[LongtakeError], message: str
):
    fake_worker(monkeypatch, body)
    start = time.monotonic()
    with pytest.raises(error, match=message):
        open_video(GOLDEN / "base.mp4", backend="pyav", time_limit_s=0.5)
    assert time.monotonic() - start < 5
    assert psutil.Process().children() == []


def test_a_slow_worker_that_shows_signs_of_life_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    alive = '[(os.write(1, b\'{"kind": "alive", "bytes": 0}\\n\'), time.sleep(0.2)) for _ in range(6)]\n'
    refuse = 'os.write(1, b\'{"kind": "error", "type": "VideoError", "message": "slow; expected", "bytes": 0}\\n\')'
    fake_worker(monkeypatch, alive + refuse)
    start = time.monotonic()
    with pytest.raises(VideoError, match="slow"):
        open_video(GOLDEN / "base.mp4", backend="pyav", time_limit_s=0.6)
    assert time.monotonic() - start > 1.0


def test_a_worker_killed_between_two_passes_is_an_error_and_the_next_pass_works():
    with open_video(GOLDEN / "base.mp4", backend="pyav") as video:
        (worker,) = psutil.Process().children()
        worker.kill()
        with pytest.raises(VideoError, match="process ended"):
            list(video.frames_at(np.zeros(1)))
        assert len(next(video.frames_at(np.zeros(1)))) == 1


def test_a_file_that_vanishes_after_opening_is_an_error(tmp_path: Path):
    path = Path(shutil.copy(GOLDEN / "single_frame.mp4", tmp_path / "x.mp4"))
    with open_video(path) as video:
        path.unlink()
        with pytest.raises(VideoError, match="x.mp4 cannot be opened"):
            next(video.frames_at(np.zeros(1)))


def test_a_module_in_the_working_directory_is_not_run_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "av.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    with open_video(GOLDEN / "single_frame.mp4", backend="pyav") as video:
        assert len(next(video.frames_at(np.zeros(1)))) == 1
