"""The caller's side of the decoder's process: requests, replies, and the time limit on silence."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from longtake.core import errors
from longtake.core.errors import DecodeTimeoutError, VideoError
from longtake.media.scan import Picture, Scan

MAX_HEAD_BYTES = 1 << 20


class DecoderProcess:
    """One worker; it is started on first use, and killed when it is silent for longer than the time limit."""

    def __init__(self, time_limit_s: float) -> None:
        self.time_limit_s = time_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def scan(self, backend: str, path: str) -> Scan:
        """Ask for the table of frames."""
        self._ask({"kind": "scan", "backend": backend, "path": path})
        head, payload = self._reply()
        return Scan.from_message(head, payload)

    def pictures(
        self, backend: str, path: str, indices: np.ndarray, size: tuple[int, int] | None, *, exact: bool
    ) -> Iterator[Picture]:
        """Ask for pictures; a caller that stops early ends the worker."""
        request = {"kind": "pictures", "indices": [int(i) for i in indices], "size": size, "exact": exact}
        self._ask(request | {"backend": backend, "path": path})
        finished = False
        try:
            while True:
                head, payload = self._reply()
                if head["kind"] == "end":
                    finished = True
                    return
                pixels = np.frombuffer(payload, dtype=np.uint8).reshape(head["shape"])
                yield Picture(pixels, bool(head["is_damaged"]))
        finally:
            if not finished:
                self.close()

    def close(self) -> None:
        """End the worker, at once."""
        process, self._process, self._buffer = self._process, None, b""
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()

    def _ask(self, request: dict[str, Any]) -> None:
        if self._process is None:
            command = [sys.executable, "-m", "longtake.media.worker"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            self._crashed()

    def _reply(self) -> tuple[dict[str, Any], bytes]:
        """Read one message; an error that the worker reports is raised here under its own type."""
        deadline = time.monotonic() + self.time_limit_s
        while b"\n" not in self._buffer:
            self._fill(deadline)
            if len(self._buffer) > MAX_HEAD_BYTES and b"\n" not in self._buffer[:MAX_HEAD_BYTES]:
                self._crashed()
        line, _, rest = self._buffer.partition(b"\n")
        head = json.loads(line)
        parts, missing = [rest], int(head["bytes"]) - len(rest)
        while missing > 0:
            self._buffer = b""
            self._fill(deadline)
            parts.append(self._buffer)
            missing -= len(self._buffer)
        whole = b"".join(parts)
        payload, self._buffer = whole[: int(head["bytes"])], whole[int(head["bytes"]) :]
        if head["kind"] == "error":
            raise getattr(errors, head["type"], VideoError)(head["message"])
        return head, payload

    def _fill(self, deadline: float) -> None:
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                self.close()
                raise DecodeTimeoutError(
                    f"the decoder was silent for {self.time_limit_s:g} s and was stopped; expected a frame; check the "
                    "file, or raise time_limit_s"
                )
        more = self._process.stdout.read(1 << 20)
        if not more:
            self._crashed()
        self._buffer += more

    def _crashed(self) -> None:
        code = self._process.wait() if self._process is not None else None
        self.close()
        raise VideoError(
            f"the decoder's process ended (exit {code}); expected it to answer; the file is damaged: check it"
        )
