"""Second step of the tiny model: the language model learns to answer from the merged tokens of many clips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from longtake.core.chat import IGNORE_LABEL, SYSTEM_TEXT, time_message
from longtake.core.config import StrictConfig
from longtake.media.filmstrip.attributes import DIRECTIONS
from longtake.media.filmstrip.world import Card, Motion
from longtake.models.base import VisualLanguageModel
from longtake.nn.language.layers import project_heads, rotation_at
from longtake.ops.rope import rotate
from longtake.train.film_bank import Asked, Composed, FilmBank, compose, training_questions, whole_film
from longtake.train.film_clips import CLIP_FRAMES
from longtake.train.packed_questions import PackedBatch, PackedText, Proofs, pack
from longtake.train.placing import Placing
from longtake.train.steps import Report, small_adamw, take_steps, warmed_rates


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageRecipe(StrictConfig):
    """How long and how fast the language model learns, and what it is asked.

    tokens: of a step, about; it sets the number of films. Three phases: for `first_steps` films of one clip, where
    there is nothing to choose, only to read; up to `short_steps` films of `short_clips` clips with a card each, to
    learn to choose; then the longest films grow, up to `growth_steps`, to `most_clips` clips or `most_tokens`
    visual tokens; lengths are uniform in their logarithm. mix: kinds of questions; first_mix: of the first two
    phases, which have to teach every word that a card is named by. questions: of a long film; short ones are asked
    fewer. whole_share: films taken as they were rendered. card_share: lowest and highest share of clips with a
    card, most_cards: most of them, about. motion_share: of runs of clips that show a ball in motion. chain_share: of
    runs that show a card with a picture or the card that it leads to. longest:
    highest position that a video may reach, once the films have grown. budgets: tokens a frame, in turn once films
    grow. mentioning_layers: layers that are taught to look, from a word that names a thing, at the clips that show
    it. looking_layers: layers (the last one last) that are taught to look at the clips that prove the answer; the
    evidence of an answer is read from there. naming_weight: of the loss that has the word table name what each
    visual token shows. placing_weight: of the loss that has tokens tell their order in time (`train.placing`).
    rough_share: of questions in which words are missing or wrong. keeps_times: clips stay in the order of their places
    in their own films, for tokens that know when their frame was shown. seed: of all that is drawn.
    """

    steps: int = 2500
    tokens: int = 6000
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    questions: int = 16
    first_steps: int = 250
    short_steps: int = 600
    short_clips: int = 6
    growth_steps: int = 1200
    most_clips: int = 256
    most_tokens: int = 1024
    whole_share: float = 0.2
    card_share: tuple[float, float] = (0.1, 0.9)
    most_cards: int = 40
    motion_share: float = 0.15
    chain_share: float = 0.0
    longest: int = 12_000
    mix: tuple[tuple[str, float], ...] = (
        ("N1", 0.45),
        ("NH pointer", 0.1),
        ("NH trace", 0.1),
        ("OR", 0.08),
        ("OR first", 0.05),
        ("CO", 0.07),
        ("MO", 0.07),
        ("MO turn", 0.03),
        ("AB", 0.05),
    )
    first_mix: tuple[tuple[str, float], ...] = (("N1", 0.3), ("OR first", 0.4), ("NH pointer", 0.3))
    budgets: tuple[int, ...] = (1, 1, 4)
    mentioning_layers: tuple[int, ...] = (1,)
    looking_layers: tuple[int, ...] = (2, 3)
    looking_weight: float = 0.25
    naming_weight: float = 0.5
    placing_weight: float = 0.0
    rough_share: float = 0.0
    keeps_times: bool = False
    report_every: int = 50
    seed: int = 0

    @property
    def rates(self) -> list[float]:
        """Return the learning rate of each step."""
        return warmed_rates(self.learning_rate, self.warmup_steps, self.steps)

    def budget_of(self, step: int) -> int:
        """Return the tokens a frame of a step: the first phases have the first budget, later ones each in turn."""
        return self.budgets[0] if step < self.short_steps else self.budgets[step % len(self.budgets)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptForm:
    """The text around a film and a question about it, as `longtake ask` writes it for a family of models.

    before, after: the film; after: of its seconds and frames. blank: whether one stands before a question. answering:
    between a question and its answer.
    """

    before: str
    after: Callable[[float, int], str]
    blank: str
    answering: str


FLASH_FORM = PromptForm(
    before=f"<|im_start|>system\n{SYSTEM_TEXT}<|im_end|>\n<|im_start|>user\n",
    after=lambda seconds, frames: f"\n{time_message(seconds, frames).strip()}",
    blank=" ",
    answering="<|im_end|>\n<|im_start|>assistant\n",
)


class Texts:
    """Turns questions about films into ids, each text once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: PromptForm = FLASH_FORM) -> None:
        self.tokenizer, self.form = tokenizer, form
        self.before = self.ids(form.before)
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Tokenise a piece of text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def packed(self, num_frames: int, asked: list[Asked], tokens_per_clip: int) -> PackedText:
        """Write the text around a film of that many frames, one a second, with its questions."""
        after = self.ids(self.form.after(float(num_frames), num_frames))
        pieces = [(self._question(one.text), self._answer(one.answer)) for one in asked]

        def tokens(clips: list[int]) -> list[int]:
            return [clip * tokens_per_clip + i for clip in clips for i in range(tokens_per_clip)]

        proofs = [tokens(one.proof) for one in asked]
        mentions = [[(row, tokens(clips)) for row, clips in self._mentions(one)] for one in asked]
        return PackedText(self.before, after, pieces, proofs, mentions)

    def _mentions(self, asked: Asked) -> Iterator[tuple[int, list[int]]]:
        """Find the token that ends each mention, counted from the beginning of the question."""
        for name, clips in asked.mentions.items():
            question = f"{self.form.blank}{asked.text}"
            for text, before in ((question, 0), (asked.answer, len(self._question(asked.text)))):
                if name in text:
                    end = text.index(name) + len(name)
                    yield before + len(self._once(text[:end])) - 1, clips

    def names(self, shown: Card | Motion) -> list[int]:
        """Return the words for what is shown, each as a first word and as a later one."""
        if isinstance(shown, Card):
            words = (shown.key.colour, shown.key.shape, shown.letter)
        else:
            words = (shown.colour, DIRECTIONS[shown.direction])
        return [id_ for word in words for text in (word, f" {word}") for id_ in self._once(text)]

    def _question(self, text: str) -> list[int]:
        return self._once(f"{self.form.blank}{text}{self.form.answering}")

    def _answer(self, text: str) -> list[int]:
        return self._once(f"{text}<|im_end|>")

    def _once(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.ids(text)
        return self._known[text]


def compose_films(bank: FilmBank, recipe: LanguageRecipe, step: int, rng: np.random.Generator) -> list[Composed]:
    """Put together the films of a step: all about equally long, as many as fill its tokens."""
    budget = recipe.budget_of(step)
    if rng.random() < recipe.whole_share and step >= recipe.growth_steps:
        length = bank.first_clip[1] - bank.first_clip[0]
        return [whole_film(bank, rng) for _ in range(_films_in(recipe, length, budget))]
    growing = step >= recipe.short_steps
    length = 1 if step < recipe.first_steps else recipe.short_clips
    if growing:
        length = _film_length(recipe, step, budget, rng)
    share = min(rng.uniform(*recipe.card_share), recipe.most_cards / length) if growing else 1.0
    motion_share = recipe.motion_share if growing else 0.0
    shares = (share, motion_share, recipe.chain_share)
    count = _films_in(recipe, length, budget)
    return [compose(bank, rng, length, *shares, keeps_times=recipe.keeps_times) for _ in range(count)]


def _film_length(recipe: LanguageRecipe, step: int, budget: int, rng: np.random.Generator) -> int:
    """Draw how many clips the films of a step have while the longest grow."""
    grown = min(1.0, (step - recipe.short_steps) / max(1, recipe.growth_steps - recipe.short_steps))
    first = 2 * recipe.short_clips
    longest = first * (max(recipe.most_clips, first) / first) ** grown
    longest = min(longest, recipe.most_tokens / (CLIP_FRAMES * budget))
    return round(math.exp(rng.uniform(math.log(max(1, recipe.short_clips // 2)), math.log(longest))))


def _questions_of(recipe: LanguageRecipe, num_clips: int) -> int:
    return min(recipe.questions, 4 + 2 * num_clips)


def _films_in(recipe: LanguageRecipe, num_clips: int, budget: int) -> int:
    """Return how many films of that length a step has room for, with their questions of about twenty tokens."""
    length = num_clips * CLIP_FRAMES * budget + 50 + 20 * _questions_of(recipe, num_clips)
    return max(2, recipe.tokens // length)


def make_batch(
    model: VisualLanguageModel,
    bank: FilmBank,
    texts: Texts,
    recipe: LanguageRecipe,
    step: int,
    connector: nn.Module,
) -> tuple[PackedBatch, Float[Tensor, ""]]:
    """Build the batch of a step, and its naming loss; both follow from the recipe's seed and the step alone."""
    rng = np.random.Generator(np.random.Philox(key=[recipe.seed, step]))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    budget = recipe.budget_of(step)
    films = compose_films(bank, recipe, step, rng)
    mix = dict(recipe.first_mix if step < recipe.short_steps else recipe.mix)
    packed = []
    for film in films:
        count = _questions_of(recipe, len(film.clips))
        asked = training_questions(bank, film, rng, count, mix, recipe.rough_share)
        packed.append(texts.packed(len(film.clips) * CLIP_FRAMES, asked, budget * CLIP_FRAMES))
    clips = [connector(bank.tokens[budget][film.clips]) for film in films]  # [K, M, D] each
    named = naming(model, torch.cat(clips), [_things(bank, film, clip) for film in films for clip in film.clips], texts)
    visuals = [film.flatten(0, 1) for film in clips]
    longest = recipe.longest if step >= recipe.growth_steps else 0
    return pack(model.language.embed_tokens, visuals, packed, longest, generator), named


def _things(bank: FilmBank, film: Composed, clip: int) -> list[Card | Motion]:
    moving = [bank.motions[motion] for motion in film.motions if clip in bank.moved[motion]]
    return [*(bank.cards[card] for card in bank.shown[clip]), *moving]


def naming(
    model: VisualLanguageModel,
    tokens: Float[Tensor, "K M D"],
    shown: Sequence[Sequence[Card | Motion]],
    texts: Texts,
) -> Float[Tensor, ""]:
    """Return how badly the word table names what each clip shows from its visual tokens, before any layer.

    What a question says and what a token shows then lie near each other from the start, so that one can find the other.
    """
    named = [clip for clip, things in enumerate(shown) if things]
    if not named:
        return tokens.new_zeros(())
    wanted = tokens.new_zeros(len(named), model.config.get_text_config().vocab_size)
    for row, clip in enumerate(named):
        words = [word for thing in shown[clip] for word in texts.names(thing)]
        wanted[row, words] = 1 / len(set(words))
    logits = model.lm_head(model.language.norm(tokens[named]))  # [C, M, V]
    return F.cross_entropy(logits.flatten(0, 1), wanted.repeat_interleave(tokens.shape[1], dim=0))


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
    placing: Tensor | None = None
    placed_right: float = math.nan


def lesson(
    model: VisualLanguageModel,
    batch: PackedBatch,
    looking_layers: Sequence[int] = (),
    mentioning_layers: Sequence[int] = (),
    placing: Placing | None = None,
) -> Lesson:
    """Read a batch.

    looking_layers: whose attention, of rows about to answer, is to go to what proves the answer; mentioning_layers:
    whose attention, of rows that end a mention, is to go to what shows the thing mentioned.
    """
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
    taught = [(layer, batch.mentions) for layer in mentioning_layers]
    taught += [(layer, batch.proofs) for layer in looking_layers]
    looked = [_looked_right(model, batch, about, states.hidden_states[layer], layer) for layer, about in taught]
    missed = [-share.clamp(min=1e-6).log().sum() / max(1, len(share)) for share in looked]
    looking = torch.stack(missed).sum() if missed else right * 0
    last = float(looked[-1].detach().mean()) if looked else math.nan
    placed, placed_right = placing(states.hidden_states, batch.mentions) if placing else (None, math.nan)
    answer = F.cross_entropy(logits, wanted)
    return Lesson(answer, looking, float(right), last, int(first.sum()), placed, placed_right)


def _looked_right(
    model: VisualLanguageModel,
    batch: PackedBatch,
    about: Sequence[Proofs],
    hidden: Tensor,
    index: int,
) -> Float[Tensor, "Q"]:
    """Return which share of a layer's attention to the film goes to the tokens that each row is about."""
    layer: Any = model.language.layers[index]
    normed = layer.input_layernorm(hidden)
    rotation = rotation_at(model.language, hidden, batch.positions)
    shares = []
    for sample, proofs in enumerate(about):
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


@torch.no_grad()
def match_by_content(language: Any, generator: torch.Generator) -> None:
    """Draw queries and keys anew: large enough to tell tokens apart, and keys equal to queries behind the first layer.

    What is alike then attracts from the start. From the usual small numbers the model learned to read a lone card but,
    in 1,400 steps, nothing of choosing among several; so it takes a hundred.
    """
    for index, layer in enumerate(language.layers):
        query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight  # [heads * d, D], [key heads * d, D]
        for weight in (query, key):
            weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
        if index > 0:
            per_head = query.unflatten(0, (-1, layer.self_attn.head_dim))
            key.copy_(per_head[:: len(query) // len(key)].flatten(0, 1))


def train_language(
    model: VisualLanguageModel,
    bank: FilmBank,
    tokenizer: PreTrainedTokenizerBase,
    recipe: LanguageRecipe,
    report: Report,
    *,
    is_new: bool = True,
    form: PromptForm = FLASH_FORM,
    connector: nn.Module | None = None,
) -> None:
    """Train the projector and the language model in place; the tower is frozen, its tokens are in the bank.

    connector: what the bank's tokens have still to go through, if it is not the whole projector. is_new: draw queries
    and keys anew first; else go on with what there is.
    """
    texts = Texts(tokenizer, form)
    connecting: nn.Module = model.projector if connector is None else connector
    if is_new:
        match_by_content(model.language, torch.Generator().manual_seed(recipe.seed))
    placing = None
    if recipe.placing_weight:
        placing = Placing(model.config.get_text_config().hidden_size, 1, recipe.mentioning_layers[-1] + 1, recipe.seed)
    parameters = [*connecting.parameters(), *model.language.parameters()]
    parameters += placing.parameters() if placing else ()

    def step_lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        batch, named = make_batch(model, bank, texts, recipe, step, connecting)
        taught = lesson(model, batch, recipe.looking_layers, recipe.mentioning_layers, placing)
        loss = taught.answer + recipe.looking_weight * taught.looking + recipe.naming_weight * named
        if taught.placing is not None:
            loss = loss + recipe.placing_weight * taught.placing
        return loss, {
            "loss": float(taught.answer.detach()),
            "first_right": taught.first_right,
            "looked_right": taught.looked_right,
            "answers": taught.num_answers,
            "naming": float(named.detach()),
            "placed_right": taught.placed_right,
        }

    model.train()
    take_steps(
        small_adamw(parameters, recipe.learning_rate, recipe.weight_decay),
        step_lesson,
        recipe.rates,
        clip_norm=recipe.clip_norm,
        report_every=recipe.report_every,
        report=report,
    )
    model.eval()
