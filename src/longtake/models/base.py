"""What every model here shares: a language model that reads text with visual tokens spliced in, and its decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from longtake.core.chat import IGNORE_LABEL
from longtake.core.errors import BudgetError, CheckpointError
from longtake.core.protocols import ClipCompressor, Compressed, LayerCompressor
from longtake.core.reduction import Reduction
from longtake.models.gate import check_loaded
from longtake.models.generation import Generation, Step, generate, stream
from longtake.models.splice import Spliced, Visual, splice
from longtake.nn.language.walk import RaggedCache, WalkInput, WalkOutput, answer_rows, prefill

CLIPS_PER_PASS = 16
_FROM_CONFIG = "from the configuration"


@dataclasses.dataclass
class VisualLanguageOutput(ModelOutput):
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


class ClipEncoder(NamedTuple):
    """How the clips of one video are encoded, in order: pixels [K, F, 3, S, S] to patches [K, N, C] to tokens.

    An encoder belongs to one video: it may remember the clips before.
    """

    encode: Callable[[Tensor], Tensor]
    compress: Callable[[Tensor], Compressed]


class VisualLanguageModel(PreTrainedModel):
    """Videos and text in, text out. A model adds its tower and says what its visuals become."""

    main_input_name = "input_ids"
    input_modalities = ["video", "image", "text"]  # noqa: RUF012
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _tied_weights_keys = {"lm_head.weight": "language.embed_tokens.weight"}  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    # Parts whose weights are read in place, so that accelerate cannot fetch them from elsewhere.
    _parts_read_in_place: tuple[str, ...] = ()

    config: Any
    language: Any
    lm_head: nn.Linear
    projector: Any
    compressor: Any
    _reducer: LayerCompressor | str | None = _FROM_CONFIG

    def encoder(self, num_frames: int) -> ClipEncoder:
        """Begin to encode a video of so many frames."""
        raise NotImplementedError

    def visual_blocks(self, visual: Visual) -> list[Tensor]:
        """Return the tokens of a visual, one block [N, D] for each of its placeholders."""
        raise NotImplementedError

    @staticmethod
    def released_name(name: str) -> str:
        """Translate one of our parameter names to the checkpoint's."""
        raise NotImplementedError

    def use_compressor(self, method: ClipCompressor) -> None:
        """Merge the tokens of clips by this method from now on."""
        self.compressor = method

    def configured_reducer(self) -> LayerCompressor | None:
        """Return the reducer that the configuration names at this moment."""
        return None

    @property
    def input_device(self) -> torch.device:
        """Return where pixels and ids go; parts that accelerate keeps on disk fetch them from there."""
        places = (p.device for p in self.parameters() if p.device.type != "meta")
        return next(places, torch.device("cpu"))

    @property
    def clips_per_pass(self) -> int:
        """Return how many clips pass the tower at once; on a CPU one, which cannot depend on its neighbours."""
        return 1 if self.input_device.type == "cpu" else CLIPS_PER_PASS

    @property
    def reducer(self) -> LayerCompressor | None:
        """Return what drops visual tokens between layers: as set, else as the configuration says at this moment."""
        if self._reducer != _FROM_CONFIG:
            return self._reducer  # pyright: ignore[reportReturnType]
        return self.configured_reducer()

    @reducer.setter
    def reducer(self, reducer: LayerCompressor | None) -> None:
        self._reducer = reducer

    def get_input_embeddings(self) -> nn.Module:
        """Return the text embedding."""
        return self.language.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text embedding."""
        self.language.embed_tokens = value

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
        check_loaded(model, info, cls.released_name)
        for part in cls._parts_read_in_place:
            if any(p.device.type == "meta" for name, p in model.named_parameters() if name.startswith(f"{part}.")):
                raise CheckpointError(
                    f"device_map puts (a part of) {part!r} on disk or in host memory; expected it on one device, since "
                    f"weights of it are read in place; give {part!r} a device in device_map"
                )
        return (model, info) if wants_info else model

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
        blocks = [[item] if isinstance(item, Tensor) else self.visual_blocks(item) for item in visuals]
        return splice(
            self.embed_text,
            input_ids,
            [block for own in blocks for block in own],
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
    ) -> VisualLanguageOutput:
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
        return VisualLanguageOutput(
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
