"""Second step of the tiny model: the language model learns to answer from the merged tokens of many clips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from longtake.core.chat import IGNORE_LABEL, SYSTEM_TEXT, time_message
from longtake.core.config import StrictConfig
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.nn.language.layers import project_heads, rotation_at
from longtake.ops.rope import rotate
from longtake.train.film_bank import Asked, Composed, FilmBank, compose, training_questions, whole_film
from longtake.train.film_clips import CLIP_FRAMES
from longtake.train.packed_questions import PackedBatch, PackedText, pack
from longtake.train.tiny_vision import learning_rate_share

Report = Callable[[dict[str, float]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageRecipe(StrictConfig):
    """How long and how fast the language model learns, and what it is asked.

    tokens: of a step, about; it sets the number of films. most_clips: longest composed film; lengths are uniform in
    their logarithm. Films of one clip come first, for `first_steps`: with one card there is nothing to choose, only to
    read. The longest grow from then on until `growth_steps`. questions: of a long film; short ones are asked fewer.
    whole_share: films taken as they were rendered.
    card_share: lowest and highest share of clips with a card. longest: highest position that a video may
    reach, once the films have grown.
    mix: kinds of questions; first_mix: of the films of one clip, which have to teach every word that a card is named
    by. budgets: tokens a frame, in turn. looking_layers: layers (the last one last) that are
    taught to look at the clips that prove the answer; the evidence of an answer is read from there.
    """

    steps: int = 4000
    tokens: int = 6000
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    questions: int = 16
    most_clips: int = 48
    first_steps: int = 300
    growth_steps: int = 900
    whole_share: float = 0.1
    card_share: tuple[float, float] = (0.15, 0.9)
    longest: int = 12_000
    mix: tuple[tuple[str, float], ...] = (
        ("N1", 0.65),
        ("NH pointer", 0.1),
        ("OR", 0.1),
        ("OR first", 0.05),
        ("CO", 0.1),
    )
    first_mix: tuple[tuple[str, float], ...] = (("N1", 0.3), ("OR first", 0.4), ("NH pointer", 0.3))
    budgets: tuple[int, ...] = (1,)
    looking_layers: tuple[int, ...] = (2, 3)
    looking_weight: float = 0.25
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

    def packed(self, num_frames: int, asked: list[Asked], tokens_per_clip: int) -> PackedText:
        """Write the text around a film of that many frames, one a second, with its questions."""
        after = self.ids(f"\n{time_message(float(num_frames), num_frames).strip()}")
        pieces = [(self._question(one.text), self._answer(one.answer)) for one in asked]
        inside = range(tokens_per_clip)
        proofs = [[clip * tokens_per_clip + i for clip in one.proof for i in inside] for one in asked]
        return PackedText(self.before, after, pieces, proofs)

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
    grown = min(1.0, max(0.0, (step - recipe.first_steps) / (recipe.growth_steps - recipe.first_steps)))
    length = round(math.exp(rng.uniform(0.0, grown * math.log(recipe.most_clips))))
    share = 1.0 if grown == 0.0 else rng.uniform(*recipe.card_share)
    return [compose(bank, rng, length, share) for _ in range(_films_in(recipe, length))]


def _questions_of(recipe: LanguageRecipe, num_clips: int) -> int:
    return min(recipe.questions, 4 + 2 * num_clips)


def _films_in(recipe: LanguageRecipe, num_clips: int) -> int:
    """Return how many films of that length a step has room for, with their questions of about twenty tokens."""
    length = num_clips * CLIP_FRAMES * recipe.budgets[0] + 50 + 20 * _questions_of(recipe, num_clips)
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
    mix = dict(recipe.first_mix if step < recipe.first_steps else recipe.mix)
    packed = []
    for film in films:
        asked = training_questions(bank, film, rng, _questions_of(recipe, len(film.clips)), mix)
        packed.append(texts.packed(len(film.clips) * CLIP_FRAMES, asked, budget * CLIP_FRAMES))
    visuals = [model.projector(bank.tokens[budget][film.clips].flatten(0, 1)) for film in films]
    longest = recipe.longest if step >= recipe.growth_steps else 0
    return pack(model.language.embed_tokens, visuals, packed, longest, generator)


@dataclasses.dataclass(frozen=True, eq=False)
class Lesson:
    """What a batch taught: losses over the answers' tokens and over where it was looked, and the share that is right.

    first_right: of the first tokens of answers. looked_right: mean share of the attention to the film that went to
    tokens that prove the answer, in the last layer.
    """

    answer: Tensor
    looking: Tensor
    first_right: float
    looked_right: float
    num_answers: int


def lesson(
    model: VideoChatFlashForConditionalGeneration, batch: PackedBatch, looking_layers: Sequence[int] = ()
) -> Lesson:
    """Read a batch; looking_layers are the layers whose attention is to go to what proves the answer."""
    states = model.language(
        inputs_embeds=batch.embeds,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
        output_hidden_states=True,
    )
    labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE_LABEL)
    counts = labels != IGNORE_LABEL
    logits, wanted = model.lm_head(states.last_hidden_state[counts]), labels[counts]
    first = (counts & ~F.pad(counts[:, :-1], (1, 0)))[counts]
    right = (logits.argmax(-1) == wanted)[first].float().mean()
    looked = [_looked_right(model, batch, states.hidden_states[layer], layer) for layer in looking_layers]
    looking = torch.stack([-share.clamp(min=1e-6).log().mean() for share in looked]).sum() if looked else right * 0
    last = float(looked[-1].detach().mean()) if looked else math.nan
    return Lesson(F.cross_entropy(logits, wanted), looking, float(right), last, int(first.sum()))


def _looked_right(
    model: VideoChatFlashForConditionalGeneration, batch: PackedBatch, hidden: Tensor, index: int
) -> Float[Tensor, "Q"]:
    """Return which share of a layer's attention to the film goes to proving tokens, for each row about to answer."""
    layer: Any = model.language.layers[index]
    normed = layer.input_layernorm(hidden)
    rotation = rotation_at(model.language, hidden, batch.positions)
    shares = []
    for sample, proofs in enumerate(batch.proofs):
        rows = proofs.rows[proofs.proves.any(1)]
        cos, sin = rotation.cos[sample], rotation.sin[sample]
        query = project_heads(layer, normed[sample : sample + 1, rows], "q_proj")[0]  # [heads, Q, d]
        key = project_heads(layer, normed[sample : sample + 1, proofs.visual], "k_proj")[0]  # [heads, N, d]
        query = rotate(query, cos[rows], sin[rows])
        key = rotate(key, cos[proofs.visual], sin[proofs.visual])
        key = key.repeat_interleave(len(query) // len(key), dim=0)  # heads that share a key
        attention = (query @ key.mT * layer.self_attn.scaling).softmax(-1).mean(0)  # [Q, N]
        shares.append((attention * proofs.proves[proofs.proves.any(1)]).sum(-1))
    return torch.cat(shares)


def train_language(
    model: VideoChatFlashForConditionalGeneration,
    bank: FilmBank,
    tokenizer: PreTrainedTokenizerBase,
    recipe: LanguageRecipe,
    report: Report,
    on_report: Callable[[], None] | None = None,
) -> None:
    """Train the projector and the language model in place; the tower is frozen, its tokens are in the bank.

    on_report is called after each report, to save what there is.
    """
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
        taught = lesson(model, make_batch(model, bank, texts, recipe, step), recipe.looking_layers)
        loss = taught.answer + recipe.looking_weight * taught.looking
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        if step % recipe.report_every == 0 or step == recipe.steps - 1:
            report(
                {
                    "step": step,
                    "loss": float(taught.answer.detach()),
                    "first_right": taught.first_right,
                    "looked_right": taught.looked_right,
                    "answers": taught.num_answers,
                }
            )
            if on_report is not None:
                on_report()
    model.eval()
