"""Answers questions from what a film's plan holds and what the question says; shares no code with the asker."""

from __future__ import annotations

import re

from longtake.media.filmstrip import Film, Question
from longtake.media.filmstrip.attributes import COLOURS, DIRECTIONS, SHAPES
from longtake.media.filmstrip.ladder import HAPPENING_FRAMES
from longtake.media.filmstrip.world import Card, Motion

PAIR = re.compile(rf"\b(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})\b")
NOTHING: tuple[str, list] = ("not shown", [])


def truth(film: Film, question: Question) -> tuple[str, list[tuple[float, float]]]:
    """Return the answer to a question and the spans, in seconds, of what must be seen to know it."""
    family = question.kind.split()[0]
    answer, shown = {"N1": letter, "NH": chain, "OR": order, "CO": count, "MO": motion, "DE": detail, "TG": time}[
        family
    ](film, question)
    return answer, [(one.start / film.spec.fps, one.stop / film.spec.fps) for one in shown]


def cards_named(film: Film, text: str) -> list[Card | None]:
    cards = {f"{card.key.colour} {card.key.shape}": card for card in film.cards}
    assert len(cards) == len(film.cards), "two cards have one name"
    return [cards.get(name) for name in PAIR.findall(text)]


def letter(film: Film, question: Question) -> tuple[str, list]:
    (card,) = cards_named(film, question.text)
    return (card.letter, [card]) if card else NOTHING


def time(film: Film, question: Question) -> tuple[str, list]:
    (card,) = cards_named(film, question.text)
    if card is None:
        return NOTHING
    numbers = [float(number) for number in re.findall(r"[\d.]+", question.answer)]
    assert numbers == [card.start / film.spec.fps, card.stop / film.spec.fps]
    return question.answer, [card]


def chain(film: Film, question: Question) -> tuple[str, list]:
    (card,) = cards_named(film, question.text)
    if card is None:
        return NOTHING
    asked = re.search(r"(\d) times", question.text)
    left = int(asked[1]) if asked else 100
    passed = [card]
    while left and (following := next_card(film, passed[-1])):
        passed.append(following)
        left -= 1
    if question.kind == "NH pointer":
        name = " ".join(card.next_code) if film.spec.pointers == "codes" else spoken(passed[1])
        return name, [card]
    if question.kind == "NH trace":
        return f"{', '.join(map(spoken, passed[1:]))}: {passed[-1].letter}", passed
    return passed[-1].letter, passed


def next_card(film: Film, card: Card) -> Card | None:
    if film.spec.pointers == "codes":
        (following,) = [one for one in film.cards if one.code == card.next_code] or [None]
    else:
        (following,) = [one for one in film.cards if one.key == card.points_to] or [None]
    return following


def spoken(card: Card) -> str:
    return f"{card.key.colour} {card.key.shape}"


def order(film: Film, question: Question) -> tuple[str, list]:
    if question.kind == "OR first":
        first = min(film.cards, key=lambda card: card.start)
        return spoken(first), [first]
    named = cards_named(film, question.text)
    cards = sorted((card for card in named if card), key=lambda card: card.start)
    if len(cards) < len(named):
        return NOTHING
    return (", ".join(map(spoken, cards)) if question.kind == "OR three" else spoken(cards[0])), cards


def count(film: Film, question: Question) -> tuple[str, list]:
    (kind,) = set(re.findall(r"\w+", question.text)) & set(HAPPENING_FRAMES)
    counted = [one for one in film.happenings if one.kind == kind]
    return (str(len(counted)), counted) if counted else NOTHING


def motion(film: Film, question: Question) -> tuple[str, list]:
    (colour,) = re.findall(r"(\w+) ball", question.text)
    balls = [one for one in film.motions if one.colour == colour]
    if not balls:
        return NOTHING
    (ball,) = balls
    return way(ball, question.kind), [ball]


def way(ball: Motion, kind: str) -> str:
    return {
        "MO": DIRECTIONS[ball.direction],
        "MO turn": {-1: "left", 0: "straight on", 1: "right"}[ball.turn],
        "MO bounce": str(ball.value),
        "MO speed": "faster" if ball.value == 1 else "slower",
        "MO path": "first" if ball.value == 1 else "last",
    }[kind]


def detail(film: Film, question: Question) -> tuple[str, list]:
    (poster,) = film.posters
    if question.kind == "DE tile":
        (colour,) = re.findall(r"(\w+) tile", question.text)
        return " ".join(poster.letters[poster.colours.index(colour)]), [poster]
    row, column = (int(number) for number in re.findall(r"\d", question.text))
    side = round(len(poster.letters) ** 0.5)
    return poster.letters[(row - 1) * side + column - 1], [poster]
