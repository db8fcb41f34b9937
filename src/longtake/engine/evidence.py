"""Which seconds of a video an answer rests on, computed from what the compressors and reducers did."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longtake.core.reduction import Reduction
from longtake.core.types import Span, VideoMemory
from longtake.models.evidence_threshold import EvidenceScore
from longtake.models.loaded import LoadedModel
from longtake.models.naming import question_vector, token_vectors
from longtake.nn.language.layers import last_row_attention, rotation_at
from longtake.nn.language.walk import WalkOutput

MAX_SPANS = 5
OTHER_MODEL = "evidence.json was calibrated for another model or dtype, so that no claim is made of missing evidence"
MASS_SHOWN = 0.5


@torch.no_grad()
def last_attention(loaded: LoadedModel, walked: WalkOutput) -> Float[Tensor, "L"]:
    """Return the last layer's attention of the prompt's last token, averaged over heads, to what that layer saw.

    The first word of the answer is made from that token.
    """
    language, cache = loaded.model.language, walked.cache
    assert cache is not None, "evidence needs the cache of the prefill"
    layer, last = cache.layers[-1], len(cache.layers) - 1
    length = layer.lengths[0]
    assert layer.keys is not None
    position = torch.tensor([[length - 1]], device=walked.mask.device)
    rotation = rotation_at(language, walked.entering_last, position)
    keys = layer.keys[0, :, :length]
    return last_row_attention(language.layers[last], walked.entering_last[0], keys, rotation)


def attention_at(loaded: LoadedModel, walked: WalkOutput, places: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Return the shares of the attention to the visual tokens at these places of a prompt of which none was dropped."""
    attention = last_attention(loaded, walked).float()
    mass = attention[places.to(attention.device)]
    return mass / mass.sum().clamp_min(torch.finfo(torch.float32).tiny)


def token_attention(loaded: LoadedModel, walked: WalkOutput, start: int, num_visual: int) -> Float[Tensor, "N"]:
    """Return how much of the last layer's attention to the video each of its tokens got; dropped ones got none.

    The attention is that of `last_attention`. It adds up to one over the video.
    """
    attention = last_attention(loaded, walked)
    length = len(attention)
    kept = _alive_in_last_layer(walked, num_visual, length).kept
    mass = torch.zeros(num_visual, dtype=torch.float32, device=attention.device)
    mass[kept] = attention[start : start + len(kept)].float()
    return mass / mass.sum().clamp_min(torch.finfo(torch.float32).tiny)


def _alive_in_last_layer(walked: WalkOutput, num_visual: int, length: int) -> Reduction:
    """Compose the drops before the last layer, which saw `length` tokens; one after it comes too late to count."""
    assert walked.cache is not None, "evidence needs the cache of the prefill"
    num_text = walked.cache.written[0] - num_visual
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
    starts = np.flatnonzero(np.diff(chosen, prepend=-2) > 1)  # where a run of neighbours begins
    firsts, lasts = chosen[starts], chosen[np.append(starts[1:], len(chosen)) - 1]
    scores = np.minimum(np.add.reduceat(flat[chosen], starts), 1.0)
    last_s = float(np.median(np.diff(times))) if len(times) > 1 else memory.duration_s
    ends = np.append(times[1:], times[-1] + last_s)
    return tuple(
        Span(start_s=float(times[firsts[run]]), end_s=float(ends[lasts[run]]), score=float(scores[run]))
        for run in np.argsort(-scores, kind="stable")[:MAX_SPANS]
    )


def evidence_score(
    kind: EvidenceScore, found: Sequence[Span], memory: VideoMemory, question: str, loaded: LoadedModel
) -> float:
    """Return the score that a threshold is compared with: of the strongest span, or of the best named token."""
    if kind == "attention":
        return max((span.score or 0.0 for span in found), default=0.0)
    return float((token_vectors(loaded, memory.tokens.features) @ question_vector(loaded, question)).max())


def passes(found: Sequence[Span], memory: VideoMemory, question: str, loaded: LoadedModel) -> bool | None:
    """Say whether there is evidence; none if the model was not calibrated for a video, in this dtype."""
    limit = loaded.evidence
    if limit is None or limit.model != loaded.fingerprint or memory.settings.get("kind") != "video":
        return None
    return bool(evidence_score(limit.score, found, memory, question, loaded) >= limit.threshold)


def spans_of_all(memories: Sequence[VideoMemory], mass: Float[Tensor, "N"]) -> tuple[Span, ...]:
    """Return the spans of several pictures and videos, each with its number, as `spans` does of one."""
    shares = mass.split([len(memory.tokens) for memory in memories])
    found = [
        dataclasses.replace(span, medium=number)
        for number, (memory, share) in enumerate(zip(memories, shares, strict=True), start=1)
        for span in spans(memory, frame_mass(memory, share))
    ]
    ordered = sorted(found, key=lambda span: -(span.score or 0.0))
    held = np.cumsum([span.score or 0.0 for span in ordered])
    return tuple(ordered[: min(MAX_SPANS, int(np.searchsorted(held, MASS_SHOWN)) + 1)])
