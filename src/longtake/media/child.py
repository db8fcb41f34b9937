"""Python processes of our own that can be killed: started with this one's import path, spoken to through a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import IO, Any

Child = tuple[subprocess.Popen[bytes], IO[bytes]]


def start_child(code: str, *arguments: str, stdout: int = subprocess.DEVNULL) -> Child:
    """Start a process that runs a line of Python, and the file that takes what it says of errors.

    It looks for modules exactly where its parent does, and never in the working directory. code: may use `sys` and
    `json`; arguments are in `sys.argv` from place 2 on.
    """
    log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
    places = json.dumps([place for place in sys.path if place])
    start = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); {code}"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", start, places, *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=log,
        bufsize=0,
        start_new_session=True,
    )
    return process, log


def send_line(process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
    """Send a line of JSON, all of it: an unbuffered pipe may take a part of a long one.

    Raises: BrokenPipeError if the process has ended.
    """
    assert process.stdin is not None
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[process.stdin.write(data) :]


def end_child(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    """End a process and all that it started, at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    for pipe in (process.stdin, process.stdout, log):
        if pipe is not None:
            pipe.close()
    process.wait()
