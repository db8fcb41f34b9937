"""Out of memory becomes an error that names what would fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from longtake.core.errors import BudgetError

ALLOCATOR_TEXTS = ("can't allocate memory", "not enough memory", "out of memory")


@contextmanager
def memory_errors(num_frames: int) -> Iterator[None]:
    """Turn a failed allocation into a BudgetError.

    Memory grows with the frames, so half of them is what is advised.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_memory and not any(text in str(error).lower() for text in ALLOCATOR_TEXTS):
            raise
        fits = max(8, num_frames // 2 // 8 * 8)
        raise BudgetError(
            f"memory ran out with {num_frames} frames; expected them to fit; try max_frames {fits}, or ask "
            "`longtake plan` for what fits"
        ) from error
