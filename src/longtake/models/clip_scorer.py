"""QC-Comp on a language model: read a chunk of video once, then score its clips for any number of questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.errors import ConfigError, PromptError
from longtake.core.protocols import LayerCompressor, PositionRule
from longtake.methods.select.qc_comp import QcComp, stitch, window_scores
from longtake.nn.language.cache import RaggedCache
from longtake.nn.language.layers import LanguageModel, project_heads, rotation_at
from longtake.nn.language.walk import WalkInput, extend, prefill
from longtake.ops.rope import rotate

POSITIONS: PositionRule = "renumber"


@dataclasses.dataclass(frozen=True, eq=False)
class ReadChunk:
    """A chunk of video that a language model has read: what scoring a question needs, free of any question.

    cache: keys and values of the layers before the last scored one, of the prefix and the surviving visual tokens, and
    the keys of that one, which is looked at and not run.
    """

    cache: RaggedCache
    num_prefix: int
    num_clips: int

    def num_bytes(self) -> int:
        """Return the bytes that keeping this chunk costs."""
        return self.cache.num_bytes()

    def to_tensors(self) -> dict[str, Tensor]:
        """Return what has to be kept of it: keys and values [heads, L, d] of each layer, without spare rows."""
        found = {"counts": torch.tensor([self.num_prefix, self.num_clips, self.cache.written[0]])}
        for index, layer in enumerate(self.cache.layers):
            assert layer.keys is not None
            found[f"keys.{index}"] = layer.keys[0, :, : layer.lengths[0]]
            if layer.values is not None:
                found[f"values.{index}"] = layer.values[0, :, : layer.lengths[0]]
        return found

    @classmethod
    def from_tensors(cls, kept: Mapping[str, Tensor], device: torch.device) -> ReadChunk:
        """Rebuild the chunk that `to_tensors` took apart, on a device."""
        num_prefix, num_clips, written = (int(count) for count in kept["counts"])
        cache = RaggedCache(len(kept) // 2, [written], POSITIONS)
        for index, layer in enumerate(cache.layers):
            layer.keys = kept[f"keys.{index}"].to(device).unsqueeze(0)
            if index + 1 < len(cache.layers):
                layer.values = kept[f"values.{index}"].to(device).unsqueeze(0)
            layer.lengths = [layer.keys.shape[2]]
        return cls(cache, num_prefix, num_clips)


class ClipScorer:
    """Scores clips of video by the attention a question pays them, layer by layer.

    The video comes before the question and attention is causal, so reading a chunk does not depend on the question:
    it is done once. A question then costs its own few tokens: they run through the layers behind the cached keys, and
    their queries meet the keys, rotated anew for each window. Of the last scored layer nothing but keys and queries is
    made, and layers behind it never run.

    Raises: ConfigError if the reducer looks at the question, since its drops would then depend on it.
    """

    def __init__(self, language: LanguageModel, method: QcComp, reducer: LayerCompressor | None = None) -> None:
        self.language = language
        self.method = method
        self.reducer = reducer
        self.layers = method.layers(len(language.layers))

    def num_bytes(self, num_visual: int) -> int:
        """Predict the bytes of keys and values that keeping so many visual tokens costs."""
        depth, config = len(self.language.layers), self.language.config
        stages = dict(self.reducer.schedule(depth, num_visual)) if self.reducer and num_visual else {}
        alive, total = num_visual, 0
        for layer in range(self.layers.stop):
            alive = stages.get(layer, alive)
            total += alive if layer == self.layers.stop - 1 else 2 * alive  # of the last layer keys alone
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return total * config.num_key_value_heads * head_dim * self.language.embed_tokens.weight.itemsize

    @torch.no_grad()
    def read(
        self, prefix: Float[Tensor, "P D"], visual: Float[Tensor, "N D"], num_clips: int, chunk_size: int | None = None
    ) -> ReadChunk:
        """Run prefix and visual tokens of a chunk through the layers before the last scored one, and write its keys."""
        embeds = torch.cat([prefix, visual]).unsqueeze(0)
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        if self.reducer is not None:
            stages = self.reducer.schedule(len(self.language.layers), len(visual))
            if any(self.reducer.needs_attention(stage) for stage in range(len(stages))):
                raise ConfigError(
                    "the reducer ranks tokens by the question's attention; a chunk is read before any question is "
                    "known; use a reducer that chooses by place (lp_comp, uniform), or none"
                )
        out = prefill(
            self.language,
            WalkInput(embeds, mask, [len(prefix)], [len(visual)]),
            reducer=self.reducer,
            position_rule=POSITIONS,
            chunk_size=chunk_size,
            num_layers=self.layers.stop,
            last_keys_only=True,
        )
        assert out.cache is not None
        return ReadChunk(out.cache, len(prefix), num_clips)

    @torch.no_grad()
    def score(
        self, chunk: ReadChunk, text: Float[Tensor, "Q D"], rows: slice = slice(None)
    ) -> Float[Tensor, "layers K"]:
        """Return the score of each clip in each scored layer; NaN where a clip has none.

        text: the embedded tokens after the video, up to the assistant's turn. rows: which of them are the question.
        The chunk is left as it was.

        Raises: PromptError if `rows` is empty or longer than the text; ConfigError if the reducer leaves no whole
            clips.
        """
        first, last, _ = rows.indices(len(text))
        if first >= last or (rows.stop is not None and rows.stop > len(text)):
            raise PromptError(
                f"the question is said to be tokens {rows.start} to {rows.stop} of the {len(text)} after the video; "
                "expected at least one of them; give the span of the question"
            )
        found: list[Tensor] = []

        def observe(index: int, hidden: Tensor) -> None:
            if index in self.layers:
                scores = window_scores(*self._keys(chunk, index, hidden), chunk.num_clips, self.method, at, rows)
                found.append(stitch(scores, chunk.num_clips, self.method))

        def at(length: int) -> tuple[Tensor, Tensor]:
            positions = torch.arange(length, device=text.device).unsqueeze(0)
            cos, sin = rotation_at(self.language, text.unsqueeze(0), positions)
            return cos[0], sin[0]

        mark = chunk.cache.mark()
        extend(self.language, text.unsqueeze(0), chunk.cache, observe=observe)
        chunk.cache.rewind(mark)
        return torch.stack(found)

    def _keys(self, chunk: ReadChunk, index: int, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return un-rotated queries of the text and keys of prefix, video and text in one layer."""
        layer, cache = self.language.layers[index], chunk.cache.layers[index]
        normed = layer.input_layernorm(hidden)
        query, text = (project_heads(layer, normed, name)[0] for name in ("q_proj", "k_proj"))
        assert cache.keys is not None
        length = cache.lengths[0]
        if (length - chunk.num_prefix) % chunk.num_clips:
            raise ConfigError(
                f"{length - chunk.num_prefix} visual tokens are alive in layer {index} for {chunk.num_clips} clips; "
                "expected as many for each; use a reducer that treats all frames alike (lp_comp), or none"
            )
        positions = torch.arange(length, device=hidden.device).unsqueeze(0)
        cos, sin = rotation_at(self.language, hidden, positions)
        keys = rotate(cache.keys[0, :, :length], cos[0], -sin[0])
        return query, keys[:, : chunk.num_prefix], keys[:, chunk.num_prefix :], text


def ranks_by_place(reducer: LayerCompressor | None, num_layers: int, num_visual: int) -> LayerCompressor | None:
    """Return the reducer if it chooses tokens by their place alone, else none: reading must not need a question."""
    if reducer is None:
        return None
    stages = reducer.schedule(num_layers, num_visual)
    return None if any(reducer.needs_attention(stage) for stage in range(len(stages))) else reducer
