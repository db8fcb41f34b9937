"""Draw the curve that `recipes/tiny.py` writes: `python recipes/plot_tiny.py OUT/curve.jsonl tiny_curve.png`."""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

TOWER = {"colour": "colour", "shape": "shape", "letter": "letter", "next_shape": "small picture: shape"}
LANGUAGE = {"loss": "loss of answers", "first_right": "first tokens right", "looked_right": "attention on the proof"}
Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curve", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.curve.read_text("utf-8").splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=(1, 2))
    draw(left, [line for line in lines if line["stage"] in ("vision", "polish")], TOWER)
    draw(right, [line for line in lines if line["stage"] not in ("vision", "polish")], LANGUAGE)
    left.set(title="tower: share of attributes read", xlabel="step", ylim=(0, 1.02))
    right.set(title="language model: first run and refining ones", xlabel="step", ylim=(0, 2.5))
    figure.tight_layout()
    figure.savefig(given.out, dpi=110)


def draw(axes: Axes, lines: list[Line], names: dict[str, str]) -> None:
    """Draw the stages one after the other, a grey line between them."""
    behind = 0
    steps: list[int] = []
    for stage, own in groupby(lines, key=lambda line: line["stage"]):
        if steps:
            behind = steps[-1]
            axes.axvline(behind, color="0.8", lw=1)
            axes.text(behind, axes.get_ylim()[0], f" {stage}", fontsize=6, color="0.5", rotation=90, va="bottom")
        steps += [behind + line["step"] for line in own]
    for name, label in names.items():
        axes.plot(steps, [line.get(name) for line in lines], lw=1, label=label)
    axes.legend(fontsize=7, loc="upper right" if "loss" in names else "lower right")


if __name__ == "__main__":
    main()
