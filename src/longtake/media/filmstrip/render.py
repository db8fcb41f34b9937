"""Draws the frames of a film: a set that drifts, extras that wander, and in front what the film is about."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from longtake.core.errors import VideoError
from longtake.media.filmstrip.actions import ball_at, sprites_of
from longtake.media.filmstrip.attributes import (
    COLOURS,
    NUM_PALETTES,
    NUM_TRAINING_PALETTES,
    SHAPES,
    Key,
    split_of,
    stream,
)
from longtake.media.filmstrip.glyphs import letter_mask, paper_mask, rgb, shape_mask
from longtake.media.filmstrip.world import Card, Film, Motion, Poster

SHOT_S = (4.0, 40.0)
EXTRA_SIZE = 0.16
SPRITE_SIZE = 0.4
TILE_SIZE = 0.42
GRAIN = 6.0
PAPER, INK = 244.0, 24.0
PATTERN = 26.0
STAGE = 34.0
NUM_VORONOI_CELLS = 28
BALL_SIZE = 0.2
REFERENCE_SIDE = 128
SMALLEST_SIDE, LARGEST_SIDE = 8, 4096


class Layers(NamedTuple):
    """Which layers are drawn; each follows its own random stream, so that one left out changes no other."""

    extras: bool = True
    cards: bool = True
    happenings: bool = True
    motions: bool = True
    posters: bool = True
    set: bool = True


class Renderer:
    """Draws any frame of a film by its number, at a square size in pixels.

    Raises: VideoError if the size is out of range, or the film has no such frame.
    """

    def __init__(self, film: Film, size: int = REFERENCE_SIDE, layers: Layers | None = None) -> None:
        if not SMALLEST_SIDE <= size <= LARGEST_SIDE:
            raise VideoError(
                f"a film {size} pixels wide arrived; expected {SMALLEST_SIDE} to {LARGEST_SIDE}; choose such a size"
            )
        self.film, self.size, self.layers = film, size, layers or Layers()
        rng = stream(film.spec.salt, film.spec.seed, "set")
        self.shots = _shots(film, rng)
        self.grain = rng.normal(0, GRAIN, (2 * size, 2 * size, 1)).astype(np.float32)
        self.extras = _extras(film, size)
        self._set: tuple[int, np.ndarray] | None = None
        self._cards: dict[int, np.ndarray] = {}

    def frame(self, number: int) -> np.ndarray:
        """Draw frame `number`, RGB uint8 [S, S, 3]."""
        film, layers = self.film, self.layers
        if not 0 <= number < film.spec.num_frames:
            raise VideoError(f"frame {number} arrived; expected 0 to {film.spec.num_frames - 1}; choose such a frame")
        poster = next((p for p in film.posters if p.start <= number < p.stop), None) if layers.posters else None
        motion = next((m for m in film.motions if m.start <= number < m.stop), None) if layers.motions else None
        if poster is not None:
            return _clipped(self._poster(poster))  # a still: not even grain moves
        picture = self._stage(motion, number) if motion is not None else self._background(number)
        card = film.card_at(number) if layers.cards else None
        if card is not None:
            self._draw_card(picture, card)
        if layers.happenings:
            for happening in film.happenings:
                if happening.start <= number < happening.stop:
                    self._happen(picture, happening.kind, number - happening.start)
        x, y = (int(v) for v in np.random.Generator(np.random.Philox(number)).integers(0, self.size, 2))
        picture += self.grain[y : y + self.size, x : x + self.size]
        return _clipped(picture)

    def _background(self, number: int) -> np.ndarray:
        grey = np.full((self.size, self.size, 3), STAGE, np.float32)
        picture = self._window(number) if self.layers.set else grey
        if self.layers.extras:
            for mask, colour, path in self.extras:
                where = 0.5 + 0.55 * np.sin(path[:2] * number / self.film.spec.fps + path[2:])
                _paint(picture, mask, colour, float(where[0]), float(where[1]))
        return picture

    def _window(self, number: int) -> np.ndarray:
        """Look at a part of the set that drifts and grows lighter and darker."""
        shot = int(np.searchsorted(self.shots, number, side="right")) - 1
        if self._set is None or self._set[0] != shot:
            self._set = (shot, _texture(self.film, shot, 2 * self.size))
        texture, since = self._set[1], number - int(self.shots[shot])
        phase = since / self.film.spec.fps / 20.0 + shot
        x, y = (round(self.size * (0.5 + 0.45 * np.sin(phase * speed))) for speed in (1.0, 1.3))
        window = texture[y : y + self.size, x : x + self.size]
        if self.film.spec.style == "rich":
            nearer = (np.arange(self.size) * (0.8 + 0.2 * np.sin(phase * 0.8))).astype(np.intp)
            window = window[np.ix_(nearer, nearer)]
        return window * np.float32(1 + 0.12 * np.sin(phase * 1.7))

    def _draw_card(self, picture: np.ndarray, number: int) -> None:
        card = self.film.cards[number]
        left, top, share = card_box(self.film, card)
        x, y, side = (round(v * self.size) for v in (left, top, share))
        if number not in self._cards:
            self._cards[number] = draw_card(card, side, stream(self.film.spec.salt, self.film.spec.seed, "ink", number))
        region = picture[y : y + side, x : x + side]
        region[:] = self._cards[number][: region.shape[0], : region.shape[1]]

    def _happen(self, picture: np.ndarray, kind: str, step: int) -> None:
        if kind == "flash":
            picture *= 0.15
            picture += 215
        elif kind == "ring":
            _paint(picture, shape_mask("ring", round(self.size * 0.9)), np.full(3, 250, np.float32), 0.5, 0.5)
        elif kind == "curtain":
            third = self.size // 4
            picture[:third] = picture[-third:] = 8
        else:
            for sprite in sprites_of(kind, step):
                mask = np.rot90(shape_mask(sprite.shape, round(self.size * SPRITE_SIZE)), -sprite.quarters)
                _paint(picture, mask, np.full(3, 250, np.float32), sprite.x, sprite.y)

    def _stage(self, motion: Motion, number: int) -> np.ndarray:
        picture = np.full((self.size, self.size, 3), STAGE, np.float32)
        x, y = ball_at(motion, number)
        _paint(picture, shape_mask("circle", max(3, round(self.size * BALL_SIZE))), rgb(motion.colour), x, y)
        return picture

    def _poster(self, poster: Poster) -> np.ndarray:
        picture = np.full((self.size, self.size, 3), PAPER, np.float32)
        height = max(3, round(self.film.spec.detail_px * self.size / REFERENCE_SIDE))
        for i, letters in enumerate(poster.letters):
            row, column = divmod(i, poster.side)
            x, y = ((2 * v + 1) / (2 * poster.side) for v in (column, row))
            if poster.colours:
                tile = round(self.size / poster.side * TILE_SIZE)
                _paint(picture, np.ones((tile, tile), np.float32), rgb(poster.colours[i]), x, y - 0.2 / poster.side)
                y += 0.3 / poster.side
            write(picture, letters, height, x, y)
        return picture


def card_box(film: Film, card: Card) -> tuple[float, float, float]:
    """Return a card's left and top edge and its side, as shares of the picture."""
    side = film.spec.needle_size**0.5
    return (1 - side) * (card.place % 3) / 2, (1 - side) * (card.place // 3) / 2, side


def draw_card(card: Card, side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a card, float32 [side, side, 3]: its shape on the left, its letter on the right, what it points to below."""
    picture = np.full((side, side, 3), PAPER - 14 * rng.random(), np.float32)
    if card.paper != "plain":
        picture -= PATTERN * paper_mask(card.paper, side)[..., None]
    edge = max(1, side // 20)
    picture[:edge] = picture[-edge:] = INK
    picture[:, :edge] = picture[:, -edge:] = INK
    _paint(picture, shape_mask(card.key.shape, round(side * 0.5)), rgb(card.key.colour, rng.uniform(-1, 1)), 0.31, 0.36)
    letter = letter_mask(card.letter, round(side * 0.5), card.stroke)
    _paint(picture, letter, np.full(3, INK, np.float32), 0.76, 0.36)
    if card.code:
        write(picture, card.code, round(side * 0.2), 0.22, 0.8)
    if card.next_code:
        _paint(picture, np.rot90(shape_mask("arrow", round(side * 0.2)), -1), np.full(3, INK, np.float32), 0.5, 0.8)
        write(picture, card.next_code, round(side * 0.2), 0.78, 0.8)
    elif card.points_to is not None:
        small = shape_mask(card.points_to.shape, round(side * 0.27))
        _paint(picture, small, rgb(card.points_to.colour, rng.uniform(-1, 1)), 0.5, 0.79)
    return picture


def write(picture: np.ndarray, text: str, height: int, x: float, y: float) -> None:
    """Write letters in ink, their middle at (x, y), shares of the picture's size."""
    width = 0.84 * height / picture.shape[1]
    for number, letter in enumerate(text):
        where = x + (number - (len(text) - 1) / 2) * width
        _paint(picture, letter_mask(letter, height), np.full(3, INK, np.float32), where, y)


def film_frames(
    film: Film, size: int = REFERENCE_SIDE, indices: Iterable[int] | None = None, layers: Layers | None = None
) -> Iterator[np.ndarray]:
    """Yield frames, RGB uint8 [S, S, 3]: all, or those with the given numbers."""
    renderer = Renderer(film, size, layers)
    for number in range(film.spec.num_frames) if indices is None else indices:
        yield renderer.frame(int(number))


def film_arrays(
    film: Film, size: int = REFERENCE_SIDE, indices: Iterable[int] | None = None, layers: Layers | None = None
) -> np.ndarray:
    """Return frames as one array, RGB uint8 [T, S, S, 3]."""
    frames = list(film_frames(film, size, indices, layers))
    return np.stack(frames) if frames else np.zeros((0, size, size, 3), np.uint8)


def _shots(film: Film, rng: np.random.Generator) -> np.ndarray:
    """Cut a film into shots; most are short, some long. Returns their first frames."""
    starts = [0]
    while starts[-1] < film.spec.num_frames:
        length = min(SHOT_S[0] * (1 + rng.pareto(1.2)), SHOT_S[1])
        starts.append(starts[-1] + max(1, round(length * film.spec.fps)))
    return np.array(starts[:-1])


def _texture(film: Film, shot: int, size: int) -> np.ndarray:
    """Draw the set of a shot: a few waves in the colours of its palette, float32 [size, size, 3]."""
    rng = stream(film.spec.salt, film.spec.seed, "shot", shot)
    training = split_of(film.spec.seed) == "train"
    palette = int(rng.integers(NUM_TRAINING_PALETTES if training else NUM_PALETTES))
    dark, light = (np.array(colorsys.hsv_to_rgb(palette / NUM_PALETTES + shift, 0.35, value)) * 255
                   for shift, value in ((0.0, 0.3), (0.08, 0.72)))  # fmt: skip
    x, y = np.meshgrid(*[np.linspace(0, 2, size, dtype=np.float32)] * 2)
    if film.spec.sets == "voronoi":
        share = _voronoi(x, y, rng)[..., None]
        return (dark + (light - dark) * share).astype(np.float32)
    waves = np.zeros((size, size), np.float32)
    for _ in range(4):
        fx, fy, phase = rng.uniform(-3, 3), rng.uniform(-3, 3), rng.uniform(0, 2 * np.pi)
        waves += np.sin(np.pi * (fx * x + fy * y) + np.float32(phase))
    share = (waves / 8 + 0.5)[..., None]
    return (dark + (light - dark) * share).astype(np.float32)


def _voronoi(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give each place the value of the nearest of some random points, float32 [S, S] of 0 to 1."""
    points, values = rng.uniform(0, 2, (NUM_VORONOI_CELLS, 2)), rng.random(NUM_VORONOI_CELLS).astype(np.float32)
    distances = np.stack([(x - px) ** 2 + (y - py) ** 2 for px, py in points])
    return values[distances.argmin(0)]


def _extras(film: Film, size: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Choose the extras: shapes and colours that cards have too, each on a path of its own."""
    extras = []
    for i in range(film.spec.num_extras):
        rng = stream(film.spec.salt, film.spec.seed, "extra", i)
        key = Key(COLOURS[int(rng.integers(len(COLOURS)))], SHAPES[int(rng.integers(len(SHAPES)))])
        path = np.concatenate([rng.uniform(0.05, 0.3, 2), rng.uniform(0, 2 * np.pi, 2)])
        extras.append((shape_mask(key.shape, max(4, round(size * EXTRA_SIZE))), rgb(key.colour), path))
    return extras


def _paint(picture: np.ndarray, mask: np.ndarray, colour: np.ndarray, x: float, y: float) -> None:
    """Lay a colour over a picture through a mask whose middle is at (x, y), shares of the picture's size."""
    height, width = mask.shape
    top, left = round(y * picture.shape[0] - height / 2), round(x * picture.shape[1] - width / 2)
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, picture.shape[0]), min(left + width, picture.shape[1])
    if y1 <= y0 or x1 <= x0:
        return
    part = mask[y0 - top : y1 - top, x0 - left : x1 - left, None]
    region = picture[y0:y1, x0:x1]
    region += part * (colour - region)


def _clipped(picture: np.ndarray) -> np.ndarray:
    return picture.clip(0, 255).astype(np.uint8)
