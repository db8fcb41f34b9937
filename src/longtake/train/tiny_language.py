"""Second step of the tiny model: the language model learns to answer from the merged tokens of many clips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from longtake.core.chat import IGNORE_LABEL, SYSTEM_TEXT, time_message
from longtake.core.config import StrictConfig
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.train.film_bank import Composed, FilmBank, compose, training_questions, whole_film
from longtake.train.film_clips import CLIP_FRAMES
from longtake.train.packed_questions import PackedBatch, PackedText, pack
from longtake.train.tiny_vision import learning_rate_share

Report = Callable[[dict[str, float]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageRecipe(StrictConfig):
    """How long and how fast the language model learns, and what it is asked.

    tokens: of a step, about; it sets the number of films. fewest_clips, most_clips: length of a composed film, uniform
    in its logarithm; most_clips is reached at `growth_steps`. whole_share: films taken as they were rendered.
    card_share: lowest and highest share of clips with a card. longest: highest position that a video may reach.
    mix: kinds of questions. budgets: tokens a frame, in turn.
    """

    steps: int = 4000
    tokens: int = 6000
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    questions: int = 16
    fewest_clips: int = 4
    most_clips: int = 48
    growth_steps: int = 600
    whole_share: float = 0.2
    card_share: tuple[float, float] = (0.15, 0.9)
    longest: int = 12_000
    mix: tuple[tuple[str, float], ...] = (("N1", 0.6), ("OR", 0.15), ("NH pointer", 0.15), ("CO", 0.1))
    budgets: tuple[int, ...] = (1,)
    report_every: int = 50
    seed: int = 0


class Texts:
    """Turns questions about films into ids, each text once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.before = self.ids(f"<|im_start|>system\n{SYSTEM_TEXT}<|im_end|>\n<|im_start|>user\n")
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Tokenise a piece of text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def packed(self, num_frames: int, asked: list[tuple[str, str]]) -> PackedText:
        """Write the text around a film of that many frames, one a second, with its questions."""
        after = self.ids(f"\n{time_message(float(num_frames), num_frames).strip()}")
        pieces = [(self._question(text), self._answer(answer)) for text, answer in asked]
        return PackedText(self.before, after, pieces)

    def _question(self, text: str) -> list[int]:
        return self._once(f" {text}<|im_end|>\n<|im_start|>assistant\n")

    def _answer(self, text: str) -> list[int]:
        return self._once(f"{text}<|im_end|>")

    def _once(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.ids(text)
        return self._known[text]


def compose_films(bank: FilmBank, recipe: LanguageRecipe, step: int, rng: np.random.Generator) -> list[Composed]:
    """Put together the films of a step: all about equally long, as many as fill its tokens."""
    if rng.random() < recipe.whole_share and step >= recipe.growth_steps:
        length = bank.first_clip[1] - bank.first_clip[0]
        return [whole_film(bank, rng) for _ in range(_films_in(recipe, length))]
    grown = min(1.0, 0.3 + 0.7 * step / recipe.growth_steps)
    most = recipe.fewest_clips * (recipe.most_clips / recipe.fewest_clips) ** grown
    length = round(math.exp(rng.uniform(math.log(recipe.fewest_clips), math.log(most))))
    return [compose(bank, rng, length, rng.uniform(*recipe.card_share)) for _ in range(_films_in(recipe, length))]


def _films_in(recipe: LanguageRecipe, num_clips: int) -> int:
    """Return how many films of that length a step has room for, with their questions of about twenty tokens."""
    length = num_clips * CLIP_FRAMES * recipe.budgets[0] + 50 + 20 * recipe.questions
    return max(2, recipe.tokens // length)


def make_batch(
    model: VideoChatFlashForConditionalGeneration,
    bank: FilmBank,
    texts: Texts,
    recipe: LanguageRecipe,
    step: int,
) -> PackedBatch:
    """Build the batch of a step; it follows from the recipe's seed and the step alone."""
    rng = np.random.Generator(np.random.Philox(key=[recipe.seed, step]))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    budget = recipe.budgets[step % len(recipe.budgets)]
    films = compose_films(bank, recipe, step, rng)
    mix = dict(recipe.mix)
    packed = [
        texts.packed(len(film.clips) * CLIP_FRAMES, training_questions(bank, film, rng, recipe.questions, mix))
        for film in films
    ]
    visuals = [model.projector(bank.tokens[budget][film.clips].flatten(0, 1)) for film in films]
    return pack(model.language.embed_tokens, visuals, packed, recipe.longest, generator)


def answer_loss(model: VideoChatFlashForConditionalGeneration, batch: PackedBatch) -> tuple[torch.Tensor, float, int]:
    """Return the loss over the answers' tokens, the share of first tokens that are right, and how many answers."""
    hidden = model.language(
        inputs_embeds=batch.embeds, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE_LABEL)
    counts = labels != IGNORE_LABEL
    logits, wanted = model.lm_head(hidden[counts]), labels[counts]
    first = (counts & ~F.pad(counts[:, :-1], (1, 0)))[counts]
    right = (logits.argmax(-1) == wanted)[first].float().mean()
    return F.cross_entropy(logits, wanted), float(right), int(first.sum())


def train_language(
    model: VideoChatFlashForConditionalGeneration,
    bank: FilmBank,
    tokenizer: PreTrainedTokenizerBase,
    recipe: LanguageRecipe,
    report: Report,
) -> None:
    """Train the projector and the language model in place; the tower is frozen, its tokens are in the bank."""
    texts = Texts(tokenizer)
    parameters = [*model.projector.parameters(), *model.language.parameters()]
    decayed = [p for p in parameters if p.dim() > 1]
    plain = [p for p in parameters if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    model.train()
    for step in range(recipe.steps):
        share = learning_rate_share(step, recipe.warmup_steps, recipe.steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share
        loss, right, num_answers = answer_loss(model, make_batch(model, bank, texts, recipe, step))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        if step % recipe.report_every == 0 or step == recipe.steps - 1:
            report({"step": step, "loss": float(loss.detach()), "first_right": right, "answers": num_answers})
    model.eval()
