"""Asks what training never asks: prefixes of chains, the order of three, and in every task what is not shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from longtake.media.filmstrip.asker import AB_SHARE, Asker, Question, Shown, motion_answers
from longtake.media.filmstrip.attributes import Key, keys_of, shuffled, split_of
from longtake.media.filmstrip.phrases import NOT_SHOWN
from longtake.media.filmstrip.world import BALL_COLOURS, MOST_HAPPENINGS, Film


def more_questions(film: Film, paraphrase: int | None) -> list[Question]:
    """Return these questions for the tasks of a film: NH, OR and AB have some."""
    tasks = film.spec.tasks
    found: list[Question] = []
    if "NH" in tasks:
        found += _prefixes(film, Asker(film, "NH", paraphrase, "NH prefix"))
    if "OR" in tasks:
        found += _order_of_three(film, Asker(film, "OR", paraphrase, "OR three"))
    if "AB" in tasks:
        found += _not_shown(film, Asker(film, "AB", paraphrase, "AB more"))
    return found


def _prefixes(film: Film, asker: Asker) -> Iterator[Question]:
    """Ask each chain up to every one of its cards, from the first hop on; the wrong letters are as far along."""
    for hops in range(1, film.spec.hops + 1):
        letters = [film.cards[chain[hops]].letter for chain in film.chains]
        for chain, letter in zip(film.chains, letters, strict=True):
            cards = [film.cards[i] for i in chain[: hops + 1]]
            wrong = [other for other in letters if other != letter]
            yield asker.ask("NH prefix", letter, wrong, cards, chain[: hops + 1], a=cards[0].key, b=hops)


def _order_of_three(film: Film, asker: Asker) -> Iterator[Question]:
    """Ask for the order of three cards, named in a random order, among all six orders."""
    numbers = [int(i) for i in asker.rng.permutation(len(film.cards))]
    for three in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False):
        a, b, c = (film.cards[i].key for i in three)
        right = sorted(three, key=lambda i: film.cards[i].start)
        answer = ", ".join(str(film.cards[i].key) for i in right)
        orders = tuple(", ".join(map(str, order)) for order in itertools.permutations((a, b, c)))
        cards = [film.cards[i] for i in right]
        yield asker.ask("OR three", answer, asker.others(answer, orders, 6), cards, tuple(right), a=a, b=b, c=c)


class _Case(NamedTuple):
    """A question of another task: its phrase and answer, all there is to choose from, and what to name instead.

    choices: none where the answer is a time. missing: names of what the film does not show; none if it shows all.
    """

    phrase: str
    answer: str
    choices: tuple[str, ...]
    proof: Sequence[Shown]
    subject: tuple[int | str, ...]
    named: dict[str, str]
    missing: dict[str, str]


def _not_shown(film: Film, asker: Asker) -> Iterator[Question]:
    """Ask of every task, 15 % of the time of something that the film does not show; no choices tell which."""
    makers = {"NH": _chain_cases, "OR": _order_cases, "TG": _time_cases, "CO": _count_cases, "MO": _motion_cases}
    for task, cases in makers.items():
        if task not in film.spec.tasks:
            continue
        for case in cases(film, asker):
            if not case.missing or asker.rng.random() >= AB_SHARE:
                wrong = [*asker.others(case.answer, case.choices, len(case.choices)), NOT_SHOWN] if case.choices else []
                yield asker.ask(case.phrase, case.answer, wrong, case.proof, case.subject, **case.named)
            else:
                choices = tuple(case.missing.values()) if case.phrase == "OR" else case.choices
                yield asker.ask(case.phrase, NOT_SHOWN, list(choices), (), (), **case.missing)


def _missing_keys(film: Film, asker: Asker, names: str) -> dict[str, str]:
    """Choose a key that no card has for each name; from the split's own, since one held out would tell by itself."""
    shown = {card.key for card in film.cards}
    missing: tuple[Key, ...] = tuple(key for key in keys_of(split_of(film.spec.seed)) if key not in shown)
    return dict(zip(names, map(str, shuffled(missing, asker.rng)), strict=False)) if len(missing) >= len(names) else {}


def _chain_cases(film: Film, asker: Asker) -> Iterator[_Case]:
    ends = tuple(film.cards[chain[-1]].letter for chain in film.chains)
    for chain, end in zip(film.chains, ends, strict=True):
        proof = [film.cards[i] for i in chain]
        yield _Case("NH", end, ends, proof, chain, {"a": str(proof[0].key)}, _missing_keys(film, asker, "a"))


def _order_cases(film: Film, asker: Asker) -> Iterator[_Case]:
    numbers = [int(i) for i in asker.rng.permutation(len(film.cards))]
    for pair in zip(numbers[::2], numbers[1::2], strict=False):
        a, b = (str(film.cards[number].key) for number in pair)
        right = tuple(sorted(pair, key=lambda number: film.cards[number].start))
        answer, proof = str(film.cards[right[0]].key), [film.cards[number] for number in right]
        yield _Case("OR", answer, (a, b), proof, right, {"a": a, "b": b}, _missing_keys(film, asker, "ab"))


def _time_cases(film: Film, asker: Asker) -> Iterator[_Case]:
    for number, card in enumerate(film.cards):
        answer = "{:g} to {:g} seconds".format(*film.span_s(card))
        yield _Case("TG", answer, (), [card], (number,), {"a": str(card.key)}, _missing_keys(film, asker, "a"))


def _count_cases(film: Film, asker: Asker) -> Iterator[_Case]:
    kinds = sorted({one.kind for one in film.happenings})
    others = shuffled(tuple(kind for kind in film.spec.happening_kinds if kind not in kinds), asker.rng)
    numbers = tuple(str(n) for n in range(1, MOST_HAPPENINGS + 1))
    for kind in kinds:
        counted = [one for one in film.happenings if one.kind == kind]
        missing = {"a": others[0]} if others else {}
        yield _Case("CO", str(len(counted)), numbers, counted, (kind,), {"a": kind}, missing)


def _motion_cases(film: Film, asker: Asker) -> Iterator[_Case]:
    colours = [motion.colour for motion in film.motions]
    unused = [colour for colour in shuffled(BALL_COLOURS, asker.rng) if colour not in colours]
    missing = {"a": unused[0]} if unused else {}
    for number, motion in enumerate(film.motions):
        if colours.count(motion.colour) == 1:
            for phrase, answer, choices in motion_answers(motion):
                yield _Case(phrase, answer, choices, [motion], (number,), {"a": motion.colour}, missing)
