"""Which seconds of a video an answer rests on, computed from what the compressors and reducers did."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.reduction import Reduction
from longtake.core.types import Span, VideoMemory
from longtake.models.loaded import LoadedModel
from longtake.nn.language.layers import last_row_attention, rotation_at
from longtake.nn.language.walk import WalkOutput

MAX_SPANS = 5
MASS_SHOWN = 0.5


@torch.no_grad()
def token_attention(loaded: LoadedModel, walked: WalkOutput, start: int, num_visual: int) -> Float[Tensor, "N"]:
    """Return how much of the last layer's attention to the video each of its tokens got; dropped ones got none.

    The attention is that of the prompt's last token, from which the first word of the answer is made, averaged over
    heads. It adds up to one over the video.
    """
    language, cache = loaded.model.language, walked.cache
    assert cache is not None, "evidence needs the cache of the prefill"
    layer, last = cache.layers[-1], len(cache.layers) - 1
    length = layer.lengths[0]
    assert layer.keys is not None
    position = torch.tensor([[length - 1]], device=walked.mask.device)
    rotation = rotation_at(language, walked.entering_last, position)
    keys = layer.keys[0, :, :length]
    attention = last_row_attention(language.layers[last], walked.entering_last[0], keys, rotation)
    kept = _alive_in_last_layer(walked, num_visual, length).kept
    mass = torch.zeros(num_visual, dtype=torch.float32, device=attention.device)
    mass[kept] = attention[start : start + len(kept)].float()
    return mass / mass.sum().clamp_min(torch.finfo(torch.float32).tiny)


def _alive_in_last_layer(walked: WalkOutput, num_visual: int, length: int) -> Reduction:
    """Compose the drops before the last layer, which saw `length` tokens; one after it comes too late to count."""
    num_text = int(walked.mask[0].sum()) - walked.visual_reduction(0, num_visual).num_targets
    total = Reduction.identity(num_visual, walked.mask.device)
    for stage in sorted(walked.reductions[0]):
        if total.num_targets > length - num_text:
            total = total.then(walked.reductions[0][stage])
    return total


def frame_mass(memory: VideoMemory, mass: Float[Tensor, "N"]) -> Float[np.ndarray, "K F"]:
    """Carry the share of each token to the frames that it is the mean of."""
    weight = memory.tokens.frame_weight.cpu().double()
    share = weight / weight.sum(1, keepdim=True) * mass.cpu().double().unsqueeze(1)  # [N, F]
    frames = torch.zeros(memory.frame_pts_s.shape, dtype=torch.float64)
    return frames.index_add(0, memory.tokens.clip_index.cpu(), share).numpy()


def spans(memory: VideoMemory, mass: Float[np.ndarray, "K F"]) -> tuple[Span, ...]:
    """Return the shortest list of spans, strongest first, that holds half of the attention; at most five.

    A span runs from its first frame to the next frame behind it; neighbouring frames are one span. A frame that was
    read several times, because a short video was filled up with it, counts once, with all that it got.
    """
    times, place = np.unique(memory.frame_pts_s.ravel(), return_inverse=True)
    flat = np.bincount(place, weights=mass.ravel(), minlength=len(times))
    order = np.argsort(-flat, kind="stable")
    enough = int(np.searchsorted(np.cumsum(flat[order]), MASS_SHOWN * flat.sum())) + 1
    chosen = np.sort(order[:enough])
    runs = np.split(chosen, np.nonzero(np.diff(chosen) > 1)[0] + 1)
    last_s = float(np.median(np.diff(times))) if len(times) > 1 else memory.duration_s
    ends = np.append(times[1:], times[-1] + last_s)
    found = [
        Span(start_s=float(times[run[0]]), end_s=float(ends[run[-1]]), score=min(1.0, float(flat[run].sum())))
        for run in runs
    ]
    return tuple(sorted(found, key=lambda span: -(span.score or 0.0))[:MAX_SPANS])
