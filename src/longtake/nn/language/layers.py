"""One decoder layer at a time, through the parts that every Llama-like layer of transformers has."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from longtake.nn.language.cache import LayerCache
from longtake.ops.attention import rows_attention

# A transformers model with embed_tokens, layers, norm and rotary_emb, as all Llama-like ones have; and one of its
# layers, with input_layernorm, self_attn.{q,k,v,o}_proj, post_attention_layernorm and mlp. torch types attributes of
# modules as Tensor or Module, which would only hide mistakes under casts.
LanguageModel = Any
DecoderLayer = Any


class Rotation(NamedTuple):
    """Cosines and sines [B, L, d] of the rotary embedding at some positions."""

    cos: Tensor
    sin: Tensor


def rotation_at(language: LanguageModel, like: Tensor, positions: Int64[Tensor, "B L"]) -> Rotation:
    """Return the rotation at these positions, made by the model's own rotary embedding, in the dtype of `like`."""
    return Rotation(*language.rotary_emb(like, positions))


def project_heads(layer: DecoderLayer, normed: Float[Tensor, "B L D"], name: str) -> Float[Tensor, "B heads L d"]:
    """Apply a layer's q_proj, k_proj or v_proj and split the result into heads."""
    attention = layer.self_attn
    out = getattr(attention, name)(normed)
    return out.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)


def chunk_mask(num_queries: int, num_keys: int, device: torch.device) -> Bool[Tensor, "n L"]:
    """Let each of the last `num_queries` rows see the keys up to itself."""
    last = torch.arange(num_keys - num_queries, num_keys, device=device).unsqueeze(1)
    return torch.arange(num_keys, device=device) <= last


def run_layer(
    layer: DecoderLayer,
    hidden: Float[Tensor, "B L D"],
    rotation: Rotation,
    cache: LayerCache | None,
    *,
    start: int = 0,
    total: int | None = None,
) -> Float[Tensor, "B L D"]:
    """Run one decoder layer over rows `start` onwards of a prefill of `total` rows.

    Padding stands on the right, so causality alone hides it. A whole prefill needs no mask; a later chunk needs one
    of its own rows by the keys so far.
    """
    hidden = hidden + _prefill_attention(layer, layer.input_layernorm(hidden), rotation, cache, start, total)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _prefill_attention(
    layer: DecoderLayer, normed: Tensor, rotation: Rotation, cache: LayerCache | None, start: int, total: int | None
) -> Tensor:
    query, key = _rotated(layer, normed, rotation)
    value = project_heads(layer, normed, "v_proj")
    if cache is not None:
        key, value = cache.write(key, value, start, normed.shape[1] if total is None else total)
    mask = None if start == 0 else chunk_mask(query.shape[2], key.shape[2], normed.device)
    return _attend(layer, query, key, value, mask, causal=start == 0)


def extend_layer(
    layer: DecoderLayer, hidden: Float[Tensor, "B n D"], rotation: Rotation, cache: LayerCache
) -> Float[Tensor, "B n D"]:
    """Run one decoder layer over tokens that follow everything in its cache."""
    hidden = hidden + _extend_attention(layer, layer.input_layernorm(hidden), rotation, cache)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _extend_attention(layer: DecoderLayer, normed: Tensor, rotation: Rotation, cache: LayerCache) -> Tensor:
    query, key = _rotated(layer, normed, rotation)
    before = torch.tensor(cache.lengths, device=normed.device)
    key, value = cache.append(key, project_heads(layer, normed, "v_proj"))
    count = normed.shape[1]
    mask = None
    if count > 1 or bool((before != before[0]).any()):
        last = before[:, None, None, None] + torch.arange(count, device=normed.device).unsqueeze(-1)
        mask = torch.arange(key.shape[2], device=normed.device) <= last  # [B, 1, n, L]
    return _attend(layer, query, key, value, mask, causal=False)


def _rotated(layer: DecoderLayer, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    query, key = (project_heads(layer, normed, name) for name in ("q_proj", "k_proj"))
    return apply_rotary_pos_emb(query, key, *rotation)


def _attend(
    layer: DecoderLayer, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool
) -> Tensor:
    """Attend with grouped keys and values; the scale is 1/sqrt(d), as every Llama-like layer has it."""
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=True)
    return layer.self_attn.o_proj(out.transpose(1, 2).flatten(2))


def score_rows(
    layer: DecoderLayer, hidden: Float[Tensor, "L D"], rotation: Rotation, rows: list[int], visual: slice
) -> Float[Tensor, "N"]:
    """Return the attention of some rows over the visual tokens, made with the weights of a layer that has not run.

    hidden holds one sample without padding; rotation is its own, [1, L, d]. The mean is over heads, then rows.

    Source: VideoChat-Flash, attention-type visual dropout: one query row at inference, one per answer in training.
    """
    where = torch.tensor(rows, device=hidden.device)
    normed = layer.input_layernorm(hidden.unsqueeze(0))
    cos, sin = rotation
    key = project_heads(layer, normed, "k_proj")
    _, key = apply_rotary_pos_emb(key, key, cos, sin)
    query = project_heads(layer, normed[:, where], "q_proj")
    query, _ = apply_rotary_pos_emb(query, query, cos[:, where], sin[:, where])
    attention = rows_attention(query[0], key[0], where, layer.self_attn.scaling)
    return attention[:, visual].mean(0)


def last_row_attention(
    layer: DecoderLayer, entering: Float[Tensor, "D"], keys: Float[Tensor, "G L d"], rotation: Rotation
) -> Float[Tensor, "L"]:
    """Return the attention of a sequence's last token over all of it in one layer, averaged over heads.

    entering: the token's state as it enters the layer; keys: the layer's own cached keys, rotated; rotation: at the
    token's position, [1, 1, d].
    """
    query = project_heads(layer, layer.input_layernorm(entering)[None, None], "q_proj")
    query, _ = apply_rotary_pos_emb(query, query, *rotation)
    rows = torch.tensor([keys.shape[1] - 1], device=keys.device)
    return rows_attention(query[0], keys, rows, layer.self_attn.scaling)[0]
