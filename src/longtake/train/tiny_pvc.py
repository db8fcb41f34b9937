"""A tiny PVC learns to read posters, then to answer questions, and is asked about posters that it has never seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from longtake.core.chat import IGNORE_LABEL
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.train.packed_questions import PackedText, pack
from longtake.train.steps import Report, small_adamw, take_steps
from longtake.train.tiny_pvc_arms import TinyPvcRecipe, show
from longtake.train.tiny_pvc_posters import Posters, PosterTexts
from longtake.train.tiny_pvc_reader import PatchReader, PlaceReader, naming_loss, patch_letters, share_right

Loss = tuple[Float[Tensor, ""], float]  # and which share of letters was right
Lesson = Callable[[int, Posters], Loss]  # of a step and its posters
Right = Callable[[Posters, int], Bool[Tensor, "E C"]]  # which cells of posters in so many tokens are right
NUM_TRAINING_WORDINGS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """Cells of each picture, and the wording in which each is asked for."""

    cells: list[list[int]]
    wordings: list[list[int]]


def ask_some(posters: Posters, questions: int, rng: np.random.Generator) -> Asked:
    """Ask each picture for some of its cells, no cell twice, in wordings of the training split."""
    num_cells = posters.letters.shape[1]
    cells = [rng.permutation(num_cells)[:questions].tolist() for _ in range(len(posters))]
    return Asked(cells, [rng.integers(NUM_TRAINING_WORDINGS, size=len(row)).tolist() for row in cells])


def ask_all(posters: Posters) -> Asked:
    """Ask each picture for all of its cells, each in one of the wordings of the training split, by turns."""
    cells = list(range(posters.letters.shape[1]))
    wordings = [[(seed + cell) % NUM_TRAINING_WORDINGS for cell in cells] for seed in posters.seeds]
    return Asked([cells] * len(posters), wordings)


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What the language model says at the tokens of answers, and what it should; is_letter: first tokens."""

    logits: Float[Tensor, "A V"]
    wanted: Int64[Tensor, "A"]
    is_letter: Bool[Tensor, "A"]

    @property
    def right(self) -> Bool[Tensor, "Q"]:
        """Say of each letter whether it is the likeliest of all tokens."""
        return (self.logits.argmax(-1) == self.wanted)[self.is_letter]


def answer(
    model: PvcForConditionalGeneration,
    texts: PosterTexts,
    posters: Posters,
    asked: Asked,
    visuals: Float[Tensor, "E N D"],
) -> Answers:
    """Read packed questions behind the pictures' tokens, in the form in which `longtake ask` writes them."""
    packed = []
    for number, letters in enumerate(posters.letters.tolist()):
        pairs = zip(asked.cells[number], asked.wordings[number], strict=True)
        pieces = [(texts.question(wording, cell, posters.side), texts.answer(letters[cell])) for cell, wording in pairs]
        packed.append(PackedText(texts.before, texts.after, pieces))
    batch = pack(model.language.embed_tokens, list(visuals), packed, 0, torch.Generator())
    states = model.language(
        inputs_embeds=batch.embeds, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE_LABEL)
    counts = labels != IGNORE_LABEL
    is_letter = counts & ~F.pad(counts[:, :-1], (1, 0))
    return Answers(model.lm_head(states[counts]), labels[counts], is_letter[counts])


def learn(
    parameters: Sequence[nn.Parameter],
    lesson: Lesson,
    rates: Sequence[float],
    posters: Posters,
    recipe: TinyPvcRecipe,
    report: Report,
) -> None:
    """Take a step for each of the learning rates, each with posters drawn anew."""
    rng = np.random.default_rng(recipe.seed)

    def step_lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        loss, right = lesson(step, posters.at(rng.integers(len(posters), size=recipe.batch).tolist()))
        return loss, {"right": right}

    optimizer = small_adamw(parameters, recipe.learning_rate, recipe.weight_decay)
    take_steps(
        optimizer, step_lesson, rates, clip_norm=recipe.clip_norm, report_every=recipe.report_every, report=report
    )


def train_reading(
    model: PvcForConditionalGeneration, posters: Posters, recipe: TinyPvcRecipe, report: Report
) -> PlaceReader:
    """Teach a model, in place, to put posters into tokens; return what reads places from its tokens.

    First each patch names its letter, in pictures shown once; then every place is read from the tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        patch_reader = PatchReader(model.vision.width)
        places = PlaceReader(recipe.width, recipe.poster.side, recipe.heads, recipe.time_scale)

    def lesson(step: int, posters: Posters) -> Loss:
        if step < recipe.seeing_steps:
            logits = patch_reader(model.vision(posters.pictures(), [1] * len(posters))[:, 1:])
            wanted = patch_letters(posters.letters, model.vision.grid(1))
        else:
            logits = places(show(model, posters.pictures(), recipe.tokens[step % len(recipe.tokens)]))
            wanted = posters.letters
        return naming_loss(logits, wanted), share_right(logits, wanted)

    model.train()
    parts = (model.vision, model.compressor, model.projector, patch_reader, places)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    learn(parameters, lesson, recipe.reading_rates, posters, recipe, report)
    model.eval()
    return places


def train_answering(
    model: PvcForConditionalGeneration, texts: PosterTexts, posters: Posters, recipe: TinyPvcRecipe, report: Report
) -> None:
    """Teach the language model, in place, to answer questions from tokens, which stay as they are."""
    rng = np.random.default_rng(recipe.seed)

    def lesson(step: int, posters: Posters) -> Loss:
        with torch.no_grad():
            visuals = show(model, posters.pictures(), recipe.tokens[step % len(recipe.tokens)])
        found = answer(model, texts, posters, ask_some(posters, recipe.questions, rng), visuals)
        return F.cross_entropy(found.logits, found.wanted), float(found.right.float().mean())

    model.train()
    parameters = [*model.language.parameters(), *model.lm_head.parameters()]
    learn(parameters, lesson, recipe.answering_rates, posters, recipe, report)
    model.eval()


@torch.no_grad()
def score(posters: Posters, tokens: int, right: Right, batch: int = 25) -> Bool[Tensor, "E C"]:
    """Say of every cell of every poster, in so many tokens, whether it is right; a few posters at a time."""
    starts = range(0, len(posters), batch)
    parts = [posters.at(list(range(start, min(start + batch, len(posters))))) for start in starts]
    return torch.cat([right(part, tokens) for part in parts])


def read_right(
    model: PvcForConditionalGeneration, places: PlaceReader, posters: Posters, tokens: int
) -> Bool[Tensor, "E C"]:
    """Say which cells the reader of places names right from so many tokens."""
    return places(show(model, posters.pictures(), tokens)).argmax(-1) == posters.letters


def answered_right(
    model: PvcForConditionalGeneration, texts: PosterTexts, posters: Posters, tokens: int
) -> Bool[Tensor, "E C"]:
    """Say which cells the language model answers right: of all tokens the letter has to be the likeliest."""
    found = answer(model, texts, posters, ask_all(posters), show(model, posters.pictures(), tokens))
    return found.right.unflatten(0, (len(posters), -1))
