from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from longtake.media.synthetic import draw_clock, write_clock_video
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import tiny_model
from longtake.serve.run import listen, make_server
from longtake.serve.service import Service
from longtake.serve.settings import Limits, ServeSettings

FRAMES = 8


class Live:
    """A server that really listens on loopback, in a thread."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._socket = listen(service.settings)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = make_server(service)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def http(self, key: str | None = None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._socket.close()


Start = Callable[..., Any]


@contextmanager
def serving(model: LoadedModel, store: Path, *, max_together: int | None = None, **values: Any) -> Iterator[Live]:
    limits = {"max_frames": FRAMES, "max_tokens": 64, "grace_s": 20, **values.pop("limits", {})}
    settings = ServeSettings(store=str(store), limits=Limits(**limits), **{"port": 0, **values})
    live = Live(Service(model, settings, max_together=max_together))
    try:
        yield live
    finally:
        live.stop()


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    return tiny_model()


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return three films that differ."""
    folder = tmp_path_factory.mktemp("films")
    sizes = ((64, 128), (96, 96), (48, 80))
    return [
        write_clock_video(folder / f"film{number}.mp4", 8.0 + number, fps=2, size=size)
        for number, size in enumerate(sizes)
    ]


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(np.ascontiguousarray(draw_clock(3.0, 64, 96))).save(path)
    return path


@pytest.fixture(scope="module")
def live(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Return a server without keys."""
    with serving(model, tmp_path_factory.mktemp("store")) as found:
        yield found


def data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def wait_ready(http: httpx.Client, video_id: str, limit_s: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        video = http.get(f"/v1/videos/{video_id}").json()
        if video["status"] in ("ready", "failed"):
            return video
        time.sleep(0.02)
    raise AssertionError(f"{video_id} was not over within {limit_s} s")


def ingested(http: httpx.Client, path: Path, **fields: str) -> dict[str, Any]:
    reply = http.post("/v1/videos", files={"file": (path.name, path.read_bytes())}, data=fields)
    assert reply.status_code == 202, reply.text
    return wait_ready(http, reply.json()["id"])
