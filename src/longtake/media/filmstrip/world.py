"""What happens in a film: cards, happenings to count, motions and posters, each at its own time."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from longtake.media.filmstrip.attributes import (
    COLOURS,
    DIRECTIONS,
    GLYPHS,
    LETTERS,
    PAPERS,
    STROKES,
    Key,
    balanced,
    keys_of,
    places_of,
    shuffled,
    split_of,
    stream,
)
from longtake.media.filmstrip.ladder import HAPPENING_FRAMES, MOTION_FRAMES, FilmSpec
from longtake.media.filmstrip.ladder import HAPPENINGS as HAPPENINGS
from longtake.media.filmstrip.timeline import place, shrink_to_fit

CARD_TASKS = ("N1", "NH", "OR", "TG", "AB")
NUM_CHAINS = 4
MOST_HAPPENINGS = 6
MOST_BOUNCES = 4
CODE_LENGTH = 3
BALL_COLOURS = ("red", "yellow", "green", "cyan")


@dataclasses.dataclass(frozen=True)
class Card:
    """A card with a shape in a colour and a letter, shown from frame `start` up to `stop`.

    points_to: the key of another card, drawn as a small picture, or as its code where the cards have codes. place:
    which ninth of the picture it leans to. paper, stroke: how it is drawn.
    """

    key: Key
    letter: str
    start: int
    stop: int
    place: int
    points_to: Key | None = None
    code: str = ""
    next_code: str = ""
    paper: str = "plain"
    stroke: str = "plain"


@dataclasses.dataclass(frozen=True)
class Happening:
    """Something sudden that can be counted; it fills one frame, or a few from `frame` on."""

    kind: str
    frame: int

    @property
    def start(self) -> int:
        """The first frame that shows it."""
        return self.frame

    @property
    def stop(self) -> int:
        """The first frame that shows it no more."""
        return self.frame + HAPPENING_FRAMES[self.kind]


@dataclasses.dataclass(frozen=True)
class Motion:
    """A ball that runs across an empty stage: in one of eight directions, or first so and then turned by 90 degrees.

    direction: in steps of 45 degrees clockwise from upwards. turn: -1 left, 1 right, 0 none. kind: of MOTION_FRAMES.
    value: how many bounces; 1 if it gets faster, -1 slower; 1 if it goes sideways first, -1 last. phase: where a
    bouncing ball begins, as a share of where it could.
    """

    direction: int
    turn: int
    start: int
    stop: int
    colour: str
    kind: str = "direction"
    value: int = 0
    phase: float = 0.0


@dataclasses.dataclass(frozen=True)
class Poster:
    """A still of letters in rows and columns; with colours, of tiles with codes below them."""

    letters: tuple[str, ...]
    start: int
    stop: int
    colours: tuple[str, ...] = ()

    @property
    def side(self) -> int:
        """Number of rows, and of columns."""
        return math.isqrt(len(self.letters))


@dataclasses.dataclass(frozen=True)
class Film:
    """Everything that a film shows in front of its set. chains: of card numbers, the true one of NH first."""

    spec: FilmSpec
    cards: tuple[Card, ...]
    chains: tuple[tuple[int, ...], ...]
    happenings: tuple[Happening, ...]
    motions: tuple[Motion, ...]
    posters: tuple[Poster, ...]

    def span_s(self, shown: Card | Happening | Motion | Poster) -> tuple[float, float]:
        """Return from when to when something is shown, in seconds."""
        return shown.start / self.spec.fps, shown.stop / self.spec.fps

    def card_at(self, frame: int) -> int | None:
        """Return the number of the card that a frame shows, if it shows one."""
        return next((i for i, card in enumerate(self.cards) if card.start <= frame < card.stop), None)


def build_film(spec: FilmSpec) -> Film:
    """Decide what a film shows and when; equal settings give equal films.

    Raises: ConfigError if the film is too short for all that is asked for.
    """
    plain_cards, chains = _cards(spec)
    kinds = _happenings(spec)
    kinds_of_motion = [_kind_of_motion(spec, i) for i in range(spec.num_motions if "MO" in spec.tasks else 0)]
    rigid = [HAPPENING_FRAMES[kind] for kind in kinds] + [MOTION_FRAMES[kind] for kind in kinds_of_motion]
    num_posters = int("DE" in spec.tasks)
    card_frames = max(1, round(spec.needle_s * spec.fps))
    wanted = [card_frames] * len(plain_cards) + rigid + [spec.still_frames] * num_posters
    least = [1] * len(plain_cards) + rigid + [1] * num_posters
    lengths = shrink_to_fit(wanted, least, spec.num_frames)
    starts = place(lengths, spec.num_frames, _stream(spec, "times"), spec.depth)
    spans = [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    rest = spans[len(plain_cards) :]
    happenings = [Happening(kind, start) for kind, (start, _) in zip(kinds, rest, strict=False)]
    rest = rest[len(kinds) :]
    return Film(
        spec,
        tuple(
            dataclasses.replace(card, start=start, stop=stop)
            for card, (start, stop) in zip(plain_cards, spans, strict=False)
        ),
        chains,
        tuple(sorted(happenings, key=lambda one: one.frame)),
        tuple(_motion(spec, i, *span) for i, span in enumerate(rest[: len(kinds_of_motion)])),
        tuple(_poster(spec, i, *span) for i, span in enumerate(rest[len(kinds_of_motion) :])),
    )


def _stream(spec: FilmSpec, *names: object) -> np.random.Generator:
    return stream(spec.salt, spec.seed, *names)


def _cards(spec: FilmSpec) -> tuple[list[Card], tuple[tuple[int, ...], ...]]:
    """Choose the cards, all with different keys; the chains of NH come first."""
    if not set(spec.tasks) & set(CARD_TASKS):
        return [], ()
    rng, split = _stream(spec, "cards"), split_of(spec.seed)
    length = spec.hops + 1
    num_chained = NUM_CHAINS * length if "NH" in spec.tasks else 0
    count = max(spec.num_cards, num_chained)
    keys = shuffled(keys_of(split), rng)[:count]
    # Letters go round in a random order, so that none is more frequent; the first card's letter is balanced by seed.
    glyphs = GLYPHS if spec.style == "rich" else LETTERS
    letters = list(shuffled(glyphs, rng))
    first = letters.index(glyphs[balanced(spec.seed, len(glyphs), spec.salt, "letter")])
    letters = letters[first:] + letters[:first]
    chains = tuple(tuple(range(i * length, (i + 1) * length)) for i in range(NUM_CHAINS)) if num_chained else ()
    follows = {chain[i]: chain[i + 1] for chain in chains for i in range(spec.hops)}
    cards = []
    for i, key in enumerate(keys):
        letter = letters[i % len(letters)]
        places = places_of(split, letter)
        pointer = keys[follows[i]] if i in follows else None
        cards.append(Card(key, letter, 0, 0, places[int(rng.integers(len(places)))], pointer))
    if spec.pointers == "codes":
        all_codes = tuple(f"{letter}{digit}" for letter in LETTERS for digit in GLYPHS[len(LETTERS) :])
        codes = shuffled(all_codes, _stream(spec, "codes"))
        follow = [codes[follows[i]] if i in follows else "" for i in range(len(cards))]
        cards = [dataclasses.replace(card, code=codes[i], next_code=follow[i]) for i, card in enumerate(cards)]
    if spec.style == "rich":
        dress = _stream(spec, "dress")
        looks = [(PAPERS[dress.integers(len(PAPERS))], STROKES[dress.integers(len(STROKES))]) for _ in cards]
        cards = [
            dataclasses.replace(card, paper=look[0], stroke=look[1]) for card, look in zip(cards, looks, strict=True)
        ]
    return cards, chains


def _happenings(spec: FilmSpec) -> list[str]:
    """Choose how often each kind happens: one to six times, balanced over seeds."""
    if "CO" not in spec.tasks:
        return []
    kinds = shuffled(spec.happening_kinds, _stream(spec, "kinds"))[: spec.num_kinds_to_count]
    counts = {kind: 1 + balanced(spec.seed, MOST_HAPPENINGS, spec.salt, "count", kind) for kind in kinds}
    return [kind for kind, count in counts.items() for _ in range(count)]


def _kind_of_motion(spec: FilmSpec, number: int) -> str:
    return spec.motion_kinds[int(_stream(spec, "motion", number).integers(len(spec.motion_kinds)))]


def _motion(spec: FilmSpec, number: int, start: int, stop: int) -> Motion:
    rng = _stream(spec, "motion", number)
    kind = spec.motion_kinds[int(rng.integers(len(spec.motion_kinds)))]
    direction = balanced(spec.seed, len(DIRECTIONS), spec.salt, "direction", number)
    turn = 2 * balanced(spec.seed, 2, spec.salt, "turn", number) - 1 if kind == "turn" else 0
    motion = Motion(direction, turn, start, stop, BALL_COLOURS[int(rng.integers(len(BALL_COLOURS)))], kind)
    if kind == "bounce":
        value = 1 + balanced(spec.seed, MOST_BOUNCES, spec.salt, "bounces", number)
        return dataclasses.replace(motion, value=value, phase=float(rng.random()))
    if kind == "path":  # between opposite corners
        motion = dataclasses.replace(motion, direction=1 + 2 * balanced(spec.seed, 4, spec.salt, "corner", number))
    if kind in ("speed", "path"):
        return dataclasses.replace(motion, value=2 * balanced(spec.seed, 2, spec.salt, kind, number) - 1)
    return motion


def _poster(spec: FilmSpec, number: int, start: int, stop: int) -> Poster:
    rng = _stream(spec, "poster", number)
    cells = spec.poster_side**2
    if spec.poster == "tiles":
        codes = tuple("".join(GLYPHS[int(i)] for i in rng.permutation(len(GLYPHS))[:CODE_LENGTH]) for _ in range(cells))
        return Poster(codes, start, stop, shuffled(COLOURS, rng)[:cells])
    return Poster(tuple(LETTERS[int(i)] for i in rng.integers(len(LETTERS), size=cells)), start, stop)
