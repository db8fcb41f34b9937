"""The closed grammar of questions: four wordings each, of which the last is held out, and the words of answers."""

from __future__ import annotations

from longtake.media.filmstrip.attributes import ALL_KEYS, COLOURS, DIRECTIONS, LETTERS, SHAPES
from longtake.media.filmstrip.ladder import HAPPENING_FRAMES, HAPPENINGS

NOT_SHOWN = "not shown"
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

# What training never asks, kept apart so that the words of the bundled model's tokenizer stay as they are.
MORE_PHRASES: dict[str, tuple[str, str, str, str]] = {
    "NH prefix": (
        "Start at the card with the {a} and follow the pictures {b} times. Which letter is on the card that you reach?",
        "Follow the pictures from the {a} card {b} times. What letter does the card that you reach carry?",
        "Begin with the {a} card, follow the pictures {b} times, and name the letter.",
        "{b} times the pictures lead on from the {a} card: which letter is there?",
    ),
    "OR three": (
        "In which order were the {a} card, the {b} card and the {c} card shown?",
        "Name the {a} card, the {b} card and the {c} card in the order in which they came.",
        "The {a} card, the {b} card, the {c} card: in which order did they come?",
        "Put the {a} card, the {b} card and the {c} card in order of time.",
    ),
    "MO bounce": (
        "How many times did the {a} ball bounce?",
        "Count the bounces of the {a} ball.",
        "How often did the {a} ball bounce?",
        "The {a} ball bounced how many times?",
    ),
    "MO speed": (
        "Did the {a} ball get faster or slower?",
        "Which way did the speed of the {a} ball change?",
        "Faster or slower: how did the {a} ball go on?",
        "The {a} ball: did it get faster or slower?",
    ),
    "MO path": (
        "Did the {a} ball go sideways first or last?",
        "When did the {a} ball go sideways: first or last?",
        "First or last: when did the {a} ball move sideways?",
        "The {a} ball moved sideways: first or last?",
    ),
    "DE tile": (
        "Which code is under the {a} tile of the poster?",
        "Read the code under the {a} tile of the poster.",
        "What code does the poster carry under the {a} tile?",
        "The poster, the {a} tile: which code is under it?",
    ),
}


def vocabulary() -> list[str]:
    """Return a text for every word that questions and answers are made of."""
    phrases = [phrase for group in PHRASES.values() for phrase in group]
    values = [*COLOURS, *SHAPES, *LETTERS, *DIRECTIONS, *HAPPENINGS, NOT_SHOWN, *map(str, range(10)), "left", "right"]
    return [*phrases, *values, *map(str, ALL_KEYS)]


def wide_vocabulary() -> list[str]:
    """Return a text for every word of every film there is: what training uses comes first."""
    phrases = [phrase for group in MORE_PHRASES.values() for phrase in group]
    codes = ["code", "codes", *HAPPENING_FRAMES, "faster", "slower", "first", "last", "0"]
    return [*vocabulary(), *phrases, *(phrase.replace("picture", "code") for phrase in phrases), *codes]
