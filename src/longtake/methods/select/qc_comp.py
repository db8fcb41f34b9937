"""QC-Comp: score clips by the attention that a question pays them inside short windows (XComp)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.registry import register
from longtake.ops.rope import rotate

RotationAt = Callable[[int], tuple[Float[Tensor, "L d"], Float[Tensor, "L d"]]]


@register("select", "qc_comp")
@dataclasses.dataclass(frozen=True, kw_only=True)
class QcComp(StrictConfig):
    """Score clips of `clip_frames` frames in windows of `window` clips every `stride` (0: the whole chunk at once).

    first_layer, last_layer: the layers (from 0, both ends included) whose scores are added; -1 takes the same share
    of the depth as layers 6 to 23 of 28. skipped_tokens: text tokens right after the video that are not the question;
    -1 says that the caller knows the question's own span. mask: `causal`, or `none` as in the released code.
    edges: `drop` throws away clips seen by fewer windows than the best seen one, as released; `keep` averages what
    there is. last_window: whether the last, possibly shifted, window that reaches the end is scored too.
    chunk_frames: frames of a chunk; repeats: how often the video is covered, each time shifted. circular: whether
    the last chunk goes on with the start of the video. gate_frames: below this count every frame is kept.
    position_correction: divide by the mean score of the same place in all windows.

    Raises: ConfigError for settings that do not fit each other.
    Source: XComp section 3.3 and its released code, where every value is fixed in the text of the program; presets
    XCOMP_2B_RELEASED and XCOMP_CLEAN.
    """

    window: int = 8
    stride: int = 4
    clip_frames: int = 8
    first_layer: int = -1
    last_layer: int = -1
    skipped_tokens: int = -1
    mask: Literal["none", "causal"] = "causal"
    edges: Literal["drop", "keep"] = "keep"
    last_window: bool = True
    chunk_frames: int = 512
    repeats: int = 1
    circular: bool = False
    gate_frames: int = 0
    position_correction: bool = True

    def __post_init__(self) -> None:
        if self.window < 0 or (self.window and not 0 < self.stride <= self.window):
            raise ConfigError(f"window {self.window} with stride {self.stride}: expected 0 < stride <= window")
        if self.chunk_frames % self.clip_frames:
            raise ConfigError(
                f"chunk_frames is {self.chunk_frames}; expected a multiple of clip_frames {self.clip_frames}; round it"
            )
        if self.repeats < 1 or self.clip_frames % self.repeats:
            raise ConfigError(f"repeats is {self.repeats}; expected a divisor of clip_frames {self.clip_frames}")

    def layers(self, num_layers: int) -> range:
        """Return the layers that are scored in a model of that depth."""
        first = self.first_layer if self.first_layer >= 0 else round(num_layers * 6 / 28)
        last = self.last_layer if self.last_layer >= 0 else round(num_layers * 24 / 28) - 1
        if not 0 <= first <= last < num_layers:
            raise ConfigError(f"layers {first} to {last} were asked for; the model has {num_layers}; choose others")
        return range(first, last + 1)

    @property
    def chunk_length(self) -> int:
        """Frames of one chunk with the margin whose clips no full set of windows sees."""
        margin = 2 * self.clip_frames * self.stride if self.window and self.edges == "drop" else 0
        return self.chunk_frames + margin


XCOMP_2B_RELEASED = QcComp(
    first_layer=6,
    last_layer=23,
    skipped_tokens=27,
    mask="none",
    edges="drop",
    last_window=False,
    repeats=2,
    circular=True,
    gate_frames=1024,
    position_correction=False,
)
XCOMP_CLEAN = QcComp()


def window_starts(num_clips: int, method: QcComp) -> list[int]:
    """Return the first clip of each window; one window holds everything when `window` is 0 or the chunk is short."""
    if method.window == 0:
        return [0]
    starts = list(range(0, num_clips - method.window + 1, method.stride))
    if method.last_window and (not starts or starts[-1] + method.window < num_clips):
        starts.append(max(0, num_clips - method.window))
    return starts


def window_scores(
    query: Float[Tensor, "heads Q d"],
    prefix: Float[Tensor, "groups P d"],
    visual: Float[Tensor, "groups N d"],
    text: Float[Tensor, "groups Q d"],
    num_clips: int,
    method: QcComp,
    rotation_at: RotationAt,
    rows: slice,
) -> Float[Tensor, "W A"]:
    """Return the mean attention of the question rows on each clip of each window, averaged over heads.

    Keys and queries are un-rotated; a window is [prefix, its clips, text] with positions from 0. Every key is
    projected once and only rotated again.

    Source: XComp `segments_A_B` scoring.
    """
    per_clip = visual.shape[1] // num_clips
    length = min(method.window or num_clips, num_clips)
    starts = torch.tensor(window_starts(num_clips, method), device=visual.device)
    if not len(starts):
        return visual.new_zeros(0, length)
    inside = torch.arange(length * per_clip, device=visual.device)
    windows = visual[:, starts.unsqueeze(1) * per_clip + inside].transpose(0, 1)  # [W, groups, A*per, d]
    repeat = (len(starts), -1, -1, -1)
    keys = torch.cat([prefix.expand(repeat), windows, text.expand(repeat)], dim=2)
    total, num_text = keys.shape[2], text.shape[1]
    cos, sin = rotation_at(total)
    keys = rotate(keys, cos, sin)
    queries = rotate(query, cos[total - num_text :], sin[total - num_text :])[:, rows]
    queries = queries.unflatten(0, (keys.shape[1], -1))  # [groups, heads per group, R, d]
    scores = torch.einsum("ghrd,wgld->wghrl", queries, keys) * query.shape[-1] ** -0.5
    if method.mask == "causal":
        place = torch.arange(total - num_text, total, device=keys.device)[rows]
        scores = scores.masked_fill(torch.arange(total, device=keys.device) > place.unsqueeze(1), float("-inf"))
    attention = scores.softmax(-1, dtype=torch.float32).mean(dim=(1, 2, 3))  # [W, L]
    first = prefix.shape[1]
    return attention[:, first : first + length * per_clip].unflatten(1, (length, per_clip)).mean(-1)


def stitch(scores: Float[Tensor, "W A"], num_clips: int, method: QcComp) -> Float[Tensor, "K"]:
    """Average each clip's scores over the windows that saw it; a clip without a valid score is NaN."""
    if method.position_correction and len(scores) > 1:
        scores = scores / scores.mean(0).clamp_min(torch.finfo(scores.dtype).tiny)
    total, seen = scores.new_zeros(num_clips), scores.new_zeros(num_clips)
    for start, row in zip(window_starts(num_clips, method), scores, strict=True):
        total[start : start + len(row)] += row
        seen[start : start + len(row)] += 1
    valid = seen == seen.max() if method.edges == "drop" else seen > 0
    return torch.where(valid & (seen > 0), total / seen.clamp_min(1), torch.nan)


