"""One worker of a run in a process of its own, which kills itself: `worker_process.py FOLDER SHARD COUNT AFTER`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from longtake.eval.runner import run_shard
from longtake.models.tiny import tiny_model
from tests.eval.small import BASELINES, small_run


def kill_after(count: int) -> None:
    """Run a shard; once so many records are on disk, in the middle of a video, end as `kill -9` ends a process."""
    seen = 0

    def on_item(done: int, total: int) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    shard = (int(sys.argv[2]), int(sys.argv[3]))
    run_shard(small_run(tiny_model(), baselines=BASELINES), Path(sys.argv[1]), shard, on_item=on_item)


if __name__ == "__main__":
    kill_after(int(sys.argv[4]))
