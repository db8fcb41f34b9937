"""Out of memory becomes an error that names what would fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from longtake.core.errors import BudgetError
from longtake.engine.cost import Shapes, memory_phases
from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.loaded import LoadedModel

ALLOCATOR_TEXTS = ("can't allocate memory", "not enough memory", "out of memory")
ASSUMED_TEXT_TOKENS = 256
LARGEST_ADVICE = 0.75


@contextmanager
def memory_errors(num_frames: int, loaded: LoadedModel) -> Iterator[None]:
    """Turn a failed allocation into a BudgetError that names how many frames would fit."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_memory and not any(text in str(error).lower() for text in ALLOCATOR_TEXTS):
            raise
        fits = frames_that_fit(loaded, num_frames, free_bytes(loaded))
        raise BudgetError(
            f"memory ran out with {num_frames} frames on {loaded.device}; expected them to fit; try max_frames {fits}, "
            "or ask `longtake plan` for what fits"
        ) from error


def free_bytes(loaded: LoadedModel) -> int:
    """Return what the model's device has for anything but its weights."""
    if loaded.device.type != "cuda":
        return psutil.virtual_memory().available
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters() if p.device == loaded.device)
    return torch.cuda.mem_get_info(loaded.device)[1] - weights


def frames_that_fit(loaded: LoadedModel, num_frames: int, free: int) -> int:
    """Return the most frames whose predicted peak is below `free` bytes, in whole groups, at least one group.

    So many frames have just failed that three quarters of them are the most that is advised.
    """
    group = 2 * loaded.config.mm_local_num_frames
    most = int(num_frames * LARGEST_ADVICE) // group * group
    if not isinstance(loaded.config, VideoChatFlashConfig):
        return max(most, group)  # whose memory is not predicted
    for count in range(most, group, -group):
        shapes = Shapes(
            config=loaded.config,
            num_frames=count,
            num_text=ASSUMED_TEXT_TOKENS,
            num_new=1,
            dtype_bytes=loaded.dtype.itemsize,
            clips_per_pass=loaded.model.clips_per_pass,
            reducer=loaded.model.reducer,
        )
        if max(memory_phases(shapes).values()) <= free:
            return count
    return group
