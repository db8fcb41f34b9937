"""A tiny PVC for films: its shape, its weights to begin with, and its first lesson, a frame in one token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from longtake.core.chat import PLACEHOLDER
from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.models.loaded import LoadedModel
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.pvc_prompt import IMG_END, IMG_START, Shown, pvc_prompt
from longtake.models.tiny_pvc import tiny_pvc_config
from longtake.nn.vision.internvit import sequence_times
from longtake.train.film_clips import CLASSES, CLIP_FRAMES, ClipStream
from longtake.train.steps import Report, small_adamw, take_steps, warmed_rates
from longtake.train.tiny_language import PromptForm
from longtake.train.tiny_pvc_arms import start_weights
from longtake.train.tiny_pvc_posters import context_id
from longtake.train.tiny_vision import ReadOut, card_means

HEADING = list(CLASSES).index("heading")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PvcFilmRecipe(StrictConfig):
    """How large the model is, and how long and fast its tower learns.

    progressive: whether frames know of earlier ones; without, the tower and the compressor are those of single
    pictures. window: how many frames back a frame sees. runs: clips in a row of a training sequence, in turn. For
    `large_steps` cards are at least `large_size` of the picture. condition_start, time_start, gate_start: as in
    TinyPvcRecipe. wide_share: of the learning rate, for the compressor and the projector, whose rows have thousands of
    inputs. time_weight: of the loss that has a token tell when its frame is shown. head_weights: of kinds that are
    hard to see.
    """

    progressive: bool = True
    image_size: int = 64
    patch_size: int = 8
    tower_width: int = 96
    tower_layers: int = 3
    temporal_layers: int = 2
    width: int = 192
    layers: int = 4
    heads: int = 6
    rank: int = 32
    time_scale: float = 1.0
    window: int = 8
    condition_start: float = 0.5
    time_start: float = 1.0
    gate_start: float = 0.3
    steps: int = 1600
    large_steps: int = 600
    large_size: float = 0.5
    runs: tuple[int, ...] = (2, 1, 3)
    films: int = 4
    clips_per_film: int = 6
    learning_rate: float = 1.5e-3
    wide_share: float = 0.12
    warmup_steps: int = 60
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    time_weight: float = 1.0
    head_weights: tuple[tuple[str, float], ...] = (("letter", 2.0),)
    report_every: int = 50
    seed: int = 0

    @property
    def rates(self) -> list[float]:
        """Return the learning rate of each step of the tower: a line up, a cosine down."""
        return warmed_rates(self.learning_rate, self.warmup_steps, self.steps)


def film_config(recipe: PvcFilmRecipe, tokenizer: PreTrainedTokenizerFast) -> PvcConfig:
    """Return the model's shape: one token a frame, the video one block, a language model as that of longtake-tiny."""
    first = recipe.tower_layers - recipe.temporal_layers
    return tiny_pvc_config(
        vision_config={
            "hidden_size": recipe.tower_width,
            "num_attention_heads": 4,
            "intermediate_size": 3 * recipe.tower_width,
            "num_hidden_layers": recipe.tower_layers,
            "image_size": recipe.image_size,
            "patch_size": recipe.patch_size,
        },
        llm_config={
            "vocab_size": len(tokenizer),
            "hidden_size": recipe.width,
            "intermediate_size": 8 * recipe.width // 3,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.heads,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "bias": True,
            "rope_theta": 1e12,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.pad_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        tie_word_embeddings=True,
        use_temporal=recipe.progressive,
        temporal_layers=tuple(range(first, recipe.tower_layers)) if recipe.progressive else (),
        temporal_window=recipe.window,
        conditioning="low_rank" if recipe.progressive else "none",
        conditioning_rank=recipe.rank,
        time_scale=recipe.time_scale,
        downsample_ratio=recipe.patch_size / recipe.image_size,
        frame_labels=False,
        img_context_token_id=context_id(tokenizer),
    )


def build_film_model(recipe: PvcFilmRecipe, tokenizer: PreTrainedTokenizerFast) -> PvcForConditionalGeneration:
    """Build the model with weights that depend on the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = PvcForConditionalGeneration(film_config(recipe, tokenizer))
        start_weights(model, recipe.condition_start, recipe.time_start, recipe.gate_start)
    return model


@torch.no_grad()
def borrow_language(
    model: PvcForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, donor: LoadedModel, seed: int
) -> None:
    """Begin with the language model of longtake-tiny, as PVC begins with InternVL2's: a Qwen2 is a Llama with biases.

    seed: of the words that the donor does not know.

    Raises: ConfigError if the two are not of one shape.
    """
    language: Any = model.language
    theirs, drawn = donor.model.language.state_dict(), language.state_dict()
    words = theirs.pop("embed_tokens.weight")
    missing = {name: torch.zeros_like(drawn[name]) for name in drawn if name.endswith("o_proj.bias")}
    own = torch.randn(drawn["embed_tokens.weight"].shape, generator=torch.Generator().manual_seed(seed)) * words.std()
    wrong = [name for name, value in theirs.items() if name not in drawn or drawn[name].shape != value.shape]
    if wrong or own.shape[1] != words.shape[1]:
        layers = donor.config.get_text_config().num_hidden_layers
        raise ConfigError(
            f"the donor's language model is {words.shape[1]} wide and has {layers} layers, ours "
            f"is {own.shape[1]} wide and has {len(language.layers)}; expected one shape; change width, layers or heads "
            "of the recipe"
        )
    known = donor.tokenizer.get_vocab()
    for word, index in tokenizer.get_vocab().items():
        if word in known:
            own[index] = words[known[word]]
    language.load_state_dict({"embed_tokens.weight": own, **missing, **theirs})


def pvc_form() -> PromptForm:
    """Return the text around a film that stands in one block, and a question about it."""
    text = pvc_prompt("?", [Shown(kind="video", entries=1, is_whole=True)])
    before, rest = text.split(PLACEHOLDER)
    after, answering = rest.split("?")
    return PromptForm(
        before=before + IMG_START, after=lambda seconds, frames: IMG_END + after, blank="", answering=answering
    )


def half_projected(model: PvcForConditionalGeneration, features: Float[Tensor, "*T M C"]) -> Float[Tensor, "*T M D"]:
    """Take compressed tokens through the first layer of the projector: what the tower's lesson and the bank end in."""
    return model.projector.mlp[:2](features)


class FrameReader(nn.Module):
    """Reads what each frame's token knows: what it shows, and when; thrown away after training."""

    def __init__(self, recipe: PvcFilmRecipe) -> None:
        super().__init__()
        self.patches, self.tokens = ReadOut(recipe.tower_width), ReadOut(recipe.width)
        self.patches.weights = self.tokens.weights = dict(recipe.head_weights)
        self.norm, self.when = nn.LayerNorm(recipe.tower_width), nn.Linear(recipe.width, 1)


def train_seeing(model: PvcForConditionalGeneration, recipe: PvcFilmRecipe, stream: ClipStream, report: Report) -> None:
    """Teach the tower, the compressor and half of the projector, in place, to put each frame into one token."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        reader = FrameReader(recipe)
    large = dataclasses.replace(stream, needle_size=(recipe.large_size, stream.needle_size[1]))
    grid = model.vision.grid(CLIP_FRAMES)

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        shown, run = large if step < recipe.large_steps else stream, recipe.runs[step % len(recipe.runs)]
        films = [shown(step * recipe.films + i, recipe.clips_per_film, run) for i in range(recipe.films)]
        pixels, labels = torch.cat([film.pixels for film in films]), torch.cat([film.labels for film in films])
        labels[::run, 0, HEADING] = 0  # from its first frame alone nobody knows where a ball goes
        lengths = [run * CLIP_FRAMES] * (len(pixels) // run)
        patches = model.vision(pixels.flatten(0, 1), lengths)[:, 1:]
        times = sequence_times(lengths, recipe.time_scale)
        tokens = half_projected(model, model.compressor(patches, times, model.vision.grid(1)).features)
        loss, accuracy = reader.tokens(tokens.unflatten(0, (-1, CLIP_FRAMES)).flatten(1, 2), labels)
        own = reader.norm(patches).unflatten(0, (-1, CLIP_FRAMES)).flatten(1, 2)
        inside = torch.cat([film.patch_labels(grid.rows) for film in films])
        loss = loss + reader.patches(own, inside)[0] + reader.patches(card_means(own, inside), labels)[0]
        if recipe.time_weight and recipe.progressive:
            missed = F.mse_loss(reader.when(tokens).flatten().sigmoid(), times / recipe.time_scale)
            loss, accuracy = loss + recipe.time_weight * missed, accuracy | {"when_mse": float(missed.detach())}
        return loss, accuracy

    model.train()
    narrow, wide = (model.vision, reader), (model.compressor, model.projector.mlp[0])
    optimizer = small_adamw(_parameters(narrow), recipe.learning_rate, recipe.weight_decay)
    for group in small_adamw(_parameters(wide), recipe.learning_rate, recipe.weight_decay).param_groups:
        optimizer.add_param_group(group | {"share": recipe.wide_share})
    take_steps(
        optimizer, lesson, recipe.rates, clip_norm=recipe.clip_norm, report_every=recipe.report_every, report=report
    )
    model.eval()


def _parameters(parts: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [parameter for part in parts for parameter in part.parameters()]


@torch.no_grad()
def frame_tokens(model: PvcForConditionalGeneration, pixels: Float[Tensor, "K F 3 S S"]) -> Float[Tensor, "K F D"]:
    """Encode the clips of a film one after the other, as ingestion does, up to half of the projector."""
    encoder = model.encoder(pixels.shape[0] * pixels.shape[1])
    patches = encoder.encode(pixels.flatten(0, 1).unsqueeze(1))
    return half_projected(model, encoder.compress(patches).features).unflatten(0, (len(pixels), -1)).flatten(2, 3)
