"""FILMSTRIP's contrast pairs: the answer changes, and with it the frames that prove it, and nothing else."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from longtake.core.errors import ConfigError
from longtake.media.filmstrip import (
    Film,
    Question,
    ask_film,
    build_film,
    film_arrays,
    level_spec,
    proof_frames,
    twin,
)
from longtake.media.filmstrip.ladder import HAPPENING_FRAMES, MOTION_FRAMES
from tests.filmstrip.checker import truth

TEST_SEED = 20_000_000
KINDS = {
    "OR": {},
    "MO": {"motion_kinds": tuple(MOTION_FRAMES)},
    "CO": {"happening_kinds": tuple(HAPPENING_FRAMES)},
}


def film_of(level: str, seed: int, *tasks: str, **overrides: object) -> Film:
    return build_film(level_spec(level, seed, tasks, **overrides))


def pairs(task: str, level: str, films: int) -> list[tuple[Film, Question, Film, Question]]:
    found = []
    for seed in range(films):
        film = film_of(level, TEST_SEED + seed, task, **KINDS[task])
        found += [(film, one, *twin(film, one)) for one in ask_film(film, more=True) if one.subject]
    return found


@pytest.mark.parametrize("task", KINDS)
def test_a_twins_answer_is_another_one_and_follows_from_its_film(task: str) -> None:
    kinds: set[str] = set()
    for film, one, other_film, other in pairs(task, "L2", 10):
        assert one.text == other.text and one.choices == other.choices
        assert other.answer != one.answer and other.answer in other.choices
        answer, spans = truth(other_film, other)
        assert (other.answer, sorted(other.spans_s)) == (answer, sorted(spans))
        assert film.spec == other_film.spec
        kinds.add(one.kind)
    assert len(kinds) == {"OR": 3, "MO": 5, "CO": 1}[task]


@pytest.mark.parametrize("task", KINDS)
def test_outside_of_both_proofs_a_twin_is_equal_to_the_last_pixel(task: str) -> None:
    for film, one, other_film, other in pairs(task, "L1", 4)[:6]:
        if one.kind == "OR first":  # two cards change places, and the answer's proof is only the first
            continue
        changed = (film_arrays(film, 24) != film_arrays(other_film, 24)).any(axis=(1, 2, 3))
        numbers = set(np.flatnonzero(changed).tolist())
        assert numbers and numbers <= {*proof_frames(film, one), *proof_frames(other_film, other)}


def test_the_first_card_of_all_changes_places_with_one_other_and_no_more() -> None:
    film = film_of("L1", TEST_SEED, "OR")
    (one,) = [one for one in ask_film(film) if one.kind == "OR first"]
    other_film, other = twin(film, one)
    before, after = ([(card.start, card.stop) for card in each.cards] for each in (film, other_film))
    moved = [number for number, (was, now) in enumerate(zip(before, after, strict=True)) if was != now]
    assert len(moved) == 2 and sorted(before) == sorted(after)
    assert str(other_film.cards[int(other.subject[0])].key) == other.answer


@pytest.mark.parametrize("task", KINDS)
def test_who_does_not_look_is_right_in_at_most_one_of_two(task: str) -> None:
    """Each text has one blind answer for both; over many pairs, each answer is as frequent as in the films."""
    both = collections.Counter()
    for _, one, _, other in pairs(task, "L1", 24):
        for guess in one.choices:
            assert (guess == one.answer) + (guess == other.answer) <= 1
        both.update([one.answer, other.answer])
    if task == "CO":
        assert set(both) == {"1", "2", "3", "4", "5", "6"}


def test_a_twin_of_a_twin_has_the_first_answer_again() -> None:
    for task, kind in (("MO", "MO"), ("CO", "CO")):
        film = film_of("L2", TEST_SEED + 3, task)
        one = next(one for one in ask_film(film) if one.kind == kind)
        assert twin(*twin(film, one))[1].answer == one.answer


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: ask_one(film_of("L1", TEST_SEED, "N1")), "question of N1"),
        (lambda: ask_one(film_of("L1", TEST_SEED, "DE")), "question of DE"),
        (lambda: not_shown(), "not shown"),
        (lambda: crowded(), "is full"),
    ],
)
def test_what_has_no_twin_is_refused(make, part: str) -> None:
    film, question = make()
    with pytest.raises(ConfigError, match=part):
        twin(film, question)


def ask_one(film: Film) -> tuple[Film, Question]:
    return film, ask_film(film)[0]


def not_shown() -> tuple[Film, Question]:
    for seed in range(30):
        film = film_of("L1", TEST_SEED + seed, "OR", "AB")
        for one in ask_film(film, more=True):
            if one.task == "AB" and one.kind == "OR" and not one.subject:
                return film, one
    raise AssertionError("no such question in 30 films")


def crowded() -> tuple[Film, Question]:
    """Count something that happens an odd number of times, so that it should happen once more, where nothing fits."""
    for seed in range(30):
        film = film_of("L0", TEST_SEED + seed, "N1", "CO", num_cards=6, num_frames=24, needle_s=2.0)
        for one in ask_film(film):
            if one.task == "CO" and one.answer in "135" and is_full(film):
                return film, one
    raise AssertionError("no such question in 30 films")


def is_full(film: Film) -> bool:
    """Say whether no frame of a film stands a frame away from all that is shown."""
    near = {n for one in (*film.cards, *film.happenings) for n in range(one.start - 1, one.stop + 1)}
    return near >= set(range(film.spec.num_frames))
