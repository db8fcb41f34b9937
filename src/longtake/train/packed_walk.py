"""Samples behind one another without padding: everything but attention runs over one row of tokens.

Attention runs sample by sample, so no token sees another sample and no mask is made. Drops between layers, moved
labels and positions are those of `nn.language.walk.prefill`, which tests/train/test_packed_walk.py compares with.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from longtake.core.chat import IGNORE_LABEL
from longtake.core.protocols import DropPoint, LayerCompressor
from longtake.models.splice import Spliced
from longtake.nn.language.layers import DecoderLayer, LanguageModel, Rotation, project_heads, rotation_at, score_rows
from longtake.nn.language.walk import answer_rows


@dataclasses.dataclass(eq=False)
class PackedRow:
    """Samples in one row. hidden: [N, D]. labels: [N]. The lists hold a number for each sample."""

    hidden: Tensor
    labels: Tensor
    lengths: list[int]
    visual_start: list[int]
    num_visual: list[int]

    @classmethod
    def of(cls, samples: Sequence[Spliced]) -> PackedRow:
        """Put samples, spliced one by one and with labels, behind one another."""
        labels = [sample.labels for sample in samples if sample.labels is not None]
        return cls(
            hidden=torch.cat([sample.embeds[0] for sample in samples]),
            labels=torch.cat(labels, dim=1)[0],
            lengths=[sample.embeds.shape[1] for sample in samples],
            visual_start=[sample.visual_start[0] for sample in samples],
            num_visual=[sample.num_visual[0] for sample in samples],
        )

    def rotation(self, language: LanguageModel) -> Rotation:
        """Return the rotation at positions that count from 0 in every sample."""
        positions = torch.cat([torch.arange(n, device=self.hidden.device) for n in self.lengths]).unsqueeze(0)
        return rotation_at(language, self.hidden.unsqueeze(0), positions)

    def targets(self) -> Int64[Tensor, "N"]:
        """Return the next label of each token; the last token of a sample has none."""
        rows = [F.pad(labels[1:], (0, 1), value=IGNORE_LABEL) for labels in self.labels.split(self.lengths)]
        return torch.cat(rows)


def packed_layer(
    layer: DecoderLayer, hidden: Float[Tensor, "N D"], cos: Tensor, sin: Tensor, lengths: list[int]
) -> Float[Tensor, "N D"]:
    """Run one decoder layer over samples behind one another."""
    normed = layer.input_layernorm(hidden).unsqueeze(0)
    query, key, value = (project_heads(layer, normed, name) for name in ("q_proj", "k_proj", "v_proj"))
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    samples = zip(*(heads.split(lengths, dim=2) for heads in (query, key, value)), strict=True)
    attended = [F.scaled_dot_product_attention(*sample, is_causal=True, enable_gqa=True) for sample in samples]
    joined = torch.cat(attended, dim=2).transpose(1, 2).flatten(2)
    hidden = hidden + layer.self_attn.o_proj(joined)[0]
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def packed_prefill(
    language: LanguageModel, row: PackedRow, reducer: LayerCompressor | None = None, *, checkpointing: bool = False
) -> PackedRow:
    """Run all layers and the final norm, dropping visual tokens where the reducer says so.

    checkpointing: keep only what enters a layer, and run the layer again on the way back.
    """
    row = dataclasses.replace(row, lengths=list(row.lengths), num_visual=list(row.num_visual))
    depth = len(language.layers)
    original = list(row.num_visual)
    schedules = [dict(reducer.schedule(depth, n)) if reducer and n else {} for n in original]
    rows = [answer_rows(labels) for labels in row.labels.split(row.lengths)]
    rotation = None
    for number in range(depth + 1):
        if reducer is not None and any(number in schedule for schedule in schedules):
            _drop(language, row, number, schedules, original, rows, reducer)
            rotation = None
        if number == depth:
            break
        rotation = row.rotation(language) if rotation is None else rotation
        given = (language.layers[number], row.hidden, rotation.cos, rotation.sin, row.lengths)
        row.hidden = checkpoint(packed_layer, *given, use_reentrant=False) if checkpointing else packed_layer(*given)
    row.hidden = language.norm(row.hidden)
    return row


def _drop(
    language: LanguageModel,
    row: PackedRow,
    after: int,
    schedules: list[dict[int, int]],
    original: list[int],
    rank_rows: list[list[int]],
    reducer: LayerCompressor,
) -> None:
    """Drop visual tokens after layer number `after` and close the gaps."""
    kept = []
    rows = torch.arange(len(row.hidden), device=row.hidden.device).split(row.lengths)
    for sample, (schedule, own) in enumerate(zip(schedules, rows, strict=True)):
        stage = sorted(schedule).index(after) if after in schedule else None
        if stage is not None and (rank_rows[sample] or not reducer.needs_attention(stage)):
            start, count, keep = row.visual_start[sample], row.num_visual[sample], schedule[after]
            end, ranks = start + count, rank_rows[sample]
            point = DropPoint(stage, after, len(language.layers), original[sample], count, keep)
            score = functools.partial(_scores, language, row.hidden, own, after, ranks, slice(start, end))
            chosen = reducer(point, score).kept.to(own.device) + start
            own = torch.cat([own[:start], own[chosen], own[end:]])
            row.num_visual[sample] = keep
            # As the walk has it: the row right before an answer ranks, also where that is the block's last token.
            rank_rows[sample] = [rank - (count - keep) if rank >= end - 1 else rank for rank in ranks]
        kept.append(own)
    where = torch.cat(kept)
    row.hidden, row.labels = row.hidden[where], row.labels[where.to(row.labels.device)]
    row.lengths = [len(own) for own in kept]


@torch.no_grad()
def _scores(
    language: LanguageModel, hidden: Tensor, own: Tensor, after: int, ranks: list[int], visual: slice
) -> Float[Tensor, "N"]:
    """Return the attention of a sample's ranking rows, made with the layer about to run."""
    hidden = hidden[own]
    positions = torch.arange(len(hidden), device=hidden.device).unsqueeze(0)
    rotation = rotation_at(language, hidden.unsqueeze(0), positions)
    return score_rows(language.layers[after], hidden, rotation, ranks, visual)
