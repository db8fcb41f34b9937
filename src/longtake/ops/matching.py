"""Bipartite soft matching: which tokens of a clip are merged into which."""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor

from longtake.core.reduction import Reduction


def head_mean(x: Float[Tensor, "K N D"], num_heads: int) -> Float[Tensor, "K N d"]:
    """Average the features over attention heads: what tokens are compared by."""
    return x.unflatten(-1, (num_heads, -1)).mean(-2)


@torch.no_grad()
def match(metric: Float[Tensor, "K N d"], num_merged: int) -> Reduction:
    """Merge `num_merged` even-position tokens of each clip into their most similar odd-position ones.

    Similar means a large cosine between rows of `metric`; a row of zeros has no direction and gives NaN, as in the
    reference. New order: the even tokens that stay, most similar first, then all odd tokens in their old order. At
    most N // 2 tokens can be merged; more is clamped. No gradient flows through the choice.

    Source: token merging as the VideoChat-Flash connector uses it.
    """
    num_tokens = metric.shape[1]
    num_merged = min(num_merged, num_tokens // 2)
    metric = metric / metric.norm(dim=-1, keepdim=True)
    even, odd = metric[:, ::2], metric[:, 1::2]
    similarity, partner = (even @ odd.mT).max(-1)  # [K, ceil(N/2)]
    order = similarity.sort(dim=-1, descending=True, stable=True).indices
    rank = order.argsort(dim=-1)  # the inverse permutation
    num_stay = even.shape[1] - num_merged
    target = torch.empty(metric.shape[:2], dtype=torch.int64, device=metric.device)
    target[:, ::2] = torch.where(rank < num_merged, num_stay + partner, rank - num_merged)
    target[:, 1::2] = num_stay + torch.arange(odd.shape[1], device=metric.device)
    return Reduction(target, num_tokens - num_merged)


def merge_steps(num_tokens: int, num_targets: int) -> list[int]:
    """Count the tokens merged in each step from `num_tokens` to `num_targets`: halve while one step cannot reach it.

    Raises: ValueError if there is nothing to merge, or no target.
    """
    if not 0 < num_targets <= num_tokens:
        raise ValueError(f"cannot merge {num_tokens} tokens into {num_targets}")
    steps = []
    while num_tokens > num_targets:
        steps.append(min(num_tokens - num_targets, num_tokens // 2))
        num_tokens -= steps[-1]
    return steps


def merge(
    x: Float[Tensor, "K N D"], num_targets: int, num_heads: int
) -> tuple[Float[Tensor, "K M D"], Num[Tensor, "K M"], Reduction]:
    """Merge the tokens of each clip down to `num_targets`; return features, group sizes and the composed map.

    The metric is taken anew from the merged features before each step; a feature is the plain mean of all original
    tokens in its group. Accelerators take all clips at once; on a CPU one after the other is up to twice as fast,
    since a clip's similarities stay in the cache. Source: VideoChat-Flash connector.
    """
    if x.device.type == "cpu" and x.shape[0] > 1:
        parts = [merge(clip, num_targets, num_heads) for clip in x.split(1)]
        targets = torch.cat([reduction.target for _, _, reduction in parts])
        features, sizes = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        return features, sizes, Reduction(targets, num_targets)
    total = Reduction.identity(x.shape[1], x.device)
    total = Reduction(total.target.expand(x.shape[:2]), total.num_targets)
    size = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)
    for num_merged in merge_steps(x.shape[1], num_targets):
        step = match(head_mean(x, num_heads), num_merged)
        x = step.mean(x, size)
        size = step.sum(size.unsqueeze(-1)).squeeze(-1)
        total = total.then(step)
    return x, size, total
