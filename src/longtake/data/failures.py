"""Samples that cannot be used: counted by reason, logged once a reason, never silently replaced."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from longtake.core.errors import TrainingError

logger = logging.getLogger(__name__)
REASONS = (
    "bad_json",
    "bad_record",
    "empty_answer",
    "several_visuals",
    "placeholder_mismatch",
    "missing_media",
    "broken_media",
    "too_long",
)


class BrokenSampleError(Exception):
    """One sample cannot be used; caught where samples are loaded, and counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        assert reason in REASONS
        self.reason = reason


class Failures:
    """Which samples were broken, and why; the same sample counts once, however often it comes round.

    Raises: TrainingError when more than `limit` samples are broken.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._reason_of: dict[str, str] = {}

    def add(self, sample: str, reason: str, message: str) -> None:
        """Count a broken sample; the first of each reason is logged."""
        if sample in self._reason_of:
            return
        if reason not in self._reason_of.values():
            logger.warning("%s is left out: %s (%s); others like it are only counted", sample, message, reason)
        self._reason_of[sample] = reason
        if len(self._reason_of) > self.limit:
            raise TrainingError(
                f"{len(self._reason_of)} samples are broken ({self.summary()}; last: {sample}: {message}); expected at "
                f"most {self.limit}; mend the data, or raise data.max_failures"
            )

    def counts(self) -> dict[str, int]:
        """Return how many samples each reason left out."""
        return dict(Counter(self._reason_of.values()))

    def summary(self) -> str:
        """Say the counts in one line."""
        return ", ".join(f"{reason} {count}" for reason, count in sorted(self.counts().items())) or "none"

    def to_dict(self) -> dict[str, str]:
        """Return the reason of each broken sample, by name."""
        return dict(self._reason_of)

    def restore(self, reasons: Mapping[str, str]) -> None:
        """Take up what an earlier part of the run counted."""
        self._reason_of = dict(reasons) | self._reason_of
