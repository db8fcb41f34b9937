"""A small client for what OpenAI's has no words for: videos, their ingest, and questions with evidence."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from longtake.core.errors import LongtakeError, VideoError

LOOK_EVERY_S = 0.2


class ServerError(LongtakeError):
    """A server refused a request; `status` and `code` say why."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("message", "no message")))
        self.status, self.code = status, body.get("code")


class Client:
    """Talks to one server; use it as a context manager, or close it.

    key: as `longtake serve --add-key` showed it. Every method raises `ServerError` where the server refuses.
    """

    def __init__(self, address: str = "http://127.0.0.1:8000", key: str | None = None, timeout_s: float = 600) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_s)

    def close(self) -> None:
        """End all connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ingest(self, path: str | Path, *, max_frames: int | None = None, wait: bool = True) -> dict[str, Any]:
        """Send a video and return it once it can be asked, or at once.

        Raises: VideoError if it could not be remembered.
        """
        file = Path(path)
        fields = {} if max_frames is None else {"max_frames": str(max_frames)}
        with file.open("rb") as opened:
            video = _json(self._http.post("/v1/videos", files={"file": (file.name, opened)}, data=fields))
        return self.wait(video["id"]) if wait else video

    def wait(self, video_id: str) -> dict[str, Any]:
        """Return a video once it can be asked.

        Raises: VideoError if it could not be remembered.
        """
        while True:
            video = self.video(video_id)
            if video["status"] == "failed":
                raise VideoError(str(video["error"]))
            if video["status"] == "ready":
                return video
            time.sleep(LOOK_EVERY_S)

    def video(self, video_id: str) -> dict[str, Any]:
        """Return how a video stands."""
        return _json(self._http.get(f"/v1/videos/{video_id}"))

    def videos(self) -> list[dict[str, Any]]:
        """Return all videos of this key."""
        return _json(self._http.get("/v1/videos"))["data"]

    def delete(self, video_id: str) -> None:
        """Forget a video."""
        _json(self._http.delete(f"/v1/videos/{video_id}"))

    def ask(self, video_id: str, question: str, **options: Any) -> dict[str, Any]:
        """Return the answer to a question, with its evidence; options as `/v1/videos/{id}/ask` takes them."""
        return _json(self._http.post(f"/v1/videos/{video_id}/ask", json={"question": question, **options}))

    def stream(self, video_id: str, question: str, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events of an answer: `evidence`, each `piece`, then `done`."""
        body = {"question": question, "stream": True, **options}
        with self._http.stream("POST", f"/v1/videos/{video_id}/ask", json=body) as reply:
            if reply.status_code != 200:
                reply.read()
                _json(reply)
            name = ""
            for line in reply.iter_lines():
                key, _, value = line.partition(": ")
                if key == "event":
                    name = value
                elif key == "data" and name == "error":
                    raise ServerError(reply.status_code, json.loads(value)["error"])
                elif key == "data":
                    yield name, json.loads(value)

    def picture(self, video_id: str, time_s: float) -> bytes:
        """Return the small JPEG that a video's memory keeps nearest to a time."""
        reply = self._http.get(f"/v1/videos/{video_id}/frames", params={"t": time_s})
        if reply.status_code != 200:
            _json(reply)
        return reply.content


def _json(reply: httpx.Response) -> dict[str, Any]:
    """Return what a reply says.

    Raises: ServerError for an error.
    """
    is_json = reply.headers.get("content-type", "").startswith("application/json")
    body = reply.json() if is_json else {}
    if reply.status_code >= 400:
        raise ServerError(reply.status_code, body.get("error", {"message": reply.text[:200]}))
    return body
