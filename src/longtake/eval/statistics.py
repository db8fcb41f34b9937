"""How sure a figure is: intervals that know which items belong together, and paired tests between runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from longtake.core.errors import ConfigError, MissingExtraError

LEVEL = 0.95
NUM_DRAWS = 4000
MOST_DRAWN = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """Between which values the truth lies in `level` of all repetitions; kind: how that was worked out."""

    low: float
    high: float
    kind: str
    level: float = LEVEL

    @property
    def half_width(self) -> float:
        """Return half of the distance from the lower to the upper end."""
        return (self.high - self.low) / 2


def wilson(right: int, count: int, level: float = LEVEL) -> Interval:
    """Return Wilson's interval of a share, for items that do not depend on one another.

    Raises: ConfigError if there is no item; MissingExtraError without scipy.
    """
    if not 0 <= right <= count or count < 1:
        raise ConfigError(f"{right} right of {count} items arrived; expected 0 to {count} of at least one; check them")
    found = scipy_stats().binomtest(right, count).proportion_ci(level, method="wilson")
    return Interval(low=float(found.low), high=float(found.high), kind="Wilson", level=level)


def clustered_bootstrap(
    values: Sequence[float], groups: Sequence[str], level: float = LEVEL, seed: int = 0, draws: int = NUM_DRAWS
) -> Interval:
    """Return an interval of the mean by drawing whole groups, with replacement, as often as there are.

    Percentiles are those of a t distribution with one degree of freedom fewer than groups, widened by √(G / (G - 1)):
    plain ones cover too little for few groups (Hesterberg 2015, expanded percentile interval). Where no two groups
    differ a draw tells nothing: then Wilson's interval over the groups, the worst case, is returned.

    Raises: ConfigError if there is no item, or a value without a group; MissingExtraError without scipy.
    """
    totals, counts = _by_group(values, groups)
    means = totals / counts
    if np.ptp(means) == 0:
        mean = float(np.clip(means[0], 0, 1))
        return dataclasses.replace(_wilson_of_share(mean, len(means), level), kind="Wilson over groups")
    drawn = _drawn_means(totals, counts, seed, draws)
    low, high = np.quantile(drawn, _expanded(len(totals), level))
    return Interval(low=float(low), high=float(high), kind="bootstrap over groups", level=level)


def interval(values: Sequence[float], groups: Sequence[str], level: float = LEVEL, seed: int = 0) -> Interval:
    """Return Wilson's interval where each item is a group of its own and right or wrong, else the clustered one.

    Raises: as `clustered_bootstrap`.
    """
    if len(set(groups)) == len(groups) and set(map(float, values)) <= {0.0, 1.0}:
        return wilson(int(sum(values)), len(values), level)
    return clustered_bootstrap(values, groups, level, seed)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test, from how many items only one of two runs has right.

    It takes the items for independent; with several questions a film read it beside the clustered interval.

    Raises: ConfigError for a negative count; MissingExtraError without scipy.
    """
    if min(only_first, only_second) < 0:
        raise ConfigError(f"counts {only_first} and {only_second} arrived; expected none below 0; check them")
    both = only_first + only_second
    return float(scipy_stats().binomtest(only_first, both, 0.5).pvalue) if both else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paired:
    """A run against another on the same items.

    difference: mean of the first minus that of the second, with its interval over groups. only_first, only_second: how
    many items only one has right; p: McNemar's.
    """

    num_items: int
    num_groups: int
    difference: float
    interval: Interval
    only_first: int
    only_second: int
    p: float

    @property
    def verdict(self) -> str:
        """Return `better`, `worse`, or `not different`: both the interval and the test have to say so."""
        if self.p >= 1 - self.interval.level or self.interval.low <= 0 <= self.interval.high:
            return "not different"
        return "better" if self.difference > 0 else "worse"


