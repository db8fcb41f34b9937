"""How soon the package and its help are there, in a fresh process."""

from __future__ import annotations

import subprocess
import sys

from bench.pairs import seconds

EMPTY = "pass"
LIMITS = {
    "import longtake": ("import longtake", 0.3),
    "longtake --help": ("from longtake.cli.main import main; main(['--help'])", 0.5),
}


def fastest(code: str, rounds: int) -> float:
    command = [sys.executable, "-c", code]
    return min(seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(rounds))


def run(quick: bool) -> list[dict]:
    rounds = 2 if quick else 10
    bare = fastest(EMPTY, rounds)
    rows = []
    for claim, (code, limit) in LIMITS.items():
        took = fastest(code, rounds)
        rows.append(
            {
                "claim": f"{claim}, whole process, best of n",
                "baseline": f"{bare:.3f} s (bare Python)",
                "ours": f"{took:.3f} s",
                "ratio": f"{took / bare:.1f}",
                "target": f"<= {limit:g} s",
                "ok": took <= limit,
                "n": rounds,
            }
        )
    return rows
