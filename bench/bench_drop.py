"""A whole prefill with the released drop (half, a quarter, an eighth) against one that keeps every visual token."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2Config, Qwen2Model

from bench.pairs import paired, row
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.nn.language.walk import WalkInput, WalkOutput, prefill

WIDTH, DEPTH, TEXT = 128, 28, 32
KEEP_ALL = ProgressiveDrop(ratios=(1.0, 1.0, 1.0, 1.0))


def deep() -> Any:
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": DEPTH, "vocab_size": 8}
    return Qwen2Model(Qwen2Config(**shape, num_attention_heads=4, num_key_value_heads=2))


def cache_bytes(out: WalkOutput) -> int:
    assert out.cache is not None
    return out.cache.num_bytes()


@torch.no_grad()
def run(quick: bool) -> list[dict]:
    torch.manual_seed(0)
    model, rows = deep(), []
    for num_visual, rounds in ((256, 2),) if quick else ((1024, 7), (4096, 3)):
        embeds = torch.randn(1, num_visual + TEXT, WIDTH)
        inputs = WalkInput(embeds, torch.ones(embeds.shape[:2], dtype=torch.bool), [TEXT // 2], [num_visual])
        whole = prefill(model, inputs)
        torch.testing.assert_close(prefill(model, inputs, reducer=KEEP_ALL).hidden, whole.hidden, atol=1e-5, rtol=1e-5)
        for kind in ("uniform", "attention"):
            method = ProgressiveDrop.from_dict({"kind": kind})
            dropped = prefill(model, inputs, reducer=method)
            assert len(dropped.kept[0]) == TEXT + num_visual // 8
            sides = [lambda r=r, i=inputs: prefill(model, i, reducer=r) for r in (None, method)]
            what = f"prefill of {num_visual} visual tokens, {kind} drop"
            # 28 layers see 14.5 layers' worth of visual tokens: 1.9 times less, if only they counted.
            rows.append(row(f"{what}: time", *paired(*sides, rounds), target=1.5))
            sizes = [cache_bytes(out) / 1e6 for out in (whole, dropped)]
            rows.append(row(f"{what}: cache", *sizes, [sizes[0] / sizes[1]], 1.7, "MB"))
    return rows
