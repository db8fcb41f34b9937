"""A tiny language model, prompts for it, and a plain walk with full matrices to compare with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from longtake.core.protocols import DropPoint, PositionRule
from longtake.core.reduction import Reduction
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.nn.language.walk import WalkInput

WIDTH, DEPTH = 32, 4
SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}


@dataclasses.dataclass(frozen=True)
class FirstLook:
    """Drops by attention before the first layer already, and keeps the tokens that are attended least."""

    def schedule(self, num_layers: int, num_tokens: int) -> Mapping[int, int]:
        return {0: max(1, num_tokens // 2), num_layers - 1: max(1, num_tokens // 4)}

    def needs_attention(self, stage: int) -> bool:
        return True

    def __call__(self, point: DropPoint, attention: Callable[[], Float[Tensor, "N"]]) -> Reduction:
        return Reduction.keep(attention().topk(point.keep, largest=False).indices.sort().values, point.num_tokens)


def drop(kind: str) -> ProgressiveDrop:
    return ProgressiveDrop.from_dict({"kind": kind, "layers": [1, 2, 3], "ratios": [1.0, 0.7, 0.45, 0.2]})


REDUCERS: dict[str, Any] = {
    "none": None,
    "uniform": drop("uniform"),
    "attention": drop("attention"),
    "uniform0_attention": drop("uniform0_attention"),
    "uniform1_attention": drop("uniform1_attention"),
    "lp_comp": LpComp(tokens_per_frame=4),
    "before_the_first_layer": FirstLook(),
}


def language(family: str = "qwen2", seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """Weights are large enough for attention to be far from even, and small enough to keep rounding errors small."""
    model = Qwen2Model(Qwen2Config(**SHAPE)) if family == "qwen2" else LlamaModel(LlamaConfig(**SHAPE))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.1 if parameter.ndim == 1 else 0.15
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + float("norm" in name))
    return model.eval().to(dtype)


def prompts(shapes: list[tuple[int, int, int]], seed: int = 0) -> WalkInput:
    """Make a batch from (text before, visual tokens, text after); padding is filled with large numbers."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [sum(shape) for shape in shapes]
    embeds = torch.full((len(shapes), max(lengths), WIDTH), 1e3)
    mask = torch.zeros(embeds.shape[:2], dtype=torch.bool)
    for sample, length in enumerate(lengths):
        embeds[sample, :length] = torch.randn(length, WIDTH, generator=generator)
        mask[sample, :length] = True
    return WalkInput(embeds, mask, [shape[0] for shape in shapes], [shape[1] for shape in shapes])


def alone(inputs: WalkInput, sample: int) -> WalkInput:
    """Return one sample of a batch without its padding."""
    length = int(inputs.mask[sample].sum())
    rows = None if inputs.score_rows is None else [inputs.score_rows[sample]]
    return WalkInput(
        inputs.embeds[sample : sample + 1, :length],
        inputs.mask[sample : sample + 1, :length],
        [inputs.visual_start[sample]],
        [inputs.num_visual[sample]],
        rows,
    )


@dataclasses.dataclass
class PlainWalk:
    """What the plain walk returns: the final hidden states [L, D], the original rows left, and scores by stage."""

    hidden: Tensor
    kept: Tensor
    scores: dict[int, Tensor]


def plain_walk(
    model: Any, inputs: WalkInput, reducer: Any, rule: PositionRule, rows_of: Callable[[Tensor], list[int]]
) -> PlainWalk:
    """Walk one sample through transformers' own layers, with a square mask and square scores.

    rows_of: the rows that rank visual tokens, from the original rows that are left.
    """
    hidden, start, alive = inputs.embeds, inputs.visual_start[0], inputs.num_visual[0]
    kept = torch.arange(hidden.shape[1])
    schedule = dict(reducer.schedule(DEPTH, alive)) if reducer else {}
    scores: dict[int, Tensor] = {}
    for index in range(DEPTH + 1):
        positions = kept if rule == "keep" else torch.arange(len(kept))
        stage = sorted(schedule).index(index) if index in schedule else None
        rows = rows_of(kept)
        if stage is not None and (rows or not reducer.needs_attention(stage)):
            if reducer.needs_attention(stage):
                square = _square(model, model.layers[index], hidden, positions)
                scores[stage] = square[rows, start : start + alive].mean(0)
            point = DropPoint(stage, index, DEPTH, inputs.num_visual[0], alive, schedule[index])
            chosen = reducer(point, lambda stage=stage: scores[stage]).kept + start
            left = torch.cat([torch.arange(start), chosen, torch.arange(start + alive, len(kept))])
            hidden, kept, alive = hidden[:, left], kept[left], schedule[index]
            positions = kept if rule == "keep" else torch.arange(len(kept))
        if index < DEPTH:
            forbidden = torch.full((len(kept), len(kept)), float("-inf")).triu(1)[None, None]
            rotation = model.rotary_emb(hidden, positions[None])
            out = model.layers[index](hidden, attention_mask=forbidden, position_embeddings=rotation)
            hidden = out[0] if isinstance(out, tuple) else out
    return PlainWalk(model.norm(hidden)[0], kept, scores)


def _square(model: Any, layer: Any, hidden: Tensor, positions: Tensor) -> Tensor:
    """Return the whole attention [L, L] of a layer, averaged over heads."""
    normed = layer.input_layernorm(hidden)[0]
    cos, sin = (part[0] for part in model.rotary_emb(hidden, positions[None]))
    width = layer.self_attn.head_dim
    query, key = (
        _turn(projection(normed).unflatten(-1, (-1, width)).transpose(0, 1), cos, sin)
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    scores = query @ key.repeat_interleave(len(query) // len(key), 0).mT / width**0.5
    return (scores + torch.full(scores.shape[1:], float("-inf")).triu(1)).softmax(-1).mean(0)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin
