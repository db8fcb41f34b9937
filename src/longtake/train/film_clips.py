"""Clips of rendered films with what each frame shows: what the tiny model's tower learns to see."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longtake.media.filmstrip.attributes import COLOURS, DIRECTIONS, LETTERS, SHAPES
from longtake.media.filmstrip.ladder import FilmSpec
from longtake.media.filmstrip.render import Renderer, card_box
from longtake.media.filmstrip.world import HAPPENINGS, Film, build_film
from longtake.media.transforms import IMAGENET_MEAN, IMAGENET_STD, normalize_frames

CLIP_FRAMES = 4
# Number of classes of what a frame shows; 0 stands for nothing of the kind.
CLASSES = {
    "colour": 1 + len(COLOURS),
    "shape": 1 + len(SHAPES),
    "letter": 1 + len(LETTERS),
    "next_colour": 1 + len(COLOURS),
    "next_shape": 1 + len(SHAPES),
    "happening": 1 + len(HAPPENINGS),
    "ball": 1 + len(COLOURS),
    "heading": 1 + len(DIRECTIONS),
}
NUM_CARD_CLASSES = 5  # the first ones; the others fill the picture
MOST_MOTIONS = 6


class Clips(NamedTuple):
    """Clips of one film.

    pixels: normalised. labels: classes in the order of CLASSES. card: number of the card shown, -1 for none.
    """

    pixels: Float[Tensor, "K F 3 S S"]
    labels: Int64[Tensor, "K F C"]
    card: Int64[Tensor, "K F"]
    film: Film
    first_frame: int

    def patch_labels(self, rows: int) -> Int64[Tensor, "K N C"]:
        """Return labels for each patch of a rows x rows grid: the card's inside the card, nothing outside of it."""
        film, inside = self.film, torch.zeros(*self.card.shape, rows, rows, dtype=torch.int64)
        for clip, frame in (self.card >= 0).nonzero().tolist():
            left, top, side = card_box(film, film.cards[int(self.card[clip, frame])])
            first_x, first_y, width = (round(v * rows) for v in (left, top, side))
            inside[clip, frame, first_y : first_y + width, first_x : first_x + width] = 1
        labels = self.labels[:, :, None, None] * inside.unsqueeze(-1)
        whole = slice(NUM_CARD_CLASSES, None)
        labels[..., whole] = self.labels[:, :, None, None, whole]
        return labels.flatten(1, 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipStream:
    """Crowded films, cut into clips at random places; equal seeds give equal clips."""

    first_seed: int = 0
    image_size: int = 64
    film_frames: int = 240
    render_size: int = 128
    needle_size: tuple[float, float] = (0.18, 0.62)

    def __call__(self, number: int, count: int | None = None, run: int = 1) -> Clips:
        """Return all clips of film `number`, or `count` random ones, `run` of them always in a row."""
        rng = np.random.Generator(np.random.Philox(key=[self.first_seed, number]))
        spec = FilmSpec(
            seed=self.first_seed + number,
            tasks=("NH", "CO", "MO"),
            num_frames=self.film_frames,
            needle_s=float(rng.integers(1, 5)),
            needle_size=float(rng.uniform(*self.needle_size)),
            num_extras=int(rng.integers(0, 6)),
            num_cards=40,
            hops=int(rng.integers(1, 4)),
            num_kinds_to_count=3,
            num_motions=int(rng.integers(1, MOST_MOTIONS + 1)),
        )
        first = int(rng.integers(CLIP_FRAMES))
        num_clips = (self.film_frames - first) // CLIP_FRAMES
        chosen = np.arange(num_clips)
        if count is not None:
            starts = rng.choice(num_clips - run + 1, size=count // run, replace=False)
            chosen = (starts[:, None] + np.arange(run)).ravel()
        return clips_of(build_film(spec), first, chosen, self.image_size, self.render_size)


def clips_of(film: Film, first_frame: int, chosen: np.ndarray, image_size: int, render_size: int) -> Clips:
    """Render some clips of a film, counted from a frame on, and say what each frame shows."""
    numbers = [first_frame + int(clip) * CLIP_FRAMES + i for clip in chosen for i in range(CLIP_FRAMES)]
    renderer = Renderer(film, render_size)
    pixels = np.stack([renderer.frame(number) for number in numbers])
    values = normalize_frames(pixels, image_size, IMAGENET_MEAN, IMAGENET_STD)
    labels = [frame_labels(film, number) for number in numbers]
    for clip in range(0, len(labels), CLIP_FRAMES):
        _forget_lone_headings(labels[clip : clip + CLIP_FRAMES])
    cards = [film.card_at(number) for number in numbers]
    card = torch.tensor([-1 if one is None else one for one in cards])
    shape = (-1, CLIP_FRAMES)
    classes = torch.tensor(labels).unflatten(0, shape)
    return Clips(values.unflatten(0, shape), classes, card.unflatten(0, shape), film, first_frame)


def _forget_lone_headings(labels: list[list[int]]) -> None:
    """Leave out, in place, headings that the clip shows in one frame alone: that does not tell where the ball goes."""
    ways = [(label[-2], label[-1]) for label in labels]
    for label, way in zip(labels, ways, strict=True):
        if ways.count(way) == 1:
            label[-1] = 0


def frame_labels(film: Film, number: int) -> list[int]:
    """Return the class of what frame `number` shows, in the order of CLASSES."""
    return [*_card_labels(film, number), _happening_label(film, number), *_motion_labels(film, number)]


def _card_labels(film: Film, number: int) -> list[int]:
    found = film.card_at(number)
    if found is None:
        return [0] * NUM_CARD_CLASSES
    card = film.cards[found]
    key, follows = card.key, card.points_to
    shown = [1 + COLOURS.index(key.colour), 1 + SHAPES.index(key.shape), 1 + LETTERS.index(card.letter)]
    points = [0, 0] if follows is None else [1 + COLOURS.index(follows.colour), 1 + SHAPES.index(follows.shape)]
    return [*shown, *points]


def _happening_label(film: Film, number: int) -> int:
    kinds = [one.kind for one in film.happenings if one.frame == number]
    return 1 + HAPPENINGS.index(kinds[0]) if kinds else 0


def _motion_labels(film: Film, number: int) -> list[int]:
    for motion in film.motions:
        if motion.start <= number < motion.stop:
            is_turned = number - motion.start > (motion.stop - motion.start - 1) / 2
            heading = (motion.direction + 2 * motion.turn * is_turned) % len(DIRECTIONS)
            return [1 + COLOURS.index(motion.colour), 1 + heading]
    return [0, 0]
