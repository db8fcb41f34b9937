"""A drop by attention with one query row, against making the whole matrix: time and memory.

Both sides start from the hidden states that enter a layer. Memory is the most bytes of tensors alive at one moment
(bench.live_bytes), weights and hidden states not counted.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from bench.live_bytes import LiveBytes
from bench.pairs import paired, row
from longtake.nn.language.layers import project_heads, rotation_at, score_rows

WIDTH, HEADS, TEXT = 256, 4, 32


def one_layer() -> Any:
    shape = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "vocab_size": 8}
    return Qwen2Model(Qwen2Config(**shape, num_attention_heads=HEADS, num_key_value_heads=2, initializer_range=0.2))


def full_matrix(model: Any, hidden: torch.Tensor, visual: slice) -> torch.Tensor:
    """What the released code does: queries of every row, a square mask, a square softmax; then one row is read."""
    layer, length = model.layers[0], len(hidden)
    normed = layer.input_layernorm(hidden[None])
    query, key = (project_heads(layer, normed, name) for name in ("q_proj", "k_proj"))
    query, key = apply_rotary_pos_emb(query, key, *rotation_at(model, hidden, torch.arange(length)[None]))
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    mask = torch.full((length, length), float("-inf")).triu(1)
    attention = (query @ key.mT * layer.self_attn.scaling + mask).softmax(-1, dtype=torch.float32)
    return attention[0].mean(0)[-1, visual]


def one_row(model: Any, hidden: torch.Tensor, visual: slice) -> torch.Tensor:
    length = len(hidden)
    rotation = rotation_at(model, hidden, torch.arange(length)[None])
    return score_rows(model.layers[0], hidden, rotation, [length - 1], visual)


def peak_bytes(action: Any) -> int:
    with LiveBytes() as live:
        action()
    return live.peak


@torch.no_grad()
def run(quick: bool) -> list[dict]:
    torch.manual_seed(0)
    model, rows = one_layer(), []
    # Our side is linear in L (keys of every row are needed), the other one square: the gain grows with L.
    for length, rounds, target in ((512, 2, 1),) if quick else ((1024, 9, 3), (4096, 5, 10), (8192, 3, 10)):
        hidden, visual = torch.randn(length, WIDTH), slice(TEXT // 2, length - TEXT // 2)
        sides = [lambda side=side, h=hidden, v=visual: side(model, h, v) for side in (full_matrix, one_row)]
        torch.testing.assert_close(sides[0](), sides[1](), atol=1e-6, rtol=1e-4)
        peaks = [statistics.median(peak_bytes(side) for _ in range(1 if quick else 3)) for side in sides]
        rows.append(row(f"one query row, L = {length}: time", *paired(*sides, rounds), target=target))
        memory = [peaks[0] / peaks[1]]
        rows.append(row(f"one query row, L = {length}: memory", *(p / 1e6 for p in peaks), memory, 3, "MB"))
    return rows
