"""VideoChat-Flash: a vision tower, a clip compressor, a projector, a Qwen2 language model and a token reducer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2Model
from transformers.utils.generic import ModelOutput

from longtake.core.chat import IGNORE_LABEL
from longtake.core.errors import BudgetError, CheckpointError
from longtake.core.protocols import ClipCompressor, Compressed, LayerCompressor
from longtake.core.reduction import Reduction
from longtake.methods.compress.tome import ToMe
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.gate import check_loaded
from longtake.models.generation import Generation, Step, generate, stream
from longtake.models.released_names import register_renamings
from longtake.models.splice import Spliced, Visual, order_image_tokens, splice
from longtake.nn.language.walk import RaggedCache, WalkInput, WalkOutput, answer_rows, prefill
from longtake.nn.projector import MlpProjector
from longtake.nn.vision.internvideo2 import InternVideo2Tower
from longtake.nn.vision.umt import UmtConfig, UmtTower

CLIPS_PER_PASS = 16
_FROM_CONFIG = "from the configuration"


@dataclasses.dataclass
class VideoChatFlashOutput(ModelOutput):
    """What a forward pass returns.

    logits: [B, L', V] over the sequence that is left after the reducer. loss: shifted cross entropy over the labels
    that are left, if labels were given. mask, labels: [B, L'], moved as the tokens were. reductions, scores: per
    sample, by stage, over the visual tokens alive before that stage. cache: for decoding, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    mask: Tensor | None = None
    labels: Tensor | None = None
    reductions: list[dict[int, Reduction]] | None = None
    scores: list[dict[int, Tensor]] | None = None
    cache: RaggedCache | None = None


class VideoChatFlashForConditionalGeneration(PreTrainedModel):
    """Videos and text in, text out; loads the released checkpoints and saves under their parameter names."""

    config_class = VideoChatFlashConfig
    config: VideoChatFlashConfig
    main_input_name = "input_ids"
    input_modalities = ["video", "image", "text"]  # noqa: RUF012
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen2DecoderLayer", "UmtBlock", "InternVideo2Block"]  # noqa: RUF012 (transformers' contract)
    _tied_weights_keys = {"lm_head.weight": "language.embed_tokens.weight"}  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True

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
        self._reducer: LayerCompressor | str | None = _FROM_CONFIG
        self.post_init()

    @property
    def vision(self) -> UmtTower | InternVideo2Tower:
        """Return the vision tower, whichever kind it is."""
        return self.umt if self.config.tower_kind == "umt" else self.internvideo2

    @property
    def input_device(self) -> torch.device:
        """Return where pixels and ids go; parts that accelerate keeps on disk fetch them from there."""
        places = (p.device for p in self.parameters() if p.device.type != "meta")
        return next(places, torch.device("cpu"))

    @property
    def reducer(self) -> LayerCompressor | None:
        """Return what drops visual tokens between layers: as set, else as the configuration says at this moment."""
        if self._reducer != _FROM_CONFIG:
            return self._reducer  # pyright: ignore[reportReturnType]
        if not self.config.mm_llm_compress:
            return None
        return ProgressiveDrop.from_dict(
            {
                "kind": self.config.llm_compress_type,
                "layers": tuple(self.config.llm_compress_layer_list),
                "ratios": tuple(float(ratio) for ratio in self.config.llm_image_token_ratio_list),
            }
        )

    @reducer.setter
    def reducer(self, reducer: LayerCompressor | None) -> None:
        self._reducer = reducer

    def get_input_embeddings(self) -> nn.Module:
        """Return the text embedding."""
        return self.language.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text embedding."""
        self.language.embed_tokens = value  # pyright: ignore[reportAttributeAccessIssue]

    def get_output_embeddings(self) -> nn.Module:
        """Return the head."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head."""
        self.lm_head = new_embeddings  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does, but refuse weights that are missing, left over, empty or not finite.

        Raises: CheckpointError naming the tensors by their released names.
        """
        wants_info = bool(kwargs.pop("output_loading_info", False))
        # Wrong shapes are let through to the check below, whose message names the remedy.
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model, info = loaded
        check_loaded(model, info)
        if any(p.device.type == "meta" for name, p in model.named_parameters() if name.startswith("umt.")):
            raise CheckpointError(
                "device_map puts (a part of) the vision tower 'umt' on disk or in host memory; expected it on one "
                "device, since its fused attention weight is read in place; give 'umt' a device in device_map"
            )
        return (model, info) if wants_info else model

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

    @property
    def clips_per_pass(self) -> int:
        """Return how many clips pass the tower at once; on a CPU one, which cannot depend on its neighbours."""
        return 1 if self.input_device.type == "cpu" else CLIPS_PER_PASS

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

    def embed_text(self, ids: Int64[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Embed token ids."""
        return self.language.embed_tokens(ids)

    def splice_inputs(
        self,
        input_ids: Int64[Tensor, "B L"],
        visuals: Sequence[Visual | Tensor] = (),
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Spliced:
        """Embed the text and put each visual's tokens in the place of its placeholder.

        A plain tensor among the visuals is taken as [N, D] tokens made before.

        Raises: PromptError if the result is longer than the context, or visuals and placeholders differ in number.
        """
        features = [item if isinstance(item, Tensor) else self.visual_tokens(item) for item in visuals]
        return splice(
            self.embed_text,
            input_ids,
            features,
            attention_mask=attention_mask,
            labels=labels,
            max_length=self.config.context_length,
        )

    def prefill(
        self,
        spliced: Spliced,
        *,
        use_cache: bool = False,
        chunk_size: int | None = None,
        score_rows: list[list[int]] | None = None,
    ) -> WalkOutput:
        """Run the language model over a spliced batch, dropping visual tokens as the reducer says.

        Raises: BudgetError if a reducer is set and a sample has more than one visual.
        """
        reducer = self.reducer
        if reducer is not None and max(spliced.num_blocks) > 1:
            raise BudgetError(
                f"a prompt with {max(spliced.num_blocks)} visuals arrived while token dropping is on; expected one "
                "visual a prompt; set model.reducer = None"
            )
        if score_rows is None and spliced.labels is not None and reducer is not None:
            score_rows = [answer_rows(row) for row in spliced.labels]
        inputs = WalkInput(
            embeds=spliced.embeds,
            mask=spliced.mask,
            visual_start=spliced.visual_start,
            num_visual=spliced.num_visual,
            score_rows=score_rows,
        )
        return prefill(self.language, inputs, reducer=reducer, chunk_size=chunk_size, use_cache=use_cache)

    def forward(
        self,
        input_ids: Int64[Tensor, "B L"],
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        visuals: Sequence[Visual | Tensor] | None = None,
        pixel_values: Sequence[Tensor] | Tensor | None = None,
        use_cache: bool = False,
        chunk_size: int | None = None,
        logits_to_keep: int = 0,
    ) -> VideoChatFlashOutput:
        """Read a batch of prompts in which placeholder ids stand for visuals, in order.

        pixel_values: videos as [V, T, 3, S, S] or a list of [T, 3, S, S], a short form of `visuals`.
        logits_to_keep: how many positions from the end get logits; 0 means all.

        Raises: PromptError if a prompt does not fit the context; nothing is ever cut.
        Source: VideoChat-Flash training forward; the loss is over the labels that outlive the reducer.
        """
        spliced = self.splice_inputs(input_ids, _as_visuals(visuals, pixel_values), attention_mask, labels)
        if labels is not None and logits_to_keep:
            raise BudgetError("labels arrived with logits_to_keep; expected one of the two; drop logits_to_keep")
        walked = self.prefill(spliced, use_cache=use_cache, chunk_size=chunk_size)
        logits = self.lm_head(walked.hidden[:, -logits_to_keep:])
        moved = None if spliced.labels is None else walked.move_labels(spliced.labels)
        return VideoChatFlashOutput(
            loss=None if moved is None else next_token_loss(logits, moved),
            logits=logits,
            mask=walked.mask,
            labels=moved,
            reductions=walked.reductions,
            scores=walked.scores,
            cache=walked.cache,
        )

    def generate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        visuals: Sequence[Visual | Tensor] = (),
        *,
        pixel_values: Sequence[Tensor] | Tensor | None = None,
        **options: Any,
    ) -> Generation:
        """Write answers; see `longtake.models.generation.generate` for the options and the result."""
        return generate(self, input_ids, _as_visuals(visuals, pixel_values), **options)

    def stream(self, input_ids: Tensor, visuals: Sequence[Visual | Tensor] = (), **options: Any) -> Iterator[Step]:
        """Write answers token by token; see `longtake.models.generation.stream`."""
        return stream(self, input_ids, visuals, **options)


def _as_visuals(
    visuals: Sequence[Visual | Tensor] | None, pixel_values: Sequence[Tensor] | Tensor | None
) -> Sequence[Visual | Tensor]:
    if visuals or pixel_values is None:
        return visuals or ()
    return [Visual(pixel_values=video) for video in pixel_values]


def next_token_loss(logits: Float[Tensor, "B L V"], labels: Int64[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Average the cross entropy of each labelled next token."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORE_LABEL)


def kept_visual_tokens(reductions: dict[int, Reduction]) -> dict[int, Int64[Tensor, "M"]]:
    """Return, after each stage, the indices of the visual tokens still there, counted in the original sequence."""
    kept: dict[int, Tensor] = {}
    total: Reduction | None = None
    for stage in sorted(reductions):
        total = reductions[stage] if total is None else total.then(reductions[stage])
        kept[stage] = total.kept
    return kept


register_renamings("VideoChatFlashForConditionalGeneration", VideoChatFlashConfig.model_type)
