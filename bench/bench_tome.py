"""Token merging of many clips, against a plain loop over clips and over the tokens of each."""

from __future__ import annotations

import torch

from bench.pairs import paired, row
from longtake.ops.matching import merge, merge_steps


def merge_one_clip(x: torch.Tensor, num_targets: int, num_heads: int) -> torch.Tensor:
    """The same merging written plainly, for one clip: a list of groups, one source at a time."""
    size = torch.ones(len(x))
    for count in merge_steps(len(x), num_targets):
        metric = x.view(len(x), num_heads, -1).mean(1)
        metric = metric / metric.norm(dim=-1, keepdim=True)
        best, partner = (metric[::2] @ metric[1::2].T).max(1)
        order = best.sort(descending=True, stable=True).indices.tolist()
        merged = x[1::2] * size[1::2, None]
        sizes = size[1::2].clone()
        for source in order[:count]:
            merged[partner[source]] += x[2 * source] * size[2 * source]
            sizes[partner[source]] += size[2 * source]
        stay = [2 * i for i in order[count:]]
        x = torch.cat([x[stay], merged / sizes[:, None]])
        size = torch.cat([size[stay], sizes])
    return x


def run(quick: bool) -> list[dict]:
    torch.manual_seed(0)
    clips, width = (4, 64) if quick else (16, 256)
    rows = []
    for patches, heads in ((784, 4), (1024, 4)) if quick else ((784, 4), (1024, 4), (3136, 4)):
        x = torch.randn(clips, patches, width)
        plain = lambda x=x, h=heads: torch.stack([merge_one_clip(clip, 64, h) for clip in x])  # noqa: E731
        ours = lambda x=x, h=heads: merge(x, 64, h)[0]  # noqa: E731
        rounds, what = 2 if quick else 7, f"ToMe over {clips} clips, {patches} to 64 tokens"
        torch.testing.assert_close(plain(), ours(), atol=1e-4, rtol=1e-4)
        rows.append(row(f"{what}, against a plain loop", *paired(plain, ours, rounds), target=1.5))
    return rows
