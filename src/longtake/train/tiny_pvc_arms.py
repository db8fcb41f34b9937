"""The arms of the tiny PVC: ways to spend the same few tokens a frame, in models that are else alike."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from longtake.core.config import StrictConfig, nearest_name
from longtake.core.errors import ConfigError
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.tiny_pvc import tiny_pvc_config
from longtake.nn.vision.progressive import LowRankLinear, TimeConditionedNorm, TimeMlp
from longtake.train.tiny_pvc_posters import PosterSpec, context_id
from longtake.train.tiny_vision import learning_rate_share


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to make a frame's tokens.

    temporal: the last layers look back in time. conditioned: the compressor's norm knows the time. pooled: tokens are
    means of patches instead of patches side by side.
    """

    temporal: bool = False
    conditioned: bool = False
    pooled: bool = False


ARMS = {
    "pvc": Arm(temporal=True, conditioned=True),
    "progressive": Arm(temporal=True),
    "repeat": Arm(),
    "pool": Arm(pooled=True),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyPvcRecipe(StrictConfig):
    """How large the model is, how long and how fast it learns, and from what.

    repeats: how often training pictures are shown, one count a step, in turn. tokens_side: tokens a frame, high and
    wide. Three lessons follow each other: for seeing_steps each patch names its letter; for reading_steps places are
    read from the tokens; for answering_steps, none at first, the language model learns to answer `questions` a
    picture from tokens that stay as they are. longest: positions over which the visual tokens are spread at most.
    rank: of the conditioning. time_scale: as in PvcConfig. How far from neutral, where all copies are alike, a model
    starts: condition_start and time_start, sizes of the last weights of conditioned norms and time embeddings as
    multiples of the usual; gate_start, of the gates of temporal layers. seed: of weights and of all that is drawn.
    """

    poster: PosterSpec = dataclasses.field(default_factory=PosterSpec)
    patch_size: int = 14
    tokens_side: int = 1
    tower_width: int = 64
    tower_layers: int = 4
    temporal_layers: int = 2
    width: int = 64
    layers: int = 2
    heads: int = 4
    rank: int = 32
    time_scale: float = 1000.0
    condition_start: float = 3.0
    time_start: float = 8.0
    gate_start: float = 0.3
    repeats: tuple[int, ...] = (4,)
    num_posters: int = 4000
    seeing_steps: int = 60
    reading_steps: int = 500
    answering_steps: int = 0
    batch: int = 32
    questions: int = 8
    longest: int = 24
    learning_rate: float = 1e-3
    answering_rate: float = 2e-3
    warmup_steps: int = 40
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    report_every: int = 50
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step: up and down over the first two lessons, and again over the third."""
        first = self.seeing_steps + self.reading_steps
        if step < first:
            return self.learning_rate * learning_rate_share(step, self.warmup_steps, first)
        return self.answering_rate * learning_rate_share(step - first, self.warmup_steps, self.answering_steps)

    @property
    def total_steps(self) -> int:
        """Return the steps of all three lessons."""
        return self.seeing_steps + self.reading_steps + self.answering_steps

    @property
    def tokens_per_frame(self) -> int:
        """Return the tokens of a frame."""
        return self.tokens_side**2


def poster_config(recipe: TinyPvcRecipe, arm: str, tokenizer: PreTrainedTokenizerFast) -> PvcConfig:
    """Return the shape of an arm's model; arms differ in nothing but what makes a frame's tokens.

    Raises: ConfigError for an unknown arm.
    """
    if arm not in ARMS:
        raise ConfigError(f"arm {arm!r} arrived; {nearest_name(arm, list(ARMS))}")
    kind, grid = ARMS[arm], recipe.poster.image_size // recipe.patch_size
    first = recipe.tower_layers - recipe.temporal_layers
    ids = {"bos_token_id": tokenizer.pad_token_id, "pad_token_id": tokenizer.pad_token_id}
    return tiny_pvc_config(
        vision_config={
            "hidden_size": recipe.tower_width,
            "num_attention_heads": 4,
            "intermediate_size": 2 * recipe.tower_width,
            "num_hidden_layers": recipe.tower_layers,
            "image_size": recipe.poster.image_size,
            "patch_size": recipe.patch_size,
        },
        llm_config={
            "vocab_size": len(tokenizer),
            "hidden_size": recipe.width,
            "intermediate_size": 3 * recipe.width,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.heads,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "bias": False,
            "rope_theta": 1_000_000.0,
            "eos_token_id": tokenizer.eos_token_id,
            **ids,
        },
        use_temporal=kind.temporal,
        temporal_layers=tuple(range(first, recipe.tower_layers)) if kind.temporal else (),
        conditioning="low_rank" if kind.conditioned else "none",
        conditioning_rank=recipe.rank,
        time_scale=recipe.time_scale,
        downsample_ratio=1.0 if kind.pooled else recipe.tokens_side / grid,
        image_repeat_time=recipe.repeats[-1],
        img_context_token_id=context_id(tokenizer),
    )


def build_arm(recipe: TinyPvcRecipe, arm: str, tokenizer: PreTrainedTokenizerFast) -> PvcForConditionalGeneration:
    """Build an arm's model with weights that depend on the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = PvcForConditionalGeneration(poster_config(recipe, arm, tokenizer))
        _start(model, recipe)
    if ARMS[arm].pooled:
        model.limit_tokens(recipe.tokens_per_frame)
    return model


@torch.no_grad()
def _start(model: PvcForConditionalGeneration, recipe: TinyPvcRecipe) -> None:
    """Draw weights that keep sizes at any width; the usual 0.02 is far too small for so narrow a model."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.normal_(0.0, module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0.0, 0.5)
    embeddings: Any = model.vision.embeddings
    embeddings.position_embeddings.normal_(0.0, 0.5)
    for layer in model.language.layers:
        for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
            last.weight.mul_((2 * len(model.language.layers)) ** -0.5)
    model.neutral_start()
    for branch in model.vision.branches.values():
        branch.gate.fill_(recipe.gate_start)
    for part in model.modules():
        if isinstance(part, TimeConditionedNorm):
            _draw(part.w4, recipe.condition_start)
            _draw(part.w6, recipe.condition_start)
        elif isinstance(part, TimeMlp):
            _draw(part.w2, recipe.time_start)


def _draw(linear: nn.Linear | LowRankLinear, size: float) -> None:
    last = linear if isinstance(linear, nn.Linear) else linear.up
    last.weight.normal_(0.0, size * last.weight.shape[1] ** -0.5)
