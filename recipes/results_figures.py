"""The pictures of docs/results.md, drawn from what was measured; each says in itself which data it was drawn from."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measured_arms import ARMS, NEEDLE_ARMS, OWN_ARMS, PVC, STATIC, SYSTEMS
from measured_cells import Measured, Part

from longtake.engine.figures import check_figure_path, new_figure

# Source of the colours: Okabe and Ito, told apart by people who do not see red or green; shapes say the same again.
FAMILIES: Mapping[str, tuple[str, str, str]] = {
    "compress": ("#0072B2", "o", "clip compressor"),
    "memory": ("#009E73", "s", "memory merged afterwards"),
    "reduce": ("#D55E00", "^", "fewer tokens between layers"),
    "select": ("#CC79A7", "D", "frames chosen"),
    "together": ("#8C6900", "P", "a paper's way as a whole"),
    "blind": ("#000000", "X", "black film"),
}
# Arms of the same method at several counts are joined, by how their names begin.
LINES = {"ToMe (": "-", "pool (": ":", "plain resize (": "-.", "random patches (": "--"}
CONTROL = "#666666"
NOT_RUN = "#dddddd"
DPI, NUM_COLOURS = 110, 256
STAMP = "Description"


def is_control(name: str) -> bool:
    """Say whether an arm chooses at random, or is what a checkpoint of its own is held against."""
    return name.startswith("random ") or name in {arm.control for arm in OWN_ARMS.values()}


def stamped(path: Path) -> str | None:
    """Return what a picture says it was drawn from; none if there is no picture."""
    from PIL import Image

    if not path.is_file():
        return None
    with Image.open(path) as picture:
        return str(picture.info.get(STAMP))


def draw(path: Path, stamp: str, make: Callable[[], Any]) -> Path:
    """Draw a picture, unless one of the same data is there; few colours keep it small."""
    if stamped(path) == stamp:
        return path
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    whole, note = io.BytesIO(), PngInfo()
    make().savefig(whole, dpi=DPI, format="png")
    note.add_text(STAMP, stamp)
    picture = Image.open(whole).convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE)
    picture.save(check_figure_path(path), optimize=True, pnginfo=note)
    return path


def draw_tokens(part: Part, kinds: Mapping[str, str]) -> Any:
    """Draw accuracy against visual tokens a frame, for the shortest films, where every arm was measured."""
    own = part.of(part.lengths[0])
    figure = new_figure(11.5, 5.2)
    for place, (kind, title) in enumerate(kinds.items()):
        axes = figure.add_subplot(1, len(kinds), place + 1)
        for start, line in LINES.items():
            names = [name for name in own if name.startswith(start) and name.endswith(")")]
            points = sorted((_mean_tokens(own[name]), own[name].share(kind).right) for name in names)
            colour = CONTROL if is_control(start) else FAMILIES["compress"][0]
            axes.plot(*zip(*points, strict=True), line, color=colour, linewidth=1.2, label=start.removesuffix(" ("))
        for index, (name, cell) in enumerate(own.items()):
            share = cell.share(kind)
            jitter = 1.04 ** (index % 9 - 4)
            _point(axes, name, _mean_tokens(cell) * jitter, share.right, share.interval.low, share.interval.high)
        axes.set_xscale("log", base=2)
        ticks = sorted({round(_mean_tokens(cell), 2) for name, cell in own.items() if ARMS[name].reduce is None})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        _share_axis(axes, place == 0)
        axes.set_xlabel("visual tokens a frame of the film, mean over layers")
        axes.set_title(title)
    _legend(figure, own, lines=figure.axes[0].get_lines())
    return figure


def draw_frames(part: Part, kinds: Mapping[str, str]) -> Any:
    """Draw accuracy against the film's length, a column for each family of methods."""
    arms = part.of(part.lengths[-1])
    families = [family for family in FAMILIES if family != "blind" and any(ARMS[arm].family == family for arm in arms)]
    figure = new_figure(2.9 * len(families), 3.1 * len(kinds) + 1.6)
    for row, (kind, title) in enumerate(kinds.items()):
        for column, family in enumerate(families):
            axes = figure.add_subplot(len(kinds), len(families), row * len(families) + column + 1)
            for index, name in enumerate(arm for arm in arms if ARMS[arm].family == family):
                _line(axes, part, name, kind, index)
            axes.set_xscale("log", base=2)
            axes.set_xticks(part.lengths, [f"{length:,}" for length in part.lengths])
            axes.minorticks_off()
            _share_axis(axes, column == 0)
            if row == 0:
                axes.set_title(FAMILIES[family][2], fontsize=10)
            else:
                axes.set_xlabel("frames")
                axes.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
            if column == 0:
                axes.set_ylabel(f"{title}: right")
    return figure


def draw_seconds(part: Part) -> Any:
    """Draw accuracy over all questions against seconds: the first answer from the file on, and each further one."""
    figure = new_figure(3.7 * len(part.lengths), 6.8)
    for column, frames in enumerate(part.lengths):
        own = part.of(frames)
        for row, what in enumerate(("first answer, from the file on", "each further answer")):
            axes = figure.add_subplot(2, len(part.lengths), row * len(part.lengths) + column + 1)
            for name, cell in own.items():
                share = cell.share()
                _point(axes, name, cell.seconds()[row], share.right, share.interval.low, share.interval.high)
            axes.set_xlim(0, 1.06 * max(cell.seconds()[row] for cell in own.values()))
            axes.set_xlabel(f"seconds: {what}", fontsize=9)
            _share_axis(axes, column == 0)
            if row == 0:
                axes.set_title(f"films of {frames:,} frames", fontsize=10)
    _legend(figure, part.of(part.lengths[0]))
    return figure


