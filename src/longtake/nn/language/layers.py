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


ROWS_AT_ONCE = 16


class Rotation(NamedTuple):
    """Cosines and sines [B, L, d] of the rotary embedding at some positions."""

    cos: Tensor
    sin: Tensor

    def to(self, device: torch.device) -> Rotation:
        """Return the same on a device."""
        return Rotation(self.cos.to(device), self.sin.to(device))


def rotation_at(language: LanguageModel, like: Tensor, positions: Int64[Tensor, "B L"]) -> Rotation:
    """Return the rotation at these positions, made by the model's own rotary embedding, like `like` otherwise."""
    return Rotation(*language.rotary_emb(like, positions.to(like.device)))


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
    of its own rows by the keys so far. The result is where the layer is, if the model is spread over devices.
    """
    attended = _prefill_attention(layer, layer.input_layernorm(hidden), rotation, cache, start, total)
    hidden = hidden.to(attended.device) + attended
    del attended  # not needed by the second half, which needs the most memory
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


def write_keys(
    layer: DecoderLayer, hidden: Float[Tensor, "B L D"], rotation: Rotation, cache: LayerCache, start: int, total: int
) -> None:
    """Write the keys that rows `start` onwards of a prefill have in a layer, and nothing else of it."""
    key = project_heads(layer, layer.input_layernorm(hidden), "k_proj")
    _, key = apply_rotary_pos_emb(key, key, *rotation.to(key.device))
    cache.write_keys(key, start, total)


def extend_mask(before: list[int], count: int, like: Tensor) -> Float[Tensor, "B 1 n L"] | None:
    """Let each of `count` new rows see its sample's own `before` rows and the new ones up to itself; none if it is all.

    It is added to the scores: zero or minus infinity, in the dtype and on the device of `like`.
    """
    if count == 1 and len(set(before)) == 1:  # plain numbers: asking the device would wait for it in every layer
        return None
    ends = torch.tensor(before, device=like.device)
    last = ends[:, None, None, None] + torch.arange(count, device=like.device).unsqueeze(-1)
    hidden = torch.arange(max(before) + count, device=like.device) > last
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))


def extend_layer(
    layer: DecoderLayer, hidden: Float[Tensor, "B n D"], rotation: Rotation, cache: LayerCache, mask: Tensor | None
) -> Float[Tensor, "B n D"]:
    """Run one decoder layer over tokens that follow everything in its cache; mask: that of `extend_mask`."""
    attended = _extend_attention(layer, layer.input_layernorm(hidden), rotation, cache, mask)
    hidden = hidden.to(attended.device) + attended
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _extend_attention(
    layer: DecoderLayer, normed: Tensor, rotation: Rotation, cache: LayerCache, mask: Tensor | None
) -> Tensor:
    query, key = _rotated(layer, normed, rotation)
    key, value = cache.append(key, project_heads(layer, normed, "v_proj"))
    return _attend(layer, query, key, value, None if mask is None else mask.to(query.device), causal=False)


def _rotated(layer: DecoderLayer, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    query, key = (project_heads(layer, normed, name) for name in ("q_proj", "k_proj"))
    return apply_rotary_pos_emb(query, key, *rotation.to(key.device))


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
    normed = layer.input_layernorm(hidden.unsqueeze(0))
    key = project_heads(layer, normed, "k_proj")
    cos, sin = rotation.to(key.device)
    _, key = apply_rotary_pos_emb(key, key, cos, sin)
    total = torch.zeros(visual.stop - visual.start, dtype=torch.float32, device=key.device)
    # Training text may hold as many answers as it has lines, so rows are read a few at a time.
    for where in torch.tensor(rows, device=key.device).split(ROWS_AT_ONCE):
        query = project_heads(layer, normed[:, where], "q_proj")
        query, _ = apply_rotary_pos_emb(query, query, cos[:, where], sin[:, where])
        total += rows_attention(query[0], key[0], where, layer.self_attn.scaling)[:, visual].sum(0, dtype=torch.float32)
    return (total / len(rows)).to(key.dtype)


def last_row_attention(
    layer: DecoderLayer, entering: Float[Tensor, "D"], keys: Float[Tensor, "G L d"], rotation: Rotation
) -> Float[Tensor, "L"]:
    """Return the attention of a sequence's last token over all of it in one layer, averaged over heads.

    entering: the token's state as it enters the layer; keys: the layer's own cached keys, rotated; rotation: at the
    token's position, [1, 1, d].
    """
    query = project_heads(layer, layer.input_layernorm(entering)[None, None], "q_proj")
    query, _ = apply_rotary_pos_emb(query, query, *rotation.to(query.device))
    rows = torch.tensor([keys.shape[1] - 1], device=keys.device)
    return rows_attention(query[0], keys, rows, layer.self_attn.scaling)[0]
