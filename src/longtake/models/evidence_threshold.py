"""The score below which an answer has no evidence: calibrated for a checkpoint, in a small file beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

from longtake.core.config import StrictConfig
from longtake.core.errors import CheckpointError, ConfigError, StorageError
from longtake.core.files import write_whole

THRESHOLD_FILE = "evidence.json"
EvidenceScore = Literal["attention", "naming"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvidenceThreshold(StrictConfig):
    """When to say that a video holds no evidence of an answer.

    threshold: the claim is made of a score below it. score: `attention`, the share of the strongest span, or `naming`,
    the best likeness of the question and a visual token (`models.naming`). false_alarm_rate: of questions that have
    evidence, at most so many are claimed to have none. model: the fingerprint of the model that was calibrated.
    made_with: what it was calibrated on, for people.

    Raises: ConfigError for an unknown score, or a rate that is no share.
    """

    threshold: float
    score: EvidenceScore
    false_alarm_rate: float
    model: str
    made_with: str = ""

    def __post_init__(self) -> None:
        if self.score not in ("attention", "naming") or not 0 < self.false_alarm_rate < 1:
            raise ConfigError(
                f"score {self.score!r} with false_alarm_rate {self.false_alarm_rate!r} arrived; expected attention or "
                "naming, and a share between 0 and 1; calibrate again"
            )


def read_threshold(folder: str | Path) -> EvidenceThreshold | None:
    """Read the threshold beside a checkpoint; none if it was never calibrated.

    Raises: CheckpointError if there is a file that holds no threshold.
    """
    path = Path(folder) / THRESHOLD_FILE
    if not path.exists():
        return None
    try:
        return EvidenceThreshold.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected what recipes/calibrate.py writes; remove it, or calibrate again"
        ) from error


def write_threshold(threshold: EvidenceThreshold, folder: str | Path) -> Path:
    """Put a threshold beside a checkpoint and return where it is.

    Raises: StorageError if it cannot be written.
    """
    path = Path(folder) / THRESHOLD_FILE
    text = json.dumps(threshold.to_dict(), indent=1, sort_keys=True) + "\n"
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror}); expected the writable folder of a checkpoint; choose another"
        ) from error
    return path
