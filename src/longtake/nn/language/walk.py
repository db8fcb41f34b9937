"""The walk over the layers of a language model: drops between layers, ragged caches, explicit prefill and extend.

Nothing is read from or written to the modules, so two walks over one model cannot disturb each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from longtake.core.chat import IGNORE_LABEL
from longtake.core.errors import ConfigError
from longtake.core.protocols import DropPoint, LayerCompressor, PositionRule
from longtake.core.reduction import Reduction
from longtake.nn.language.cache import RaggedCache
from longtake.nn.language.layers import (
    LanguageModel,
    Rotation,
    extend_layer,
    extend_mask,
    rotation_at,
    run_layer,
    score_rows,
    write_keys,
)


@dataclasses.dataclass(frozen=True, eq=False)
class WalkInput:
    """What a prefill is given.

    embeds: [B, L, D], padded on the right. mask: bool [B, L], true where a token is. visual_start, num_visual: where
    each sample's one block of visual tokens begins and how long it is (0: none). score_rows: rows whose attention
    ranks the visual tokens, per sample; none means the last token, an empty list skips the drops that would rank.
    """

    embeds: Float[Tensor, "B L D"]
    mask: Bool[Tensor, "B L"]
    visual_start: list[int]
    num_visual: list[int]
    score_rows: list[list[int]] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class WalkOutput:
    """What a prefill returns.

    hidden: [B, M, D] after the final norm, padded on the right; mask says where tokens are. reductions and scores
    hold, per sample and stage, the Reduction over the visual tokens alive then and the attention that ranked them.
    kept: per sample, which rows of the input are left. entering_last: [B, D], the state of each sample's last token
    as it enters the last layer, from which that layer's attention can be had.
    """

    hidden: Float[Tensor, "B M D"]
    mask: Bool[Tensor, "B M"]
    reductions: list[dict[int, Reduction]]
    scores: list[dict[int, Tensor]]
    kept: list[Tensor]
    entering_last: Float[Tensor, "B D"]
    cache: RaggedCache | None

    def move_labels(self, labels: Int64[Tensor, "B L"]) -> Int64[Tensor, "B M"]:
        """Carry labels of the input rows to the rows that are left; padding is ignored."""
        moved = labels.new_full(self.mask.shape, IGNORE_LABEL)
        for sample, kept in enumerate(self.kept):
            moved[sample, : len(kept)] = labels[sample, kept.to(labels.device)]
        return moved

    def visual_reduction(self, sample: int, num_visual: int) -> Reduction:
        """Compose the drops of all stages over a sample's visual tokens."""
        total = Reduction.identity(num_visual, self.kept[sample].device)
        for stage in sorted(self.reductions[sample]):
            total = total.then(self.reductions[sample][stage])
        return total


@dataclasses.dataclass(eq=False)
class _State:
    """One prefill under way: everything that a drop has to move lives here.

    hidden is where the last layer was; positions, kept and reductions stay where the input was.
    """

    hidden: Tensor
    lengths: list[int]
    positions: Tensor
    kept: list[Tensor]
    num_visual: list[int]
    score_rows: list[list[int]] | None
    reductions: list[dict[int, Reduction]]
    scores: list[dict[int, Tensor]]
    entering_last: Tensor


def answer_rows(labels: Int64[Tensor, "L"]) -> list[int]:
    """Return the row before each answer span: those that rank visual tokens in training.

    Source: VideoChat-Flash training: label -100 followed by a label that counts.
    """
    counts = labels != IGNORE_LABEL
    return (counts[1:] & ~counts[:-1]).nonzero().flatten().tolist()


