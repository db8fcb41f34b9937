"""The caller's side of the decoder's process: requests, replies, and the time limit on silence."""

from __future__ import annotations

import json
import selectors
import subprocess
import time
import weakref
from collections.abc import Iterator
from typing import IO, Any, NoReturn

import numpy as np

from longtake.core import errors
from longtake.core.errors import ConfigError, DecodeTimeoutError, VideoError
from longtake.media.child import end_child, send_line, start_child
from longtake.media.scan import Picture, Scan

MAX_HEAD_BYTES = 1 << 20
PIPE_BYTES = 1 << 20
START = (
    "import resource; most = json.loads(sys.argv[2]); "
    "most and resource.setrlimit(resource.RLIMIT_AS, (most, most)); "
    "from longtake.media.worker import main; sys.exit(main())"
)


class DecoderProcess:
    """One worker; it is started on first use, and killed when it is silent for longer than the time limit.

    memory_limit_bytes: the most address space it may have, its libraries (about 1 GB) included; none for no limit.

    Raises: ConfigError if the limit is not a positive number.
    """

    def __init__(self, time_limit_s: float | int, memory_limit_bytes: int | None = None) -> None:
        if not time_limit_s > 0:
            raise ConfigError(f"time_limit_s is {time_limit_s}; expected a positive number of seconds; raise it")
        self.time_limit_s, self.memory_limit_bytes = time_limit_s, memory_limit_bytes
        self.is_busy = False
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize | None = None
        self._buffer = b""
        self._log: IO[bytes] | None = None

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
        self.is_busy = True
        try:
            self._ask(request | {"backend": backend, "path": path})
            while True:
                head, payload = self._reply()
                if head["kind"] == "end":
                    self.is_busy = False
                    return
                pixels = np.frombuffer(payload, dtype=np.uint8).reshape(head["shape"])
                yield Picture(pixels, bool(head["is_damaged"]), int(head["num_lost_packets"]))
        finally:
            if self.is_busy:
                self.close()

    def still(self, path: str) -> Picture:
        """Ask for a still picture, upright RGB; one that has more than `MAX_PIXELS` is refused."""
        self._ask({"kind": "still", "path": path})
        head, payload = self._reply()
        return Picture(np.frombuffer(payload, dtype=np.uint8).reshape(head["shape"]), False)

    def close(self) -> None:
        """End the worker, at once; the next request starts another."""
        self._process, self._buffer, self.is_busy = None, b"", False
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None

    def _ask(self, request: dict[str, Any]) -> None:
        if self._process is None:
            most = json.dumps(self.memory_limit_bytes)
            self._process, self._log = start_child(START, most, stdout=subprocess.PIPE)
            self._finalizer = weakref.finalize(self, end_child, self._process, self._log)
        try:
            send_line(self._process, request)
        except BrokenPipeError:
            self._crashed()

    def _reply(self) -> tuple[dict[str, Any], bytes]:
        """Read one message, past signs of life; an error that the worker reports is raised under its own type."""
        while True:
            head, payload = self._message(time.monotonic() + self.time_limit_s)
            if head["kind"] == "error":
                raise getattr(errors, head["type"], VideoError)(head["message"])
            if head["kind"] != "alive":
                return head, payload

    def _message(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD_BYTES:
                self._crashed()
            self._buffer += self._read(deadline)
        line, _, rest = self._buffer.partition(b"\n")
        head = json.loads(line)
        parts, missing = [rest], int(head["bytes"]) - len(rest)
        while missing > 0:
            parts.append(self._read(deadline))
            missing -= len(parts[-1])
        whole = b"".join(parts)
        payload, self._buffer = whole[: int(head["bytes"])], whole[int(head["bytes"]) :]
        return head, payload

    def _read(self, deadline: float) -> bytes:
        """Return what is in the pipe, once there is something."""
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                self.close()
                raise DecodeTimeoutError(
                    f"the decoder made no progress for {self.time_limit_s:g} s and was stopped; expected a frame; "
                    "check the file, or raise time_limit_s"
                )
        more = self._process.stdout.read(PIPE_BYTES)
        if not more:
            self._crashed()
        return more

    def _crashed(self) -> NoReturn:
        """Say how the worker ended, with the last line that it wrote."""
        assert self._process is not None and self._log is not None
        self._process.kill()
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        self.close()
        raise VideoError(
            f"the decoder's process ended ({', '.join([f'exit {code}', *said])}); expected it to answer; the file is "
            "damaged: check it"
        )
