from __future__ import annotations

import http.server
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtake.core.errors import VideoError
from longtake.core.types import Frames
from longtake.media import sources
from longtake.media.video import content_hash, open_video
from tests.media.places import GOLDEN

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)


def picture_bytes(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def test_arrays_with_times_are_a_video():
    times_s = np.array([0.0, 0.5, 1.0, 4.0, 4.5])
    for source in ({"pixels": PIXELS, "pts_s": times_s}, Frames(PIXELS, times_s)):
        with open_video(source) as video:
            assert video.info.num_frames == 5
            assert video.info.duration_s == pytest.approx(5.0)
            assert video.info.is_variable_rate
            frames = next(video.frames_at(np.array([0.1, 3.9])))
            assert np.array_equal(frames.pixels, PIXELS[[0, 3]])
            assert np.array_equal(frames.pts_s, [0.0, 4.0])


@pytest.mark.parametrize(
    "arrays",
    [
        {"pixels": PIXELS},
        {"pixels": PIXELS, "pts_s": np.arange(5.0), "fps": 3},
        {"pixels": PIXELS, "pts_s": np.arange(4.0)},
        {"pixels": PIXELS, "pts_s": np.arange(5.0)[::-1]},
        {"pixels": PIXELS, "pts_s": np.array([0, 1, 2, 3, np.nan])},
        {"pixels": PIXELS, "pts_s": ["a", "b", "c", "d", "e"]},
        {"pixels": PIXELS.astype(np.float32), "pts_s": np.arange(5.0)},
        {"pixels": PIXELS[..., 0], "pts_s": np.arange(5.0)},
        {"pixels": PIXELS[:0], "pts_s": np.zeros(0)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict):
    with pytest.raises(VideoError):
        open_video(arrays)


def test_bytes_are_a_video_and_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_video((GOLDEN / "single_frame.mp4").read_bytes(), backend="pyav") as video:
        assert video.info.source == "6657 bytes"
        assert len(next(video.frames_at(np.zeros(1)))) == 1
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VideoError, match="^19 bytes cannot be opened"):
        open_video(b"this is not a video")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_one_picture_is_a_video_of_one_frame(kind: str, tmp_path: Path):
    data = picture_bytes(PIXELS[0], kind)
    path = tmp_path / f"one.{kind.lower()}"
    path.write_bytes(data)
    for source in (path, str(path), data):
        with open_video(source) as video:
            assert (video.info.container, video.info.num_frames, video.info.duration_s) == ("image", 1, 0.0)
            assert (video.info.height, video.info.width) == (12, 16)
            frames = next(video.frames_at(np.zeros(3)))
    assert len(frames) == 3
    if kind == "PNG":
        assert np.array_equal(frames.pixels[0], PIXELS[0])


def test_a_video_with_the_name_of_another_kind_is_opened_by_its_content(tmp_path: Path):
    path = tmp_path / "wrong.avi"
    path.write_bytes((GOLDEN / "single_frame.mp4").read_bytes())
    with open_video(path, isolate=False) as video:
        assert "mp4" in video.info.container
    named_video = tmp_path / "picture.mp4"
    named_video.write_bytes(picture_bytes(PIXELS[0]))
    with open_video(named_video) as video:
        assert video.info.container == "image"


def folder_of(tmp_path: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(picture_bytes(np.full((8, 8, 3), number * 20, np.uint8)))
    return tmp_path


@pytest.mark.parametrize(
    "names",
    [
        ["frame_1.png", "frame_2.png", "frame_10.png", "frame_100.png"],
        ["1.png", "002.png", "10.png"],
        ["a.png", "b.png", "c.png"],
        ["cut1_9.png", "cut1_10.png", "cut2_1.png"],
        ["x.png", "x1.png", "x2.png"],
    ],
)
def test_a_folder_is_read_in_the_natural_order_of_its_names(names: list[str], tmp_path: Path):
    (tmp_path / "notes.txt").write_text("not a picture")
    with open_video(folder_of(tmp_path, names), folder_fps=2.0) as video:
        assert video.clock.pts_s.tolist() == [i / 2 for i in range(len(names))]
        assert video.info.duration_s == len(names) / 2
        frames = next(video.frames_at(video.clock.pts_s))
    assert frames.pixels[:, 0, 0, 0].tolist() == [i * 20 for i in range(len(names))]


def test_two_pictures_for_one_place_are_refused(tmp_path: Path):
    with pytest.raises(VideoError, match="same place"):
        open_video(folder_of(tmp_path, ["1.png", "01.png"]))


@pytest.mark.parametrize("fps", [0.0, -2.0, float("nan"), float("inf")])
def test_a_folder_needs_a_real_rate(fps: float, tmp_path: Path):
    with pytest.raises(VideoError, match="frame rate"):
        open_video(folder_of(tmp_path, ["1.png"]), folder_fps=fps)


def test_pictures_of_different_sizes_need_a_size(tmp_path: Path):
    folder_of(tmp_path, ["1.png"])
    (tmp_path / "2.png").write_bytes(picture_bytes(PIXELS[0]))
    with open_video(tmp_path) as video:
        with pytest.raises(VideoError, match="16x12, the first one 8x8"):
            list(video.frames_at(video.clock.pts_s))
        assert next(video.frames_at(video.clock.pts_s, size=(6, 6))).pixels.shape == (2, 6, 6, 3)


def test_a_broken_picture_in_a_folder_is_named(tmp_path: Path):
    folder_of(tmp_path, ["1.png"])
    (tmp_path / "2.png").write_bytes(b"broken")
    with open_video(tmp_path) as video, pytest.raises(VideoError, match=r"2\.png cannot be read as a picture"):
        list(video.frames_at(video.clock.pts_s))


def test_an_animation_has_the_times_of_its_frames():
    with open_video(GOLDEN / "flower.gif") as video:
        assert video.info.num_frames == 16
        assert video.clock.pts_s[-1] == pytest.approx(1.88)


class Server(http.server.BaseHTTPRequestHandler):
    data = (GOLDEN / "single_frame.mp4").read_bytes()

    def do_GET(self):
        if self.path == "/missing.mp4":
            self.send_error(404)
            return
        self.send_response(200)
        promised = {"/short.mp4": len(self.data) * 2, "/huge.mp4": 1 << 40}.get(self.path, len(self.data))
        if self.path not in ("/endless.mp4", "/slow.mp4"):
            self.send_header("Content-Length", str(promised))
        self.end_headers()
        try:
            if self.path == "/endless.mp4":
                while True:
                    self.wfile.write(self.data)
            if self.path == "/slow.mp4":
                for byte in self.data:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
            self.wfile.write(self.data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def log_message(self, *given):
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_an_address_is_fetched_opened_and_forgotten(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_video(f"{address}/video.mp4?sig=1") as video:
        assert video.info.source == f"{address}/video.mp4?sig=1"
        assert len(next(video.frames_at(np.zeros(1)))) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.mp4", "404"),
        ("short.mp4", "broke off after 6657 of 13314 bytes"),
        ("huge.mp4", "the limit is 100000"),
        ("endless.mp4", "more than 100000 bytes"),
        ("slow.mp4", "goes on|timed out"),
    ],
)
def test_a_download_that_goes_wrong_is_refused_and_leaves_nothing(
    address: str, path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(VideoError, match=message):
        sources.download(f"{address}/{path}", max_bytes=100_000, timeout_s=0.5)
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", ["http://127.0.0.1:1/x.mp4", "http://", "https://no such host/x"])
def test_an_address_nobody_answers_at_is_refused(source: str):
    with pytest.raises(VideoError, match="cannot be fetched"):
        open_video(source)


def test_the_hash_is_of_the_content(tmp_path: Path):
    path = GOLDEN / "single_frame.mp4"
    same = tmp_path / "renamed.mp4"
    same.write_bytes(path.read_bytes())
    assert content_hash(path) == content_hash(str(same)) == content_hash(path.read_bytes())
    arrays = {"pixels": PIXELS, "pts_s": np.arange(5.0)}
    assert content_hash(arrays) == content_hash(Frames(PIXELS, np.arange(5.0)))
    assert content_hash(arrays) != content_hash(arrays | {"pts_s": np.arange(5.0) + 1})
    assert content_hash(arrays) != content_hash(arrays | {"pixels": PIXELS.reshape(5, 16, 12, 3)})
    with pytest.raises(VideoError, match="download it first"):
        content_hash("https://example.org/x.mp4")
    with pytest.raises(VideoError, match="does not exist"):
        content_hash(tmp_path / "nothing.mp4")


def test_the_hash_of_a_folder_is_that_of_its_pictures_in_order(tmp_path: Path):
    one = folder_of(tmp_path, ["1.png", "2.png"])
    before = content_hash(one)
    (one / "1.png").rename(one / "3.png")
    assert content_hash(one) != before
