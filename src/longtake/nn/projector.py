"""The projector: visual width to language width."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class MlpProjector(nn.Module):
    """Map visual tokens into the language model's space with two linear layers and an exact GELU.

    Parameter names are those of the released checkpoints: `mlp.0.*`, `mlp.2.*`.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))

    def forward(self, x: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch D"]:
        """Project the last dimension."""
        return self.mlp(x)
