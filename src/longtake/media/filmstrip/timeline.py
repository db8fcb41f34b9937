"""Finds a place in time for everything that must not overlap."""

from __future__ import annotations

import numpy as np

from longtake.core.errors import ConfigError

GAP_FRAMES = 1
WANTED_FILL = 0.8


def shrink_to_fit(wanted: list[int], least: list[int], num_frames: int) -> list[int]:
    """Halve the lengths, each down to its least, until they fill at most four fifths of the film with their gaps.

    Raises: ConfigError if even the least lengths do not fit the film.
    """
    lengths = [max(w, low) for w, low in zip(wanted, least, strict=True)]
    while _filled(lengths) > WANTED_FILL * num_frames and lengths != least:
        lengths = [max(length // 2, low) for length, low in zip(lengths, least, strict=True)]
    if _filled(lengths) > num_frames + GAP_FRAMES:
        raise ConfigError(
            f"{len(lengths)} shown things of at least {sum(least)} frames do not fit a film of {num_frames} frames; "
            f"expected {_filled(lengths) - GAP_FRAMES} frames or more; ask for fewer tasks or cards, or a longer film"
        )
    return lengths


def _filled(lengths: list[int]) -> int:
    return sum(lengths) + GAP_FRAMES * len(lengths)


def place(lengths: list[int], num_frames: int, rng: np.random.Generator, depth: float | None = None) -> list[int]:
    """Return a start frame for each length: in random order, never overlapping, at least one frame apart.

    depth: where the first one starts, as a share of the frames that it could start at.
    """
    order = [int(i) for i in rng.permutation(len(lengths))]
    starts = [0] * len(lengths)
    if depth is None:
        _spread(order, lengths, 0, num_frames + GAP_FRAMES, rng, starts)
        return starts
    starts[0] = round(depth * (num_frames - lengths[0]))
    end = starts[0] + lengths[0] + GAP_FRAMES
    sides: tuple[list[int], list[int]] = ([], [])
    free = [starts[0], num_frames + GAP_FRAMES - end]
    for i in sorted((i for i in order if i != 0), key=lambda i: -lengths[i]):
        need = lengths[i] + GAP_FRAMES
        side = int(rng.random() * max(sum(free), 1) >= free[0])
        side = side if free[side] >= need else 1 - side
        if free[side] < need:
            raise ConfigError(
                f"depth {depth} leaves no room for all of {len(lengths)} shown things in {num_frames} frames; "
                "expected a film with some room; ask for fewer of them, or a longer film"
            )
        sides[side].append(i)
        free[side] -= need
    for side, start, stop in ((0, 0, starts[0]), (1, end, num_frames + GAP_FRAMES)):
        mixed = [sides[side][int(j)] for j in rng.permutation(len(sides[side]))]
        _spread(mixed, lengths, start, stop, rng, starts)
    return starts


def _spread(
    order: list[int], lengths: list[int], start: int, stop: int, rng: np.random.Generator, starts: list[int]
) -> None:
    """Put things one after the other into [start, stop), all ways to share out the free frames being equally likely."""
    free = stop - start - sum(lengths[i] + GAP_FRAMES for i in order)
    # Stars and bars: which of the free frames and things, in one row, are things.
    rows = np.sort(rng.choice(free + len(order), size=len(order), replace=False)) - np.arange(len(order))
    for offset, i in zip(rows, order, strict=True):
        starts[i] = start + int(offset)
        start += lengths[i] + GAP_FRAMES
