"""Asks questions about a film whose answers follow from its plan, with the times that prove them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from longtake.media.filmstrip.asker import AB_SHARE, NUM_CHOICES, Asker, Question, motion_answers, questions_stream
from longtake.media.filmstrip.attributes import (
    ALL_KEYS,
    GLYPHS,
    LETTERS,
    balanced,
    keys_of,
    shuffled,
    split_of,
)
from longtake.media.filmstrip.more_questions import more_questions
from longtake.media.filmstrip.phrases import NOT_SHOWN as NOT_SHOWN
from longtake.media.filmstrip.phrases import PHRASES as PHRASES
from longtake.media.filmstrip.phrases import vocabulary as vocabulary
from longtake.media.filmstrip.world import MOST_HAPPENINGS, Film


def ask_film(film: Film, *, paraphrase: int | None = None, more: bool = False) -> list[Question]:
    """Return all questions of the film's tasks, in a random order that depends on its seed.

    paraphrase: which of the four wordings; none takes any that training uses, for the test split the held-out one too.
    more: ask what training never asks too: every prefix of a chain, the order of three cards, and what is not shown
    in every task. Then no choices and no names tell what is not shown; without, the choices of AB are one fewer where
    it is, and a training film is asked for pairs that no training film shows: leave choices out, or ask for more.

    Raises: ConfigError if there is no such wording.
    """
    found = list(_questions(film, paraphrase, more))
    if more:
        found += more_questions(film, paraphrase)
    order = questions_stream(film, "order").permutation(len(found))
    return [found[int(i)] for i in order]


def _questions(film: Film, paraphrase: int | None, fair: bool) -> Iterator[Question]:
    makers = {"N1": _single, "NH": _hops, "OR": _order, "CO": _count, "MO": _motion, "DE": _detail, "TG": _when,
              "AB": functools.partial(_absent, fair=fair)}  # fmt: skip
    for task in film.spec.tasks:
        yield from makers[task](film, Asker(film, task, paraphrase))


def _single(film: Film, asker: Asker) -> Iterator[Question]:
    letters = tuple(sorted({card.letter for card in film.cards}))
    pool = letters if len(letters) >= NUM_CHOICES else GLYPHS if film.spec.style == "rich" else LETTERS
    for i, card in enumerate(film.cards):
        wrong = asker.others(card.letter, pool)
        yield asker.ask("N1", card.letter, wrong, [card], (i,), a=card.key)


def _hops(film: Film, asker: Asker) -> Iterator[Question]:
    """Ask each chain whole, directly and as a trace; then each of its pointers, for what is learned on the way."""
    ends = [film.cards[chain[-1]].letter for chain in film.chains]
    for chain, end in zip(film.chains, ends, strict=True):
        cards = [film.cards[i] for i in chain]
        start = cards[0].key
        wrong = [letter for letter in ends if letter != end]
        yield asker.ask("NH", end, wrong, cards, chain, a=start)
        trace = ", ".join(str(card.key) for card in cards[1:])
        yield asker.ask("NH trace", f"{trace}: {end}", [], cards, chain, a=start)
        for i, card in zip(chain[:-1], cards[:-1], strict=True):
            yield asker.ask("NH pointer", " ".join(card.next_code) or str(card.points_to), [], [card], (i,), a=card.key)


def _order(film: Film, asker: Asker) -> Iterator[Question]:
    """Ask of neighbours in a random order; which of the two is named first is balanced."""
    first = min(range(len(film.cards)), key=lambda i: film.cards[i].start)
    name = str(film.cards[first].key)
    others = asker.others(name, tuple(str(card.key) for card in film.cards))
    yield asker.ask("OR first", name, others, [film.cards[first]], (first,))
    order = [int(i) for i in asker.rng.permutation(len(film.cards))]
    for number, pair in enumerate(zip(order[::2], order[1::2], strict=False)):
        i, j = sorted(pair, key=lambda i: film.cards[i].start)
        early, late = film.cards[i], film.cards[j]
        swap = balanced(film.spec.seed + number, 2, film.spec.salt, "order")
        a, b = (late, early) if swap else (early, late)
        yield asker.ask("OR", str(early.key), [str(late.key)], [early, late], (i, j), a=a.key, b=b.key)


def _count(film: Film, asker: Asker) -> Iterator[Question]:
    for kind in sorted({one.kind for one in film.happenings}):
        counted = [one for one in film.happenings if one.kind == kind]
        answer, numbers = str(len(counted)), tuple(str(n) for n in range(1, MOST_HAPPENINGS + 1))
        yield asker.ask("CO", answer, asker.others(answer, numbers, len(numbers)), counted, (kind,), a=kind)


def _motion(film: Film, asker: Asker) -> Iterator[Question]:
    colours = [motion.colour for motion in film.motions]
    for i, motion in enumerate(film.motions):
        if colours.count(motion.colour) > 1:
            continue  # the question would be ambiguous
        for phrase, answer, pool in motion_answers(motion):
            yield asker.ask(phrase, answer, asker.others(answer, pool, len(pool)), [motion], (i,), a=motion.colour)


def _detail(film: Film, asker: Asker) -> Iterator[Question]:
    for number, poster in enumerate(film.posters):
        for i, letters in enumerate(poster.letters):
            row, column = divmod(i, poster.side)
            answer = " ".join(letters)
            if poster.colours:
                codes = tuple(sorted({" ".join(code) for code in poster.letters}))
                wrong = asker.others(answer, codes)
                yield asker.ask("DE tile", answer, wrong, [poster], (number, i), a=poster.colours[i])
            else:
                wrong = asker.others(answer, LETTERS)
                yield asker.ask("DE", answer, wrong, [poster], (number, i), a=row + 1, b=column + 1)


def _when(film: Film, asker: Asker) -> Iterator[Question]:
    for i, card in enumerate(film.cards):
        start, stop = film.span_s(card)
        answer = f"{start:g} to {stop:g} seconds"
        yield asker.ask("TG", answer, [], [card], (i,), a=card.key)


def _absent(film: Film, asker: Asker, *, fair: bool) -> Iterator[Question]:
    """Ask for letters of cards, some of which the film does not show; fair: choices and names do not tell which."""
    shown = {card.key for card in film.cards}
    keys = keys_of(split_of(film.spec.seed)) if fair else ALL_KEYS
    missing = [key for key in shuffled(keys, asker.rng) if key not in shown]
    spare = questions_stream(film, "AB", "spare")
    letters = tuple(sorted({card.letter for card in film.cards}))
    for i, card in enumerate(film.cards):
        is_absent = asker.rng.random() < AB_SHARE and bool(missing)
        key = missing.pop() if is_absent else card.key
        answer = NOT_SHOWN if is_absent else card.letter
        wrong = asker.others(answer, letters) + ([] if is_absent else [NOT_SHOWN])
        proof, subject = ([], ()) if is_absent else ([card], (i,))
        question = asker.ask("N1", answer, wrong, proof, subject, a=key)
        yield _with_another_letter(question, letters, spare) if is_absent and fair else question


def _with_another_letter(question: Question, letters: tuple[str, ...], rng: np.random.Generator) -> Question:
    """Add a wrong letter where one is left, so that the number of choices does not tell that nothing is shown."""
    left = [letter for letter in letters if letter not in question.choices][:1]
    place = int(rng.integers(len(question.choices) + 1))
    return dataclasses.replace(question, choices=(*question.choices[:place], *left, *question.choices[place:]))
