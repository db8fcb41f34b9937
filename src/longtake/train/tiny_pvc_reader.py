"""Two lessons before the language model: patches name their letters; then places of a poster are read from tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from longtake.core.protocols import Grid
from longtake.media.filmstrip.attributes import LETTERS
from longtake.nn.vision.progressive import TIME_CODE_WIDTH, relative_times, time_code


class PatchReader(nn.Module):
    """Names the letter that each patch shows; thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(LETTERS)))

    def forward(self, patches: Float[Tensor, "E P C"]) -> Float[Tensor, "E P V"]:
        """Return logits over letters."""
        return self.head(patches)


def patch_letters(letters: Int64[Tensor, "E N"], grid: Grid) -> Int64[Tensor, "E P"]:
    """Give each patch of a frame the letter of the cell that it begins in."""
    side = round(letters.shape[1] ** 0.5)
    row, column = (torch.arange(count) * side // count for count in (grid.rows, grid.columns))
    return letters[:, (row.unsqueeze(1) * side + column).flatten()]


class ReadingLayer(nn.Module):
    """One look at a picture's tokens, and what is made of it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_look, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, asked: Float[Tensor, "E Q D"], tokens: Float[Tensor, "E N D"]) -> Float[Tensor, "E Q D"]:
        """Let each question look at all tokens of its picture."""
        asked = asked + self.look(self.before_look(asked), tokens, tokens, need_weights=False)[0]
        return asked + self.mlp(self.before_mlp(asked))


class PlaceReader(nn.Module):
    """Reads every place of a poster from its visual tokens: a query is a row and a column.

    It knows of each token which one it is, as the language model does from its position: by its place relative to
    their count, so that any count can be read.
    """

    def __init__(self, width: int, side: int, heads: int, time_scale: float, layers: int = 2) -> None:
        super().__init__()
        self.time_scale = time_scale
        self.row, self.column = nn.Embedding(side, width), nn.Embedding(side, width)
        self.norm, self.order = nn.LayerNorm(width), nn.Linear(TIME_CODE_WIDTH, width)
        self.layers = nn.ModuleList(ReadingLayer(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, len(LETTERS))

    def forward(self, tokens: Float[Tensor, "E N D"]) -> Float[Tensor, "E Q V"]:
        """Return logits over letters for each place, row by row."""
        asked = (self.row.weight.unsqueeze(1) + self.column.weight).flatten(0, 1).expand(len(tokens), -1, -1)
        seen = self.norm(tokens) + self.order(time_code(relative_times(tokens.shape[1], self.time_scale)))
        for layer in self.layers:
            asked = layer(asked, seen)
        return self.head(asked)


def naming_loss(logits: Float[Tensor, "*batch V"], wanted: Int64[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Return the mean cross entropy of letters."""
    return F.cross_entropy(logits.flatten(0, -2), wanted.flatten())


def share_right(logits: Float[Tensor, "*batch V"], wanted: Int64[Tensor, "*batch"]) -> float:
    """Return which share of letters is named right."""
    return float((logits.argmax(-1) == wanted).float().mean())
