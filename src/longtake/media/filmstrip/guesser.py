"""Answers questions without any film: what is right by the words, the names and the order of choices alone."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from longtake.core.errors import ConfigError
from longtake.media.filmstrip.asker import Question

# How many times a habit must have been seen before it counts as much as not knowing.
CAUTION = 8.0
MIN_FILMS = 4


class BlindGuesser:
    """Learns from the questions of other films which choices tend to be right: naive Bayes over words and choices.

    It knows how often each choice was right when it was offered: at all, beside each word of the question, at its
    place in the list and in the alphabet, and among so many choices. A question without choices gets the most frequent
    answer to such questions.
    """

    def __init__(self, seen: Iterable[Question]) -> None:
        self.offered: collections.Counter[Hashable] = collections.Counter()
        self.right: collections.Counter[Hashable] = collections.Counter()
        self.answers: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for question in seen:
            self.answers[question.task, question.kind][question.answer] += 1
            for choice in question.choices:
                itself, where, words = _habits(question, choice)
                for habit in (itself, *where, *words):
                    self.offered[habit] += 1
                    self.right[habit] += choice == question.answer

    def guess(self, question: Question) -> str:
        """Return the choice that seems most likely; nothing where such a question was never seen."""
        if not question.choices:
            likely = self.answers[question.task, question.kind].most_common(1)
            return likely[0][0] if likely else ""
        return max(question.choices, key=lambda choice: self._score(question, choice))

    def _score(self, question: Question, choice: str) -> float:
        """Return the logarithm of how likely a choice is: its own share, times what each other habit adds to it."""
        chance = 1 / len(question.choices)
        itself, where, words = _habits(question, choice)
        share = self._share(itself, chance)
        score = math.log(share)
        score += sum(math.log(self._share(habit, chance) / chance) for habit in where)
        return score + sum(math.log(self._share(word, share) / share) for word in words)

    def _share(self, habit: Hashable, before: float) -> float:
        """Return how often a habit was right, drawn towards what was known before where it was seldom seen."""
        return (self.right[habit] + CAUTION * before) / (self.offered[habit] + CAUTION)


def _habits(question: Question, choice: str) -> tuple[Hashable, list[Hashable], list[Hashable]]:
    """Return what a choice is known by: itself; its place in the list and the alphabet; itself beside each word."""
    about = (question.task, question.kind, len(question.choices))
    where = [("place", question.choices.index(choice)), ("alphabet", sorted(question.choices).index(choice))]
    words = sorted(set(question.text.lower().replace("?", " ").replace(",", " ").split()))
    return (about, choice), [(about, *habit) for habit in where], [(about, word, choice) for word in words]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlindScore:
    """How often a guesser was right. interval_95: over films, since the questions of one film hang together.

    chance: the mean over questions of one over the number of choices; for questions without choices one over the
    number of different answers that came up.
    """

    right: float
    interval_95: tuple[float, float]
    chance: float
    num_questions: int
    num_films: int


def score_blind(films: Sequence[Sequence[Question]], rounds: int = 2000) -> BlindScore:
    """Let a guesser learn from the questions of one half of the films and answer those of the other half, both ways.

    The halves are the first films and the last ones, not every other film: answers are balanced over neighbouring
    seeds, so that part of such a block tells of the rest.

    Raises: ConfigError if there are fewer than four films, or one without questions.
    """
    if len(films) < MIN_FILMS or not all(films):
        counts = [len(film) for film in films]
        raise ConfigError(
            f"{len(films)} films arrived with {counts} questions; expected {MIN_FILMS} films or more with a question "
            "each; draw more films, and leave out those without questions"
        )
    middle = len(films) // 2
    first, last = films[:middle], films[middle:]
    taught_last, taught_first = (BlindGuesser(one for film in half for one in film) for half in (last, first))
    sums = [_number_right(film, taught_last) for film in first] + [_number_right(film, taught_first) for film in last]
    counts = [len(film) for film in films]
    drawn = np.random.default_rng(0).integers(len(films), size=(rounds, len(films)))
    shares = np.array(sums)[drawn].sum(1) / np.array(counts)[drawn].sum(1)
    low, high = (float(value) for value in np.quantile(shares, (0.025, 0.975)))
    every = [one for film in films for one in film]
    return BlindScore(
        right=sum(sums) / sum(counts),
        interval_95=(low, high),
        chance=sum(_chances(every)) / len(every),
        num_questions=len(every),
        num_films=len(films),
    )


def _number_right(film: Sequence[Question], guesser: BlindGuesser) -> int:
    return sum(guesser.guess(one) == one.answer for one in film)


def _chances(questions: Sequence[Question]) -> Iterator[float]:
    answers: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for one in questions:
        answers[one.task, one.kind].add(one.answer)
    for one in questions:
        yield 1 / (len(one.choices) or len(answers[one.task, one.kind]))
