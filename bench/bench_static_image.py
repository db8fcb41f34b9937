"""A still image is shown to PVC's tower four times; the work that does not depend on time is done once.

Naive repetition feeds every copy on its own. The arithmetic of a shape says what sharing can save: at the released
shape (24 layers, the last 8 temporal, 1,025 tokens 1,024 wide) 1.72 times, here a little less or more.
"""

from __future__ import annotations

import dataclasses

import torch

from bench.pairs import paired, row
from longtake.nn.vision.internvit import InternVitConfig, ProgressiveTower

REPEATS = 4
REACHED = 0.9
FULL = InternVitConfig(image_size=224, width=256, num_heads=4, mlp_hidden=1024)
QUICK = dataclasses.replace(
    FULL, image_size=112, width=64, num_heads=2, depth=6, mlp_hidden=256, temporal_layers=(4, 5)
)


def products(config: InternVitConfig) -> tuple[float, float]:
    """Count the multiply-adds for one image in `REPEATS` copies: repeated naively, and shared."""
    width, tokens = config.width, (config.image_size // config.patch_size) ** 2 + 1
    attention = tokens * 4 * width**2 + 2 * tokens**2 * width
    feed_forward = tokens * 2 * width * config.mlp_hidden
    square = tokens * width**2
    branch = 8 * square  # qkv and projection 4, conditioning 4; attention over so few frames is nothing
    num_temporal = len(config.temporal_layers)
    naive = REPEATS * (config.depth * (attention + feed_forward) + num_temporal * branch)
    # In the first temporal layer the copies still share the attention over patches and two of the four conditions.
    spared = (REPEATS - 1) * (attention + 2 * square)
    plain = config.depth - num_temporal
    shared = plain * (attention + feed_forward)
    shared += REPEATS * num_temporal * (attention + feed_forward + branch) - spared
    return naive, shared


@torch.no_grad()
def run(quick: bool) -> list[dict]:
    config = QUICK if quick else FULL
    torch.manual_seed(0)
    tower = ProgressiveTower(config).eval()
    for branch in tower.branches.values():
        branch.gate.normal_()
    pixels = torch.randn(1, 3, config.image_size, config.image_size)
    lengths = [REPEATS]

    def naive() -> torch.Tensor:
        return tower(pixels.repeat_interleave(REPEATS, 0), lengths)

    def ours() -> torch.Tensor:
        return tower(pixels, lengths, REPEATS)

    torch.testing.assert_close(ours(), naive(), atol=1e-4, rtol=1e-4)
    most = products(config)
    bound = most[0] / most[1]
    baseline, time, ratios = paired(naive, ours, 2 if quick else 7)
    shape = f"{config.depth} layers, {len(config.temporal_layers)} temporal, width {config.width}"
    claim = f"a still image in {REPEATS} copies ({shape}); arithmetic allows {bound:.2f}"
    return [row(claim, baseline, time, ratios, round(REACHED * bound, 2))]
