"""FILMSTRIP's controls: what each leaves of a film, and that the proof is what an oracle needs."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from longtake.core.errors import ConfigError
from longtake.media.filmstrip import (
    CONTROLS,
    Film,
    Layers,
    ask_film,
    build_film,
    control_frames,
    film_arrays,
    is_covered,
    level_spec,
    proof_frames,
)

TEST_SEED = 20_000_000


def film_of(level: str, seed: int, *tasks: str, **overrides: object) -> Film:
    return build_film(level_spec(level, seed, tasks, **overrides))


def controlled(film: Film, control: str, size: int = 32) -> np.ndarray:
    return np.stack(list(control_frames(film, control, size)))


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_is_as_long_and_as_large_as_its_film_and_equal_each_time(control: str) -> None:
    film = film_of("L0", TEST_SEED, "N1")
    found = controlled(film, control)
    assert found.shape == (16, 32, 32, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, controlled(film, control))


def test_each_control_takes_away_what_it_says() -> None:
    film = film_of("L1", TEST_SEED, "N1", "CO", "MO", "DE", num_frames=96)
    whole = film_arrays(film, 32)
    assert not controlled(film, "black").any()
    removed = controlled(film, "removed")
    shown = (*film.cards, *film.happenings, *film.motions, *film.posters)
    busy = {number for one in shown for number in range(one.start, one.stop)}
    assert set(np.flatnonzero((removed != whole).any(axis=(1, 2, 3))).tolist()) == busy
    assert (controlled(film, "first frame") == whole[0]).all()
    assert (controlled(film, "middle frame") == whole[48]).all()
    mixed = controlled(film, "shuffled")
    assert (mixed != whole).any()
    digests = [collections.Counter(frame.tobytes() for frame in frames) for frames in (mixed, whole)]
    assert digests[0] == digests[1]


def test_without_the_needle_two_films_with_other_answers_look_the_same() -> None:
    """What is removed depends on the plan, and what is left does not."""
    film = film_of("L1", TEST_SEED, "N1")
    other = film_of("L1", TEST_SEED, "N1", num_cards=5, needle_s=2.0)
    assert film.cards != other.cards
    np.testing.assert_array_equal(controlled(film, "removed"), controlled(other, "removed"))


def test_the_proofs_frames_are_enough_to_draw_and_hold_the_card() -> None:
    film = film_of("L2", TEST_SEED, "NH", hops=2)
    for one in ask_film(film)[:4]:
        numbers = proof_frames(film, one)
        with_cards = film_arrays(film, 24, numbers)
        without = film_arrays(film, 24, numbers, Layers(cards=False))
        assert (with_cards != without).any(axis=(1, 2, 3)).all()
        assert is_covered(one, [number / film.spec.fps for number in numbers])


def test_a_proof_is_covered_when_each_of_its_spans_is_hit() -> None:
    film = film_of("L2", TEST_SEED, "NH", hops=2)
    one = next(one for one in ask_film(film) if one.kind == "NH")
    starts = [start for start, _ in one.spans_s]
    assert len(starts) == 3 and is_covered(one, starts)
    for left_out in range(3):
        assert not is_covered(one, starts[:left_out] + starts[left_out + 1 :])
    assert not is_covered(one, [stop for _, stop in one.spans_s])


def test_even_sampling_covers_a_needle_as_often_as_the_formula_says() -> None:
    """K even samples of T frames hit a needle of w frames with probability min(1, wK / T)."""
    for num_samples in (64, 128, 512):
        hits = []
        for seed in range(6):
            film = film_of("L3", TEST_SEED + seed, "N1")
            times = [(i + 0.5) * film.spec.duration_s / num_samples for i in range(num_samples)]
            hits += [is_covered(one, times) for one in ask_film(film)]
        expected = min(1.0, 2 * num_samples / 1024)
        assert abs(np.mean(hits) - expected) < 3 * (expected * (1 - expected) / len(hits)) ** 0.5 + 1e-9


def test_an_unknown_control_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'shuffled'"):
        control_frames(film_of("L0", 0, "N1"), "shuffle")
