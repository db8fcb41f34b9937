"""A drop by attention with one query row, against making the whole matrix: time and memory."""

from __future__ import annotations

import torch

from bench.live_bytes import LiveBytes
from bench.pairs import paired, row
from longtake.ops.attention import rows_attention


def full_matrix(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """What the released code does: every row, with a square mask; then the last row is looked at."""
    length = key.shape[1]
    key = key.repeat_interleave(len(query) // len(key), 0)
    mask = torch.full((length, length), float("-inf")).triu(1)
    attention = (query @ key.mT * scale + mask).softmax(-1, dtype=torch.float32)
    return attention.mean(0)[-1]


def run(quick: bool) -> list[dict]:
    torch.manual_seed(0)
    rows = []
    for length in (512,) if quick else (1024, 2048, 4096):
        query, key = torch.randn(8, length, 64), torch.randn(2, length, 64)
        last = torch.tensor([length - 1])
        whole = lambda q=query, k=key: full_matrix(q, k, 0.125)  # noqa: E731
        single = lambda q=query, k=key, r=last: rows_attention(q[:, -1:], k, r, 0.125)[0]  # noqa: E731
        torch.testing.assert_close(whole(), single(), atol=1e-6, rtol=1e-4)
        peaks = []
        for side in (whole, single):
            with LiveBytes() as live:
                side()
            peaks.append(live.peak)
        rows.append(row(f"one query row, L = {length}: time", *paired(whole, single, 2 if quick else 7), target=10))
        rows.append(
            row(f"one query row, L = {length}: memory", *(p / 1e6 for p in peaks), [peaks[0] / peaks[1]], 10, "MB")
        )
    return rows
