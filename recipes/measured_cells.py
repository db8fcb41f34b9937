"""What `measure_methods.py` wrote, put together: shares with intervals, and each method against its control."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longtake.core.errors import ConfigError
from longtake.eval.result import read_lines
from longtake.eval.statistics import Interval, Paired, interval, paired


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """How many of the questions were right, with an interval over films."""

    right: float
    n: int
    films: int
    interval: Interval


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """All films of one length under one arm."""

    frames: int
    arm: str
    films: Sequence[Mapping[str, Any]]

    @property
    def rows(self) -> list[str]:
        """Return the kinds of questions, or the depths, in the order in which they were asked."""
        return list(dict.fromkeys(row for film in self.films for row in film["right"]))

    def values(self, row: str | None = None, column: str = "right") -> tuple[list[float], list[str]]:
        """Return 1 or 0 for each question of a row, or of all, and the film of each."""
        values: list[float] = []
        groups: list[str] = []
        for film in self.films:
            text = "".join(found for name, found in film[column].items() if row in (None, name))
            values += [float(letter) for letter in text]
            groups += [str(film["film"])] * len(text)
        return values, groups

    def share(self, row: str | None = None, column: str = "right") -> Share:
        """Return the share of a row's questions, or of all."""
        return _share(self, row, column)

    def against(self, other: Measured) -> Paired:
        """Compare with another arm on the same questions.

        Raises: ConfigError if they are not the same films.
        """
        own, theirs = self.values(), other.values()
        if own[1] != theirs[1]:
            raise ConfigError(
                f"{self.arm} and {other.arm} were asked about other films of {self.frames} frames; expected the same; "
                "run measure_methods.py again until both are complete"
            )
        return paired(own[0], theirs[0], own[1])

    def tokens_per_frame(self) -> list[float]:
        """Return the visual tokens that enter each layer, for each frame of the film."""
        return [count / self.frames for count in self.films[0]["tokens"]]

    def seconds(self) -> tuple[float, float]:
        """Return the mean seconds of a film's first answer, from opening its file on, and of each further one."""
        cold = [sum(film["seconds"][name] for name in ("encode", "compress", "first")) for film in self.films]
        warm = [film["seconds"]["later"] for film in self.films]
        return sum(cold) / len(cold), sum(warm) / len(warm)


@functools.cache
def _share(cell: Measured, row: str | None, column: str) -> Share:
    values, groups = cell.values(row, column)
    return Share(
        right=sum(values) / len(values), n=len(values), films=len(set(groups)), interval=interval(values, groups)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One file of measurements: what was measured on what, and its cells by length and arm."""

    head: Mapping[str, Any]
    cells: Mapping[tuple[int, str], Measured]

    @property
    def lengths(self) -> list[int]:
        """Return the lengths of films, in frames."""
        return sorted({frames for frames, _ in self.cells})

    @property
    def load(self) -> tuple[float, float]:
        """Return the least and the most that the machine had to do at once meanwhile, ours included."""
        found = [film["load"] for cell in self.cells.values() for film in cell.films]
        return min(found), max(found)

    def of(self, frames: int) -> dict[str, Measured]:
        """Return the arms of a length, in the order in which they were measured."""
        return {arm: cell for (length, arm), cell in self.cells.items() if length == frames}


def joined(parts: Sequence[Part]) -> Part:
    """Put parts together that were measured on the same films with other checkpoints; the first one's head stays."""
    cells = {key: cell for part in parts for key, cell in part.cells.items()}
    return Part(parts[0].head, cells)


def read_part(path: Path) -> Part:
    """Read a file of measurements; films under an arm that not all arms of their length have seen are left out.

    Raises: ConfigError if it is empty or damaged.
    """
    head, *rows = read_lines(path)
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["frames"], row["arm"]), []).append(row)
    cells = {}
    for (frames, arm), films in found.items():
        own = [{row["film"] for row in other} for (length, _), other in found.items() if length == frames]
        whole = set.intersection(*own)
        kept = sorted((row for row in films if row["film"] in whole), key=lambda row: row["film"])
        if kept:
            cells[frames, arm] = Measured(frames, arm, kept)
    return Part(head, cells)
