"""Streams and cameras: recorded in pieces that together are the film, through lost connections, in bounded room."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from longtake.core.errors import ConfigError, MemoryBusyError, VideoError
from longtake.media.recorder import STATE_FILE, State
from longtake.media.recording import Recording, is_stream, read_source, shown_source
from longtake.media.synthetic import write_clock_video
from longtake.media.video import Video, open_video
from tests.media.stream_server import RtspServer, serving

LONGEST_S = 60.0


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of the same 21 seconds in several containers; in one, pictures refer across key frames."""
    folder = tmp_path_factory.mktemp("films")
    for name in ("film.ts", "film.mkv"):
        write_clock_video(folder / name, 21.0, fps=8, size=(32, 64), key_frame_every=16)
    write_clock_video(folder / "live.ts", 21.0, fps=8, size=(32, 64), key_frame_every=16, num_b_frames=0)
    open_gop = {"x264-params": "open-gop=1:keyint=16:min-keyint=16:bframes=3:b-adapt=0"}
    write_clock_video(folder / "open.ts", 21.0, fps=8, size=(32, 64), key_frame_every=16, options=open_gop)
    return folder


def until_over(recording: Recording) -> Video:
    """Wait for the end of a recording and return what is there."""
    deadline = time.monotonic() + LONGEST_S
    while not recording.has_ended:
        assert time.monotonic() < deadline, "the recording does not end"
        time.sleep(0.05)
    video = recording.open()
    assert video is not None
    return video


def assert_same(one: Video, other: Video) -> None:
    """Frames and times are equal to the last bit."""
    assert np.array_equal(one.clock.pts_s, other.clock.pts_s) and one.clock.duration_s == other.clock.duration_s
    for ours, theirs in zip(one.frames_at(one.clock.pts_s), other.frames_at(one.clock.pts_s), strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)
        assert not ours.damaged.any()  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(
    "name, num_cuts, has_ranges",
    [("film.ts", 0, True), ("film.mkv", 1, True), ("film.mkv", 2, False), ("open.ts", 0, True)],
)
def test_the_pieces_of_a_stream_are_the_film_also_where_the_connection_breaks(
    name: str, num_cuts: int, has_ranges: bool, films: Path, tmp_path: Path
):
    with (
        serving(films, num_cuts=num_cuts, has_ranges=has_ranges) as server,
        Recording(server.address(name), tmp_path / "recording", piece_s=4, quiet_s=20) as recording,
        open_video(films / name) as film,
    ):
        video = until_over(recording)
        assert recording.size >= 5 and recording.state.num_lost == num_cuts
        assert video.warnings == [] if num_cuts == 0 else "nothing of it is missing" in video.warnings[0]
        assert_same(video, film)


def test_a_recording_waits_until_pieces_are_taken_and_goes_on_after_it_was_stopped(films: Path, tmp_path: Path):
    size, seen = (films / "film.ts").stat().st_size, []
    with serving(films) as server, open_video(films / "film.ts") as film:
        for number in range(2):
            with Recording(
                server.address("film.ts"), tmp_path / "recording", piece_s=2, quiet_s=20, limit_bytes=size // 4
            ) as recording:
                deadline = time.monotonic() + LONGEST_S
                while not recording.is_full and not recording.has_ended:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                time.sleep(0.3)
                assert sum(path.stat().st_size for path in (tmp_path / "recording").glob("*.mp4")) < size // 2
                video = recording.open()
                assert video is not None
                seen += [time_s for time_s in video.clock.pts_s if time_s not in seen]
                recording.forget(float(video.clock.pts_s[-1]))
                later = recording.open()
                assert later is not None and later.clock.pts_s[0] <= video.clock.pts_s[-1]
                if number:
                    recording.remove()
        assert len(seen) > 40 and np.array_equal(seen, film.clock.pts_s[: len(seen)])
        assert not (tmp_path / "recording").exists()


def test_a_camera_over_rtsp_is_recorded_through_a_lost_connection(films: Path, tmp_path: Path):
    server = RtspServer(films / "live.ts", parts=[0.5, 1.0])
    with Recording(server.address, tmp_path / "recording", piece_s=4, quiet_s=3) as recording:
        video = until_over(recording)
        state = recording.state
    assert state.num_lost == 1 and 0 < state.missing_s < 20 and "nothing came for 3 s" in state.ended
    steps = np.diff(video.clock.pts_s)
    assert len(video.clock) == 84 + 168 and video.clock.pts_s[0] == 0
    assert (np.abs(steps - 0.125) > 1e-4).sum() == 1  # at the gap
    assert sum(len(part) for part in video.frames_at(video.clock.pts_s[::8])) == 32