def paired(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[str],
    level: float = LEVEL,
    seed: int = 0,
    draws: int = NUM_DRAWS,
) -> Paired:
    """Compare two runs item by item; a value of at least a half counts as right for McNemar's test.

    Raises: ConfigError if the runs differ in length, or there is no item; MissingExtraError without scipy.
    """
    if len(first) != len(second):
        raise ConfigError(
            f"{len(first)} and {len(second)} items arrived; expected the same ones; keep those that both runs have"
        )
    ours, theirs = np.asarray(first, np.float64), np.asarray(second, np.float64)
    only_first = int(((ours >= 0.5) & (theirs < 0.5)).sum())
    only_second = int(((theirs >= 0.5) & (ours < 0.5)).sum())
    difference = (ours - theirs).tolist()
    return Paired(
        num_items=len(first),
        num_groups=len(set(groups)),
        difference=float(np.mean(difference)) if difference else 0.0,
        interval=paired_interval(difference, groups, level, seed, draws),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
    )


def paired_interval(
    differences: Sequence[float], groups: Sequence[str], level: float = LEVEL, seed: int = 0, draws: int = NUM_DRAWS
) -> Interval:
    """Return an interval of the mean difference, by drawing groups.

    Where no two groups differ, nothing is known but the count of groups: the interval is widened by what as many
    groups could hide: a share 1 - (1 - level)^(1 / groups) of others that differ from these by 2, the most there is
    between values of 0 to 1; no difference is beyond 1.

    Raises: as `clustered_bootstrap`.
    """
    totals, counts = _by_group(differences, groups)
    means = totals / counts
    if np.ptp(means) == 0:
        hidden = 2 * (1 - (1 - level) ** (1 / len(means)))
        mean = float(means[0])
        low, high = max(-1.0, mean - hidden), min(1.0, mean + hidden)
        return Interval(low=low, high=high, kind="no two groups differ", level=level)
    low, high = np.quantile(_drawn_means(totals, counts, seed, draws), _expanded(len(totals), level))
    return Interval(low=float(low), high=float(high), kind="bootstrap over groups", level=level)


def corrected(accuracy: float, chance: float) -> float:
    """Return accuracy with chance taken out: 0 at chance, 1 where all is right.

    Raises: ConfigError if chance leaves no room.
    """
    if not 0 <= chance < 1:
        raise ConfigError(f"chance is {chance}; expected at least 0 and below 1; check the task's choices")
    return (accuracy - chance) / (1 - chance)


def _by_group(values: Sequence[float], groups: Sequence[str]) -> tuple[Float[np.ndarray, "G"], Float[np.ndarray, "G"]]:
    """Return the sum and the count of the values of each group."""
    if len(values) != len(groups) or not len(values):
        raise ConfigError(
            f"{len(values)} values arrived with {len(groups)} groups; expected one group a value, and at least one; "
            "check the items"
        )
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return np.bincount(index, np.asarray(values, np.float64)), np.bincount(index).astype(np.float64)


def _drawn_means(
    totals: Float[np.ndarray, "G"], counts: Float[np.ndarray, "G"], seed: int, draws: int
) -> Float[np.ndarray, "R"]:
    """Return the means of so many samples of groups; a few at a time, so that many groups do not fill memory."""
    random, number = np.random.default_rng(seed), len(totals)
    at_once = max(1, MOST_DRAWN // number)
    found = []
    for start in range(0, draws, at_once):
        drawn = random.integers(number, size=(min(at_once, draws - start), number))
        found.append(totals[drawn].sum(1) / counts[drawn].sum(1))
    return np.concatenate(found)


def _expanded(num_groups: int, level: float) -> list[float]:
    """Return the percentiles to read so that few groups cover what they should."""
    stats = scipy_stats()
    widened = math.sqrt(num_groups / (num_groups - 1)) * stats.t.ppf((1 + level) / 2, num_groups - 1)
    return [float(stats.norm.cdf(-widened)), float(stats.norm.cdf(widened))]


def _wilson_of_share(share: float, count: int, level: float) -> Interval:
    """Return Wilson's interval of any share, not only of whole counts."""
    z = float(scipy_stats().norm.ppf((1 + level) / 2))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = min(middle - half, share), max(middle + half, share)  # at 0 and 1 rounding may leave the share out
    return Interval(low=max(0.0, low), high=min(1.0, high), kind="Wilson", level=level)


def scipy_stats():
    """Return scipy's statistics, which are not needed to answer questions.

    Raises: MissingExtraError.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError(
            "intervals need scipy, which is not installed; expected the extra; pip install 'longtake[eval]'"
        ) from error
    return stats
