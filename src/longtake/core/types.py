"""The nouns of the house: Frames → Clips → VisualTokens → VideoMemory → Answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from longtake.core.errors import VideoError

if TYPE_CHECKING:
    from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """An interval of presentation time in seconds, with the score that put it into an answer's evidence.

    medium: which of several pictures and videos it is of, counted from 1; none where there was only one.
    """

    start_s: float
    end_s: float
    score: float | None = None
    medium: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """Decoded pictures with their presentation times.

    pixels: uint8 [T, H, W, 3], RGB, upright. pts_s: float64 [T], seconds from the start of the presentation,
    never decreasing. damaged: bool [T], true where the decoder had to conceal errors around the frame.

    Raises: VideoError if the leading dimensions differ or the times decrease.
    """

    pixels: np.ndarray
    pts_s: np.ndarray
    damaged: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[-1] != 3 or self.pixels.dtype != np.uint8:
            raise VideoError(
                f"frames arrived as {self.pixels.dtype} {self.pixels.shape}; expected uint8 [T, H, W, 3]; convert them"
            )
        if self.pts_s.shape != self.pixels.shape[:1]:
            raise VideoError(
                f"{len(self.pixels)} frames arrived with {self.pts_s.shape} times; expected one time a frame; pass both"
            )
        if not np.all(np.isfinite(self.pts_s)) or np.any(np.diff(self.pts_s) < 0):
            raise VideoError("frame times are not finite and ascending; sort the frames by time first")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        height, width = self.pixels.shape[1:3]
        return f"Frames(T={len(self)}, {width}x{height})"


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """Normalised pixels of consecutive frames, ready for a vision tower.

    pixel_values: [K, F, 3, H, W]. frame_pts_s: float64 [K, F].
    """

    pixel_values: Tensor
    frame_pts_s: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class VisualTokens:
    """Tokens of a video as the language model reads them, in presentation order.

    features: [N, D]. frame_weight: [N, F], how many source patches of each frame of its clip a token is the mean
    of. clip_index: int64 [N], the clip each token came from.
    """

    features: Tensor
    frame_weight: Tensor
    clip_index: Tensor

    def __len__(self) -> int:
        return int(self.features.shape[0])


@dataclasses.dataclass(frozen=True, eq=False)
class VideoMemory:
    """A video turned into visual tokens once, blind to any question.

    frame_pts_s: float64 [K, F], the presentation time of each encoded frame. duration_s: of the part that was
    sampled. source: what was opened, for people. settings: sampling, model and method settings that shaped the
    tokens. warnings: what was lost on the way (damaged packets, missing frames). kept: what later stages keep about
    the video for the next question; never saved, and empty in a copy.
    """

    tokens: VisualTokens
    frame_pts_s: np.ndarray
    duration_s: float
    source: str
    settings: Mapping[str, object]
    warnings: tuple[str, ...] = ()
    kept: dict[str, object] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def num_frames(self) -> int:
        """Count of encoded frames."""
        return int(self.frame_pts_s.size)

    @property
    def tokens_per_frame(self) -> float:
        """Mean count of visual tokens a frame."""
        return len(self.tokens) / max(self.num_frames, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """Text with the spans that it rests on.

    evidence: spans of the video, strongest first; evidence_kind says what they are: `attention`, spans whose tokens
    survived to the last layer, with their share of the attention; `relevance`, the spans that a selector chose, with
    their peak relevance over the video's mean. ledger: what each stage cost, as `engine.ledger.Ledger.to_dict`
    returns it. evidence_found: false where nothing passes the model's calibrated threshold, and `evidence` is empty;
    none where nothing is claimed: the model has no threshold, or it was calibrated for another case.
    """

    text: str
    evidence: tuple[Span, ...]
    ledger: Mapping[str, object]
    finish_reason: str
    evidence_kind: Literal["attention", "relevance"] = "attention"
    evidence_found: bool | None = None
