"""Names of PVC's parameters in a checkpoint and here, and the two fused weights: one table that works both ways.

The checkpoint names are InternVL's where they are known. Those of the temporal layers and of the compressor's
conditioning are unknown; the names used for them are ours (convert/pvc_roles.py finds what stands for them in a file).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaConfig
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, ConversionOps, WeightConverter, WeightRenaming

_LAYER, _OURS = "vision_model.encoder.layers.#.", "vision.layer.#."
_TEXT, _LLAMA = "language_model.model.layers.#.", "language.layers.#."
# Checkpoint name or its beginning, ours; # stands for the number of a layer. No rule is the beginning of another.
RULES: tuple[tuple[str, str], ...] = (
    ("vision_model.embeddings.class_embedding", "vision.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "vision.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding", "vision.embeddings.patch_embeddings.projection"),
    (_LAYER + "attn.qkv", _OURS + "attention.qkv"),
    (_LAYER + "attn.proj", _OURS + "attention.projection_layer"),
    (_LAYER + "attn.q_norm", _OURS + "attention.q_norm"),
    (_LAYER + "attn.k_norm", _OURS + "attention.k_norm"),
    (_LAYER + "norm1", _OURS + "layernorm_before"),
    (_LAYER + "norm2", _OURS + "layernorm_after"),
    (_LAYER + "ls1", _OURS + "lambda_1"),
    (_LAYER + "ls2", _OURS + "lambda_2"),
    (_LAYER + "mlp", _OURS + "mlp"),
    (_LAYER + "temporal", _OURS + "temporal"),
    ("vision_model.time", "vision.time"),
    ("mlp1.time", "compressor.time"),
    ("mlp1.adaln", "compressor.adaln"),
    ("mlp1.norm", "compressor.norm"),
    ("mlp1.fc1", "projector.mlp.0"),
    ("mlp1.fc2", "projector.mlp.2"),
    ("language_model.model.tok_embeddings", "language.embed_tokens"),
    (_TEXT + "attention.wqkv", _LLAMA + "self_attn.wqkv"),
    (_TEXT + "attention.wo", _LLAMA + "self_attn.o_proj"),
    (_TEXT + "feed_forward.w1", _LLAMA + "mlp.gate_proj"),
    (_TEXT + "feed_forward.w3", _LLAMA + "mlp.up_proj"),
    (_TEXT + "feed_forward.w2", _LLAMA + "mlp.down_proj"),
    (_TEXT + "attention_norm", _LLAMA + "input_layernorm"),
    (_TEXT + "ffn_norm", _LLAMA + "post_attention_layernorm"),
    ("language_model.model.norm", "language.norm"),
    ("language_model.output", "lm_head"),
)
_PARTS = ("q_proj", "k_proj", "v_proj")
_FUSED = re.compile(r"(.*\.(?:attention|self_attn)\.)(qkv|wqkv)(\..*)?")
_SPLIT = re.compile(r"(.*\.)(attention|self_attn)\.(q_proj|k_proj|v_proj)(\..*)?")


def _pattern(name: str) -> str:
    return "^" + re.escape(name).replace(r"\#", r"(\d+)")


def _renamer(rules: tuple[tuple[str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(_pattern(old) + r"(?!\w)"), new.replace("#", r"\1")) for old, new in rules]


_TO_OURS = _renamer(RULES)
_TO_RELEASED = _renamer(tuple((ours, released) for released, ours in RULES))


def _rename(name: str, renamer: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, new in renamer:
        renamed, count = pattern.subn(new, name)
        if count:
            return renamed
    return name


def to_released(name: str) -> str:
    """Translate one of our parameter names to the checkpoint's; parts of a fused weight share its name."""
    part = _SPLIT.fullmatch(name)
    if part is not None:
        fused = "wqkv" if part[2] == "self_attn" else "qkv"
        name = f"{part[1]}{part[2]}.{fused}{part[4] or ''}"
    return _rename(name, _TO_RELEASED)