def chunks(num_frames: int, method: QcComp) -> list[np.ndarray]:
    """Return the frame indices of each chunk, ascending from its start (modulo the video when circular).

    Source: XComp; each repeat is shifted by the chunk divided by the repeats, and a little more so that clips fall
    differently.
    """
    per_round = -(-num_frames // method.chunk_frames)
    shift = method.clip_frames // method.repeats + method.chunk_frames // method.repeats
    found = []
    for index in range(method.repeats * per_round):
        start = method.chunk_frames * index + index // per_round * shift
        if method.circular:
            found.append((start % num_frames + np.arange(method.chunk_length)) % num_frames)
            continue
        # The last chunk begins earlier rather than be shorter: scores of chunks of one length can be compared.
        length = min(method.chunk_length, num_frames)
        first = min(start % num_frames, num_frames - length)
        found.append(first + np.arange(length // method.clip_frames * method.clip_frames))
    return found


def frame_scores(
    scores: list[Float[Tensor, "layers K"]], frames: list[np.ndarray], num_frames: int, clip_frames: int
) -> Float[Tensor, "T"]:
    """Add up over layers the mean of all valid clip scores of each frame; a frame without one scores minus infinity.

    scores[c][l, k] belongs to frames[c][k * clip_frames : (k + 1) * clip_frames].
    """
    num_layers = scores[0].shape[0]
    total = torch.zeros(num_layers, num_frames, dtype=torch.float64)
    seen = torch.zeros_like(total)
    for chunk, indices in zip(scores, frames, strict=True):
        where = torch.from_numpy(np.ascontiguousarray(indices)).expand(num_layers, -1)
        own = chunk.cpu().double().repeat_interleave(clip_frames, dim=1)[:, : len(indices)]
        total.scatter_add_(1, where, own.nan_to_num(0.0))
        seen.scatter_add_(1, where, own.isfinite().double())
    mean = total / seen
    return torch.where((seen > 0).all(0), mean.sum(0), -torch.inf)


def top_frames(total: Float[Tensor, "T"], keep: int) -> list[int]:
    """Return the `keep` best frames in order of time; of equals the earlier one stays."""
    return sorted(total.sort(descending=True, stable=True).indices[:keep].tolist())
