"""Attention of a few query rows: never a square of the sequence."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def rows_attention(
    query: Float[Tensor, "heads Q d"],
    key: Float[Tensor, "groups L d"],
    rows: Int64[Tensor, "Q"],
    scale: float,
) -> Float[Tensor, "Q L"]:
    """Return causal softmax attention of the query rows over all keys, averaged over heads.

    rows[i] is the place of query i in the sequence: it sees the keys up to itself. The softmax runs in float32 and is
    cast back to the dtype of the keys before the heads are averaged, as the released code does. Memory is
    heads x Q x L.
    """
    groups, length = key.shape[0], key.shape[1]
    query = query.unflatten(0, (groups, -1))  # [groups, heads per group, Q, d]
    scores = torch.einsum("ghqd,gld->ghql", query, key) * scale
    hidden = torch.arange(length, device=key.device) > rows.unsqueeze(-1)  # [Q, L]
    scores = scores.masked_fill(hidden, float("-inf"))
    attention = scores.softmax(-1, dtype=torch.float32).to(key.dtype)
    return attention.mean(dim=(0, 1))
