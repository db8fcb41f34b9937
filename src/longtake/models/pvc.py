"""PVC: a tower that looks back in time, a compressor conditioned on time, InternLM2 as a Llama; images are videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import LlamaModel

from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.errors import ConfigError, PromptError
from longtake.core.protocols import ClipCompressor, Compressed
from longtake.core.reduction import Reduction
from longtake.methods.compress.pool import Pool
from longtake.methods.reduce.lp_comp import LpComp
from longtake.models.base import ClipEncoder, VisualLanguageModel
from longtake.models.pvc_configuration import PVC_MODEL_TYPE, PvcConfig
from longtake.models.pvc_names import register_pvc_names, to_released
from longtake.models.splice import Spliced, Visual
from longtake.nn.compressor import ProgressiveCompressor
from longtake.nn.projector import MlpProjector
from longtake.nn.vision.internvit import ProgressiveTower, TemporalStream, sequence_times


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How entries (tiles or frames) become temporal sequences.

    repeats: how often each entry is shown, in place. sequence_lengths: frames of each sequence after that.
    """

    repeats: tuple[int, ...]
    sequence_lengths: tuple[int, ...]

    def __add__(self, other: Grouping) -> Grouping:
        return Grouping(self.repeats + other.repeats, self.sequence_lengths + other.sequence_lengths)


def group_entries(data_flag: int, num_entries: int, config: PvcConfig) -> Grouping:
    """Group the entries of one sample: 1 a single image, 2 several images, 3 a video.

    Every tile of an image, the thumbnail too, is a static video of its own; the frames of a video are one sequence.
    Nothing public tells 2 from 1, and nothing says that tiles do not share a sequence [I].

    Raises: ConfigError for another flag, or no entry.
    Source: PVC README for the values of data_flag; the released class for the names of the repeats.
    """
    if num_entries < 1:
        raise ConfigError("a sample without an entry arrived; expected at least one tile or frame; pass pixels")
    if data_flag in (1, 2):
        repeats = config.image_repeat_time
        return Grouping((repeats,) * num_entries, (repeats,) * num_entries)
    if data_flag == 3:
        repeats = config.video_repeat_time
        return Grouping((repeats,) * num_entries, (repeats * num_entries,))
    raise ConfigError(f"data_flag is {data_flag!r}; expected 1 (an image), 2 (several) or 3 (a video); pass one")


def order_copies(tokens: Float[Tensor, "T M D"], repeats: int, tile_order: str) -> Float[Tensor, "N D"]:
    """Put the tokens of an image's tiles, shown `repeats` times in place, in the order of the prompt.

    tile_major: tile 0 in all its copies, then tile 1; copy_major: all tiles once, then all again. Which one the
    released `tile_repeat_way` names is unknown [I].
    """
    if tile_order == "tile_major":
        return tokens.flatten(0, 1)
    return tokens.unflatten(0, (-1, repeats)).transpose(0, 1).flatten(0, 2)


