"""Two sides, measured in turn in one process, so that a machine that slows down slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def paired(baseline: Callable[[], object], ours: Callable[[], object], rounds: int) -> tuple[float, float, list[float]]:
    """Return the median seconds of each side and the ratio baseline / ours of every round; one warm-up first."""
    seconds(baseline), seconds(ours)
    pairs = [(seconds(baseline), seconds(ours)) for _ in range(rounds)]
    ratios = sorted(first / second for first, second in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratios


def row(claim: str, baseline: float, ours: float, ratios: list[float], target: float, unit: str = "s") -> dict:
    """Lay out one claim; it holds if the median ratio reaches the target."""
    median = statistics.median(ratios)
    return {
        "claim": claim,
        "baseline": f"{baseline:.4g} {unit}",
        "ours": f"{ours:.4g} {unit}",
        "ratio": f"{median:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})",
        "target": f">= {target:g}",
        "ok": median >= target,
        "n": len(ratios),
    }
