"""A whole prefill with LP-Comp (16 tokens a frame down to one) against one that keeps every visual token.

XComp's cost model: the visual part of the work falls to 0.516 where it grows with the tokens (matrices, keys and
values) and to 0.376 where it grows with their square (attention): 1.94 and 2.66 times less.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2Config, Qwen2Model

from bench.live_bytes import LiveBytes
from bench.pairs import paired, row
from longtake.methods.reduce.lp_comp import LpComp
from longtake.nn.language.walk import WalkInput, prefill

WIDTH, DEPTH, TEXT = 128, 28, 32
LINEAR, SQUARE = 0.516, 0.376


def deep() -> Any:
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": DEPTH, "vocab_size": 8}
    return Qwen2Model(Qwen2Config(**shape, num_attention_heads=4, num_key_value_heads=2))


def inputs_of(num_visual: int) -> WalkInput:
    embeds = torch.randn(1, num_visual + TEXT, WIDTH)
    return WalkInput(embeds, torch.ones(embeds.shape[:2], dtype=torch.bool), [TEXT // 2], [num_visual])


@torch.no_grad()
def run(quick: bool) -> list[dict]:
    torch.manual_seed(0)
    model, method, rows = deep(), LpComp(), []
    counts = method.counts(DEPTH)[1:]
    linear, square = sum(counts) / (16 * DEPTH), sum(count**2 for count in counts) / (256 * DEPTH)
    assert (round(linear, 3), round(square, 3)) == (LINEAR, SQUARE)
    for num_frames, rounds in ((16, 2),) if quick else ((64, 7), (512, 3)):
        inputs = inputs_of(16 * num_frames)
        sides = [lambda r=r, i=inputs: prefill(model, i, reducer=r, chunk_size=1024) for r in (None, method)]
        dropped = sides[1]()
        assert len(dropped.kept[0]) == TEXT + num_frames
        what = f"prefill of {num_frames} frames with LP-Comp"
        # The shares of the two terms depend on the length; the smaller saving is sure, the larger one the limit.
        rows.append(row(f"{what}: time", *paired(*sides, rounds), target=1.5))
        peaks, caches = [], []
        for side in sides:
            with LiveBytes() as live:
                out = side()
            peaks.append(live.peak / 1e6)
            assert out.cache is not None
            caches.append(out.cache.num_bytes() / 1e6)
        rows.append(row(f"{what}: keys and values", *caches, [caches[0] / caches[1]], 1.8, "MB"))
        rows.append(row(f"{what}: peak memory", *peaks, [peaks[0] / peaks[1]], 1.8, "MB"))
    return rows
