"""The arms of the tiny PVC: ways to spend the same few tokens on a picture, in models that are else alike."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from longtake.core.config import StrictConfig, nearest_name
from longtake.core.errors import ConfigError
from longtake.models.pvc import Grouping, PvcForConditionalGeneration
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.tiny_pvc import tiny_pvc_config
from longtake.nn.vision.progressive import LowRankLinear, TimeConditionedNorm, TimeMlp
from longtake.train.steps import warmed_rates
from longtake.train.tiny_pvc_posters import PosterSpec, context_id

# pvc: N copies of one token each, later ones look back at earlier ones. repeat: N copies that know nothing of one
# another. pool: one copy, cut into N blocks, the mean of each a token.
ARMS = ("pvc", "repeat", "pool")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyPvcRecipe(StrictConfig):
    """How large the model is, how long and how fast it learns, and from what.

    tokens: how many a training picture gets, one count a step, in turn. Three lessons follow each other: for
    seeing_steps each patch names its letter; for reading_steps places are read from the tokens; for answering_steps
    the language model learns to answer `questions` a picture from tokens that stay as they are. rank: of the
    conditioning. time_scale: as in PvcConfig. How far from neutral, where all copies are alike, a model starts:
    condition_start and time_start, sizes of the last weights of conditioned norms and time embeddings as multiples of
    the usual; gate_start, of the gates of temporal layers. seed: of weights and of all that is drawn.
    """

    poster: PosterSpec = dataclasses.field(default_factory=PosterSpec)
    patch_size: int = 14
    tower_width: int = 64
    tower_layers: int = 4
    temporal_layers: int = 2
    width: int = 64
    layers: int = 3
    heads: int = 4
    rank: int = 32
    time_scale: float = 1000.0
    condition_start: float = 3.0
    time_start: float = 8.0
    gate_start: float = 0.3
    tokens: tuple[int, ...] = (1, 2, 4, 8)
    num_posters: int = 12000
    seeing_steps: int = 60
    reading_steps: int = 2000
    answering_steps: int = 0
    batch: int = 32
    questions: int = 8
    learning_rate: float = 1e-3
    answering_rate: float = 2e-3
    warmup_steps: int = 40
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    report_every: int = 51
    seed: int = 0

    @property
    def reading_rates(self) -> list[float]:
        """Return the learning rate of each step before the language model learns: a line up, a cosine down."""
        steps = self.seeing_steps + self.reading_steps
        return warmed_rates(self.learning_rate, self.warmup_steps, steps)

    @property
    def answering_rates(self) -> list[float]:
        """Return the learning rate of each step of the language model."""
        return warmed_rates(self.answering_rate, self.warmup_steps, self.answering_steps)


def poster_config(recipe: TinyPvcRecipe, arm: str, tokenizer: PreTrainedTokenizerFast) -> PvcConfig:
    """Return the shape of an arm's model; arms differ in nothing but what makes a frame's tokens.

    Raises: ConfigError for an unknown arm.
    """
    if arm not in ARMS:
        raise ConfigError(f"arm {arm!r} arrived; {nearest_name(arm, list(ARMS))}")
    progressive, grid = arm == "pvc", recipe.poster.image_size // recipe.patch_size
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
        use_temporal=progressive,
        temporal_layers=tuple(range(first, recipe.tower_layers)) if progressive else (),
        conditioning="low_rank" if progressive else "none",
        conditioning_rank=recipe.rank,
        time_scale=recipe.time_scale,
        downsample_ratio=1.0 if arm == "pool" else 1 / grid,
        image_repeat_time=1 if arm == "pool" else recipe.tokens[-1],
        img_context_token_id=context_id(tokenizer),
    )


def build_arm(recipe: TinyPvcRecipe, arm: str, tokenizer: PreTrainedTokenizerFast) -> PvcForConditionalGeneration:
    """Build an arm's model with weights that depend on the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = PvcForConditionalGeneration(poster_config(recipe, arm, tokenizer))
        start_weights(model, recipe.condition_start, recipe.time_start, recipe.gate_start)
    return model


def show(model: PvcForConditionalGeneration, pictures: Float[Tensor, "E 3 S S"], tokens: int) -> Float[Tensor, "E N D"]:
    """Encode pictures into so many tokens each: copies of one token, or, of the arm that pools, blocks of one copy."""
    copies = tokens
    if model.compressor.config.factor == 1:
        model.limit_tokens(tokens)
        copies = 1
    rows, _ = model.connect(pictures, Grouping((copies,) * len(pictures), (copies,) * len(pictures)))
    return rows.unflatten(0, (-1, copies)).flatten(1, 2)


@torch.no_grad()
def start_weights(
    model: PvcForConditionalGeneration, condition_start: float, time_start: float, gate_start: float
) -> None:
    """Draw weights that keep sizes at any width; the usual 0.02 is far too small for so narrow a model.

    The three sizes are those of TinyPvcRecipe.
    """
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
        branch.gate.fill_(gate_start)
    for part in model.modules():
        if isinstance(part, TimeConditionedNorm):
            _draw(part.w4, condition_start)
            _draw(part.w6, condition_start)
        elif isinstance(part, TimeMlp):
            _draw(part.w2, time_start)


def _draw(linear: nn.Linear | LowRankLinear, size: float) -> None:
    last = linear if isinstance(linear, nn.Linear) else linear.up
    last.weight.normal_(0.0, size * last.weight.shape[1] ** -0.5)
