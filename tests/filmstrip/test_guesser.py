"""FILMSTRIP's blind guesser: it finds a leak where there is one, and scores chance where there is none."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from longtake.core.errors import ConfigError
from longtake.media.filmstrip import (
    BlindGuesser,
    Question,
    ask_film,
    build_film,
    level_spec,
    score_blind,
)

TEST_SEED = 20_000_000


def films_of(task: str, count: int, *, more: bool = False, level: str = "L1") -> list[list[Question]]:
    asked = (ask_film(build_film(level_spec(level, TEST_SEED + seed, (task,))), more=more) for seed in range(count))
    films = ([one for one in film if one.choices] for film in asked)
    return [film for film in films if film]


@pytest.mark.parametrize("task", ["N1", "NH", "OR", "CO", "MO", "DE"])
def test_who_learns_from_questions_alone_scores_chance(task: str) -> None:
    score = score_blind(films_of(task, 56))
    low, high = score.interval_95
    margin = (high - low) / 4  # three standard errors instead of two, since there are six tasks
    assert low - margin <= score.chance <= high + margin, score


def test_without_a_leak_not_shown_is_found_no_more_often_than_the_best_constant_habit() -> None:
    """15 % of AB's answers are "not shown"; who names a letter each time is right in 85 % / 4 = 21 %."""
    films = films_of("AB", 56, more=True)
    score = score_blind(films)
    low, high = score.interval_95
    assert low - (high - low) / 4 <= 0.2125 <= high + (high - low) / 4, score


def test_the_number_of_choices_tells_what_is_not_shown_unless_more_is_asked() -> None:
    """What `ask_film` says of its default: the guesser must find it."""
    assert score_blind(films_of("AB", 40)).right > 0.3


@pytest.mark.parametrize("kind", ["NH trace", "NH pointer", "TG"])
def test_questions_without_choices_are_seldom_guessed(kind: str) -> None:
    task = kind[:2]
    films = [ask_film(build_film(level_spec("L1", TEST_SEED + seed, (task,)))) for seed in range(12)]
    score = score_blind([[one for one in film if one.kind == kind] for film in films])
    assert score.right < 0.05


def leaky(film: list[Question], number: int) -> list[Question]:
    """Let the answer stand first in every question, or be named by it."""
    if number == 0:
        return [
            dataclasses.replace(one, choices=(one.answer, *(c for c in one.choices if c != one.answer))) for one in film
        ]
    if number == 1:
        return [dataclasses.replace(one, text=f"{one.text} {one.answer}") for one in film]
    return [dataclasses.replace(one, answer=min(one.choices)) for one in film]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_leak_is_found(number: int) -> None:
    score = score_blind([leaky(film, number) for film in films_of("N1", 32)])
    assert score.interval_95[0] > score.chance + 0.2, score


def test_a_guesser_that_saw_nothing_still_chooses_one_of_the_choices() -> None:
    guesser = BlindGuesser([])
    one = Question("N1", "Which?", "A", ("B", "A"), ())
    assert guesser.guess(one) in one.choices
    assert guesser.guess(dataclasses.replace(one, choices=())) == ""


def test_the_score_counts_films_and_questions() -> None:
    films = films_of("OR", 8)
    score = score_blind(films)
    assert (score.num_films, score.num_questions) == (8, len(list(itertools.chain(*films))))
    assert score.interval_95[0] <= score.right <= score.interval_95[1]
    one = Question("N1", "Which?", "A", ("B", "A"), ())
    constant = score_blind([[one]] * 4)
    assert (constant.right, constant.chance, constant.interval_95) == (1.0, 0.5, (1.0, 1.0))


def test_too_few_films_and_films_without_questions_are_refused() -> None:
    films = films_of("OR", 4)
    for wrong in (films[:3], [*films, []]):
        with pytest.raises(ConfigError, match="4 films or more"):
            score_blind(wrong)
