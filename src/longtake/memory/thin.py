"""Fewer tokens from a memory that is made already: merge those of each clip that are most alike."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longtake.core.errors import BudgetError
from longtake.core.reduction import Reduction
from longtake.core.types import VideoMemory, VisualTokens
from longtake.ops.matching import match, merge_steps


def merge_sized(
    features: Float[Tensor, "K N D"], size: Float[Tensor, "K N"], num_targets: int
) -> tuple[Float[Tensor, "K M D"], Reduction]:
    """Merge the tokens of each clip, which are means of `size` patches; return means of all their patches, and the map.

    Source: token merging (ToMe) on stored tokens; the metric is the token itself, since attention heads end at the
    projector.
    """
    total = Reduction.identity(features.shape[1], features.device)
    total = Reduction(total.target.expand(features.shape[:2]), total.num_targets)
    for num_merged in merge_steps(features.shape[1], num_targets):
        step = match(features, num_merged)
        features = step.mean(features, size)
        size = step.sum(size.unsqueeze(-1)).squeeze(-1)
        total = total.then(step)
    return features, total


def thin(memory: VideoMemory, tokens_per_frame: float | int) -> VideoMemory:
    """Return a memory with at most so many tokens a frame; clips that have fewer keep what they have.

    A fraction is fine as long as a clip keeps at least one token: with clips of 4 frames down to 0.25. Each token
    still knows the frames that it is the mean of.

    Raises: BudgetError if a clip cannot have that many tokens; it names the nearest counts that it can.
    """
    num_clips, num_frames = memory.frame_pts_s.shape
    wanted = _tokens_per_clip(tokens_per_frame, num_frames)
    settings = dict(memory.settings) | {"tokens_per_frame": tokens_per_frame}
    counts = memory.tokens.clip_index.cpu().bincount(minlength=num_clips).tolist()
    features, weights, start = [], [], 0
    for count, run in itertools.groupby(counts):  # clips in a row with the same count are merged at once
        end = start + count * len(list(run))
        tokens, weight = _merged(
            memory.tokens.features[start:end].unflatten(0, (-1, count)),
            memory.tokens.frame_weight[start:end].unflatten(0, (-1, count)),
            min(wanted, count),
        )
        features.append(tokens.flatten(0, 1))
        weights.append(weight.flatten(0, 1))
        start = end
    clips = torch.arange(num_clips).repeat_interleave(torch.tensor(counts).clamp(max=wanted))
    kept = VisualTokens(torch.cat(features), torch.cat(weights), clips)
    return dataclasses.replace(memory, tokens=kept, settings=settings)


def _merged(
    features: Float[Tensor, "K N D"], weight: Int64[Tensor, "K N F"], num_targets: int
) -> tuple[Float[Tensor, "K M D"], Int64[Tensor, "K M F"]]:
    """Merge the tokens of clips and the weights of their frames alike."""
    if features.shape[1] == num_targets:
        return features, weight
    size = weight.sum(-1).to(features.device).float()
    merged, reduction = merge_sized(features.float(), size, num_targets)
    here = Reduction(reduction.target.to(weight.device), reduction.num_targets)
    return merged.to(features.dtype), here.sum(weight)


def _tokens_per_clip(tokens_per_frame: float | int, num_frames: int) -> int:
    per_clip = tokens_per_frame * num_frames
    if per_clip < 1 or per_clip != int(per_clip):
        near = sorted({max(int(per_clip), 1) / num_frames, (max(int(per_clip), 0) + 1) / num_frames})
        raise BudgetError(
            f"{tokens_per_frame:g} tokens a frame arrived, which is {per_clip:g} for a clip of {num_frames} frames; "
            f"expected a whole number of at least 1; pass {' or '.join(f'{value:g}' for value in near)}"
        )
    return int(per_clip)
