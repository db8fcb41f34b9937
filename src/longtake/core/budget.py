"""What the user is willing to spend."""

from __future__ import annotations

import dataclasses

from longtake.core.config import StrictConfig
from longtake.core.errors import BudgetError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget(StrictConfig):
    """Wishes of the user, read once each: frames in `media.sampling`, tokens in generation, memory in the plan.

    tokens_per_frame: merge the tokens of a video to so many a frame before it is asked; a fraction is fine. max_tiles:
    of a picture, its whole view not counted; none: as many as the model was trained on.

    Raises: BudgetError if a limit is not a positive number.
    """

    max_frames: int = 512
    max_new_tokens: int = 1024
    memory_gb: float | None = None
    tokens_per_frame: float | int | None = None
    max_tiles: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_frames", "max_new_tokens", "max_tiles"):
            value = getattr(self, name)
            if value is None and name == "max_tiles":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BudgetError(f"{name} is {value!r}; expected a whole number of at least 1; raise it")
        for name in ("memory_gb", "tokens_per_frame"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BudgetError(f"{name} is {value!r}; expected a positive number or none; raise it")