def prefill(
    language: LanguageModel,
    inputs: WalkInput,
    *,
    reducer: LayerCompressor | None = None,
    position_rule: PositionRule = "renumber",
    chunk_size: int | None = None,
    use_cache: bool = True,
    num_layers: int | None = None,
    last_keys_only: bool = False,
) -> WalkOutput:
    """Run a prompt through all layers, or the first `num_layers`, dropping visual tokens where the reducer says so.

    Between two drops the layers run over chunks of `chunk_size` rows (all rows at once if none), which bounds the
    memory of activations; the result does not depend on it. Without a cache the walk is differentiable. With
    `last_keys_only` the last layer that is run does no more than write its keys into the cache; `hidden` is then what
    entered it.

    Raises: ConfigError for padding on the left, a visual block or score row outside its sample, or a drop by
        attention after the last layer.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"chunk_size is {chunk_size}; expected at least 1, or none for all rows at once; raise it")
    depth = len(language.layers)
    num_layers = depth if num_layers is None else num_layers
    state = _start(inputs)
    schedules = [dict(reducer.schedule(depth, n)) if reducer and n else {} for n in inputs.num_visual]
    stages = sorted({layer for schedule in schedules for layer in schedule})
    if stages and stages[-1] > depth:
        raise ConfigError(f"a drop after layer {stages[-1]} was asked for; the model has {depth}; lower it")
    stages = [layer for layer in stages if layer < num_layers or layer == depth]
    cache = RaggedCache(num_layers, list(state.lengths), position_rule) if use_cache else None
    borders = [0, *stages, num_layers]
    for index, (first, last) in enumerate(pairwise(borders)):
        if last > first:
            only_keys = last - 1 if last_keys_only and last == num_layers else None
            _run_stretch(language, state, range(first, last), cache, chunk_size, only_keys)
        if index < len(stages) and reducer is not None:
            _drop(language, state, stages[index], schedules, inputs, reducer, position_rule)
    mask = _length_mask(state.lengths, state.hidden.shape[1], state.hidden.device)
    hidden = language.norm(state.hidden)
    return WalkOutput(hidden, mask, state.reductions, state.scores, state.kept, state.entering_last, cache)


def extend(
    language: LanguageModel,
    embeds: Float[Tensor, "B n D"],
    cache: RaggedCache,
    *,
    observe: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "B n D"]:
    """Run tokens that follow everything in the cache; return their hidden states after the final norm.

    The layers that the cache holds are run, but one whose values were never written. observe is told the index of each
    layer (from 0) and the hidden states [B, n, D] that enter it.
    """
    hidden, count = embeds, embeds.shape[1]
    rotations: dict[tuple[int, ...], Rotation] = {}
    masks: dict[tuple[int, ...], Tensor | None] = {}
    for index, layer in enumerate(language.layers[: len(cache.layers)]):
        if observe is not None:
            observe(index, hidden)
        if cache.layers[index].values is None:
            continue
        positions = cache.next_positions(index, count, embeds.device)
        key, before = tuple(positions[:, 0].tolist()), tuple(cache.layers[index].lengths)
        if key not in rotations:
            rotations[key] = rotation_at(language, hidden, positions)
        if before not in masks:  # the same for all layers between two drops
            masks[before] = extend_mask(list(before), count, hidden)
        hidden = extend_layer(layer, hidden, rotations[key], cache.layers[index], masks[before])
    cache.written = [written + count for written in cache.written]
    return language.norm(hidden)


def decode_step(language: LanguageModel, embeds: Float[Tensor, "B 1 D"], cache: RaggedCache) -> Float[Tensor, "B 1 D"]:
    """Run one new token a sample; nothing is dropped."""
    return extend(language, embeds, cache)


def _start(inputs: WalkInput) -> _State:
    lengths = inputs.mask.sum(1).tolist()
    batch, longest = inputs.mask.shape
    device = inputs.embeds.device
    if not torch.equal(inputs.mask, _length_mask(lengths, longest, inputs.mask.device)):
        raise ConfigError("padding arrived on the left or inside a sample; the walk expects it on the right; move it")
    _check_places(inputs, lengths)
    rows = inputs.score_rows
    return _State(
        hidden=inputs.embeds,
        lengths=lengths,
        positions=torch.arange(longest, device=device).expand(batch, -1),
        kept=[torch.arange(length, device=device) for length in lengths],
        num_visual=list(inputs.num_visual),
        score_rows=[list(own) for own in rows] if rows is not None else None,
        reductions=[{} for _ in lengths],
        scores=[{} for _ in lengths],
        entering_last=inputs.embeds[:, -1],
    )


def _check_places(inputs: WalkInput, lengths: list[int]) -> None:
    """Refuse visual blocks and score rows that do not lie inside their samples: a drop would cut other rows."""
    if not len(inputs.visual_start) == len(inputs.num_visual) == len(lengths):
        raise ConfigError(
            f"{len(inputs.visual_start)} visual starts and {len(inputs.num_visual)} visual counts arrived for "
            f"{len(lengths)} samples; expected one of each a sample; pass 0 where there is no visual"
        )
    if inputs.score_rows is not None and len(inputs.score_rows) != len(lengths):
        raise ConfigError(
            f"{len(inputs.score_rows)} lists of score_rows arrived for {len(lengths)} samples; expected one a sample; "
            "pass an empty list for a sample without an answer"
        )
    for sample, (start, count, length) in enumerate(zip(inputs.visual_start, inputs.num_visual, lengths, strict=True)):
        if count and not 0 <= start <= start + count <= length:
            raise ConfigError(
                f"the visual block of sample {sample} is rows {start} to {start + count} of {length}; expected it "
                "inside the sample; check visual_start and num_visual"
            )
        for row in inputs.score_rows[sample] if inputs.score_rows is not None else ():
            if not 0 <= row < length:
                raise ConfigError(
                    f"score_rows of sample {sample} name row {row} of {length}; expected rows inside the sample; "
                    "number them from 0 in the padded batch"
                )


def _length_mask(lengths: list[int], longest: int, device: torch.device) -> Bool[Tensor, "B L"]:
    return torch.arange(longest, device=device) < torch.tensor(lengths, device=device).unsqueeze(1)


def _run_stretch(
    language: LanguageModel,
    state: _State,
    layers: range,
    cache: RaggedCache | None,
    chunk_size: int | None,
    only_keys: int | None = None,
) -> None:
    """Run consecutive layers between two drops, chunk by chunk when there is a cache to read from.

    only_keys: a layer of which nothing but its keys is wanted.
    """
    total = state.hidden.shape[1]
    if cache is not None:
        for index in layers:
            cache.layers[index].lengths = list(state.lengths)
    size = chunk_size if chunk_size and cache is not None else total
    done = []
    for start in range(0, total, size):
        rows = slice(start, min(start + size, total))
        hidden = state.hidden[:, rows]
        rotation = rotation_at(language, hidden, state.positions[:, rows])
        for index in layers:
            if index == len(language.layers) - 1:
                _note_last_rows(state, hidden, start)
            layer_cache = cache.layers[index] if cache is not None else None
            if index == only_keys:
                assert layer_cache is not None, "keys alone are wanted, and there is no cache to write them into"
                write_keys(language.layers[index], hidden, rotation, layer_cache, start, total)
                continue
            hidden = run_layer(language.layers[index], hidden, rotation, layer_cache, start=start, total=total)
        done.append(hidden)
    state.hidden = done[0] if len(done) == 1 else torch.cat(done, dim=1)


def _note_last_rows(state: _State, hidden: Tensor, start: int) -> None:
    """Keep the rows of this chunk that are the last of their samples."""
    last = torch.tensor(state.lengths, device=hidden.device) - 1 - start
    here = (last >= 0) & (last < hidden.shape[1])
    rows = hidden[torch.arange(len(last), device=hidden.device), last.clamp(0, hidden.shape[1] - 1)]
    state.entering_last = torch.where(here.unsqueeze(1), rows, state.entering_last.to(hidden.device))


def _drop(
    language: LanguageModel,
    state: _State,
    after: int,
    schedules: list[dict[int, int]],
    inputs: WalkInput,
    reducer: LayerCompressor,
    position_rule: PositionRule,
) -> None:
    """Drop visual tokens after layer number `after` and repack the batch."""
    rows_left = []
    for sample, schedule in enumerate(schedules):
        rows = torch.arange(state.lengths[sample], device=inputs.embeds.device)
        stage = sorted(schedule).index(after) if after in schedule else None
        can_rank = state.score_rows is None or bool(state.score_rows[sample])
        if stage is not None and (can_rank or not reducer.needs_attention(stage)):
            point = DropPoint(
                stage=stage,
                after_layer=after,
                num_layers=len(language.layers),
                num_original=inputs.num_visual[sample],
                num_tokens=state.num_visual[sample],
                keep=schedule[after],
            )
            rows = _drop_sample(language, state, sample, point, inputs.visual_start[sample], reducer)
        rows_left.append(rows)
    _repack(state, rows_left, position_rule)


def _drop_sample(
    language: LanguageModel, state: _State, sample: int, point: DropPoint, start: int, reducer: LayerCompressor
) -> Tensor:
    """Choose which rows of one sample stay, and write down why."""
    length, device = state.lengths[sample], state.kept[sample].device
    after, end = point.after_layer, start + point.num_tokens
    if reducer.needs_attention(point.stage) and after >= point.num_layers:
        raise ConfigError(f"a drop by attention after layer {after} needs a next layer, and there is none; lower it")

    def attention() -> Tensor:
        hidden = state.hidden[sample, :length].detach()
        rotation = rotation_at(language, hidden.unsqueeze(0), state.positions[sample : sample + 1, :length])
        own_rows = [length - 1] if state.score_rows is None else state.score_rows[sample]
        with torch.no_grad():
            scores = score_rows(language.layers[after], hidden, rotation, own_rows, slice(start, end))
        state.scores[sample][point.stage] = scores
        return scores

    reduction = reducer(point, attention)
    if reduction.target.shape != (point.num_tokens,) or reduction.num_targets != point.keep:
        raise ConfigError(
            f"{type(reducer).__name__} left {reduction.num_targets} of {reduction.target.numel()} visual tokens after "
            f"layer {after}; expected {point.keep} of {point.num_tokens}, as its schedule says; correct one of the two"
        )
    state.reductions[sample][point.stage] = Reduction(reduction.target.to(device), reduction.num_targets)
    state.num_visual[sample] = point.keep
    if state.score_rows is not None:
        shift = point.num_tokens - point.keep
        # A row ranks because an answer begins behind it. If the answer begins right behind the visual block, it is
        # the block's last row that ranks, whichever token that is now (released code: rows from the moved labels).
        state.score_rows[sample] = [row - shift if row >= end - 1 else row for row in state.score_rows[sample]]
    kept = state.reductions[sample][point.stage].kept + start
    return torch.cat([torch.arange(start, device=device), kept, torch.arange(end, length, device=device)])


def _repack(state: _State, rows_left: list[Tensor], position_rule: PositionRule) -> None:
    """Keep the given rows of each sample and pad to the longest again."""
    longest = max(len(rows) for rows in rows_left)
    index = torch.zeros(len(rows_left), longest, dtype=torch.int64, device=state.positions.device)
    for sample, rows in enumerate(rows_left):
        index[sample, : len(rows)] = rows
        state.kept[sample] = state.kept[sample][rows]
    state.lengths = [len(rows) for rows in rows_left]
    where = index.to(state.hidden.device).unsqueeze(-1).expand(-1, -1, state.hidden.shape[-1])
    state.hidden = state.hidden.gather(1, where)
    if position_rule == "renumber":
        state.positions = torch.arange(longest, device=index.device).expand(len(rows_left), -1)
    else:
        state.positions = state.positions.gather(1, index)
