"""Measure every method on the same films: `python recipes/measure_methods.py CHECKPOINT OUT.jsonl --part methods`.

Part `methods` asks about films of 64, 256 and 1,024 frames in every way of `measured_arms.py`; part `needles` about
cards at six depths of films of up to 10,000 frames, all different, in the papers' ways; parts `pvc` and `static` ask
the same of the checkpoints that `tiny_pvc_films.py` trains. Films are of the test split, written to real mp4 files and
read back; each is decoded and seen once, compressed once for each compressor, and asked through `longtake.ask`. A line
of OUT is a film under an arm: what was right, tokens that enter each layer, seconds. A run that was killed goes on
where it was; the first line says which model and machine the others are of. `python recipes/write_results.py` makes
the page of it. `bundled` is the model that comes with the package.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from film_patches import FilmPatches, own_memory
from filmstrip_films import TEST_SEED, drawn_film
from measured_arms import (
    ARMS,
    CLIP_FRAMES,
    EVEN,
    EVERY_ARM,
    LONG,
    NEEDLE_ARMS,
    PVC,
    PVC_CHOSEN,
    PVC_RANDOM,
    RANDOM,
    SELECTORS,
    STATIC,
    Arm,
)

import longtake
from longtake._version import __version__
from longtake.core.errors import ConfigError
from longtake.core.types import VideoMemory
from longtake.engine.select import Selector, subset
from longtake.engine.show import Showing
from longtake.eval.baselines import LowResolution
from longtake.eval.needles.drawn import SingleNeedle
from longtake.eval.reader import Reader, covered, methods_set, reached, still
from longtake.eval.result import line, read_lines
from longtake.media.filmstrip import Film, Question, ask_film, is_right, write_film
from longtake.media.video import Video, open_video
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore
from longtake.models.tiny import bundled_tiny
from longtake.nn.language.walk import WalkOutput

FORMAT = 1
KINDS = ("N1", "NH pointer")
BUDGET = longtake.Budget(max_new_tokens=8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """Films of one length. questions: of each kind, a film, at most; kept: frames that a selector leaves."""

    part: str
    frames: int
    films: int
    questions: int
    kept: int
    arms: Sequence[str]
    level: str = ""


NEEDLE_PARTS: Mapping[str, Sequence[str]] = {
    "needles": NEEDLE_ARMS,
    "pvc": (PVC.name, PVC_CHOSEN.name, PVC_RANDOM.name),
    "static": (STATIC.name,),
}
CELLS = (
    Cell(part="methods", level="L1", frames=64, films=20, questions=8, kept=16, arms=tuple(ARMS)),
    Cell(part="methods", level="L2", frames=256, films=12, questions=8, kept=32, arms=LONG),
    Cell(part="methods", level="L3", frames=1024, films=5, questions=12, kept=64, arms=LONG),
    *(
        Cell(part=part, frames=frames, films=films, questions=6, kept=256, arms=arms)
        for part, arms in NEEDLE_PARTS.items()
        for frames, films in ((64, 20), (256, 20), (1000, 10), (3000, 6), (10_000, 4))
    ),
)


class Asked(NamedTuple):
    """A question and the row of the table that it belongs to: its kind, or the depth of its card."""

    question: Question
    row: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=sorted({cell.part for cell in CELLS}), default="methods")
    parser.add_argument("--frames", type=int, nargs="+", help="only films of these lengths")
    parser.add_argument("--films", type=int, help="no more films of each length than this")
    parser.add_argument("--drawn", type=Path, help="keep the films' files here, and take those that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = bundled_tiny() if given.checkpoint == "bundled" else Path(given.checkpoint)
    cells = [cell for cell in CELLS if cell.part == given.part and cell.frames in (given.frames or [cell.frames])]
    limited = [dataclasses.replace(cell, films=min(cell.films, given.films or cell.films)) for cell in cells]
    own = Path(given.checkpoint).name, Path(given.out.name) if given.out.is_absolute() else given.out
    command = " ".join(["python recipes/measure_methods.py", *map(str, own), "--part", given.part])
    measure(longtake.load(folder), limited, given.out, command, given.drawn)


def measure(model: LoadedModel, cells: Sequence[Cell], out: Path, command: str, drawn: Path | None = None) -> None:
    """Append to `out` what of these cells is not in it yet; command: what people are told to type for it.

    Raises: ConfigError if it holds figures of another model, machine or version.
    """
    done = begin(out, model, command)
    for cell in cells:
        for number in range(cell.films):
            film, asked = film_and_questions(cell, number)
            arms = [EVERY_ARM[name] for name in cell.arms if (cell.frames, film.spec.seed, name) not in done]
            if not arms:
                continue
            started = time.perf_counter()
            with film_file(film, drawn) as path, open_video(path) as video:
                for row in measure_film(model, cell, film, asked, arms, video):
                    append(out, row)
            print(json.dumps({"frames": cell.frames, "film": number, "seconds": round(time.perf_counter() - started)}))


def begin(out: Path, model: LoadedModel, command: str) -> set[tuple[int, int, str]]:
    """Write the first line, or see that it is this model's; return which films under which arms are there.

    Raises: ConfigError if the file holds figures of another model, machine or version.
    """
    head = {"format": FORMAT, "model": model.fingerprint, "machine": machine(), "torch": torch.__version__}
    head |= {"threads": torch.get_num_threads(), "longtake": __version__, "command": command}
    if not out.exists():
        append(out, head)
        return set()
    text = out.read_text("utf-8")
    out.write_text(text[: text.rfind("\n") + 1], "utf-8")  # a line that a kill cut off goes
    there, *rows = read_lines(out)
    differs = [name for name in head if name != "command" and there.get(name) != head[name]]
    if differs:
        raise ConfigError(
            f"{out} holds figures of another {', '.join(differs)}; expected {[head[name] for name in differs]}; name "
            "another file"
        )
    return {(row["frames"], row["film"], row["arm"]) for row in rows}


def append(out: Path, values: dict[str, Any]) -> None:
    """Write a line and see it onto the disk."""
    with out.open("a", encoding="utf-8") as file:
        file.write(line(values))
        file.flush()
        os.fsync(file.fileno())


def machine() -> str:
    """Return the processor's name and how many there are."""
    info = Path("/proc/cpuinfo")
    names = [text.partition(":")[2].strip() for text in info.read_text("utf-8").splitlines() if "model name" in text]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor()}, {platform.machine()}"


