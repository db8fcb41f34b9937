"""A side lesson for the tiny model: what is seen knows its place in time, and so does the word that names it.

Which of two things came first can only be told from their places. A rotary position is known to a pair of tokens, not
to a value that is carried on, so a language model has first to write it down. This lesson asks for it, by a scale that
is thrown away after training: of two visual tokens, and of two mentions, the later one has to weigh more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from longtake.train.packed_questions import Proofs

NUM_PAIRS = 256


class Placing(nn.Module):
    """Scales that weigh how late a visual token stands, after one layer, and how late what a mention names, after more.

    seen_layer, named_layer: how many layers have been read where each is weighed. seed: of the pairs and the first
    scales.
    """

    def __init__(self, width: int, seen_layer: int, named_layer: int, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.seen_layer, self.named_layer = seen_layer, named_layer
        self.seen, self.named = nn.Linear(width, 1, bias=False), nn.Linear(width, 1, bias=False)
        for scale in (self.seen, self.named):
            nn.init.normal_(scale.weight, std=width**-0.5, generator=self.generator)

    def forward(
        self, hidden: Sequence[Float[Tensor, "B L D"]], mentions: Sequence[Proofs]
    ) -> tuple[Float[Tensor, ""], float]:
        """Return how badly pairs are ordered, both scales together, and which share of mentions is ordered right."""
        seen, named = self.seen(hidden[self.seen_layer])[..., 0], self.named(hidden[self.named_layer])[..., 0]
        seen_gaps, named_gaps = [], []
        for sample, one in enumerate(mentions):
            weights = seen[sample, one.visual]
            early, late = torch.randint(len(weights), (2, NUM_PAIRS), generator=self.generator).sort(dim=0).values
            seen_gaps.append((weights[late] - weights[early])[late > early])
            rows, places = first_places(one)
            early, late = (places.unsqueeze(1) < places).nonzero().T
            named_gaps.append(named[sample, rows[late]] - named[sample, rows[early]])
        gaps = torch.cat(named_gaps)
        loss = F.softplus(-torch.cat(seen_gaps)).mean() + (F.softplus(-gaps).mean() if len(gaps) else 0.0)
        return loss, float((gaps > 0).float().mean()) if len(gaps) else float("nan")


def first_places(mentions: Proofs) -> tuple[Int64[Tensor, "R"], Int64[Tensor, "R"]]:
    """Return the rows of mentions that something shows, and the first visual token that shows it."""
    shown = mentions.proves.any(1)
    return mentions.rows[shown], mentions.proves[shown].long().argmax(1)
