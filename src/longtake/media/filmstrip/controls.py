"""Films from which an answer should not be had, and the frames from which it should: what figures are held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError
from longtake.media.filmstrip.asker import Question
from longtake.media.filmstrip.attributes import stream
from longtake.media.filmstrip.render import REFERENCE_SIDE, Layers, Renderer
from longtake.media.filmstrip.world import Film

NOTHING_IN_FRONT = Layers(cards=False, happenings=False, motions=False, posters=False)
# What a film is turned into, and how well the questions about it can still be answered.
CONTROLS = {
    "black": "chance: nothing is shown",
    "removed": "chance: set and extras alone are shown",
    "first frame": "chance: the first frame is shown all along",
    "middle frame": "chance: the middle frame is shown all along",
    "shuffled": "chance for OR, MO, TG; as before for N1, DE: the frames come in a random order",
}


def control_frames(film: Film, control: str, size: int = REFERENCE_SIDE) -> Iterator[np.ndarray]:
    """Yield as many frames as the film has, RGB uint8 [S, S, 3], as a control shows it (keys of CONTROLS).

    Raises: ConfigError for an unknown control.
    """
    if control not in CONTROLS:
        raise ConfigError(f"control {control!r} arrived; {nearest_name(control, list(CONTROLS))}")
    count = film.spec.num_frames
    if control == "black":
        return (np.zeros((size, size, 3), np.uint8) for _ in range(count))
    renderer = Renderer(film, size, NOTHING_IN_FRONT if control == "removed" else None)
    if control.endswith("frame"):
        still = renderer.frame(0 if control == "first frame" else count // 2)
        return (still for _ in range(count))
    order = stream(film.spec.salt, film.spec.seed, "shuffled").permutation(count)
    return (renderer.frame(int(number)) for number in (order if control == "shuffled" else range(count)))


def proof_frames(film: Film, question: Question) -> list[int]:
    """Return the numbers of the frames that prove an answer, in order: what an oracle would sample; none if none do."""
    spans = [(round(start * film.spec.fps), round(stop * film.spec.fps)) for start, stop in question.spans_s]
    return sorted({number for span in spans for number in range(*span)})


def is_covered(question: Question, times_s: Iterable[float]) -> bool:
    """Say whether sampled times, in seconds, hit every span of the proof: without that an answer is a guess."""
    times = list(times_s)
    return all(any(start <= time < stop for time in times) for start, stop in question.spans_s)
