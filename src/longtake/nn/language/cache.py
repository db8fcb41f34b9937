"""Keys and values of a walk: each layer has its own length, and within a batch each sample too."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longtake.core.protocols import PositionRule

GROWTH = 64


class LayerCache:
    """Rotated keys and values [B, heads, capacity, d] of one layer; rows beyond a sample's length mean nothing.

    Without values it is of a layer that is looked at and not run.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.lengths: list[int] = []

    def write(
        self, keys: Float[Tensor, "B G L d"], values: Float[Tensor, "B G L d"], start: int, total: int
    ) -> tuple[Tensor, Tensor]:
        """Put one chunk of a prefill of `total` rows at row `start`; return all rows up to its end."""
        end = start + keys.shape[2]
        self.keys = _placed(self.keys, keys, start, total)
        self.values = _placed(self.values, values, start, total)
        return self.keys[:, :, :end], self.values[:, :, :end]

    def write_keys(self, keys: Float[Tensor, "B G L d"], start: int, total: int) -> None:
        """Put the keys of one chunk of a prefill at row `start`, without values."""
        self.keys = _placed(self.keys, keys, start, total)

    def append(self, keys: Float[Tensor, "B G n d"], values: Float[Tensor, "B G n d"]) -> tuple[Tensor, Tensor]:
        """Put new rows behind each sample's own end; return all rows up to the longest end."""
        assert self.keys is not None and self.values is not None, "append before prefill"
        count = keys.shape[2]
        end = max(self.lengths) + count
        missing = end - self.keys.shape[2]
        if missing > 0:
            spare = (*keys.shape[:2], missing + GROWTH, keys.shape[3])
            self.keys = torch.cat([self.keys, keys.new_zeros(spare)], dim=2)
            self.values = torch.cat([self.values, values.new_zeros(spare)], dim=2)
        for sample, length in enumerate(self.lengths):
            self.keys[sample, :, length : length + count] = keys[sample]
            self.values[sample, :, length : length + count] = values[sample]
        self.lengths = [length + count for length in self.lengths]
        return self.keys[:, :, :end], self.values[:, :, :end]


def _placed(held: Tensor | None, rows: Tensor, start: int, total: int) -> Tensor:
    """Return what is held with new rows at `start`; rows that are all there will be are held as they are."""
    if start == 0 and rows.shape[2] == total:
        return rows
    if held is None:
        held = rows.new_empty((*rows.shape[:2], total, rows.shape[3]))
    held[:, :, start : start + rows.shape[2]] = rows
    return held


class RaggedCache:
    """The caches of all layers, and how far each sample has come.

    written counts, per sample, every token the walk was given (dropped ones included).
    """

    def __init__(self, num_layers: int, written: list[int], position_rule: PositionRule) -> None:
        self.layers = [LayerCache() for _ in range(num_layers)]
        self.written = written
        self.position_rule: PositionRule = position_rule

    def lengths(self) -> list[list[int]]:
        """Return the count of cached tokens per layer and sample."""
        return [list(layer.lengths) for layer in self.layers]

    def next_positions(self, layer: int, count: int, device: torch.device) -> Int64[Tensor, "B n"]:
        """Return the positions of the next `count` tokens in a layer.

        With `renumber` a token's position is the layer's own length, as after every drop of the prefill; with `keep`
        it is the count of tokens ever given.
        """
        ends = self.layers[layer].lengths if self.position_rule == "renumber" else self.written
        return torch.tensor(ends, device=device).unsqueeze(1) + torch.arange(count, device=device)

    def mark(self) -> tuple[list[list[int]], list[int]]:
        """Remember how far each layer and sample has come."""
        return self.lengths(), list(self.written)

    def rewind(self, mark: tuple[list[list[int]], list[int]]) -> None:
        """Forget everything that was appended since the mark."""
        for layer, lengths in zip(self.layers, mark[0], strict=True):
            layer.lengths = list(lengths)
        self.written = list(mark[1])

    def num_bytes(self) -> int:
        """Return the bytes held by all layers."""
        tensors = [t for layer in self.layers for t in (layer.keys, layer.values) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)
