"""Videos on the server: ingest, evidence, pictures; keys that see nothing of each other; what goes wrong."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil
import pytest

from longtake.core.errors import StorageError, VideoError
from longtake.memory.writer import MemoryWriter
from longtake.models.loaded import LoadedModel
from longtake.serve import ingests as ingests_module
from longtake.serve.client import Client, ServerError
from longtake.serve.keys import add_key
from tests.serve.conftest import FRAMES, Live, ingested, serving, wait_ready


def test_a_video_is_remembered_asked_and_shown(live: Live, films: list[Path]) -> None:
    with Client(live.url) as client:
        video = client.ingest(films[0], max_frames=FRAMES)
        assert (video["status"], video["progress"]["share"], video["info"]["frames"]) == ("ready", 1.0, FRAMES)
        assert (video["info"]["width"], video["info"]["height"]) == (128, 64)
        assert client.ingest(films[0], max_frames=FRAMES)["id"] == video["id"], "the same video is the same memory"
        answer = client.ask(video["id"], "What happens?", max_tokens=8)
        events = list(client.stream(video["id"], "What happens?", max_tokens=8))
        assert [name for name, _ in events[:1] + events[-1:]] == ["evidence", "done"]
        assert events[-1][1]["answer"] == answer["answer"]
        assert "".join(value["text"] for name, value in events if name == "piece").strip() == answer["answer"]
        assert events[0][1]["evidence"] == answer["evidence"]
        span = answer["evidence"][0]
        assert 0 < span["score"] <= 1 and span["thumbnail"].startswith(f"/v1/videos/{video['id']}/frames?t=")
        assert len(answer["timeline"]) == FRAMES // 4
        assert max(clip["heat"] for clip in answer["timeline"]) == 1.0
        assert sum(clip["tokens"] for clip in answer["timeline"]) == video["info"]["tokens"]
        assert client.picture(video["id"], span["start_s"]).startswith(b"\xff\xd8")
        longer = client.ask(video["id"], "And?", history=[{"role": "user", "text": "What?"}], max_tokens=2)
        assert longer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
        assert video["id"] in [found["id"] for found in client.videos()]
    with live.http() as http:
        whole = films[0].read_bytes()
        part = http.get(video["media_url"], headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole[10:20])
        assert part.headers["content-type"] == "video/mp4"
        assert http.get(video["media_url"]).content == whole
        assert http.get(span["thumbnail"]).headers["content-type"] == "image/jpeg"
        text = http.get("/metrics").text
        assert "longtake_tokens_total" in text and 'status="202"' in text


def test_what_is_no_video_is_said(live: Live, films: list[Path], picture: Path) -> None:
    with live.http() as http:
        cut = ingested(http, _written(live, films[0].read_bytes()[:-2000]))
        assert cut["status"] == "failed" and "moov" in cut["error"]
        assert str(live.service.store.folder) not in cut["error"]
        again = http.post(f"/v1/videos/{cut['id']}/ask", json={"question": "What?"})
        assert again.status_code == 422 and again.json()["error"]["code"] == "bad_video"
        for name, data, status in (
            ("a.m3u8", b"#EXTM3U\nfile:///etc/passwd\n", 422),
            ("a.png", picture.read_bytes(), 400),
            ("a.mp4", b"", 400),
        ):
            reply = http.post("/v1/videos", files={"file": (name, data)})
            assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")
        for body in ({}, {"file_id": "x", "url": "y"}, {"path": "../x"}, {"url": "http://10.0.0.1/"}, {"fps": 1}):
            assert http.post("/v1/videos", json=body).status_code in (400, 403)
        assert http.post("/v1/videos", json={"file_id": "file-" + "0" * 24}).status_code == 404
        wrong = [{"max_frames": text} for text in ("9999", "7", "x")]
        for fields in (*wrong, {"start_s": "5", "end_s": "2"}):
            reply = http.post("/v1/videos", files={"file": ("a.mp4", films[0].read_bytes())}, data=fields)
            assert reply.status_code == 400, (fields, reply.text)


def _written(live: Live, data: bytes) -> Path:
    path = live.service.store.folder / "cut.mp4"
    path.write_bytes(data)
    return path


def test_a_small_file_of_huge_frames_is_refused(live: Live, tmp_path: Path) -> None:
    """A film of 64 million pixels a frame, and a picture of 225 million, each in less than 1 MB."""
    path = tmp_path / "bomb.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8000, 8000, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((12000, 8000), np.uint8), format="yuv420p")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    assert path.stat().st_size < 1_000_000
    with live.http() as http:
        video = ingested(http, path)
        assert video["status"] == "failed" and "8000 x 8000 pixels" in video["error"]
        bomb = tmp_path / "bomb.png"
        bomb.write_bytes(_png_of_zeros(15_000, 15_000))
        assert bomb.stat().st_size < 1_000_000
        sent = http.post("/v1/files", files={"file": ("b.png", bomb.read_bytes())}, data={"purpose": "vision"})
        part = {"type": "image_url", "image_url": {"url": sent.json()["id"]}}
        body = {"model": "longtake", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]}
        reply = http.post("/v1/chat/completions", json=body)
        assert reply.status_code == 422 and "225000000 pixels" in reply.json()["error"]["message"]
        assert http.get("/health").status_code == 200


def _png_of_zeros(width: int, height: int) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(width // 8 + 1)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_decoder_has_only_so_much_memory(films: list[Path]) -> None:
    from longtake.media.process import DecoderProcess

    process = DecoderProcess(30, 120_000_000)
    with pytest.raises(VideoError):
        process.scan("pyav", str(films[0]))
    process.close()


@pytest.fixture
def two(model: LoadedModel, tmp_path: Path) -> Iterator[tuple[Live, httpx.Client, httpx.Client]]:
    """Return a server with two keys, and a client for each."""
    keys = tmp_path / "keys"
    one, other = add_key(keys, "one"), add_key(keys, "other")
    with (
        serving(model, tmp_path / "store", keys=str(keys), metrics_key="one") as live,
        live.http(one) as first,
        live.http(other) as second,
    ):
        yield live, first, second


def test_no_key_sees_or_infers_anothers(two: tuple[Live, httpx.Client, httpx.Client], films: list[Path]) -> None:
    live, one, other = two
    mine = ingested(one, films[0])
    file = one.post("/v1/files", files={"file": (films[0].name, films[0].read_bytes())}, data={"purpose": "x"}).json()
    assert one.post(f"/v1/videos/{mine['id']}/ask", json={"question": "What?", "max_tokens": 2}).status_code == 200
    absent = {"video": "video-" + "0" * 24, "file": "file-" + "0" * 24}
    for kind, path in (
        ("video", "/v1/videos/{}"),
        ("video", "/v1/videos/{}/media"),
        ("video", "/v1/videos/{}/frames"),
        ("file", "/v1/files/{}"),
        ("file", "/v1/files/{}/content"),
    ):
        found = mine["id"] if kind == "video" else file["id"]
        replies = [other.get(path.format(name)) for name in (found, absent[kind])]
        assert [reply.status_code for reply in replies] == [404, 404]
        assert replies[0].text.replace(found, "") == replies[1].text.replace(absent[kind], "")
    assert other.post(f"/v1/videos/{mine['id']}/ask", json={"question": "What?"}).status_code == 404
    assert other.delete(f"/v1/videos/{mine['id']}").status_code == 404
    assert other.post("/v1/videos", json={"file_id": file["id"]}).status_code == 404
    assert other.get("/v1/videos").json()["data"] == [] == other.get("/v1/files").json()["data"]
    # The same bytes under another key: another name, and all the work is done again: nothing comes back sooner.
    frames = live.service.metrics.frames
    before = frames._value.get()
    theirs = ingested(other, films[0])
    assert theirs["id"] != mine["id"] and frames._value.get() - before == FRAMES
    asked = {"question": "What?", "max_tokens": 2}
    used = [other.post(f"/v1/videos/{theirs['id']}/ask", json=asked).json()["usage"] for _ in range(2)]
    cached = [each["prompt_tokens_details"]["cached_tokens"] for each in used]
    assert cached[0] == 0 < cached[1], "the first question of a key reads the whole video, the second does not"
    assert one.get("/metrics").status_code == 200 and other.get("/metrics").status_code == 403
    with live.http("lt-wrong") as stranger, live.http() as nobody:
        for client in (stranger, nobody):
            reply = client.get("/v1/videos")
            assert reply.status_code == 401 and reply.json()["error"]["code"] == "invalid_api_key"
            assert client.post("/v1/files", content=b"x").status_code == 401
        assert nobody.get("/health").status_code == 200
        # A player has no header: the address that its owner was told carries a ticket, for this video alone.
        url = one.get(f"/v1/videos/{mine['id']}").json()["media_url"]
        assert nobody.get(url).status_code == 200
        assert nobody.get(url.replace(mine["id"], theirs["id"])).status_code == 401
        assert nobody.get(url.replace("one.", "other.")).status_code == 401
        assert nobody.get(f"/v1/videos/{mine['id']}?{url.partition('?')[2]}").status_code == 401


def test_a_client_that_goes_away_ends_its_answer(model: LoadedModel, films: list[Path], tmp_path: Path) -> None:
    limits = {"max_tokens": 20_000, "active": 2, "waiting_per_key": 2}
    with serving(model, tmp_path, limits=limits) as live, live.http() as http:
        video = ingested(http, films[0])
        body = {"question": "Tell me all.", "max_tokens": 20_000, "stream": True}
        address, answers = f"/v1/videos/{video['id']}/ask", live.service.answers
        answers._endings = ()  # no answer ends by itself
        leave = threading.Event()
        with http.stream("POST", address, json=body) as reply:
            next(reply.iter_lines())
            assert answers.num_active >= 1
        _until(lambda: answers.num_active == 0)
        leaving = [threading.Thread(target=_ask_and_leave, args=(live, address, body | {"stream": False}, leave))]
        leaving += [threading.Thread(target=_ask_and_leave, args=(live, address, body, leave)) for _ in range(3)]
        for thread, counts in zip(leaving, ((1, 0), (2, 0), (2, 1), (2, 2)), strict=True):
            thread.start()
            _until(lambda counts=counts: (answers.num_active, answers.num_waiting) == counts)
        refused = http.post(address, json={"question": "And me?", "max_tokens": 1})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        leave.set()
        for thread in leaving:
            thread.join(30)
        _until(lambda: answers.num_active == 0 == answers.num_waiting)
        assert http.post(address, json={"question": "And me?", "max_tokens": 1}).status_code == 200


def _ask_and_leave(live: Live, address: str, body: dict[str, Any], leave: threading.Event) -> None:
    """Go away when told to, whatever came."""
    data = json.dumps(body).encode()
    head = f"POST {address} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", live.port), 20) as talking:
        talking.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        leave.wait(120)


def _until(holds: Any, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.02)


def test_a_full_disk_is_told_and_leaves_nothing(live: Live, films: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.serve.store import Incoming

    def full(self: Incoming, data: bytes, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with live.http() as http:
        with monkeypatch.context() as patch:
            patch.setattr(Incoming, "write", full)
            reply = http.post("/v1/videos", files={"file": ("a.mp4", films[2].read_bytes())})
            assert reply.status_code == 507 and "No space left" in reply.json()["error"]["message"]
        assert not list((live.service.store.folder / "local" / "incoming").iterdir())

        def no_room(self: MemoryWriter, segment: bytes) -> None:
            raise StorageError(f"{self.path} could not be written (No space left on device)")

        with monkeypatch.context() as patch:
            patch.setattr(MemoryWriter, "append", no_room)
            video = ingested(http, films[2])
        assert video["status"] == "failed" and "No space left" in video["error"]
        assert str(live.service.store.folder) not in video["error"]
        assert ingested(http, films[2])["status"] == "ready", "sent again, it is tried again"


def test_a_decoder_that_is_killed_does_not_end_the_ingest(
    live: Live, films: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    open_limited = ingests_module.open_limited

    def opened(path: Path, limits: Any) -> Any:
        video = open_limited(path, limits)
        for child in [] if killed else psutil.Process().children():
            if "longtake.media.worker" in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
        return video

    monkeypatch.setattr(ingests_module, "open_limited", opened)
    with live.http() as http:
        video = ingested(http, films[2], max_frames="8", start_s="1")
        assert killed
        assert video["status"] == "ready", video["error"]
        assert http.get("/health").status_code == 200


def test_deleting_forgets_and_stops(live: Live, films: list[Path]) -> None:
    with live.http() as http:
        video = http.post("/v1/videos", files={"file": ("a.mp4", films[1].read_bytes())}, data={"start_s": "2"}).json()
        assert http.delete(f"/v1/videos/{video['id']}").json()["deleted"] is True
        assert http.get(f"/v1/videos/{video['id']}").status_code == 404
        _until(lambda: live.service.ingests.num_waiting == 0)
        assert not (live.service.store.folder / "local" / "videos" / video["id"]).exists()
        with Client(live.url) as client, pytest.raises(ServerError) as caught:
            client.ask(video["id"], "What?")
        assert caught.value.status == 404


def test_a_stopped_server_goes_on_where_it_was(
    model: LoadedModel, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes in the middle of a video, with another one waiting; the next server finishes both."""
    reached, go_on, appended = threading.Event(), threading.Event(), list[str]()
    append = MemoryWriter.append

    def slow(self: MemoryWriter, segment: bytes) -> None:
        append(self, segment)
        appended.append(self.path.parent.name)
        reached.set()
        go_on.wait(20)

    monkeypatch.setattr(MemoryWriter, "append", slow)
    limits = {"max_frames": 64, "grace_s": 0.1}
    with serving(model, tmp_path, limits=limits) as live, live.http() as http:
        ids = [
            http.post("/v1/videos", files={"file": (film.name, film.read_bytes())}).json()["id"] for film in films[:2]
        ]
        assert reached.wait(60)
        assert http.get(f"/v1/videos/{ids[1]}").json()["status"] == "queued"
        threading.Timer(1.0, go_on.set).start()
    stored = json.loads((tmp_path / "local" / "videos" / ids[0] / "video.json").read_text())
    assert stored["status"] == "running" and appended == [ids[0]]
    with serving(model, tmp_path, limits=limits) as live, live.http() as http:
        assert all(wait_ready(http, each)["status"] == "ready" for each in ids)
        assert appended == ids, "no segment was made twice"
        assert http.post(f"/v1/videos/{ids[0]}/ask", json={"question": "?", "max_tokens": 1}).status_code == 200


def test_memory_stays_flat(live: Live, films: list[Path]) -> None:
    """Questions, refusals and uploads leave nothing behind."""
    with live.http() as http:
        video = ingested(http, films[0])

        def round_of(count: int) -> None:
            for number in range(count):
                asked = {"question": f"What is {number}?", "max_tokens": 2}
                assert http.post(f"/v1/videos/{video['id']}/ask", json=asked).status_code == 200
                assert http.post("/v1/chat/completions", json={"model": number}).status_code == 400
                sent = http.post("/v1/files", files={"file": films[0].read_bytes()}, data={"purpose": "x"})
                http.delete(f"/v1/files/{sent.json()['id']}")

        round_of(10)
        gc.collect()
        before = psutil.Process().memory_info().rss
        round_of(30)
        gc.collect()
        grown = psutil.Process().memory_info().rss - before
    assert grown < 30e6, f"{grown / 1e6:.1f} MB more after 90 requests"
