"""VideoChat-Flash: a vision tower, a clip compressor, a projector, a Qwen2 language model and a token reducer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Qwen2Model

from longtake.core.errors import BudgetError
from longtake.core.protocols import ClipCompressor, Compressed, LayerCompressor
from longtake.core.reduction import Reduction
from longtake.methods.compress.tome import ToMe
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.base import ClipEncoder, VisualLanguageModel
from longtake.models.base import kept_visual_tokens as kept_visual_tokens
from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.released_names import register_renamings, to_released
from longtake.models.splice import Visual, order_image_tokens
from longtake.nn.projector import MlpProjector
from longtake.nn.vision.internvideo2 import InternVideo2Tower
from longtake.nn.vision.umt import UmtConfig, UmtTower


class VideoChatFlashForConditionalGeneration(VisualLanguageModel):
    """Videos and text in, text out; loads the released checkpoints and saves under their parameter names."""

    config_class = VideoChatFlashConfig
    config: VideoChatFlashConfig
    _no_split_modules = ["Qwen2DecoderLayer", "UmtBlock", "InternVideo2Block"]  # noqa: RUF012 (transformers' contract)
    _parts_read_in_place = ("umt",)

    def __init__(self, config: VideoChatFlashConfig) -> None:
        super().__init__(config)
        config.check_supported()
        vision = config.vision_config
        if isinstance(vision, UmtConfig):
            self.umt = UmtTower(vision)
        else:
            self.internvideo2 = InternVideo2Tower(vision)
        self.projector = MlpProjector(config.vision_width, config.hidden_size)
        self.language = Qwen2Model(config.text_config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.compressor: ClipCompressor = ToMe(tokens_per_frame=16, tokens_per_image=64)
        self.post_init()

    @property
    def vision(self) -> UmtTower | InternVideo2Tower:
        """Return the vision tower, whichever kind it is."""
        return self.umt if self.config.tower_kind == "umt" else self.internvideo2

    @staticmethod
    def released_name(name: str) -> str:
        """Translate one of our parameter names to the checkpoint's."""
        return to_released(name)

    def configured_reducer(self) -> LayerCompressor | None:
        """Return the reducer that the configuration names at this moment."""
        if not self.config.mm_llm_compress:
            return None
        return ProgressiveDrop.from_dict(
            {
                "kind": self.config.llm_compress_type,
                "layers": tuple(self.config.llm_compress_layer_list),
                "ratios": tuple(float(ratio) for ratio in self.config.llm_image_token_ratio_list),
            }
        )

    def split_clips(self, frames: Float[Tensor, "T 3 S S"]) -> Float[Tensor, "K F 3 S S"]:
        """Cut frames into the clips that the tower was trained on.

        Raises: BudgetError if the count of frames is not a multiple of the clip length.
        """
        length = self.config.mm_local_num_frames
        if frames.shape[0] == 0 or frames.shape[0] % length:
            raise BudgetError(
                f"{frames.shape[0]} frames arrived; expected a multiple of the clip length {length}; sample "
                f"{max(frames.shape[0] // length, 1) * length} frames, or repeat the last one"
            )
        return frames.unflatten(0, (-1, length))

    def encode_clips(self, pixel_values: Float[Tensor, "K F 3 S S"]) -> Float[Tensor, "K N C"]:
        """Turn clips (F = 1 for image tiles) into patch features, each clip on its own."""
        return self.vision(pixel_values.to(device=self.input_device, dtype=self.dtype))

    def compress(self, features: Float[Tensor, "K N C"], num_frames: int) -> Compressed:
        """Merge the patch features of clips of `num_frames` frames into few tokens."""
        return self.compressor(features, self.vision.grid(num_frames))

    def encoder(self, num_frames: int) -> ClipEncoder:
        """Begin to encode a video of so many frames; each clip is encoded on its own."""
        length = self.config.mm_local_num_frames
        return ClipEncoder(self.encode_clips, lambda patches: self.compress(patches, length))

    def connect(self, pixel_values: Float[Tensor, "K F 3 S S"]) -> tuple[Float[Tensor, "K M D"], Reduction]:
        """Turn clips into tokens in the language model's space, and say which patches each token stands for.

        Clips pass in groups of bounded size; on a CPU one by one, so that the result is the same to the last bit
        however many clips are handed over at once.
        """
        parts = [self._connect_pass(group) for group in pixel_values.split(self.clips_per_pass)]
        targets = torch.cat([reduction.target for _, reduction in parts])
        return torch.cat([tokens for tokens, _ in parts]), Reduction(targets, parts[0][1].num_targets)

    def _connect_pass(self, pixel_values: Tensor) -> tuple[Tensor, Reduction]:
        compressed = self.compress(self.encode_clips(pixel_values), pixel_values.shape[1])
        return self.projector(compressed.features), compressed.reduction

    def visual_tokens(self, visual: Visual) -> Float[Tensor, "N D"]:
        """Return a video's or image's tokens in the order in which the language model reads them."""
        if visual.features is not None:
            return visual.features
        pixels = visual.pixel_values
        if pixels is None:
            raise BudgetError("a visual without pixels or features arrived; expected one of the two; pass pixels")
        if visual.modality == "video":
            return self.connect(self.split_clips(pixels))[0].flatten(0, 1)
        return order_image_tokens(self.connect(pixels.unsqueeze(1))[0], visual.tile_grid)

    def visual_blocks(self, visual: Visual) -> list[Tensor]:
        """Return the tokens of a visual: one block, since it has one placeholder."""
        return [self.visual_tokens(visual)]


register_renamings("VideoChatFlashForConditionalGeneration", VideoChatFlashConfig.model_type)