def draw_needles(part: Part) -> Any:
    """Draw a grid of depth and length for each system, its control below."""
    controls = [name for name in NEEDLE_ARMS if name not in SYSTEMS]
    figure = new_figure(3.9 * (len(SYSTEMS) + 1), 7.6)
    picture: Any = None
    for row, names in enumerate(((*SYSTEMS, PVC.name), (*controls, STATIC.name))):
        for column, name in enumerate(names):
            axes = figure.add_subplot(2, len(names), row * len(names) + column + 1)
            cells = {frames: part.cells.get((frames, name)) for frames in part.lengths}
            picture = _grid(axes, cells, is_first=column == 0)
            axes.set_title(name if row == 0 else f"control: {name}", fontsize=10)
    bar = figure.colorbar(picture, ax=figure.axes, label="right, of the needles of the cell", shrink=0.6)
    bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
    return figure


def _grid(axes: Any, cells: Mapping[int, Measured | None], is_first: bool) -> Any:
    """Draw depth downwards and length to the right; a cell says its share and how many needles it is of."""
    depths = sorted({float(row) for cell in cells.values() if cell is not None for row in cell.rows})
    values = [[float("nan")] * len(cells) for _ in depths]
    for column, cell in enumerate(cells.values()):
        for row, depth in enumerate(depths):
            if cell is None or f"{depth:g}" not in cell.rows:
                axes.text(column + 0.5, row + 0.5, "not run", ha="center", va="center", fontsize=8)
                continue
            share = cell.share(f"{depth:g}")
            values[row][column] = share.right
            colour = "black" if share.right > 0.55 else "white"
            text = f"{share.right:.0%}\nn = {share.n}"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color=colour)
    picture = axes.pcolormesh(values, cmap="cividis", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    axes.set_facecolor(NOT_RUN)
    axes.invert_yaxis()
    axes.set_xticks([place + 0.5 for place in range(len(cells))], [f"{frames:,}" for frames in cells], fontsize=8)
    axes.set_yticks([place + 0.5 for place in range(len(depths))], [f"{depth:.0%}" for depth in depths], fontsize=8)
    axes.set_xlabel("frames of the film", fontsize=9)
    if is_first:
        axes.set_ylabel("depth of the needle", fontsize=9)
    return picture


def _mean_tokens(cell: Measured) -> float:
    tokens = cell.tokens_per_frame()
    return sum(tokens) / len(tokens)


def _style(name: str) -> tuple[str, str, str]:
    """Return colour, shape and fill of an arm: its family's; a control is a hollow grey of the same shape."""
    colour, shape, _ = FAMILIES[ARMS[name].family]
    return (CONTROL, shape, "white") if is_control(name) else (colour, shape, colour)


def _point(axes: Any, name: str, x: float, y: float, low: float, high: float) -> None:
    colour, shape, fill = _style(name)
    axes.errorbar(x, y, yerr=[[y - low], [high - y]], color=colour, elinewidth=0.7, alpha=0.45)
    axes.plot(x, y, shape, color=colour, markerfacecolor=fill, markersize=6)


def _line(axes: Any, part: Part, name: str, kind: str, index: int) -> None:
    lengths = [frames for frames in part.lengths if (frames, name) in part.cells]
    shares = [part.cells[frames, name].share(kind) for frames in lengths]
    colour, _, fill = _style(name)
    x = [frames * 1.05 ** (index - 2) for frames in lengths]
    errors = [
        [share.right - share.interval.low for share in shares],
        [share.interval.high - share.right for share in shares],
    ]
    line = "--" if is_control(name) else ("-", "-.", ":", (0, (5, 1)), (0, (1, 1)))[index % 5]
    shape = "os^DPvX"[index % 7]
    right = [share.right for share in shares]
    axes.errorbar(
        x, right, yerr=errors, linestyle=line, marker=shape, color=colour, markerfacecolor=fill, markersize=5,
        linewidth=1.3, elinewidth=0.7, label=name,
    )  # fmt: skip


def _share_axis(axes: Any, is_first: bool) -> None:
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(alpha=0.25)
    if is_first:
        axes.set_ylabel("right (95 % over films)")


def _legend(figure: Any, arms: Mapping[str, Measured], lines: Sequence[Any] = ()) -> None:
    """Say below what shapes and lines mean."""
    from matplotlib.lines import Line2D

    families = dict.fromkeys(ARMS[name].family for name in arms)
    marks = [
        Line2D([], [], linestyle="", marker=FAMILIES[family][1], color=FAMILIES[family][0], label=FAMILIES[family][2])
        for family in families
    ]
    control: dict[str, Any] = {"linestyle": "", "color": CONTROL, "markerfacecolor": "white"}
    marks.append(Line2D([], [], marker="o", label="the same count at random (hollow)", **control))
    named = [line for line in lines if not line.get_label().startswith("_")]
    figure.legend(handles=[*marks, *named], loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
