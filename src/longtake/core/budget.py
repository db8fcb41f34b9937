"""What the user is willing to spend."""

from __future__ import annotations

import dataclasses

from longtake.core.config import StrictConfig
from longtake.core.errors import BudgetError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget(StrictConfig):
    """Wishes of the user, read once each: frames in `media.sampling`, tokens in generation, memory in the plan.

    Raises: BudgetError if a limit is not a positive number.
    """

    max_frames: int = 512
    max_new_tokens: int = 1024
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_frames", "max_new_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BudgetError(f"{name} is {value!r}; expected a whole number of at least 1; raise it")
        if self.memory_gb is not None and not self.memory_gb > 0:
            raise BudgetError(f"memory_gb is {self.memory_gb!r}; expected a positive number or none; raise it")
