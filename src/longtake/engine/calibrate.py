"""Choose the score below which nothing counts as evidence, and say how well that works on films not seen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from longtake.core.errors import ConfigError

DRAWS = 2000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """A share, and between which values it lies on films that the threshold was not chosen from."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A threshold and what it does.

    false_alarms: share of the questions with evidence whose score is below it. caught: of those without. separation:
    how often a question with evidence has the higher score of a pair (area under the curve; 0.5 is chance).
    """

    threshold: float
    false_alarm_rate: float
    false_alarms: Share
    caught: Share
    separation: float
    num_with: int
    num_without: int


def calibrate(
    scores: Sequence[float],
    has_evidence: Sequence[bool],
    films: Sequence[str],
    false_alarm_rate: float,
    *,
    seed: int = 0,
) -> Calibrated:
    """Choose the highest threshold that calls at most `false_alarm_rate` of questions with evidence ones without.

    films: which film each question is about; questions of one film hang together, so the intervals draw whole films
    with replacement, choose a threshold from those, and look at the films that were not drawn.

    Raises: ConfigError if lengths differ, a score is not finite, there are fewer than two films, or too few questions
        for the rate.
    Source: split conformal prediction: of n scores and a new one, all alike, the new one is below the k-th smallest
        with a probability of at most k / (n + 1).
    """
    values, evident = np.asarray(scores, dtype=np.float64), np.asarray(has_evidence, dtype=bool)
    _check(values, evident, films, false_alarm_rate)
    threshold = lowest_of(values[evident], false_alarm_rate)
    names, group = np.unique(np.asarray(films), return_inverse=True)
    rates = _on_other_films(values, evident, group, len(names), false_alarm_rate, np.random.default_rng(seed))
    ahead = values[evident][:, None] - values[~evident][None]
    return Calibrated(
        threshold=threshold,
        false_alarm_rate=false_alarm_rate,
        false_alarms=_share(float((values[evident] < threshold).mean()), rates[:, 0]),
        caught=_share(float((values[~evident] < threshold).mean()), rates[:, 1]),
        separation=float(((ahead > 0) + 0.5 * (ahead == 0)).mean()),
        num_with=int(evident.sum()),
        num_without=int((~evident).sum()),
    )


def lowest_of(scores: Float[np.ndarray, "N"], rate: float) -> float:
    """Return the k-th smallest score, k as large as the rate allows.

    Raises: ConfigError if there are too few scores for even one to be below.
    """
    place = math.floor(rate * (len(scores) + 1))
    if place < 1:
        raise ConfigError(
            f"{len(scores)} questions with evidence arrived for a false-alarm rate of {rate:g}; expected at least "
            f"{math.ceil(1 / rate) - 1}; ask more, or allow a higher rate"
        )
    return float(np.sort(scores)[place - 1])


def _check(values: Float[np.ndarray, "N"], evident: Bool[np.ndarray, "M"], films: Sequence[str], rate: float) -> None:
    """Refuse what no threshold can be chosen from."""
    if not len(values) == len(evident) == len(films) or evident.all() or not evident.any():
        raise ConfigError(
            f"{len(values)} scores, {len(evident)} marks ({int(evident.sum())} with evidence) and {len(films)} films "
            "arrived; expected as many of each, with and without evidence; ask both kinds of questions"
        )
    if not np.isfinite(values).all() or len(set(films)) < 2 or not 0 < rate < 1:
        raise ConfigError(
            f"{len(set(films))} films, {int((~np.isfinite(values)).sum())} scores that are no numbers and a rate of "
            f"{rate!r} arrived; expected two films or more, finite scores, and a share between 0 and 1"
        )


def _on_other_films(
    values: Float[np.ndarray, "N"],
    evident: Bool[np.ndarray, "N"],
    group: Int[np.ndarray, "N"],
    num_films: int,
    rate: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draws 2"]:
    """Return the shares of false alarms and of caught questions in films that were not drawn; NaN where none are."""
    found = np.full((DRAWS, 2), np.nan)
    for draw in range(DRAWS):
        times = np.bincount(rng.integers(num_films, size=num_films), minlength=num_films)[group]
        chosen = np.repeat(values[evident], times[evident])
        if math.floor(rate * (len(chosen) + 1)) < 1:
            continue
        threshold = lowest_of(chosen, rate)
        for column, wanted in enumerate((evident, ~evident)):
            others = values[wanted & (times == 0)]
            if len(others):
                found[draw, column] = (others < threshold).mean()
    return found


def _share(value: float, drawn: Float[np.ndarray, "draws"]) -> Share:
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return Share(value=value, low=0.0, high=1.0)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Share(value=value, low=float(low), high=float(high))
