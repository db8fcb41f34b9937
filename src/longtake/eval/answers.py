"""Reads short open answers: a glyph, a word of a closed list, a number, a span of time. Never guesses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from longtake.eval.parsers import LETTERS

_NUMBER = re.compile(r"(?<![\d.])\d+(?:\.\d+)?(?![\d.]*\d)")


def plain(text: str) -> str:
    """Return an answer without blanks, quotes and a full stop around it."""
    return text.strip().strip("\"'`*").strip().rstrip(".").strip()


def read_glyph(text: str, glyphs: Sequence[str]) -> str | None:
    """Return the letter or digit that an answer names: the whole answer, or its last word.

    Capital letters only, unless the answer is nothing else: in `A red star` no letter is named.
    """
    stripped = plain(text)
    if stripped.upper() in glyphs:
        return stripped.upper()
    words = stripped.replace("(", " ").replace(")", " ").replace('"', " ").split()
    last = words[-1].strip(".,:;!?'") if words else ""
    return last if last in glyphs else None


def read_phrase(text: str, phrases: Sequence[str]) -> str | None:
    """Return the phrase that an answer is, else the one that it holds; none if it holds several that differ.

    A phrase inside a longer one does not count: `up right` is not `up`.
    """
    stripped = plain(text).lower()
    by_length = sorted(phrases, key=len, reverse=True)
    if found := next((phrase for phrase in by_length if phrase.lower() == stripped), None):
        return found
    found, rest = [], stripped
    for phrase in by_length:
        pattern = rf"\b{re.escape(phrase.lower())}\b"
        if re.search(pattern, rest):
            found.append(phrase)
            rest = re.sub(pattern, " ", rest)
    return found[0] if len(found) == 1 else None


def read_number(text: str) -> str | None:
    """Return the only number of an answer as a whole number; none if there are several, or it is no whole one."""
    found = set(_NUMBER.findall(text))
    if len(found) != 1:
        return None
    value = float(found.pop())
    return str(int(value)) if value.is_integer() else None


def read_span(text: str) -> tuple[float, float] | None:
    """Return the first two numbers of an answer as seconds, the earlier first; none if there are fewer."""
    found = [float(number) for number in _NUMBER.findall(text)]
    return (min(found[:2]), max(found[:2])) if len(found) >= 2 else None


def overlap(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the length that two spans share over the length that they cover together; 0 where that is none."""
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    together = (first[1] - first[0]) + (second[1] - second[0]) - shared
    return shared / together if together > 0 else 0.0


def choices_text(choices: Sequence[str]) -> str:
    """Write choices one a line: `(A) red`."""
    return "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS[: len(choices)], choices, strict=True))
