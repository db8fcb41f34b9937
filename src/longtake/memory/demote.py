"""Keep a growing memory within a number of bytes: the older, the fewer tokens; the oldest are forgotten.

The room is shared out evenly among levels of detail: as stored, four tokens a frame, one, one a clip. The newest
segments fill the first share, those before them the second, and so on. Since a share holds about four times the time
of the one before, detail falls off with age, and so does what is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from longtake.core.errors import BudgetError
from longtake.core.types import VideoMemory, VisualTokens
from longtake.memory.format import BLOCK_BYTES, filled
from longtake.memory.quantize import Store, find_store
from longtake.memory.reader import StoredMemory
from longtake.memory.segment import StoredSegment, pack_segment
from longtake.memory.thin import thin
from longtake.memory.writer import MemoryWriter, replacing

TOKENS_PER_FRAME = (4, 1)


def levels(frames_per_clip: int) -> tuple[float | int | None, ...]:
    """Return the tokens a frame of each level; none is as stored."""
    return (None, *TOKENS_PER_FRAME, 1 / frames_per_clip)


def thinned(segment: StoredSegment, tokens_per_frame: float | int | None) -> VisualTokens:
    """Return the tokens of a segment, counted from its own first clip, with no more a frame than asked for."""
    tokens = segment.tokens
    own = VisualTokens(tokens.features, tokens.frame_weight, tokens.clip_index - tokens.clip_index[0])
    if tokens_per_frame is None:
        return own
    return thin(VideoMemory(own, segment.frame_pts_s, 0.0, "", {}), tokens_per_frame).tokens


def packed_at(segment: StoredSegment, tokens_per_frame: float | int | None, store: Store) -> bytes:
    """Write a segment with no more tokens a frame than asked for."""
    tokens = thinned(segment, tokens_per_frame)
    return pack_segment(tokens, segment.frame_pts_s, segment.thumbnail, store, segment.first_frame)


def num_bytes(payload: bytes) -> int:
    """Return what a segment takes in a file."""
    return filled(len(payload)) + 2 * BLOCK_BYTES


def demoted(stored: StoredMemory, max_bytes: int) -> list[bytes]:
    """Return the segments that are to stay, in order, each at its level; all together take at most `max_bytes`."""
    key = stored.header.identity
    store, ladder = find_store(key.store, torch.float32), levels(key.frames_per_clip)
    kept: list[bytes] = []
    level, room = 0, max_bytes // len(ladder)
    for segment in _newest_first(stored):
        payload = packed_at(segment, ladder[level], store)
        while num_bytes(payload) > room and level + 1 < len(ladder):
            level, room = level + 1, max_bytes // len(ladder)
            payload = packed_at(segment, ladder[level], store)
        if num_bytes(payload) > room:
            break
        room -= num_bytes(payload)
        kept.append(payload)
    return kept[::-1]


def _newest_first(stored: StoredMemory) -> Iterator[StoredSegment]:
    for number in range(stored.num_segments - 1, -1, -1):
        yield stored.segment(number)


def demote(path: str | Path, max_bytes: int) -> int:
    """Rewrite a memory so that it takes at most `max_bytes`, under the same key; return how many segments stay.

    The key of a memory that is to be demoted names its limit from the start. Killed at any moment, the old memory is
    there, or the new one.

    Raises: BudgetError if not one segment fits; MemoryFormatError, StorageError as reading and writing do.
    """
    path = Path(path)
    with StoredMemory(path) as stored, MemoryWriter(path, stored.header):  # nobody adds to it meanwhile
        kept = demoted(stored, max_bytes - stored.num_header_bytes)
        if not kept:
            raise BudgetError(
                f"{path} is to take {max_bytes} bytes, which not even one segment does; expected room for some; allow "
                "more"
            )
        with replacing(path) as aside, MemoryWriter(aside, stored.header) as writer:
            for payload in kept:
                writer.append(payload)
            if stored.is_complete:
                closing = stored.closing()
                writer.finish(closing["duration_s"], closing["warnings"])
    return len(kept)