def test_a_stream_that_is_sent_over_rtsp_is_recorded_until_it_is_quiet(films: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"rtsp://127.0.0.1:{free.getsockname()[1]}/live"
    options = {"rtsp_flags": "listen", "listen_timeout": "20"}
    with Recording(address, tmp_path / "recording", piece_s=4, quiet_s=3, options=options) as recording:
        deadline = time.monotonic() + LONGEST_S
        while not push(films / "film.ts", address):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        video = until_over(recording)
    assert len(video.clock) > 140 and video.clock.pts_s[0] == 0
    np.testing.assert_allclose(np.diff(video.clock.pts_s), 0.125, atol=1e-4)
    assert "nothing came for 3 s" in recording.state.ended


def push(film: Path, address: str) -> bool:
    """Send a film to a listening recorder; say whether it listens."""
    with av.open(str(film)) as source:
        try:
            with av.open(address, "w", format="rtsp", options={"rtsp_transport": "tcp"}) as target:
                stream = target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(source.streams.video[0]):
                    if packet.size:
                        packet.stream = stream
                        target.mux(packet)
        except ConnectionRefusedError:
            return False
    return True


def test_a_lost_live_stream_goes_on_at_the_time_on_the_wall(films: Path, tmp_path: Path):
    """A server without ranges or lengths is live: it is joined anew, and what was sent meanwhile is missing."""
    data = (films / "film.ts").read_bytes()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for part in (data[: len(data) // 2], data):
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + part)
        server.close()

    threading.Thread(target=serve, daemon=True).start()
    address = f"http://127.0.0.1:{server.getsockname()[1]}/live"
    with Recording(address, tmp_path / "recording", piece_s=4, quiet_s=3) as recording:
        video = until_over(recording)
        state = recording.state
    assert state.num_lost == 1 and 0 < state.missing_s < 20
    steps = np.diff(video.clock.pts_s)
    assert (steps > 0).all() and (steps > 0.13).sum() == 1
    assert video.clock.duration_s > 28 and "of it are missing" in video.warnings[0]


def test_a_camera_without_a_codec_is_encoded(tmp_path: Path):
    source = "camera:lavfi:testsrc2=duration=30:rate=10:size=64x48"
    with Recording(source, tmp_path / "recording", piece_s=2, quiet_s=1, limit_bytes=60_000) as recording:
        deadline = time.monotonic() + LONGEST_S
        while not recording.is_full:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        video = recording.open()
        assert video is not None and (video.info.codec, video.info.width) == ("h264", 64)
        np.testing.assert_allclose(np.diff(video.clock.pts_s), 0.1, atol=1e-6)
        frames = list(video.frames_at(video.clock.pts_s[:30]))
        assert sum(len(part) for part in frames) == 30


@pytest.mark.parametrize(
    "source, message",
    [
        ("camera:/dev/video987", "No such file"),
        ("http://127.0.0.1:9/live.ts", "Connection refused"),
        ("rtsp://127.0.0.1:9/live", "Connection refused"),
    ],
)
def test_what_is_not_there_is_said_to_be(source: str, message: str, tmp_path: Path):
    with Recording(source, tmp_path / "recording") as recording, pytest.raises(VideoError, match=message):
        until_over(recording)


def test_a_recorder_that_dies_is_said_to_have_and_two_do_not_meet(films: Path, tmp_path: Path):
    with (
        serving(films) as server,
        Recording(server.address("film.ts"), tmp_path / "recording", limit_bytes=1) as recording,
    ):
        with pytest.raises(MemoryBusyError, match="another process records"):
            Recording(server.address("film.ts"), tmp_path / "recording")
        recording._process.kill()
        recording._process.wait()
        with pytest.raises(VideoError, match="goes on where it stopped"):
            _ = recording.size


def test_sources_are_told_apart_and_passwords_are_not_shown():
    assert [is_stream(source) for source in ("film.mp4", "rtsp://a/b", "camera:0", Path("film.mp4"))] == [
        False,
        True,
        True,
        False,
    ]
    assert read_source("camera:v4l2:/dev/video0") == ("/dev/video0", "v4l2")
    assert read_source("camera:/dev/video0")[0] == "/dev/video0"
    assert read_source("camera:avfoundation:0") == ("0", "avfoundation")
    assert shown_source("rtsp://me:secret@camera:554/1") == "rtsp://camera:554/1"
    with pytest.raises(ConfigError, match="kind ftp"):
        read_source("ftp://me:secret@a/b")


def test_a_state_is_written_whole_and_read_back(tmp_path: Path):
    assert State.read(tmp_path) == State()
    State(num_pieces=3, next_s=1.5, error="VideoError", failed="no").write(tmp_path)
    assert json.loads((tmp_path / STATE_FILE).read_bytes())["num_pieces"] == 3
    assert State.read(tmp_path).going_on() == State(num_pieces=3, next_s=1.5)
