"""What things in a film can be, which combinations training never shows, and random streams with names."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, NamedTuple, TypeVar

import numpy as np

SHAPES = (
    "circle", "square", "triangle", "star", "heart", "ring", "cross", "moon",
    "diamond", "arrow", "hourglass", "drop", "bolt", "crown", "flower", "house",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "grey")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
GLYPHS = (*LETTERS, *"0123456789")
STROKES = ("plain", "thin", "bold", "slanted")
PAPERS = ("plain", "stripes", "bars", "checks", "dots", "slope")
PLACES = tuple(range(9))
# In steps of 45 degrees, clockwise from the top, as a picture is seen: x to the right, y down.
DIRECTIONS = ("up", "up right", "right", "down right", "down", "down left", "left", "up left")
NUM_PALETTES = 24
NUM_TRAINING_PALETTES = 20

# Hue in degrees, saturation, value. Brown is a dark orange, so hue alone does not tell them apart.
HSV = {
    "red": (0.0, 0.86, 0.86),
    "orange": (27.0, 0.92, 0.98),
    "yellow": (53.0, 0.86, 0.97),
    "green": (128.0, 0.72, 0.66),
    "cyan": (183.0, 0.72, 0.86),
    "blue": (224.0, 0.80, 0.88),
    "purple": (272.0, 0.68, 0.70),
    "pink": (326.0, 0.48, 0.97),
    "brown": (24.0, 0.70, 0.42),
    "grey": (220.0, 0.04, 0.52),
}
HUE_JITTER_DEGREES = 6.0

Split = Literal["train", "validation", "test"]
FIRST_SEED: dict[Split, int] = {"train": 0, "validation": 10_000_000, "test": 20_000_000}

Item = TypeVar("Item")


class Key(NamedTuple):
    """What a question calls a thing by: a shape in a colour."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


def split_of(seed: int) -> Split:
    """Return the split that a film seed belongs to."""
    return "train" if seed < 10_000_000 else "validation" if seed < 20_000_000 else "test"


def is_held_out(key: Key) -> bool:
    """Say whether no training card shows this shape in this colour; one pair in five is so, each value is seen."""
    return (SHAPES.index(key.shape) - COLOURS.index(key.colour)) % 5 == 0


def is_held_out_place(letter: str, place: int) -> bool:
    """Say whether no training card shows this letter at this place; about one pair in five is so."""
    return (GLYPHS.index(letter) + 2 * place) % 5 == 0


ALL_KEYS = tuple(Key(colour, shape) for shape in SHAPES for colour in COLOURS)
TRAINING_KEYS = tuple(key for key in ALL_KEYS if not is_held_out(key))


def keys_of(split: Split) -> tuple[Key, ...]:
    """Return the shape-colour pairs that a split may show on cards and actors."""
    return TRAINING_KEYS if split == "train" else ALL_KEYS


def places_of(split: Split, letter: str) -> tuple[int, ...]:
    """Return the places where a split may show a letter."""
    return tuple(p for p in PLACES if split != "train" or not is_held_out_place(letter, p))


def stream(*names: object) -> np.random.Generator:
    """Return the random stream of these names: the same in every process, independent of every other stream.

    The names are plain values (numbers, strings, tuples of them).
    """
    digest = hashlib.sha256(json.dumps(names).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def balanced(seed: int, count: int, *names: object) -> int:
    """Return a number in 0 … count - 1 that takes each value exactly once over `count` seeds of a block.

    Blocks start at multiples of `count`; the order inside a block is random and differs with the names. So a cell of
    consecutive seeds has balanced answers, and one film tells nothing about the others to who does not see its seed.
    """
    return int(stream("balanced", seed // count, count, *names).permutation(count)[seed % count])


def shuffled(items: tuple[Item, ...], rng: np.random.Generator) -> tuple[Item, ...]:
    """Return the items in a random order."""
    return tuple(items[i] for i in rng.permutation(len(items)))
