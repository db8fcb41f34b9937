"""What a decoder needs to know before it decodes: the table of frames, read without decoding any."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Alive = Callable[[], None]


def no_watch() -> None:
    """Take a sign of life that nobody waits for."""


class Picture(NamedTuple):
    """One decoded frame as asked for.

    pixels: RGB uint8 [H, W, 3]. is_damaged: errors were concealed in it or before it, or it stands in for a frame that
    is lost. num_lost_packets: how many packets could not be decoded since decoding began.
    """

    pixels: np.ndarray
    is_damaged: bool
    num_lost_packets: int = 0


@dataclasses.dataclass(eq=False, kw_only=True)
class Scan:
    """The frames that will be shown, in order of presentation.

    ticks: int64 [n], time stamps in units of 1 / ticks_per_s, as the stream has them; key_ticks: those of key frames,
    none where the stream has no time stamps of its own. start_s: start of the container. last_duration_s: how long the
    last frame is shown. width and height are upright. stream_index: which stream of the container this is.
    """

    ticks: np.ndarray
    key_ticks: np.ndarray
    ticks_per_s: float
    start_s: float
    last_duration_s: float
    container: str
    codec: str
    width: int
    height: int
    rotation_degrees: int
    sample_aspect_ratio: float
    stream_index: int
    streams: list[str]
    warnings: list[str]

    @property
    def pts_s(self) -> np.ndarray:
        """Presentation times in seconds from the start of the container."""
        return self.ticks / self.ticks_per_s - self.start_s

    def to_message(self) -> tuple[dict[str, object], bytes]:
        """Return plain values and the raw tables, for a pipe."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if "ticks" not in f.name}
        head = values | {"ticks_per_s": self.ticks_per_s, "num_ticks": len(self.ticks)}
        return head, np.concatenate([self.ticks, self.key_ticks]).astype(np.int64).tobytes()

    @classmethod
    def from_message(cls, head: dict[str, object], payload: bytes) -> Scan:
        """Rebuild what `to_message` took apart."""
        values = {name: value for name, value in head.items() if name not in ("num_ticks", "kind", "bytes")}
        table = np.frombuffer(payload, dtype=np.int64)
        count = int(str(head["num_ticks"]))
        return cls(ticks=table[:count], key_ticks=table[count:], **values)  # pyright: ignore[reportArgumentType]
