"""One step of several answers in one forward: their linear layers together, their attention each over its own cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from longtake.nn.language.cache import RaggedCache
from longtake.nn.language.layers import DecoderLayer, LanguageModel, Rotation, project_heads, rotation_at


def own_copy(cache: RaggedCache, room: int) -> RaggedCache:
    """Copy the cache of one prompt, with room for so many tokens more, so that it can outlive a shared beginning."""
    copied = RaggedCache(len(cache.layers), list(cache.written), cache.position_rule)
    for old, new in zip(cache.layers, copied.layers, strict=True):
        assert old.keys is not None and old.values is not None, "a cache without a prefill"
        length = old.lengths[0]
        shape = (1, old.keys.shape[1], length + room, old.keys.shape[3])
        new.keys, new.values, new.lengths = old.keys.new_empty(shape), old.values.new_empty(shape), [length]
        new.keys[:, :, :length], new.values[:, :, :length] = old.keys[:, :, :length], old.values[:, :, :length]
    return copied


def next_positions(caches: Sequence[RaggedCache], layer: int, device: torch.device) -> Int64[Tensor, "B 1"]:
    """Return the position of the next token of each answer in a layer."""
    ends = [
        cache.layers[layer].lengths[0] if cache.position_rule == "renumber" else cache.written[0] for cache in caches
    ]
    return torch.tensor(ends, device=device).unsqueeze(1)


@torch.no_grad()
def decode_together(
    language: LanguageModel, embeds: Float[Tensor, "B 1 D"], caches: Sequence[RaggedCache]
) -> Float[Tensor, "B 1 D"]:
    """Run one new token of each answer; return the hidden states after the final norm.

    Each cache holds one answer, of any length in any layer; nothing is padded. The result equals one step each up to
    the rounding of larger matrix products.
    """
    hidden, rotations = embeds, dict[tuple[int, ...], Rotation]()
    for index, layer in enumerate(language.layers):
        positions = next_positions(caches, index, embeds.device)
        key = tuple(positions[:, 0].tolist())
        if key not in rotations:
            rotations[key] = rotation_at(language, hidden, positions)
        hidden = _run(layer, index, hidden, rotations[key], caches)
    for cache in caches:
        cache.written = [written + 1 for written in cache.written]
    return language.norm(hidden)


def _run(layer: DecoderLayer, index: int, hidden: Tensor, rotation: Rotation, caches: Sequence[RaggedCache]) -> Tensor:
    normed = layer.input_layernorm(hidden)
    query, key, value = (project_heads(layer, normed, name) for name in ("q_proj", "k_proj", "v_proj"))
    query, key = apply_rotary_pos_emb(query, key, *rotation.to(key.device))  # [B, heads, 1, d]
    attended = []
    for row, cache in enumerate(caches):
        own = slice(row, row + 1)
        keys, values = cache.layers[index].append(key[own], value[own])
        attended.append(F.scaled_dot_product_attention(query[own], keys, values, enable_gqa=True))
    out = layer.self_attn.o_proj(torch.cat(attended).transpose(1, 2).flatten(2))
    hidden = hidden.to(out.device) + out
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))
