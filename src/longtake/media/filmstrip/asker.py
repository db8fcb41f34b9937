"""A question, and what builds the questions of one task of one film."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from longtake.core.errors import ConfigError
from longtake.media.filmstrip.attributes import ALL_KEYS, DIRECTIONS, is_held_out, shuffled, split_of, stream
from longtake.media.filmstrip.phrases import MORE_PHRASES, PHRASES
from longtake.media.filmstrip.world import MOST_BOUNCES, Card, Film, Happening, Motion, Poster

NUM_CHOICES = 4
NUM_WORDINGS = 4
# How many questions of AB ask for what the film does not show.
AB_SHARE = 0.15
HELD_OUT_NAMES = frozenset(str(key) for key in ALL_KEYS if is_held_out(key))

Shown = Card | Happening | Motion | Poster


@dataclasses.dataclass(frozen=True)
class Question:
    """A question with its answer, what a chooser may choose from, and the spans in seconds that prove it.

    choices: the answer among wrong ones, in random order; empty where the answer is a time. For TG the answer is the
    span itself, as text, and spans_s holds it as numbers. is_held_out: whether a card that it names, or that proves it,
    has a pair that no training card shows. kind: which of the phrases it was asked with. subject: what it asks about:
    numbers of cards (of a chain in order), of a motion, of a poster and a cell of it; for CO the kind of happening;
    nothing where it is not shown.
    """

    task: str
    text: str
    answer: str
    choices: tuple[str, ...]
    spans_s: tuple[tuple[float, float], ...]
    is_held_out: bool = False
    kind: str = ""
    subject: tuple[int | str, ...] = ()


def is_right(text: str, question: Question) -> bool:
    """Compare an answer as plain text, blanks and a full stop at the end left out."""
    return text.strip().rstrip(".") == question.answer


class Asker:
    """Builds questions of a task; what it draws depends on the film's seed and the name of its stream alone."""

    def __init__(self, film: Film, task: str, paraphrase: int | None, stream_name: str = "") -> None:
        if paraphrase is not None and not 0 <= paraphrase < NUM_WORDINGS:
            raise ConfigError(
                f"paraphrase {paraphrase} arrived; expected 0 to {NUM_WORDINGS - 1}, the last being held out of "
                "training; choose one of these, or None for any that the film's split may use"
            )
        self.film, self.task, self.paraphrase = film, task, paraphrase
        self.rng = questions_stream(film, stream_name or task)
        self.num_wordings = NUM_WORDINGS - (split_of(film.spec.seed) != "test")

    def ask(
        self, phrase: str, answer: str, wrong: list[str], proof: Sequence[Shown],
        subject: tuple[int | str, ...], /, **values: object,
    ) -> Question:  # fmt: skip
        """Word a question; its choices are the answer and the wrong ones, none where there are no wrong ones."""
        wording = int(self.rng.integers(self.num_wordings)) if self.paraphrase is None else self.paraphrase
        choices = [answer, *wrong]
        mixed = tuple(choices[int(i)] for i in self.rng.permutation(len(choices))) if wrong else ()
        text = (PHRASES | MORE_PHRASES)[phrase][wording].format(**values)
        if self.film.spec.pointers == "codes":
            text = text.replace("picture", "code")
        spans = tuple(self.film.span_s(shown) for shown in proof)
        unseen = touches_held_out(proof, values.values())
        return Question(self.task, text, answer, mixed, spans, unseen, phrase, subject)

    def others(self, answer: str, pool: tuple[str, ...], count: int = NUM_CHOICES - 1) -> list[str]:
        """Choose wrong answers from a pool."""
        return [value for value in shuffled(pool, self.rng) if value != answer][:count]


def touches_held_out(proof: Sequence[Shown], named: Iterable[object] = ()) -> bool:
    """Say whether a card of the proof, or what a question names, is a pair that no training card shows."""
    shown = {str(one.key) for one in proof if isinstance(one, Card)}
    return not HELD_OUT_NAMES.isdisjoint(shown | {str(name) for name in named})


def questions_stream(film: Film, *names: object) -> np.random.Generator:
    """Return the random stream of these names for the questions of a film."""
    return stream(film.spec.salt, film.spec.seed, "questions", *names)


def motion_answers(motion: Motion) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return what can be asked of a motion: the kind of question, its answer, and all there are to choose from."""
    if motion.kind == "bounce":
        return [("MO bounce", str(motion.value), tuple(str(n) for n in range(1, MOST_BOUNCES + 1)))]
    if motion.kind == "speed":
        return [("MO speed", "faster" if motion.value > 0 else "slower", ("faster", "slower"))]
    if motion.kind == "path":
        return [("MO path", "first" if motion.value > 0 else "last", ("first", "last"))]
    answers: list[tuple[str, str, tuple[str, ...]]] = [("MO", DIRECTIONS[motion.direction], DIRECTIONS)]
    if motion.turn:
        answers.append(("MO turn", "right" if motion.turn > 0 else "left", ("left", "right")))
    return answers
