"""Where things that move are, frame by frame: the ball of a motion, and the sprites of happenings that take time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from longtake.media.filmstrip.ladder import MOTION_FRAMES
from longtake.media.filmstrip.world import Motion

REACH = 0.38
FAST = 2.5


class Sprite(NamedTuple):
    """A shape at a place, given as shares of the picture; quarters: how many right angles it is turned by."""

    shape: str
    x: float
    y: float
    quarters: int = 0


def sprites_of(kind: str, step: int) -> tuple[Sprite, ...]:
    """Return what frame `step` of a happening shows: a disc that splits, one that comes in, an arrow that turns.

    It is white, as no card, extra or ball is.
    """
    if kind == "split":
        half_gap = (0.0, 0.1, 0.26)[step]
        return tuple(Sprite("circle", 0.5 + side * half_gap, 0.5) for side in (-1, 1))
    if kind == "entry":
        return (Sprite("diamond", (0.02, 0.22, 0.42)[step], 0.5),)
    return (Sprite("arrow", 0.5, 0.5, step),)


def ball_at(motion: Motion, number: int) -> tuple[float, float]:
    """Return where the ball is, as shares of the picture.

    No one frame tells the answer. In a direction or with a turn the ball passes the middle half way. Faster one way is
    slower the other way, seen backwards; so is sideways first and last. A bouncing ball is as often at each place,
    whatever the number of bounces.
    """
    step, last = number - motion.start, motion.stop - motion.start - 1
    if motion.kind == "bounce":
        way = REACH * (1 - 2 * (motion.direction // 2 % 2)) * _way_with_bounces(motion, step / (last + 1))
        return (0.5 + way, 0.5) if motion.direction % 2 else (0.5, 0.5 + way)
    if motion.kind == "speed":
        return _on_ray(motion.direction, REACH * _share_with_speed(motion.value, step, last))
    if motion.kind == "path":
        return _around_corner(motion, step / last)
    half = last / 2
    heading = motion.direction + (2 * motion.turn if step > half else 0)
    return _on_ray(heading, (step - half) * (REACH / max(half, 1)))


def _on_ray(direction: int, length: float) -> tuple[float, float]:
    angle = np.pi / 4 * direction
    return float(0.5 + length * np.sin(angle)), float(0.5 - length * np.cos(angle))


def _way_with_bounces(motion: Motion, share: float) -> float:
    """Return -1 … 1: how far between its two walls a ball is that bounces `value` times.

    A bounce is at least half a frame away from the first frame and from the last, so that both of its sides are seen.
    The room in which the ball begins is a multiple of its way in a frame: then, over all motions, it is as often at
    each place, whatever the number.
    """
    step = motion.value / MOTION_FRAMES["bounce"]
    turns = 1.5 * step + (1 - 2 * step) * motion.phase + motion.value * share
    return 2 * abs((turns + 1) % 2 - 1) - 1


def _share_with_speed(value: int, step: int, last: int) -> float:
    """Return -1 … 1: how far along its line a ball is that changes its speed half way in time."""
    speeds = (1.0, FAST) if value > 0 else (FAST, 1.0)
    half = last / 2
    way = speeds[0] * min(step, half) + speeds[1] * max(step - half, 0.0)
    return 2 * way / (half * (1 + FAST)) - 1


def _around_corner(motion: Motion, share: float) -> tuple[float, float]:
    """Follow two sides of a square from corner to corner: sideways first, or last."""
    across, down = (1 if motion.direction in (1, 3) else -1), (1 if motion.direction in (3, 5) else -1)
    first, second = min(2 * share, 1.0), max(2 * share - 1, 0.0)
    x, y = (first, second) if motion.value > 0 else (second, first)
    return 0.5 + across * REACH * (2 * x - 1), 0.5 + down * REACH * (2 * y - 1)
