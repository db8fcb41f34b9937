"""Several processes work on one run: each on its own shard, all in one folder."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence

from longtake.core.errors import EvaluationError


def run_processes(command: Callable[[int], Sequence[str]], count: int) -> None:
    """Run a command for each shard at the same time and wait for all of them.

    Each gets a pipe as its standard input that closes when this process ends, however it ends; it should end then too.

    Raises: EvaluationError with the last line that a failed one wrote.
    """
    running = [
        subprocess.Popen(
            list(command(number)), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for number in range(count)
    ]
    said: list[bytes] = [b""] * count

    def listen(number: int) -> None:
        stream = running[number].stderr
        assert stream is not None, "standard error is a pipe"
        said[number] = stream.read()

    listeners = [threading.Thread(target=listen, args=(number,), daemon=True) for number in range(count)]
    for listener in listeners:
        listener.start()
    try:
        for process in running:
            process.wait()
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
                process.wait()
    for listener in listeners:
        listener.join()
    failed = [(number, process.returncode) for number, process in enumerate(running) if process.returncode]
    for process in running:
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                stream.close()
    if failed:
        number, code = failed[0]
        lines = said[number].decode(errors="replace").strip().splitlines() or ["it wrote nothing"]
        raise EvaluationError(
            f"process {number} of {count} ended with {code}: {lines[-1]}; what the others did is kept; run the same "
            "command again to go on"
        )
