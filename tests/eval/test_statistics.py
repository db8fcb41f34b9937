"""Intervals and paired tests: by hand, against each other, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.core.errors import ConfigError
from longtake.eval.statistics import clustered_bootstrap, corrected, interval, mcnemar, paired, wilson


@pytest.mark.parametrize(
    "right, count, low, high",
    [
        (0, 10, 0.0, 0.2775),  # Newcombe 1998, table of intervals
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_is_that_of_the_textbook(right: int, count: int, low: float, high: float) -> None:
    found = wilson(right, count)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    "only_first, only_second, p",
    [
        (0, 0, 1.0),
        (5, 0, 0.0625),  # 2 / 2^5
        (8, 1, 20 / 512),  # 2 · (1 + 9) / 2^9
        (3, 3, 1.0),
    ],
)
def test_mcnemar_is_the_exact_binomial(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p)


def test_items_of_their_own_get_wilson_and_films_the_bootstrap() -> None:
    assert interval([1.0, 0.0, 1.0, 1.0], ["a", "b", "c", "d"]).kind == "Wilson"
    assert interval([1.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"]).kind == "bootstrap over groups"
    assert interval([0.5, 0.2, 1.0, 1.0], ["a", "b", "c", "d"]).kind == "bootstrap over groups"


def test_groups_that_agree_tell_no_more_than_their_count() -> None:
    found = clustered_bootstrap([1.0] * 100, ["a"] * 50 + ["b"] * 50)
    assert found.kind == "Wilson over groups"
    assert (found.low, found.high) == pytest.approx((0.3424, 1.0), abs=1e-4)  # Wilson of 2 of 2
    assert paired([1.0] * 8, [0.0] * 8, ["film"] * 8).verdict == "not different"  # one film, however many questions


def test_an_interval_covers_the_truth_95_percent_of_the_time() -> None:
    """40 films of 8 questions that belong together: 95 % of 600 repetitions within three standard errors."""
    random, truth, repeats = np.random.default_rng(1), 0.6, 600
    groups = [f"film {film}" for film in range(40) for _ in range(8)]
    hits = naive = 0
    for repeat in range(repeats):
        skill = random.beta(6, 4, size=40)  # mean 0.6; questions of a film are alike
        values = (random.random((40, 8)) < skill[:, None]).astype(float).ravel().tolist()
        found = clustered_bootstrap(values, groups, seed=repeat, draws=1000)
        hits += found.low <= truth <= found.high
        plain = wilson(int(sum(values)), len(values))
        naive += plain.low <= truth <= plain.high
    slack = 3 * (0.95 * 0.05 / repeats) ** 0.5
    assert abs(hits / repeats - 0.95) < slack
    assert naive / repeats < 0.95 - slack  # an interval that takes the questions for independent covers too little


def test_a_paired_interval_covers_the_difference_95_percent_of_the_time() -> None:
    random, repeats, hits = np.random.default_rng(2), 400, 0
    groups = [f"film {film}" for film in range(30) for _ in range(6)]
    for repeat in range(repeats):
        skill = random.beta(5, 5, size=(30, 1))
        first = (random.random((30, 6)) < np.minimum(skill + 0.1, 1)).astype(float).ravel()
        second = (random.random((30, 6)) < skill).astype(float).ravel()
        found = paired(first.tolist(), second.tolist(), groups, seed=repeat, draws=1000).interval
        hits += found.low <= 0.09998 <= found.high  # the mean of min(s + 0.1, 1) - s where s is beta(5, 5)
    assert abs(hits / repeats - 0.95) < 3 * (0.95 * 0.05 / repeats) ** 0.5


def test_wilson_covers_the_truth_95_percent_of_the_time_on_average() -> None:
    random, hits = np.random.default_rng(3), 0
    table = [wilson(right, 60) for right in range(61)]
    for _ in range(5_000):
        truth = random.uniform(0.05, 0.95)
        found = table[random.binomial(60, truth)]
        hits += found.low <= truth <= found.high
    assert abs(hits / 5_000 - 0.95) < 0.012


def test_equal_runs_are_seldom_called_different_and_better_ones_are_found() -> None:
    random = np.random.default_rng(4)
    groups = [f"film {film}" for film in range(40) for _ in range(8)]
    called = 0
    for repeat in range(200):
        skill = random.beta(6, 4, size=(40, 1))
        one, other = ((random.random((40, 8)) < skill).astype(float).ravel().tolist() for _ in range(2))
        called += paired(one, other, groups, seed=repeat, draws=1000).verdict != "not different"
    assert called / 200 <= 0.09
    good = (random.random(320) < 0.8).astype(float).tolist()
    poor = (random.random(320) < 0.5).astype(float).tolist()
    assert paired(good, poor, groups).verdict == "better"
    assert paired(poor, good, groups).verdict == "worse"


def test_chance_is_taken_out() -> None:
    assert corrected(0.25, 0.25) == 0
    assert corrected(1.0, 0.25) == 1
    with pytest.raises(ConfigError, match="chance"):
        corrected(1.0, 1.0)


def test_runs_over_other_items_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 and 1 items"):
        paired([1.0, 0.0], [1.0], ["a", "b"])
    with pytest.raises(ConfigError, match="at least one"):
        clustered_bootstrap([], [])
