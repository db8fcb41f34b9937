"""What each stage of an answer cost: seconds, bytes, tokens."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@dataclasses.dataclass
class StageCost:
    """Cost of one stage so far; seconds spent in stages nested inside it are theirs, not its own."""

    seconds: float = 0.0
    bytes: int = 0
    tokens: int = 0

    def add(self, *, bytes: int = 0, tokens: int = 0) -> None:
        """Count bytes or tokens that passed."""
        self.bytes += bytes
        self.tokens += tokens


class Ledger:
    """Adds up the cost of stages from its own start until it is closed.

    Time in no stage is what `total_s` has beyond the sum of the stages; it is reported, not spread.
    """

    def __init__(self) -> None:
        self.stages: dict[str, StageCost] = {}
        self.notes: list[str] = []
        self._open: list[str] = []
        self._started = self._since = time.perf_counter()
        self._closed: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[StageCost]:
        """Charge the time inside to a stage; an outer stage rests meanwhile."""
        self._charge()
        self._open.append(name)
        try:
            yield self.stages.setdefault(name, StageCost())
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.stages.setdefault(self._open[-1], StageCost()).seconds += now - self._since
        self._since = now

    def note(self, text: str) -> None:
        """Write down a choice that was made: a decoder, a dtype, a device."""
        if text not in self.notes:
            self.notes.append(text)

    def close(self) -> None:
        """Stop the clock; closing again changes nothing."""
        self._closed = self._closed or time.perf_counter()

    @property
    def total_s(self) -> float:
        """Seconds from the start to the close, or to now."""
        return (self._closed or time.perf_counter()) - self._started

    def to_dict(self) -> dict[str, object]:
        """Return plain values: every stage, the total, the time in no stage, the peak of memory, the notes."""
        staged = sum(cost.seconds for cost in self.stages.values())
        total = self.total_s
        return {
            "stages": {name: dataclasses.asdict(cost) for name, cost in self.stages.items()},
            "total_s": total,
            "unstaged_s": max(0.0, total - staged),
            "peak_memory_bytes": peak_memory_bytes(),
            "notes": list(self.notes),
        }


def peak_memory_bytes() -> int:
    """Return the largest resident size that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
