"""One hour of FILMSTRIP at one frame a second, every task planted: seconds to plan, draw, write and read it.

`python -m bench.bench_filmstrip --picture FILE.png` draws the sheet of docs/filmstrip.md instead of measuring, and
`python -m bench.bench_filmstrip --blind FILMS` prints its table of what a guesser scores who sees no film.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from bench.pairs import seconds
from longtake.media.filmstrip import (
    Film,
    FilmSpec,
    Question,
    ask_film,
    build_film,
    film_arrays,
    film_frames,
    level_spec,
    score_blind,
    write_film,
)
from longtake.media.filmstrip.ladder import HAPPENING_FRAMES, MOTION_FRAMES, TASKS
from longtake.media.video import open_video

HOUR_FRAMES = 3600
LIMIT_S = 10.0
SEED = 20_000_001
SIDE, MARGIN, LINE, COLUMNS = 128, 6, 18, 12
FIRST_TEST_SEED = 20_000_000


def hour(num_frames: int) -> Film:
    return build_film(
        FilmSpec(seed=SEED, tasks=TASKS, num_frames=num_frames, needle_s=2.0, needle_size=0.3, num_cards=32, hops=3,
                 num_extras=4, num_kinds_to_count=3, num_motions=8)
    )  # fmt: skip


def read_all(path: Path) -> None:
    with open_video(path) as video:
        deque(video.frames_at(video.clock.pts_s), maxlen=0)


def cpu_s() -> float:
    """Return the processor seconds of this process and of its children that have ended, on all cores together."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def both(action: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds on the clock and those of the processors."""
    before = cpu_s()
    return seconds(action), cpu_s() - before


def stages(num_frames: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of each stage of one film, on the clock and of the processors."""
    film = hour(num_frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        return {
            "plan and questions": both(lambda: ask_film(hour(num_frames), more=True)),
            "draw": both(lambda: deque(film_frames(film), maxlen=0)),
            "draw and write mp4": both(lambda: write_film(film, path)),
            "read back": both(lambda: read_all(path)),
        }


def run(quick: bool) -> list[dict]:
    """Return one row a stage; the claim is about the film being drawn and written."""
    frames, rounds = (120, 1) if quick else (HOUR_FRAMES, 3)
    measured = [stages(frames) for _ in range(rounds)]
    rows = []
    for stage in measured[0]:
        took, cpu = (statistics.median(one[stage][i] for one in measured) for i in (0, 1))
        rows.append(
            {
                "claim": f"{frames} frames of FILMSTRIP, 128 pixels, all tasks: {stage}",
                "baseline": f"{frames} s of film",
                "ours": f"{took:.3g} s ({cpu:.3g} s of processor)",
                "ratio": f"{frames / took:.0f}",
                "target": f"< {LIMIT_S:g} s",
                "ok": took < LIMIT_S,
                "n": rounds,
            }
        )
    return rows


def blind_rows(num_films: int, level: str) -> Iterator[str]:
    """Yield a table, as Markdown, of what a guesser scores who has learned from questions but sees no film."""
    yield "| level | task | asked as | chance | blind, with 95 % interval | questions | films |"
    yield "|---|---|---|---|---|---|---|"
    for task in TASKS:
        specs = [level_spec(level, FIRST_TEST_SEED + i, (task,)) for i in range(num_films)]
        films = [ask_film(build_film(spec), more=True) for spec in specs]
        for kind in sorted({one.kind for film in films for one in film if one.choices}):
            yield f"| {level} | {task} | {kind} | {_blind_cells(films, kind)} |"


def _blind_cells(films: list[list[Question]], kind: str) -> str:
    asked = [[one for one in film if one.kind == kind and one.choices] for film in films]
    score = score_blind([film for film in asked if film])
    low, high = score.interval_95
    shares = f"{score.chance:.1%} | {score.right:.1%} ({low:.1%}–{high:.1%})"
    return f"{shares} | {score.num_questions} | {score.num_films}"


def picture_rows() -> list[tuple[str, np.ndarray]]:
    """Draw frames of films that show each layer and variant, with a word for each."""
    tasks = ("NH", "DE")
    common = {"num_frames": 120, "hops": 2, "num_cards": 12, "num_extras": 4, "needle_size": 0.4}
    plain = build_film(FilmSpec(seed=SEED, tasks=tasks, **common))
    rich = build_film(
        FilmSpec(seed=SEED, tasks=tasks, style="rich", pointers="codes", sets="voronoi", poster="tiles", **common)
    )
    rows = []
    for name, film in (("cards that point on with pictures", plain), ("style rich, codes, Voronoi sets", rich)):
        chain = [film.cards[number].start for number in film.chains[0] + film.chains[1] + film.chains[2]]
        rows.append((name, [*((film, number) for number in chain), (film, film.posters[0].start), *_sets(film)]))
    for kinds, label in ((tuple(MOTION_FRAMES), "motions"), (tuple(HAPPENING_FRAMES), "things to count")):
        rows.append((f"{label}: {', '.join(kinds)}", [shot for kind in kinds for shot in _moments(kind)]))
    return [(name, np.concatenate([film_arrays(film, SIDE, [n]) for film, n in shots])) for name, shots in rows]


def _sets(film: Film) -> list[tuple[Film, int]]:
    """Choose two frames of a film that show nothing but its set and extras."""
    shown = {number for one in (*film.cards, *film.posters) for number in range(one.start, one.stop)}
    empty = [number for number in range(film.spec.num_frames) if number not in shown]
    return [(film, empty[len(empty) // 4]), (film, empty[-1])]


def _moments(kind: str) -> list[tuple[Film, int]]:
    if kind in MOTION_FRAMES:
        spec = FilmSpec(seed=SEED, tasks=("MO",), motion_kinds=(kind,), num_motions=1)
        motion = build_film(spec).motions[0]
        return [(build_film(spec), motion.start + step) for step in (0, 2, 4, 5)]
    spec = FilmSpec(seed=SEED, tasks=("CO",), happening_kinds=(kind,), num_kinds_to_count=1)
    return [(build_film(spec), build_film(spec).happenings[0].start + step) for step in range(HAPPENING_FRAMES[kind])]


def draw_sheet(path: Path) -> None:
    """Lay the rows out as one picture, each under its name."""
    blocks = []
    for name, frames in picture_rows():
        for first in range(0, len(frames), COLUMNS):
            blocks.append((name if first == 0 else "", frames[first : first + COLUMNS]))
    cell = SIDE + MARGIN
    sheet = Image.new("RGB", (COLUMNS * cell + MARGIN, len(blocks) * (cell + LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (name, frames) in enumerate(blocks):
        top = row * (cell + LINE)
        pen.text((MARGIN, top + 4), name, fill="black")
        for column, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (MARGIN + column * cell, top + LINE))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--picture", type=Path)
    which.add_argument("--blind", type=int)
    parser.add_argument("--level", default="L1")
    given = parser.parse_args()
    if given.picture is not None:
        draw_sheet(given.picture)
    else:
        sys.stdout.writelines(f"{row}\n" for row in blind_rows(given.blind, given.level))


if __name__ == "__main__":
    main()