class PvcForConditionalGeneration(VisualLanguageModel):
    """Videos, images and text in, text out; saves under InternVL's parameter names, and ours where they are unknown."""

    config_class = PvcConfig
    config: PvcConfig
    _no_split_modules = ["ProgressiveLayer", "ProgressiveCompressor", "LlamaDecoderLayer"]  # noqa: RUF012
    _parts_read_in_place = ("vision", "compressor")

    def __init__(self, config: PvcConfig) -> None:
        super().__init__(config)
        config.check_supported()
        text = config.get_text_config()
        self.vision = ProgressiveTower(config.tower_config)
        self.compressor = ProgressiveCompressor(self.vision.width, config.compressor_config)
        self.projector = MlpProjector(self.compressor.width, text.hidden_size)
        self.language = LlamaModel(text)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @staticmethod
    def released_name(name: str) -> str:
        """Translate one of our parameter names to the checkpoint's."""
        return to_released(name)

    def neutral_start(self) -> None:
        """Make the temporal layers and the conditioning do nothing, to begin training from an InternVL model."""
        for branch in self.vision.branches.values():
            branch.neutral_start()
        self.compressor.neutral_start()

    def use_compressor(self, method: ClipCompressor) -> None:
        """Make fewer tokens of each frame by this method, behind the compressor, from now on."""
        self.compressor.after = method

    def limit_tokens(self, tokens_per_frame: int) -> None:
        """Spend so many tokens on a frame, or on a copy of a tile, from now on; weights should have learned it.

        Neighbouring tokens are averaged; LP-Comp then starts from so many.

        Raises: ConfigError if the grid of a frame's tokens cannot be cut into so many equal blocks.
        """
        method = Pool(tokens_per_frame=tokens_per_frame)
        method.out_tokens(self.compressor.token_grid(self.vision.grid(1)))
        self.use_compressor(method)
        reducer: Any = self.reducer
        if isinstance(reducer, LpComp):
            self.reducer = dataclasses.replace(reducer, tokens_per_frame=tokens_per_frame)

    def connect(
        self, pixel_values: Float[Tensor, "E 3 S S"], grouping: Grouping
    ) -> tuple[Float[Tensor, "T M D"], Reduction]:
        """Turn entries into tokens in the language model's space, one row of M tokens for each frame shown.

        Samples of different kinds may be joined: groupings add up. The reduction says which patches of the frame each
        token stands for.

        Raises: ConfigError if entries and grouping differ in number.
        """
        pixels = pixel_values.to(device=self.input_device, dtype=self.dtype)
        features = self.vision(pixels, list(grouping.sequence_lengths), grouping.repeats)
        times = sequence_times(list(grouping.sequence_lengths), self.config.known_time_scale)
        compressed = self._compress(features, times)
        return self.projector(compressed.features), compressed.reduction

    def _compress(self, features: Tensor, times: Tensor) -> Compressed:
        return self.compressor(features[:, 1:], times, self.vision.grid(1))

    def encode_samples(
        self,
        pixel_values: Float[Tensor, "E 3 S S"],
        data_flag: Sequence[int] | None = None,
        split_sizes: Sequence[int] | None = None,
    ) -> list[Float[Tensor, "T M D"]]:
        """Encode the entries of several samples in one pass; return each sample's rows in order.

        data_flag: one for each sample; none: all are images. split_sizes: entries of each sample; none: all belong to
        one [I].

        Raises: ConfigError if the sizes do not add up, or flags and sizes differ in number.
        Source: the arguments of the released `chat`.
        """
        sizes = [len(pixel_values)] if split_sizes is None else [int(size) for size in split_sizes]
        flags: Sequence[int] = [1] * len(sizes) if data_flag is None else data_flag
        if len(flags) != len(sizes) or sum(sizes) != len(pixel_values):
            raise ConfigError(
                f"{len(flags)} data flags and split sizes {sizes} arrived for {len(pixel_values)} entries; expected "
                "one flag for each size, and sizes that add up; correct them"
            )
        groups = [group_entries(flag, size, self.config) for flag, size in zip(flags, sizes, strict=True)]
        rows, _ = self.connect(pixel_values, sum(groups[1:], groups[0]))
        return list(rows.split([sum(group.repeats) for group in groups]))

    def visual_blocks(self, visual: Visual) -> list[Tensor]:
        """Return the tokens of a visual: one block for a whole image, one for each frame of a video, or for all."""
        if visual.features is not None:
            return [visual.features]
        pixels = visual.pixel_values
        if pixels is None:
            raise ConfigError("a visual without pixels or features arrived; expected one of the two; pass pixels")
        if visual.modality == "video":
            rows, _ = self.connect(pixels, group_entries(3, len(pixels), self.config))
            frames = rows.unflatten(0, (len(pixels), -1)).flatten(1, 2)
            return list(frames) if self.config.frame_labels else [frames.flatten(0, 1)]
        rows, _ = self.connect(pixels, group_entries(1, len(pixels), self.config))
        return [order_copies(rows, self.config.image_repeat_time, self.config.tile_order)]

    def visual_tokens(self, visual: Visual) -> Float[Tensor, "N D"]:
        """Return a video's or image's tokens in the order in which the language model reads them."""
        return torch.cat(self.visual_blocks(visual))

    def encoder(self, num_frames: int | None) -> ClipEncoder:
        """Begin to encode a video of `num_frames` frames, the T by which their times are relative.

        Clips are single frames, [K, 1, 3, S, S]. What the temporal layers remember is bounded by
        `config.temporal_window`; while it covers the video, the tokens are those of encoding it at once.

        Raises: ConfigError if the count is not known, more frames come, or the configuration repeats frames.
        """
        if self.config.video_repeat_time != 1:
            raise ConfigError(
                f"video_repeat_time is {self.config.video_repeat_time}; expected 1 for a video that is encoded piece "
                "by piece; pass its frames at once as a Visual, or change the configuration"
            )
        state = TemporalStream(nominal_frames=num_frames, window=self.config.temporal_window)
        scale, shown = self.config.known_time_scale, TemporalStream(nominal_frames=num_frames)

        def encode(clips: Tensor) -> Tensor:
            return self.vision.stream(clips[:, 0].to(device=self.input_device, dtype=self.dtype), state)

        def compress(features: Tensor) -> Compressed:
            times = shown.times(len(features), scale)
            shown.next_frame += len(features)
            return self._compress(features, times)

        return ClipEncoder(encode, compress)

    def splice_inputs(
        self,
        input_ids: Int64[Tensor, "B L"],
        visuals: Sequence[Visual | Tensor] = (),
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Spliced:
        """Embed the text and put the visuals' tokens in the place of placeholders or of context tokens.

        A placeholder stands for a whole image or one frame. Prompts in which every visual token has a context token of
        its own, as the released code writes them, are read too; labels are for placeholders only.

        Raises: PromptError if the prompt is longer than the context, or visuals do not fit their places.
        """
        context = input_ids == self.config.img_context_token_id
        if not bool(context.any()):
            return super().splice_inputs(input_ids, visuals, attention_mask, labels)
        if labels is not None:
            raise PromptError(
                "labels arrived for a prompt of context tokens; expected one placeholder for each image or frame, "
                "whose length the labels need not know; write the prompt with placeholders"
            )
        blocks = [item if isinstance(item, Tensor) else self.visual_tokens(item) for item in visuals]
        given, wanted = sum(len(block) for block in blocks), int(context.sum())
        if given != wanted:
            raise PromptError(
                f"{given} visual tokens arrived for {wanted} context tokens in the prompt; expected as many; write "
                "the prompt for these images and frames, with as many repeats as the model shows them"
            )
        mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        rows, masks, runs = [], [], []
        for ids, own_mask, own_context in zip(input_ids, mask, context, strict=True):
            stays = _first_of_runs(own_context)
            rows.append(ids.masked_fill(own_context, PLACEHOLDER_ID)[stays])
            masks.append(own_mask[stays])
            run = stays.cumsum(0)[own_context]  # the same number throughout a run
            runs += torch.unique_consecutive(run, return_counts=True)[1].tolist()
        pad = nn.utils.rnn.pad_sequence
        return super().splice_inputs(
            pad(rows, batch_first=True), list(torch.cat(blocks).split(runs)), pad(masks, batch_first=True)
        )


def _first_of_runs(context: Tensor) -> Tensor:
    """Say which tokens stay when each run of context tokens becomes one placeholder."""
    before = torch.cat([context.new_zeros(1), context[:-1]])
    return ~(context & before)


register_pvc_names("PvcForConditionalGeneration", PVC_MODEL_TYPE)
