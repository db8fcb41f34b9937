"""The server is killed with SIGKILL in the middle of an ingest; the next start over the same store goes on with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from longtake.media.synthetic import write_clock_video
from tests.serve.conftest import wait_ready

START_LIMIT_S = 240
NUM_FRAMES = 512


@contextmanager
def server(store: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "longtake.cli.main", "serve", "--store", str(store), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as http:
            deadline = time.monotonic() + START_LIMIT_S
            while True:
                try:
                    http.get("/health").raise_for_status()
                    break
                except httpx.TransportError:
                    assert process.poll() is None and time.monotonic() < deadline
                    time.sleep(0.1)
            yield http, process
    finally:
        process.kill()
        process.wait()


def test_an_ingest_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    film = write_clock_video(tmp_path / "film.mp4", float(NUM_FRAMES), fps=1, size=(48, 80))
    with server(tmp_path / "store") as (http, process):
        reply = http.post("/v1/videos", files={"file": (film.name, film.read_bytes())})
        assert reply.status_code == 202, reply.text
        video_id = reply.json()["id"]
        while not (seen := http.get(f"/v1/videos/{video_id}").json())["progress"]["frames_done"]:
            assert seen["status"] not in ("ready", "failed")
            time.sleep(0.01)
        assert seen["status"] != "ready"
        os.kill(process.pid, signal.SIGKILL)
    with server(tmp_path / "store") as (http, _):
        video = wait_ready(http, video_id, limit_s=200)
        assert (video["status"], video["info"]["frames"]) == ("ready", NUM_FRAMES)
        asked = http.post(f"/v1/videos/{video_id}/ask", json={"question": "What happens?", "max_tokens": 2})
        assert asked.status_code == 200, asked.text
