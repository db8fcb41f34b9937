"""What happens in a film: cards, happenings to count, motions and posters, each at its own time."""

from __future__ import annotations

import dataclasses

import numpy as np

from longtake.media.filmstrip.attributes import (
    DIRECTIONS,
    LETTERS,
    Key,
    balanced,
    keys_of,
    places_of,
    shuffled,
    split_of,
    stream,
)
from longtake.media.filmstrip.ladder import FilmSpec
from longtake.media.filmstrip.timeline import place, shrink_to_fit

CARD_TASKS = ("N1", "NH", "OR", "TG", "AB")
NUM_CHAINS = 4
HAPPENINGS = ("flash", "ring", "curtain")
MOST_HAPPENINGS = 6
MOTION_FRAMES = 6
POSTER_SIDE = 3


@dataclasses.dataclass(frozen=True)
class Card:
    """A card with a shape in a colour and a letter, shown from frame `start` up to `stop`.

    points_to: the key of another card, drawn as a small picture. place: which ninth of the picture it leans to.
    """

    key: Key
    letter: str
    start: int
    stop: int
    place: int
    points_to: Key | None = None


@dataclasses.dataclass(frozen=True)
class Happening:
    """Something sudden that can be counted; it fills one frame."""

    kind: str
    frame: int


@dataclasses.dataclass(frozen=True)
class Motion:
    """A ball that runs across an empty stage: in one of eight directions, or first so and then turned by 90 degrees.

    direction: in steps of 45 degrees clockwise from upwards. turn: -1 left, 1 right, 0 none.
    """

    direction: int
    turn: int
    start: int
    stop: int
    colour: str


@dataclasses.dataclass(frozen=True)
class Poster:
    """A still of letters in rows and columns."""

    letters: tuple[str, ...]
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Film:
    """Everything that a film shows in front of its set. chains: of card numbers, the true one of NH first."""

    spec: FilmSpec
    cards: tuple[Card, ...]
    chains: tuple[tuple[int, ...], ...]
    happenings: tuple[Happening, ...]
    motions: tuple[Motion, ...]
    posters: tuple[Poster, ...]

    def span_s(self, shown: Card | Motion | Poster) -> tuple[float, float]:
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
    num_motions = spec.num_motions if "MO" in spec.tasks else 0
    num_posters = int("DE" in spec.tasks)
    card_frames = max(1, round(spec.needle_s * spec.fps))
    wanted = [card_frames] * len(plain_cards) + [1] * len(kinds)
    wanted += [MOTION_FRAMES] * num_motions + [spec.still_frames] * num_posters
    least = [1] * (len(plain_cards) + len(kinds)) + [MOTION_FRAMES] * num_motions + [1] * num_posters
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
        tuple(_motion(spec, i, *span) for i, span in enumerate(rest[:num_motions])),
        tuple(_poster(spec, i, *span) for i, span in enumerate(rest[num_motions:])),
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
    letters = list(shuffled(LETTERS, rng))
    first = letters.index(LETTERS[balanced(spec.seed, len(LETTERS), spec.salt, "letter")])
    letters = letters[first:] + letters[:first]
    chains = tuple(tuple(range(i * length, (i + 1) * length)) for i in range(NUM_CHAINS)) if num_chained else ()
    follows = {chain[i]: chain[i + 1] for chain in chains for i in range(spec.hops)}
    cards = []
    for i, key in enumerate(keys):
        letter = letters[i % len(letters)]
        places = places_of(split, letter)
        pointer = keys[follows[i]] if i in follows else None
        cards.append(Card(key, letter, 0, 0, places[int(rng.integers(len(places)))], pointer))
    return cards, chains


def _happenings(spec: FilmSpec) -> list[str]:
    """Choose how often each kind happens: one to six times, balanced over seeds."""
    if "CO" not in spec.tasks:
        return []
    kinds = shuffled(HAPPENINGS, _stream(spec, "kinds"))[: spec.num_kinds_to_count]
    counts = {kind: 1 + balanced(spec.seed, MOST_HAPPENINGS, spec.salt, "count", kind) for kind in kinds}
    return [kind for kind, count in counts.items() for _ in range(count)]


def _motion(spec: FilmSpec, number: int, start: int, stop: int) -> Motion:
    rng = _stream(spec, "motion", number)
    kind = spec.motion_kinds[int(rng.integers(len(spec.motion_kinds)))]
    direction = balanced(spec.seed, len(DIRECTIONS), spec.salt, "direction", number)
    turn = 2 * balanced(spec.seed, 2, spec.salt, "turn", number) - 1 if kind == "turn" else 0
    return Motion(direction, turn, start, stop, ("red", "yellow", "green", "cyan")[int(rng.integers(4))])


def _poster(spec: FilmSpec, number: int, start: int, stop: int) -> Poster:
    rng = _stream(spec, "poster", number)
    letters = tuple(LETTERS[int(i)] for i in rng.integers(len(LETTERS), size=POSTER_SIDE**2))
    return Poster(letters, start, stop)
