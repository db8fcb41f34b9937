"""What a compressor or reducer did: for each old token, the new token it became part of."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

DROPPED = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Reduction:
    """A map from N old tokens to M new ones, batched over any leading dimensions.

    target[..., i] is the new index of old token i, or -1 where it was dropped. Every new token has at least one
    source. Applied to features (weighted means), positions, labels, masks and times alike, so they cannot drift
    apart.
    """

    target: Int64[Tensor, "*batch N"]
    num_targets: int

    @classmethod
    def keep(cls, kept: Int64[Tensor, "M"], num_tokens: int) -> Reduction:
        """Keep the tokens at the ascending indices `kept` and drop the others."""
        target = torch.full((num_tokens,), DROPPED, dtype=torch.int64, device=kept.device)
        target[kept] = torch.arange(kept.numel(), device=kept.device)
        return cls(target, int(kept.numel()))

    @classmethod
    def identity(cls, num_tokens: int, device: torch.device | None = None) -> Reduction:
        """Keep every token."""
        return cls(torch.arange(num_tokens, device=device), num_tokens)

    @property
    def kept(self) -> Int64[Tensor, "M"]:
        """Old index of the first source of each new token (for a pure drop: the kept indices)."""
        if self.target.ndim != 1:
            raise ValueError("kept is defined for one sequence; index the batch first")
        sources = torch.arange(self.target.numel(), device=self.target.device)
        first = torch.full((self.num_targets,), self.target.numel(), dtype=torch.int64, device=self.target.device)
        alive = self.target >= 0
        return first.scatter_reduce(0, self.target[alive], sources[alive], "amin")

    def sum(self, values: Num[Tensor, "*batch N D"]) -> Num[Tensor, "*batch M D"]:
        """Add up the rows that share a new token; dropped rows add nothing."""
        alive = (self.target >= 0).unsqueeze(-1)
        index = self.target.clamp(min=0).unsqueeze(-1).expand_as(values)
        out = values.new_zeros(*values.shape[:-2], self.num_targets, values.shape[-1])
        return out.scatter_add(-2, index, values * alive)

    def mean(
        self, values: Float[Tensor, "*batch N D"], weight: Num[Tensor, "*batch N"] | None = None
    ) -> Float[Tensor, "*batch M D"]:
        """Average the rows that share a new token, weighted by the size of each old token."""
        if weight is None:
            weight = torch.ones_like(self.target)
        weight = weight.to(values.dtype).unsqueeze(-1)
        return self.sum(values * weight) / self.sum(weight)

    def then(self, after: Reduction) -> Reduction:
        """Compose: the map of doing this reduction and then `after`."""
        moved = after.target.gather(-1, self.target.clamp(min=0))
        return Reduction(torch.where(self.target >= 0, moved, DROPPED), after.num_targets)
