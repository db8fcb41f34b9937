"""Several servers over one store: what one receives, ingests or signs is respected by the others."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longtake.memory.writer import MemoryWriter
from longtake.models.loaded import LoadedModel
from longtake.serve.guard import Tickets
from longtake.serve.store import Namespace
from tests.serve.conftest import serving, wait_ready

VIDEO = "video-" + "0123456789ab" * 2


def space(folder: Path) -> Namespace:
    return Namespace(folder, 10**9, 10**8)


def test_two_servers_remember_a_video_once(
    model: LoadedModel, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended, reached, go_on = list[str](), threading.Event(), threading.Event()
    append = MemoryWriter.append

    def slow(self: MemoryWriter, segment: bytes) -> None:
        append(self, segment)
        appended.append(self.path.parent.name)
        reached.set()
        assert go_on.wait(30)

    monkeypatch.setattr(MemoryWriter, "append", slow)
    with (
        serving(model, tmp_path) as one,
        serving(model, tmp_path) as other,
        one.http() as first,
        other.http() as second,
    ):
        sent = [http.post("/v1/videos", files={"file": films[0].read_bytes()}).json() for http in (first, second)]
        assert sent[0]["id"] == sent[1]["id"]
        assert reached.wait(30)
        threading.Timer(1.0, go_on.set).start()
        asked = second.post(f"/v1/videos/{sent[0]['id']}/ask", json={"question": "What?", "max_tokens": 2})
        assert asked.status_code == 200, asked.text
        assert all(wait_ready(http, sent[0]["id"])["status"] == "ready" for http in (first, second))
    assert appended == [sent[0]["id"]]


def test_a_question_takes_up_what_another_server_left(model: LoadedModel, films: list[Path], tmp_path: Path) -> None:
    with serving(model, tmp_path) as live, live.http() as http:
        here, data = live.service.store.of("local"), films[1].read_bytes()
        wish = live.service.wish(None, None, None)
        kept = here.keep_video(films[1], hashlib.sha256(data).hexdigest(), "film", len(data), wish)
        assert http.get(f"/v1/videos/{kept.id}").json()["status"] == "queued"
        reply = http.post(f"/v1/videos/{kept.id}/ask", json={"question": "What?", "max_tokens": 2})
        assert reply.status_code == 200, reply.text
        assert http.get(f"/v1/videos/{kept.id}").json()["status"] == "ready"


def test_all_servers_have_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        spaces = list(pool.map(lambda _: space(tmp_path / "local"), range(16)))
    assert len({each._secret for each in spaces}) == 1
    assert {path.name for path in (tmp_path / "local").iterdir()} == {"files", "videos", "incoming", "secret"}


def test_what_is_being_received_is_left_alone_and_what_is_left_is_removed(tmp_path: Path) -> None:
    here = space(tmp_path / "local")
    left = tmp_path / "local" / "incoming" / "left"
    left.write_bytes(b"half a film")
    before = time.time() - 60
    os.utime(left, (before, before))
    with here.incoming() as incoming:
        incoming.write(b"film")
        incoming.file.flush()
        os.utime(incoming.path, (before, before))
        space(tmp_path / "local")
        assert incoming.path.exists() and not left.exists()
        with incoming.path.open("rb") as again, pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not list((tmp_path / "local" / "incoming").iterdir())


def test_tickets_are_taken_where_the_secret_is_shared() -> None:
    ticket = Tickets(b"shared").make("local", VIDEO)
    assert Tickets(b"shared").owner(ticket, VIDEO) == "local"
    assert Tickets().owner(ticket, VIDEO) is None is Tickets(b"another").owner(ticket, VIDEO)
