"""Asks questions about a film whose answers follow from its plan, with the times that prove them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from longtake.media.filmstrip.attributes import (
    ALL_KEYS,
    COLOURS,
    DIRECTIONS,
    LETTERS,
    SHAPES,
    balanced,
    is_held_out,
    shuffled,
    split_of,
    stream,
)
from longtake.media.filmstrip.world import HAPPENINGS, MOST_HAPPENINGS, POSTER_SIDE, Film

NOT_SHOWN = "not shown"
AB_SHARE = 0.15
NUM_CHOICES = 4
# Four ways to ask; the last one is never used for training.
PHRASES: dict[str, tuple[str, str, str, str]] = {
    "N1": (
        "Which letter is on the card with the {a}?",
        "What letter does the card with the {a} carry?",
        "Name the letter on the {a} card.",
        "The card with the {a}: which letter is on it?",
    ),
    "NH": (
        "Start at the card with the {a} and follow the pictures. Which letter is on the last card?",
        "Follow the pictures from the {a} card. What letter does the last card carry?",
        "Begin with the {a} card, follow the pictures, and name the letter on the last card.",
        "The pictures lead from the {a} card to a last card: which letter is on it?",
    ),
    "NH trace": (
        "Start at the card with the {a} and follow the pictures. Name each card, then the letter on the last card.",
        "Follow the pictures from the {a} card. Name each card and the last letter.",
        "Begin with the {a} card, follow the pictures, name each card and then the last letter.",
        "The pictures lead from the {a} card to a last card: name each card, then its letter.",
    ),
    "NH pointer": (
        "Which picture is below on the card with the {a}?",
        "What does the {a} card point to?",
        "Name the small picture on the {a} card.",
        "The card with the {a}: which small picture is on it?",
    ),
    "OR": (
        "Which came first: the {a} card or the {b} card?",
        "Was the {a} card or the {b} card shown first?",
        "Of the {a} card and the {b} card, name the first.",
        "First to be shown: the {a} card or the {b} card?",
    ),
    "OR first": (
        "Which card came first?",
        "Name the first card of the film.",
        "What was the first card of all?",
        "The first card of the film: which one was it?",
    ),
    "CO": (
        "How many times did the {a} happen?",
        "Count the {a}: how many times was it shown?",
        "How often did the {a} happen?",
        "The {a} happened how many times?",
    ),
    "MO": (
        "In which direction did the {a} ball start to move?",
        "Which way did the {a} ball move first?",
        "Name the first direction of the {a} ball.",
        "The {a} ball: which direction did it move in first?",
    ),
    "MO turn": (
        "Did the {a} ball turn left or right?",
        "Which way did the {a} ball turn?",
        "Name the side that the {a} ball turned to.",
        "The {a} ball turned to which side?",
    ),
    "DE": (
        "Which letter is in row {a}, column {b} of the poster?",
        "Name the letter in row {a}, column {b} of the poster.",
        "What letter does the poster carry in row {a}, column {b}?",
        "The poster, row {a}, column {b}: which letter is there?",
    ),
    "TG": (
        "When was the card with the {a} shown?",
        "At what time was the {a} card shown?",
        "Name the time of the {a} card.",
        "The card with the {a}: when was it shown?",
    ),
}


@dataclasses.dataclass(frozen=True)
class Question:
    """A question with its answer, what a chooser may choose from, and the spans in seconds that prove it.

    choices: the answer among wrong ones, in random order; empty where the answer is a time. For TG the answer is the
    span itself, as text, and spans_s holds it as numbers. is_held_out: whether it names a pair that no training card
    shows.
    """

    task: str
    text: str
    answer: str
    choices: tuple[str, ...]
    spans_s: tuple[tuple[float, float], ...]
    is_held_out: bool = False


def ask_film(film: Film, *, paraphrase: int | None = None) -> list[Question]:
    """Return all questions of the film's tasks, in a random order that depends on its seed.

    paraphrase: which of the four wordings; none takes any that training uses, for the test split the held-out one too.
    """
    found = list(_questions(film, paraphrase))
    order = _rng(film, "order").permutation(len(found))
    return [found[int(i)] for i in order]


def vocabulary() -> list[str]:
    """Return a text for every word that questions and answers are made of."""
    phrases = [phrase for group in PHRASES.values() for phrase in group]
    values = [*COLOURS, *SHAPES, *LETTERS, *DIRECTIONS, *HAPPENINGS, NOT_SHOWN, *map(str, range(10)), "left", "right"]
    return [*phrases, *values, *map(str, ALL_KEYS)]


def _rng(film: Film, *names: object) -> np.random.Generator:
    return stream(film.spec.salt, film.spec.seed, "questions", *names)


class _Asker:
    """Builds the questions of one task of one film."""

    def __init__(self, film: Film, task: str, paraphrase: int | None) -> None:
        self.film, self.task = film, task
        self.rng = _rng(film, task)
        self.num_wordings = 4 if split_of(film.spec.seed) == "test" else 3
        self.paraphrase = paraphrase

    def ask(
        self, phrase: str, answer: str, wrong: list[str], spans: list[tuple[float, float]], held_out: bool = False,
        **values: object,
    ) -> Question:  # fmt: skip
        wording = int(self.rng.integers(self.num_wordings)) if self.paraphrase is None else self.paraphrase
        choices = [answer, *wrong]
        mixed = tuple(choices[int(i)] for i in self.rng.permutation(len(choices))) if wrong else ()
        return Question(self.task, PHRASES[phrase][wording].format(**values), answer, mixed, tuple(spans), held_out)

    def others(self, answer: str, pool: tuple[str, ...], count: int = NUM_CHOICES - 1) -> list[str]:
        return [value for value in shuffled(pool, self.rng) if value != answer][:count]


def _questions(film: Film, paraphrase: int | None) -> Iterator[Question]:
    makers = {"N1": _single, "NH": _hops, "OR": _order, "CO": _count, "MO": _motion, "DE": _detail, "TG": _when,
              "AB": _absent}  # fmt: skip
    for task in film.spec.tasks:
        yield from makers[task](film, _Asker(film, task, paraphrase))


def _single(film: Film, asker: _Asker) -> Iterator[Question]:
    letters = tuple(sorted({card.letter for card in film.cards}))
    for card in film.cards:
        wrong = asker.others(card.letter, letters if len(letters) >= NUM_CHOICES else LETTERS)
        yield asker.ask("N1", card.letter, wrong, [film.span_s(card)], is_held_out(card.key), a=card.key)


def _hops(film: Film, asker: _Asker) -> Iterator[Question]:
    """Ask each chain whole, directly and as a trace; then each of its pointers, for what is learned on the way."""
    ends = [film.cards[chain[-1]].letter for chain in film.chains]
    for chain, end in zip(film.chains, ends, strict=True):
        cards = [film.cards[i] for i in chain]
        spans, start = [film.span_s(card) for card in cards], cards[0].key
        wrong = [letter for letter in ends if letter != end]
        yield asker.ask("NH", end, wrong, spans, a=start)
        trace = ", ".join(str(card.key) for card in cards[1:])
        yield asker.ask("NH trace", f"{trace}: {end}", [], spans, a=start)
        for card in cards[:-1]:
            yield asker.ask("NH pointer", str(card.points_to), [], [film.span_s(card)], a=card.key)


def _order(film: Film, asker: _Asker) -> Iterator[Question]:
    """Ask of neighbours in a random order; which of the two is named first is balanced."""
    first = min(film.cards, key=lambda card: card.start)
    others = asker.others(str(first.key), tuple(str(card.key) for card in film.cards))
    yield asker.ask("OR first", str(first.key), others, [film.span_s(first)])
    order = [int(i) for i in asker.rng.permutation(len(film.cards))]
    for number, (i, j) in enumerate(zip(order[::2], order[1::2], strict=False)):
        early, late = sorted((film.cards[i], film.cards[j]), key=lambda card: card.start)
        swap = balanced(film.spec.seed + number, 2, film.spec.salt, "order")
        a, b = (late, early) if swap else (early, late)
        spans = [film.span_s(early), film.span_s(late)]
        yield asker.ask("OR", str(early.key), [str(late.key)], spans, a=a.key, b=b.key)


def _count(film: Film, asker: _Asker) -> Iterator[Question]:
    for kind in sorted({one.kind for one in film.happenings}):
        frames = [one.frame for one in film.happenings if one.kind == kind]
        answer, numbers = str(len(frames)), tuple(str(n) for n in range(1, MOST_HAPPENINGS + 1))
        spans = [(frame / film.spec.fps, (frame + 1) / film.spec.fps) for frame in frames]
        yield asker.ask("CO", answer, asker.others(answer, numbers, len(numbers)), spans, a=kind)


def _motion(film: Film, asker: _Asker) -> Iterator[Question]:
    colours = [motion.colour for motion in film.motions]
    for motion in film.motions:
        if colours.count(motion.colour) > 1:
            continue  # the question would be ambiguous
        span, answer = [film.span_s(motion)], DIRECTIONS[motion.direction]
        yield asker.ask("MO", answer, asker.others(answer, DIRECTIONS, 7), span, a=motion.colour)
        if motion.turn:
            sides = ("left", "right")
            answer = sides[motion.turn > 0]
            yield asker.ask("MO turn", answer, asker.others(answer, sides), span, a=motion.colour)


def _detail(film: Film, asker: _Asker) -> Iterator[Question]:
    for poster in film.posters:
        for i, letter in enumerate(poster.letters):
            row, column = divmod(i, POSTER_SIDE)
            wrong = asker.others(letter, LETTERS)
            yield asker.ask("DE", letter, wrong, [film.span_s(poster)], a=row + 1, b=column + 1)


def _when(film: Film, asker: _Asker) -> Iterator[Question]:
    for card in film.cards:
        start, stop = film.span_s(card)
        yield asker.ask("TG", f"{start:g} to {stop:g} seconds", [], [(start, stop)], is_held_out(card.key), a=card.key)


def _absent(film: Film, asker: _Asker) -> Iterator[Question]:
    """Ask for letters of cards, some of which the film does not show."""
    shown = {card.key for card in film.cards}
    missing = [key for key in shuffled(ALL_KEYS, asker.rng) if key not in shown]
    letters = tuple(sorted({card.letter for card in film.cards}))
    for card in film.cards:
        is_absent = asker.rng.random() < AB_SHARE
        key = missing.pop() if is_absent else card.key
        answer = NOT_SHOWN if is_absent else card.letter
        wrong = asker.others(answer, letters) + ([] if is_absent else [NOT_SHOWN])
        yield asker.ask("N1", answer, wrong, [] if is_absent else [film.span_s(card)], is_held_out(key), a=key)
