"""The grid of depths and lengths: what each cell scored, as plain values and as a picture."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longtake.core.errors import ConfigError
from longtake.engine.figures import check_figure_path, new_figure, save_figure
from longtake.eval.result import Record

DEPTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# Source: colours of the published heat map, from 0 over a half to 1.
COLOURS = ((0.0, "#F0496E"), (0.5, "#EBB839"), (1.0, "#9ad5b3"))
NOT_RUN = "#dddddd"


def nearest_depth(depth: float, depths: Sequence[float]) -> float:
    """Return the row that a depth belongs to; of two as near the smaller one."""
    return min(depths, key=lambda row: (abs(row - depth), row))


def cells_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the cells of the grid from the records that count, lengths first; what was not asked is not in it.

    Each has its length, depth, accuracy and n, and the shares of needles of which a frame was sampled (covered) and a
    token reached the last layer (survived).
    """
    found: dict[tuple[int, float], list[Record]] = defaultdict(list)
    for one in records:
        if one.counts and one.error is None and {"frames", "depth"} <= set(one.breakdowns):
            found[int(one.breakdowns["frames"]), float(one.breakdowns["depth"])].append(one)
    cells = []
    for (frames, depth), own in sorted(found.items()):
        cell: dict[str, Any] = {"frames": frames, "depth": depth, "n": len(own)}
        cell["accuracy"] = sum(one.right for one in own) / len(own)
        for name in ("covered", "survived"):
            known = [bool(one.extra[name]) for one in own if name in one.extra]
            cell[name] = sum(known) / len(known) if known else None
        cells.append(cell)
    return cells


def heat_map(cells: Sequence[Mapping[str, Any]], path: str | Path, title: str, column: str = "accuracy") -> Path:
    """Draw a grid: lengths to the right, depths downwards; what was not run is grey, never 0.

    Raises: ConfigError if there is no cell, or for another suffix than a picture's; MissingExtraError without
        matplotlib; StorageError if it cannot be written.
    """
    target = check_figure_path(path)
    if not cells:
        raise ConfigError("no cell of the grid arrived; expected at least one; run the task first")
    from matplotlib.colors import LinearSegmentedColormap

    lengths, depths = (sorted({cell[name] for cell in cells}) for name in ("frames", "depth"))
    values = [[math.nan] * len(lengths) for _ in depths]
    for cell in cells:
        value = cell[column]
        values[depths.index(cell["depth"])][lengths.index(cell["frames"])] = math.nan if value is None else value
    colours = LinearSegmentedColormap.from_list("needles", COLOURS).with_extremes(bad=NOT_RUN)
    figure = new_figure(max(5.0, 2.5 + 1.1 * len(lengths)), max(3.0, 1.6 + 0.6 * len(depths)))
    axes = figure.add_subplot()
    picture = axes.pcolormesh(values, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    for row, line in enumerate(values):
        for place, value in enumerate(line):
            text = "not run" if math.isnan(value) else f"{value:.2f}"
            axes.text(place + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xticks([place + 0.5 for place in range(len(lengths))], [_thousands(length) for length in lengths])
    axes.set_yticks([place + 0.5 for place in range(len(depths))], [f"{depth:.0%}" for depth in depths])
    axes.set_xlabel("frames of the haystack")
    axes.set_ylabel("depth of the needle")
    axes.set_title(title)
    figure.colorbar(picture, ax=axes, label=column)
    return save_figure(figure, target)


def _thousands(length: int) -> str:
    return f"{length / 1000:g}K" if length >= 1000 else str(length)
