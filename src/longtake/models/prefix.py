"""The beginning of a prompt, its video and what is said of it, read once for all questions that follow it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.protocols import LayerCompressor
from longtake.models.splice import Visual, check_lengths
from longtake.nn.language.cache import RaggedCache
from longtake.nn.language.walk import WalkOutput, extend

if TYPE_CHECKING:
    from longtake.models.base import VisualLanguageModel


@dataclasses.dataclass(eq=False)
class VideoPrefix:
    """Keys of a system prompt, a video and what every question says of it; the rest is appended, one text at a time.

    ids: [P], with the placeholder. A prompt read behind a prefix gives the same numbers whether the prefix was read
    for it or long before: the text is appended in either case.
    """

    model: VisualLanguageModel
    ids: Int64[Tensor, "P"]
    features: Float[Tensor, "N D"]
    reducer: LayerCompressor | None
    walked: WalkOutput
    cache: RaggedCache
    start: tuple[list[list[int]], list[int]]

    @classmethod
    @torch.no_grad()
    def read(
        cls,
        model: VisualLanguageModel,
        ids: Int64[Tensor, "P"],
        features: Float[Tensor, "N D"],
        chunk_size: int | None = None,
    ) -> VideoPrefix:
        """Read the beginning of a prompt."""
        ids = ids.to(model.input_device)
        walked = model.prefill(model.splice_inputs(ids.unsqueeze(0), [features]), use_cache=True, chunk_size=chunk_size)
        assert walked.cache is not None, "a prefill with a cache returned none"
        return cls(model, ids, features, model.reducer, walked, walked.cache, walked.cache.mark())

    def serves(self, model: VisualLanguageModel, ids: Int64[Tensor, "P"], features: Float[Tensor, "N D"]) -> bool:
        """Say whether this is that beginning of a prompt about these very tokens, for this very model and reducer."""
        same = self.model is model and self.reducer == model.reducer and self.features is features
        return same and torch.equal(self.ids, ids.to(self.ids.device))

    @torch.no_grad()
    def followed_by(self, text: Int64[Tensor, "n"]) -> WalkOutput:
        """Append text to the prefix alone; what was appended before is forgotten.

        The result's hidden states and mask are those of the text.
        """
        self.cache.rewind(self.start)
        entering: list[Tensor] = []
        last = len(self.cache.layers) - 1

        def note(layer: int, hidden: Tensor) -> None:
            if layer == last:
                entering.append(hidden[:, -1])

        text = text.to(self.model.input_device)
        hidden = extend(self.model.language, self.model.embed_text(text.unsqueeze(0)), self.cache, observe=note)
        rows = self.start[1][0] + torch.arange(len(text), device=self.walked.kept[0].device)
        return dataclasses.replace(
            self.walked,
            hidden=hidden,
            mask=torch.ones(1, len(text), dtype=torch.bool, device=hidden.device),
            kept=[torch.cat([self.walked.kept[0], rows])],
            entering_last=entering[0],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SharedRead:
    """A prompt read behind a prefix: the walk, its length in tokens, and how many of them were read for it."""

    walked: WalkOutput
    num_tokens: int
    num_read: int


class PrefixStore:
    """Keeps the prefix that was read last, for whoever asks several questions about one video.

    The model's weights must not change meanwhile.
    """

    def __init__(self) -> None:
        self._last: VideoPrefix | None = None

    def walk(
        self,
        model: VisualLanguageModel,
        input_ids: Int64[Tensor, "B L"],
        visuals: Sequence[Visual | Tensor],
        chunk_size: int | None = None,
        num_said: int = 0,
    ) -> SharedRead | None:
        """Read a prompt, its video only if it is another than the last; none if what is kept of it depends on the text.

        Only a single prompt with one video, given as tokens and followed by text, can share its beginning. num_said:
        how many tokens behind the video belong to the beginning, since every question about it has them.

        Raises: PromptError if the prompt does not fit the context.
        """
        prompt = input_ids[0]
        lone = len(input_ids) == len(visuals) == int((prompt == PLACEHOLDER_ID).sum()) == 1
        features = visuals[0] if lone else None
        if not isinstance(features, Tensor) or _end(prompt) == len(prompt) or not _is_blind(model, len(features)):
            return None
        end = min(_end(prompt) + num_said, len(prompt) - 1)
        begun, text, num_read, total = prompt[:end], prompt[end:], 0, len(prompt) - 1 + len(features)
        check_lengths([total], model.config.context_length)
        if self._last is None or not self._last.serves(model, begun, features):
            self._last = None  # the old one's memory goes before the new one's comes
            self._last = VideoPrefix.read(model, begun, features, chunk_size)
            num_read = len(self._last.ids) - 1 + len(features)
        return SharedRead(self._last.followed_by(text), total, num_read + len(text))


def _is_blind(model: VisualLanguageModel, num_visual: int) -> bool:
    """Say whether the reducer keeps the same tokens whatever is asked: none of its drops ranks."""
    reducer = model.reducer
    if reducer is None:
        return True
    stages = range(len(dict(reducer.schedule(len(model.language.layers), num_visual))))
    return not any(reducer.needs_attention(stage) for stage in stages)


def _end(prompt: Int64[Tensor, "L"]) -> int:
    return int((prompt == PLACEHOLDER_ID).nonzero()[0]) + 1
