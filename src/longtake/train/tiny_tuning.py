"""Supervised compression tuning of the tiny model: it learns to answer while tokens are dropped between its layers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from longtake.core.chat import IGNORE_LABEL
from longtake.core.config import StrictConfig
from longtake.models.splice import Spliced
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.train.film_bank import FilmBank, compose, training_questions
from longtake.train.film_clips import CLIP_FRAMES
from longtake.train.objective import Objective
from longtake.train.packed_questions import PackedText
from longtake.train.packed_walk import PackedRow
from longtake.train.steps import Report, small_adamw, take_steps, warmed_rates
from longtake.train.tiny_language import Texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningRecipe(StrictConfig):
    """How long and how fast the language model is tuned, and on which films.

    tokens: of a step, about. tokens_per_frame: of the bank; what of it reaches the last layer is the reducer's matter.
    most_clips: films have 1 to so many clips, uniform in the logarithm. card_share: of clips with a card. mix: kinds of
    questions.
    """

    steps: int = 300
    tokens: int = 5000
    learning_rate: float = 5e-4
    warmup_steps: int = 20
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    tokens_per_frame: int = 4
    most_clips: int = 24
    card_share: float = 0.6
    mix: tuple[tuple[str, float], ...] = (("N1", 0.8), ("OR first", 0.1), ("AB", 0.1))
    report_every: int = 50
    seed: int = 0


def tune(
    model: VideoChatFlashForConditionalGeneration,
    bank: FilmBank,
    tokenizer: PreTrainedTokenizerBase,
    recipe: TuningRecipe,
    report: Report,
) -> None:
    """Tune the projector and the language model in place, with the model's reducer at work in the forward pass.

    One question a film and sample, since a reducer may look at the question. The films of a step follow from the
    recipe's seed and the step, so that arms with other reducers learn from the same ones.

    Source: XComp section 3.3; loss as in its Eq. 5, the mean over answer tokens.
    """
    texts, objective = Texts(tokenizer), Objective(model)
    parameters = [*model.projector.parameters(), *model.language.parameters()]

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        total, count = objective.of_row(PackedRow.of(samples_of(model, bank, texts, recipe, step)))
        return total / count, {"answer_tokens": count}

    model.train()
    take_steps(
        small_adamw(parameters, recipe.learning_rate, recipe.weight_decay),
        lesson,
        warmed_rates(recipe.learning_rate, recipe.warmup_steps, recipe.steps),
        clip_norm=recipe.clip_norm,
        report_every=recipe.report_every,
        report=report,
    )
    model.eval()


def samples_of(
    model: VideoChatFlashForConditionalGeneration, bank: FilmBank, texts: Texts, recipe: TuningRecipe, step: int
) -> list[Spliced]:
    """Put together the samples of a step, as many as fill its tokens."""
    rng = np.random.Generator(np.random.Philox(key=[recipe.seed, step]))
    samples: list[Spliced] = []
    room = recipe.tokens
    while room > 0:
        num_clips = round(math.exp(rng.uniform(0, math.log(recipe.most_clips))))
        film = compose(bank, rng, num_clips, recipe.card_share)
        asked = training_questions(bank, film, rng, 1, dict(recipe.mix))
        if asked:
            text = texts.packed(num_clips * CLIP_FRAMES, asked, recipe.tokens_per_frame * CLIP_FRAMES)
            visual = model.projector(bank.tokens[recipe.tokens_per_frame][film.clips]).flatten(0, 1)
            samples.append(splice(model, text, visual))
            room -= int(samples[-1].embeds.shape[1])
    return samples


def splice(model: VideoChatFlashForConditionalGeneration, text: PackedText, visual: Float[Tensor, "N D"]) -> Spliced:
    """Write a film with its one question and answer as the language model reads it; the answer alone is learned."""
    question, answer = text.questions[0]
    before, after = torch.tensor(text.before), torch.tensor(text.after + question + answer)
    embeds = torch.cat([model.language.embed_tokens(before), visual, model.language.embed_tokens(after)])
    labels = torch.full((1, len(embeds)), IGNORE_LABEL)
    labels[0, -len(answer) :] = torch.tensor(answer)
    return Spliced(
        embeds=embeds.unsqueeze(0),
        mask=torch.ones(1, len(embeds), dtype=torch.bool),
        labels=labels,
        visual_start=[len(before)],
        num_visual=[len(visual)],
        num_blocks=[1],
    )
