"""A tiny PVC learns to read posters, in three lessons, and is asked about posters that it has never seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from longtake.core.chat import IGNORE_LABEL
from longtake.models.pvc import Grouping, PvcForConditionalGeneration
from longtake.train.packed_questions import PackedText, pack
from longtake.train.tiny_pvc_arms import TinyPvcRecipe
from longtake.train.tiny_pvc_posters import Posters, PosterTexts
from longtake.train.tiny_pvc_reader import PatchReader, PlaceReader, naming_loss, patch_letters, share_right
from longtake.train.tiny_vision import small_adamw

Report = Callable[[dict[str, float]], None]
Loss = tuple[Float[Tensor, ""], float]
NUM_TRAINING_WORDINGS = 3


def show(
    model: PvcForConditionalGeneration, pictures: Float[Tensor, "E 3 S S"], repeats: int
) -> Float[Tensor, "E N D"]:
    """Encode pictures, each shown so many times, into the tokens that the language model reads."""
    tokens, _ = model.connect(pictures, Grouping((repeats,) * len(pictures), (repeats,) * len(pictures)))
    return tokens.unflatten(0, (-1, repeats)).flatten(1, 2)


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
    longest: int = 0,
    generator: torch.Generator | None = None,
) -> Answers:
    """Read packed questions behind the pictures' tokens, in the form in which `longtake ask` writes them.

    longest: positions over which the visual tokens are spread at random, so that their count is not learned.
    """
    packed = []
    for number, letters in enumerate(posters.letters.tolist()):
        pairs = zip(asked.cells[number], asked.wordings[number], strict=True)
        pieces = [(texts.question(wording, cell, posters.side), texts.answer(letters[cell])) for cell, wording in pairs]
        packed.append(PackedText(texts.before, texts.after, pieces))
    batch = pack(model.language.embed_tokens, list(visuals), packed, longest, generator or torch.Generator())
    states = model.language(
        inputs_embeds=batch.embeds, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE_LABEL)
    counts = labels != IGNORE_LABEL
    is_letter = counts & ~F.pad(counts[:, :-1], (1, 0))
    return Answers(model.lm_head(states[counts]), labels[counts], is_letter[counts])


class Lessons:
    """The three lessons of a model: patches name letters; places are read from tokens; questions are answered."""

    def __init__(self, model: PvcForConditionalGeneration, texts: PosterTexts, recipe: TinyPvcRecipe) -> None:
        self.model, self.texts, self.recipe = model, texts, recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.patches = PatchReader(model.vision.width)
            self.places = PlaceReader(recipe.width, recipe.poster.side, recipe.heads, recipe.time_scale)
        self.rng, self.generator = np.random.default_rng(recipe.seed), torch.Generator().manual_seed(recipe.seed)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is learned."""
        for part in (self.model, self.patches, self.places):
            yield from part.parameters()

    def __call__(self, step: int, posters: Posters) -> Loss:
        """Return the loss of a step, and which share of letters was right."""
        repeats = self.recipe.repeats[step % len(self.recipe.repeats)]
        if step < self.recipe.seeing_steps:
            return self.see(posters)
        if step < self.recipe.seeing_steps + self.recipe.reading_steps:
            return self.read(posters, repeats)
        return self.answer(posters, repeats)

    def see(self, posters: Posters) -> Loss:
        """Name the letter of each patch, pictures shown once."""
        patches = self.model.vision(posters.pictures(), [1] * len(posters))[:, 1:]
        logits, wanted = self.patches(patches), patch_letters(posters.letters, self.model.vision.grid(1))
        return naming_loss(logits, wanted), share_right(logits, wanted)

    def read(self, posters: Posters, repeats: int) -> Loss:
        """Read every place from the tokens."""
        logits = self.places(show(self.model, posters.pictures(), repeats), repeats)
        return naming_loss(logits, posters.letters), share_right(logits, posters.letters)

    def answer(self, posters: Posters, repeats: int) -> Loss:
        """Answer questions; the tokens stay as they are by now."""
        with torch.no_grad():
            visuals = show(self.model, posters.pictures(), repeats)
        asked = ask_some(posters, self.recipe.questions, self.rng)
        found = answer(self.model, self.texts, posters, asked, visuals, self.recipe.longest, self.generator)
        return F.cross_entropy(found.logits, found.wanted), float(found.right.float().mean())


def train_arm(
    model: PvcForConditionalGeneration, texts: PosterTexts, posters: Posters, recipe: TinyPvcRecipe, report: Report
) -> PlaceReader:
    """Train a model in place; return what reads places from its tokens."""
    lessons = Lessons(model, texts, recipe)
    parameters = list(lessons.parameters())
    optimizer = small_adamw(parameters, recipe.learning_rate, recipe.weight_decay)
    model.train()
    for step in range(recipe.total_steps):
        chosen = posters.at(lessons.rng.integers(len(posters), size=recipe.batch).tolist())
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_at(step)
        loss, right = lessons(step, chosen)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        if step % recipe.report_every == 0 or step == recipe.total_steps - 1:
            report({"step": step, "loss": float(loss.detach()), "right": right})
    model.eval()
    return lessons.places


@torch.no_grad()
def score(
    model: PvcForConditionalGeneration,
    places: PlaceReader,
    texts: PosterTexts,
    posters: Posters,
    repeats: int,
    batch: int = 25,
    *,
    asks: bool = True,
) -> dict[str, Bool[Tensor, "E C"]]:
    """Say of every cell of every poster, shown so many times, whether it is `read` and whether it is `answered` right.

    asks: whether the language model is asked too; its answers are open: of all tokens the letter has to be the
    likeliest.
    """
    found: dict[str, list[Tensor]] = {"read": []} | ({"answered": []} if asks else {})
    for start in range(0, len(posters), batch):
        part = posters.at(list(range(start, min(start + batch, len(posters)))))
        visuals = show(model, part.pictures(), repeats)
        found["read"].append(places(visuals, repeats).argmax(-1) == part.letters)
        if asks:
            right = answer(model, texts, part, ask_all(part), visuals).right
            found["answered"].append(right.unflatten(0, (len(part), -1)))
    return {name: torch.cat(parts) for name, parts in found.items()}
