"""Kill a writer at random moments, many times: `python -m tests.memory.kill_many KILLS SEED`.

A process of its own, since it forks. Prints how many kills hit, or fails at the first memory that lost a committed
segment, holds a wrong one, or cannot be gone on with.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from longtake.core.errors import MemoryFormatError
from longtake.memory.prune import prune
from longtake.memory.reader import StoredMemory
from longtake.memory.writer import MemoryWriter
from tests.memory.conftest import header, segment, tokens_of

NUM_SEGMENTS = 12
PARTS = [segment(number) for number in range(NUM_SEGMENTS)]


def write(path: Path, told: int) -> None:
    """Write what is missing; each committed segment is told as one byte."""
    with MemoryWriter(path, header(NUM_SEGMENTS)) as writer:
        for number in range(writer.num_segments, NUM_SEGMENTS):
            writer.append(PARTS[number])
            os.write(told, b".")
        if not writer.is_complete:
            writer.finish(1.0)


def killed_after(seconds: float, work: Callable[[int], None]) -> tuple[int, bool]:
    """Run some work in a process and kill it; return how many segments it told of, and whether it was cut short."""
    reading, told = os.pipe()
    child = os.fork()
    if child == 0:
        work(told)
        os._exit(0)
    os.close(told)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    dots = 0
    while block := os.read(reading, 1024):
        dots += len(block)
    os.close(reading)
    return dots, os.WIFSIGNALED(status)


def check(path: Path, at_least: int) -> int:
    """Compare every committed segment with what was written, and return how many there are."""
    try:
        with StoredMemory(path) as stored:
            found = list(stored.segments())
    except MemoryFormatError as error:
        assert at_least == 0 and ("holds nothing" in str(error) or "No such file" in str(error)), error
        return 0
    assert len(found) >= at_least, f"{at_least} segments were committed, {len(found)} are there"
    for number, part in enumerate(found):
        assert torch.equal(part.tokens.features, tokens_of(number)[0].features)
    return len(found)


def kill_writer(folder: Path, chance: random.Random, seconds: float) -> int:
    """Kill a writer until it is done; return how many kills it took."""
    path, there, kills = folder / "film.ltm", 0, 0
    while True:
        told, was_cut = killed_after(chance.uniform(0, seconds), lambda pipe: write(path, pipe))
        there = check(path, there + told)
        kills += was_cut
        if not was_cut:
            with StoredMemory(path) as stored:
                stored.verify()
                assert stored.num_segments == NUM_SEGMENTS
            return kills


def kill_prune(folder: Path, chance: random.Random, seconds: float) -> int:
    """Kill a prune once; the old memory is there whole, or the new one."""
    path = folder / "film.ltm"
    _, was_cut = killed_after(chance.uniform(0, seconds), lambda _: prune(path, tokens_per_frame=1) and None)
    with StoredMemory(path) as stored:
        stored.verify()
        each = {len(part.tokens) for part in stored.segments()}
        assert each in ({12}, {8})
        assert (each == {8}) == bool(stored.header.identity.changes)
    return int(was_cut)


def main(num_kills: int, seed: int) -> None:
    chance, kills, pruned = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        write(Path(name) / "timing.ltm", os.open(os.devnull, os.O_WRONLY))
        seconds = 1.5 * (time.perf_counter() - started)
        round_ = 0
        while kills < num_kills:
            folder = Path(name) / str(round_)
            folder.mkdir()
            kills += kill_writer(folder, chance, seconds)
            hit = kill_prune(folder, chance, seconds)
            kills, pruned, round_ = kills + hit, pruned + hit, round_ + 1
    sys.stdout.write(f"{kills} kills, {pruned} of them during prune, {round_} memories, nothing lost\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
