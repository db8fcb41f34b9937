"""First step of the tiny model: its tower learns to name what a clip shows, from merged tokens alone."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from longtake.core.config import StrictConfig
from longtake.core.protocols import Compressed
from longtake.methods.compress.tome import ToMe
from longtake.nn.vision.umt import UmtTower
from longtake.train.film_clips import CLASSES, CLIP_FRAMES, ClipStream
from longtake.train.steps import Report, take_steps, warmed_rates

NOTHING_WEIGHT = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionRecipe(StrictConfig):
    """How long and how fast the tower learns.

    budgets: tokens a frame that the clips are merged to, in turn. patch_weight: share of the loss over single patches.
    learning_rate falls along a cosine. For `large_steps` cards are at least `large_size` of the frame: the shape that a
    card points to is a few pixels high otherwise, too faint to begin with. head_weights: of kinds that are hard to see.
    """

    steps: int = 2500
    large_steps: int = 1000
    large_size: float = 0.5
    head_weights: tuple[tuple[str, float], ...] = (("next_colour", 2.0), ("next_shape", 4.0))
    films: int = 4
    clips_per_film: int = 9
    learning_rate: float = 2e-3
    warmup_steps: int = 60
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    budgets: tuple[int, ...] = (1, 1, 4)
    patch_weight: float = 1.0
    report_every: int = 50


class ReadOut(nn.Module):
    """One linear head for each kind of thing that a frame can show; thrown away after training.

    weights: of the heads' losses, one where none is given.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weights: dict[str, float] = {}
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in CLASSES.items()})

    def forward(
        self, tokens: Float[Tensor, "K M D"], labels: Int64[Tensor, "K M C"]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Return the sum of the heads' losses, and each head's accuracy where there is something to name."""
        total, accuracy = tokens.new_zeros(()), {}
        for i, (name, head) in enumerate(self.heads.items()):
            logits, wanted = head(tokens).flatten(0, 1), labels[..., i].flatten()
            # Most frames show nothing of a kind: counted in full, that would be all that is learned at first.
            weight = torch.where(wanted > 0, 1.0, NOTHING_WEIGHT)
            missed = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
            total = total + self.weights.get(name, 1.0) * missed
            something = wanted > 0
            right = (logits.argmax(-1) == wanted)[something].float()
            accuracy[name] = float(right.mean()) if len(right) else math.nan
        return total, accuracy


def token_labels(compressed: Compressed, labels: Int64[Tensor, "K F C"]) -> Int64[Tensor, "K M C"]:
    """Give each merged token the labels of the frame that most of its patches come from."""
    target, num_tokens = compressed.reduction.target, compressed.reduction.num_targets
    num_frames = labels.shape[1]
    frame = torch.arange(target.shape[1]) // (target.shape[1] // num_frames)
    counts = torch.zeros(len(target), num_tokens * num_frames, dtype=torch.int64)
    counts.scatter_add_(1, target * num_frames + frame, torch.ones_like(target))
    strongest = counts.unflatten(1, (num_tokens, num_frames)).argmax(-1)  # [K, M]
    return labels.gather(1, strongest.unsqueeze(-1).expand(-1, -1, labels.shape[-1]))


def card_means(patches: Float[Tensor, "K N D"], inside: Int64[Tensor, "K N C"]) -> Float[Tensor, "K F D"]:
    """Average the patches of each frame's card; a frame without a card is averaged whole."""
    frames, on_card = (t.unflatten(1, (CLIP_FRAMES, -1)) for t in (patches, (inside[..., 0] > 0).float()))
    weight = on_card + (on_card.sum(-1, keepdim=True) == 0)
    return (frames * weight.unsqueeze(-1)).sum(2) / weight.sum(2, keepdim=True)


def train_vision(
    tower: UmtTower, recipe: VisionRecipe, stream: ClipStream, report: Report, reader: ReadOut | None = None
) -> ReadOut:
    """Train a tower in place; return the heads that read it, to go on with in a second run with another recipe."""
    reader = ReadOut(tower.width) if reader is None else reader
    reader.weights = dict(recipe.head_weights)
    large = dataclasses.replace(stream, needle_size=(recipe.large_size, stream.needle_size[1]))
    optimizer = torch.optim.AdamW(
        [*tower.parameters(), *reader.parameters()], lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    grid = tower.grid(CLIP_FRAMES)

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        shown = large if step < recipe.large_steps else stream
        films = [shown(step * recipe.films + i, recipe.clips_per_film) for i in range(recipe.films)]
        pixels, labels = torch.cat([film.pixels for film in films]), torch.cat([film.labels for film in films])
        patches = tower.encode_together(pixels)
        compressed = ToMe(tokens_per_frame=recipe.budgets[step % len(recipe.budgets)])(patches, grid)
        loss, accuracy = reader(compressed.features, token_labels(compressed, labels))
        inside = torch.cat([film.patch_labels(grid.rows) for film in films])
        # Each patch of a card has to know the whole card: then any merging of them does.
        loss = loss + recipe.patch_weight * reader(patches, inside)[0]
        # The card as a whole is the easiest to name: this is what gets learning under way.
        return loss + reader(card_means(patches, inside), labels)[0], accuracy

    tower.train()
    take_steps(
        optimizer,
        lesson,
        warmed_rates(recipe.learning_rate, recipe.warmup_steps, recipe.steps),
        clip_norm=recipe.clip_norm,
        report_every=recipe.report_every,
        report=report,
    )
    tower.eval()
    return reader
