"""Put visual tokens where the text holds a placeholder, and keep masks and labels in step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from longtake.core.chat import IGNORE_LABEL, PLACEHOLDER_ID
from longtake.core.errors import PromptError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Visual:
    """One video or image of a prompt: normalised pixels, or tokens that were made before.

    pixel_values: [T, 3, S, S], for a video T frames (a multiple of the clip length), for an image its tiles (the
    whole image first). tile_grid: (columns, rows) of the tiles after the first; none for a single tile. features:
    [N, D] tokens in the language model's space, given instead of pixels.
    """

    pixel_values: Tensor | None = None
    modality: Literal["video", "image"] = "video"
    tile_grid: tuple[int, int] | None = None
    features: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.pixel_values is None) == (self.features is None):
            raise PromptError("a visual arrived with both pixels and features, or with neither; pass one of the two")


@dataclasses.dataclass(frozen=True, eq=False)
class Spliced:
    """A right-padded batch as the language model reads it.

    embeds: [B, L, D]. mask: bool [B, L]. labels: int64 [B, L] or none. visual_start, num_visual: where the one
    visual block of each sample lies (0, 0 without one; the first of several).
    """

    embeds: Tensor
    mask: Tensor
    labels: Tensor | None
    visual_start: list[int]
    num_visual: list[int]
    num_blocks: list[int]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample, padding not counted."""
        return [int(n) for n in self.mask.sum(1)]


def order_image_tokens(tiles: Float[Tensor, "K M D"], tile_grid: tuple[int, int] | None) -> Float[Tensor, "N D"]:
    """Put the tokens of an image's tiles in the order in which the language model was trained to read them.

    The whole image comes first; the other tiles are laid out as one map, read row by row.

    Raises: PromptError if the count of tiles does not fit the grid.
    Source: VideoChat-Flash "spatial_nopad". The released code treats the 64 merged tokens of a tile as an 8 x 8
        raster although merging has mixed their places; reproduced, since the weights expect it.
    """
    if tile_grid is None:
        return tiles.flatten(0, 1)
    columns, rows = tile_grid
    count, num_tokens, width = tiles.shape
    if count != 1 + columns * rows:
        raise PromptError(
            f"{count} image tiles arrived for a grid of {columns} x {rows}; expected {1 + columns * rows} (the whole "
            "image first); tile the image with media.transforms.tile_image"
        )
    side = int(num_tokens**0.5)
    if side * side != num_tokens:
        raise PromptError(
            f"{num_tokens} tokens a tile are not a square; expected one such as 64; change the compressor"
        )
    grid = tiles[1:].unflatten(1, (side, side)).unflatten(0, (rows, columns))  # [gh, gw, 8, 8, D]
    ordered = grid.permute(0, 2, 1, 3, 4).reshape(-1, width)  # [gh * 8 * gw * 8, D]
    return torch.cat([tiles[0], ordered])


def splice(
    embed: Callable[[Tensor], Tensor],
    input_ids: Int64[Tensor, "B L"],
    features: Sequence[Tensor],
    *,
    attention_mask: Tensor | None = None,
    labels: Tensor | None = None,
    max_length: int | None = None,
) -> Spliced:
    """Replace each placeholder by the next block of visual tokens, in order over the batch; pad on the right.

    Padding is dropped by `attention_mask` first, so either side may be padded. Visual positions get no label. A
    sample without a placeholder takes no block.

    Raises: PromptError if blocks and placeholders differ in number, or if a sample is longer than `max_length`: it
        says by how much.
    Source: VideoChat-Flash `prepare_inputs_labels_for_multimodal`, which cuts a long sample silently at the end and
        lets a text-only sample take a dummy image of zero tokens; both are left out here.
    """
    keep = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    num_placeholders = int((input_ids == PLACEHOLDER_ID)[keep].sum())
    if num_placeholders != len(features):
        raise PromptError(
            f"{len(features)} visuals arrived for {num_placeholders} placeholders; expected one each; add or remove "
            "visuals"
        )
    blocks = iter(features)
    samples = [
        _splice_one(embed, input_ids[i][keep[i]], None if labels is None else labels[i][keep[i]], blocks)
        for i in range(input_ids.shape[0])
    ]
    check_lengths([sample.embeds.shape[0] for sample in samples], max_length)
    lengths = torch.tensor([sample.embeds.shape[0] for sample in samples], device=input_ids.device)
    span = torch.arange(int(lengths.max()), device=input_ids.device)
    return Spliced(
        pad_sequence([sample.embeds for sample in samples], batch_first=True),
        span < lengths[:, None],
        None
        if labels is None
        else pad_sequence([sample.labels for sample in samples], batch_first=True, padding_value=IGNORE_LABEL),
        [sample.starts[0] if sample.starts else 0 for sample in samples],
        [sample.counts[0] if sample.counts else 0 for sample in samples],
        [len(sample.starts) for sample in samples],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Sample:
    embeds: Tensor
    labels: Tensor
    starts: list[int]
    counts: list[int]


def _splice_one(embed: Callable[[Tensor], Tensor], ids: Tensor, labels: Tensor | None, blocks) -> _Sample:
    if labels is None:
        labels = torch.full_like(ids, IGNORE_LABEL)
    places = (ids == PLACEHOLDER_ID).nonzero().flatten().tolist()
    parts, label_parts, starts, counts, length, last = [], [], [], [], 0, 0
    for place in [*places, ids.numel()]:
        parts.append(embed(ids[last:place]))
        label_parts.append(labels[last:place])
        length += place - last
        if place < ids.numel():
            block = next(blocks).to(device=parts[0].device, dtype=parts[0].dtype)
            parts.append(block)
            label_parts.append(labels.new_full((block.shape[0],), IGNORE_LABEL))
            starts.append(length)
            counts.append(block.shape[0])
            length += block.shape[0]
        last = place + 1
    return _Sample(torch.cat(parts), torch.cat(label_parts), starts, counts)


def check_lengths(lengths: Sequence[int], max_length: int | None) -> None:
    """Refuse samples longer than the context, and empty ones.

    Raises: PromptError.
    """
    longest = max(lengths)
    if longest == 0:
        raise PromptError("the prompt holds no token; expected at least one; ask something")
    if max_length is not None and longest > max_length:
        raise PromptError(
            f"the prompt is {longest} tokens long, {longest - max_length} more than the context of {max_length}; it is "
            "never cut silently; sample fewer frames (max_frames), ask less, or raise tokenizer_model_max_length in "
            "the model's configuration if the weights were trained for more"
        )