def split_wqkv(packed: Float[Tensor, "R *rest"], text: LlamaConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Take InternLM2's packed attention weight, or bias, apart into query, key and value rows.

    For each group of heads that share a key: its query heads, the key head, the value head.
    """
    heads, groups = text.num_attention_heads, text.num_key_value_heads or text.num_attention_heads
    grouped = packed.unflatten(0, (groups, heads // groups + 2, -1))
    query, key, value = grouped.split([heads // groups, 1, 1], dim=1)
    return query.flatten(0, 2).contiguous(), key.flatten(0, 2).contiguous(), value.flatten(0, 2).contiguous()


def join_wqkv(query: Tensor, key: Tensor, value: Tensor, text: LlamaConfig) -> Float[Tensor, "R *rest"]:
    """Pack query, key and value rows as InternLM2 stores them: the inverse of `split_wqkv`."""
    groups = text.num_key_value_heads or text.num_attention_heads
    heads = text.num_attention_heads // groups
    query, key, value = (
        part.unflatten(0, (groups, count, -1)) for part, count in ((query, heads), (key, 1), (value, 1))
    )
    return torch.cat([query, key, value], dim=1).flatten(0, 2)


def state_to_ours(state: Mapping[str, Tensor], text: LlamaConfig) -> dict[str, Tensor]:
    """Translate a state dict from checkpoint names, fused weights taken apart; other names stay as they are."""
    ours: dict[str, Tensor] = {}
    for released, value in state.items():
        name = _rename(released, _TO_OURS)
        fused = _FUSED.fullmatch(name)
        if fused is None:
            ours[name] = value
            continue
        parts = value.chunk(3) if fused[2] == "qkv" else split_wqkv(value, text)
        ours |= {f"{fused[1]}{part}{fused[3] or ''}": rows for part, rows in zip(_PARTS, parts, strict=True)}
    return ours


def state_to_released(state: Mapping[str, Tensor], text: LlamaConfig) -> dict[str, Tensor]:
    """Translate a state dict to checkpoint names, fused weights put together: the inverse of `state_to_ours`."""
    released: dict[str, Tensor] = {}
    for name, value in state.items():
        part = _SPLIT.fullmatch(name)
        if part is None:
            released[to_released(name)] = value
        elif part[3] == "q_proj":
            rest = f"{part[1]}{part[2]}."
            query, key, values = (state[f"{rest}{kind}{part[4] or ''}"] for kind in _PARTS)
            joined = join_wqkv(query, key, values, text) if part[2] == "self_attn" else torch.cat([query, key, values])
            released[to_released(name)] = joined
    return released


class SplitWqkv(ConversionOps):
    """`split_wqkv` for transformers' own loading of checkpoints."""

    def convert(self, input_dict: Any, source_patterns: Any, target_patterns: Any, config: Any = None, **_: Any) -> Any:
        """Return query, key and value under their target names."""
        (packed,) = input_dict.values()
        packed = packed[0] if isinstance(packed, list) else packed
        return dict(zip(target_patterns, split_wqkv(packed, config.get_text_config()), strict=True))

    @property
    def reverse_op(self) -> ConversionOps:
        """Return the way back."""
        return JoinWqkv()


class JoinWqkv(ConversionOps):
    """`join_wqkv` for transformers' own saving of checkpoints."""

    def convert(self, input_dict: Any, source_patterns: Any, target_patterns: Any, config: Any = None, **_: Any) -> Any:
        """Return the packed weight under its target name."""
        parts = [input_dict[name] for name in source_patterns]
        query, key, value = (part[0] if isinstance(part, list) else part for part in parts)
        return {target_patterns[0]: join_wqkv(query, key, value, config.get_text_config())}

    @property
    def reverse_op(self) -> ConversionOps:
        """Return the way back."""
        return SplitWqkv()


def register_pvc_names(*names: str) -> None:
    """Tell transformers about the names, under class names or model types; may be called twice."""
    mapping: list[WeightConverter | WeightRenaming] = [
        WeightRenaming(_pattern(released), _pattern(ours)) for released, ours in RULES
    ]
    mapping += [
        WeightConverter("attention.qkv", [f"attention.{part}" for part in _PARTS], [Chunk(0)]),
        WeightConverter("self_attn.wqkv", [f"self_attn.{part}" for part in _PARTS], [SplitWqkv()]),
    ]
    for name in names:
        register_checkpoint_conversion_mapping(name, mapping, overwrite=True)