def film_and_questions(cell: Cell, number: int) -> tuple[Film, list[Asked]]:
    """Plan a film and choose its questions."""
    if cell.part in NEEDLE_PARTS:
        task = SingleNeedle(name="niah", frames=(cell.frames,))
        film = task.film(number, cell.frames)
        return film, [Asked(question, f"{depth:g}") for question, depth in task.questions(film)][: cell.questions]
    film = drawn_film(cell.level, TEST_SEED + number, ("N1", "NH"))
    every = [question for question in ask_film(film) if question.spans_s]
    chosen = [[one for one in every if one.kind == kind][: cell.questions] for kind in KINDS]
    return film, [Asked(question, question.kind) for own in chosen for question in own]


@contextmanager
def film_file(film: Film, folder: Path | None) -> Iterator[Path]:
    """Yield a film as an mp4 file, removed afterwards unless a folder keeps it."""
    if folder is None:
        with tempfile.TemporaryDirectory() as own:
            yield write_film(film, Path(own) / "film.mp4")
        return
    path = folder / f"{'-'.join(film.spec.tasks)}-{film.spec.num_frames}-{film.spec.seed}.mp4"
    yield path if path.exists() else write_film(film, path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """A film as an arm sees it. seed: of what is drawn by lot; kept: frames that are chosen; seconds: so far."""

    arm: Arm
    memory: VideoMemory
    seed: int
    kept: int
    seconds: Mapping[str, float]


class Memories:
    """The memories of a film, each made once: by compressor, and by what is left of its frames before that."""

    def __init__(self, model: LoadedModel, video: Video, num_frames: int, fps: float) -> None:
        self.model, self.video, self.num_frames, self.fps = model, video, num_frames, fps
        self._patches: FilmPatches | None = None
        self._known: dict[tuple[object, str], tuple[VideoMemory, dict[str, float]]] = {}

    def of(self, arm: Arm, seed: int) -> tuple[VideoMemory, dict[str, float]]:
        """Return what an arm sees, and what it took in seconds."""
        method = None if arm.compress is None else arm.compress(seed)
        key = (arm.resize, "" if method is None else method.fingerprint())
        if key not in self._known:
            self._known[key] = self._make(arm, method)
        return self._known[key]

    def _make(self, arm: Arm, method: Any) -> tuple[VideoMemory, dict[str, float]]:
        if method is None:
            memory, seconds = own_memory(self.video, self.model, self.num_frames, self.fps)
            return memory, {"encode": seconds, "compress": 0.0}
        source = self._seen() if arm.resize is None else self._resized(arm.resize)
        memory, compress_s = source.memory(method)
        return memory, {"encode": source.encode_s, "compress": compress_s}

    def _seen(self) -> FilmPatches:
        if self._patches is None:
            self._patches = FilmPatches(self.video, self.model, self.num_frames, self.fps)
        return self._patches

    def _resized(self, sides: tuple[int, int]) -> FilmPatches:
        patch = self.model.config.vision_config.image_size // self.model.model.vision.grid(CLIP_FRAMES).rows
        small = LowResolution(self.video, (sides[0] * patch, sides[1] * patch))
        return FilmPatches(small, self.model, self.num_frames, self.fps)


def measure_film(
    model: LoadedModel, cell: Cell, film: Film, asked: Sequence[Asked], arms: Sequence[Arm], video: Video
) -> Iterator[dict[str, Any]]:
    """Yield what each arm makes of a film; arms that see it alike share one memory."""
    seed, side = film.spec.seed, model.config.vision_config.image_size
    memories = Memories(model, video, cell.frames, film.spec.fps)
    for arm in arms:
        memory, costs = memories.of(arm, seed)
        if arm.is_black:
            memory = still(np.zeros((side, side, 3), np.uint8), memory, Reader(model, BUDGET))
        seen = Seen(arm=arm, memory=memory, seed=seed, kept=cell.kept, seconds=costs)
        yield {"frames": cell.frames, "film": seed, "arm": arm.name} | answers(model, seen, asked)


def answers(model: LoadedModel, seen: Seen, asked: Sequence[Asked]) -> dict[str, Any]:
    """Ask all questions about a film; the first one pays for what they share."""
    arm, memory = seen.arm, dataclasses.replace(seen.memory)  # what earlier arms kept with it is not ours
    if arm.select in (EVEN, RANDOM):
        memory = subset(memory, blind_clips(memory, arm.select, seen.kept, seen.seed))
    selector = None
    if arm.select is not None and arm.select in SELECTORS:
        method = SELECTORS[arm.select]
        selector = Selector(method=method, frames_kept=seen.kept, state_times=arm.tells_seconds)
    budget = dataclasses.replace(BUDGET, tokens_per_frame=arm.budget)
    prefixes, right, alive, tokens = PrefixStore(), defaultdict(str), defaultdict(str), []
    asking: list[float] = []
    for question, row in asked:
        read: list[tuple[Showing, WalkOutput]] = []
        with methods_set(model, reducer=arm.reduce):
            answer = longtake.ask(
                memory,
                question.text,
                model,
                budget,
                selector=selector,
                prefixes=prefixes,
                on_read=lambda *what, read=read: read.append(what),
            )
        (showing, walked) = read[0]
        asking.append(float(str(answer.ledger["total_s"])))
        tokens = entering(model, arm, len(showing.blocks[0]))
        right[row] += str(int(is_right(answer.text, question)))
        alive[row] += str(int(covered(question.spans_s, reached(showing.memories[0], walked))))
    costs = {**seen.seconds, "first": asking[0], "later": float(np.mean(asking[1:]))}
    seconds = {name: round(value, 4) for name, value in costs.items()}
    load = round(os.getloadavg()[0], 2)
    return {"right": right, "alive": alive, "tokens": tokens, "seconds": seconds, "load": load}


def blind_clips(memory: VideoMemory, how: str, kept: int, seed: int) -> list[int]:
    """Return clips chosen without a look at the question: evenly spread, or by lot; all of them if they are few."""
    count, wanted = len(memory.frame_pts_s), kept // memory.frame_pts_s.shape[1]
    if wanted >= count:
        return list(range(count))
    if how == EVEN:
        return np.linspace(0, count - 1, wanted).round().astype(int).tolist()
    return sorted(np.random.default_rng(seed).permutation(count)[:wanted].tolist())


def entering(model: LoadedModel, arm: Arm, num_visual: int) -> list[int]:
    """Return how many visual tokens enter each layer."""
    num_layers = len(model.model.language.layers)
    drops = {} if arm.reduce is None else dict(arm.reduce.schedule(num_layers, num_visual))
    found = []
    for layer in range(num_layers):
        num_visual = drops.get(layer, num_visual)
        found.append(num_visual)
    return found


if __name__ == "__main__":
    main()
