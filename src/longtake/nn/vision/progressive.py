"""The temporal branch of PVC: attention over the same patch of earlier frames, under a time-conditioned norm."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

TIME_CODE_WIDTH = 256


def time_code(time: Float[Tensor, "T"]) -> Float[Tensor, "T c"]:
    """Encode times as 128 cosines, then 128 sines, of falling frequency.

    Source: PVC, "256-d sinusoidal code of the relative timestamp"; order and base are inferred [I].
    """
    half = TIME_CODE_WIDTH // 2
    steps = torch.arange(half, dtype=torch.float32, device=time.device)
    angle = time.float().unsqueeze(-1) * torch.exp(-math.log(10000) * steps / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def relative_times(length: int, time_scale: float, start: int = 0, nominal: int | None = None) -> Float[Tensor, "T"]:
    """Return scale * i / T for frames i = start .. start + length - 1 of a sequence of `nominal` frames.

    Source: PVC, relative timestamp; i / T and the scale are inferred [I]. Features depend on T, so a stream must fix
    it beforehand.
    """
    return time_scale * torch.arange(start, start + length, dtype=torch.float32) / (nominal or length)


class LowRankLinear(nn.Module):
    """A square linear layer whose weight is the product of two thin ones; for models of our own."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Apply both."""
        return self.up(self.down(x))


def square_linear(width: int, rank: int | None) -> nn.Linear | LowRankLinear:
    """Build one of the width x width matrices W2 to W6, full or of a low rank, with a bias [F likely]."""
    return nn.Linear(width, width) if rank is None else LowRankLinear(width, rank)


def spread(x: Float[Tensor, "E *rest"], entry: Int64[Tensor, "T"] | None) -> Float[Tensor, "T *rest"]:
    """Give each frame the row of the entry that it shows; nothing is copied where every frame has its own."""
    return x if entry is None else x[entry]


def without_bias(linear: nn.Linear | LowRankLinear, x: Tensor) -> Tensor:
    """Apply the weight of a linear layer and not its bias."""
    if isinstance(linear, LowRankLinear):
        return F.linear(linear.down(x), linear.up.weight)
    return F.linear(x, linear.weight)


class TimeMlp(nn.Module):
    """Map a time code to the width of the features: W2 silu(W1 code + b1) + b2."""

    def __init__(self, width: int, rank: int | None = None) -> None:
        super().__init__()
        self.w1 = nn.Linear(TIME_CODE_WIDTH, width)
        self.w2 = square_linear(width, rank)

    def forward(self, code: Float[Tensor, "T c"]) -> Float[Tensor, "T D"]:
        """Embed the times of the frames."""
        return self.w2(F.silu(self.w1(code.to(self.w1.weight.dtype))))


class TimeConditionedNorm(nn.Module):
    """A layer norm whose scale and shift come from each token and the time of its frame.

    gamma(z) * LN(x) + beta(z) with z = x + time; gamma multiplies directly, there is no `1 +`. W (x + time) is taken
    apart into W x + W time: x may have fewer rows than there are frames (the shared copies of a still image), and the
    time part is one vector a frame.

    Source: PVC, AdaLN (equations from reading notes; placement of the norm's epsilon inferred [I]).
    """

    def __init__(self, width: int, eps: float, rank: int | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.w3, self.w4, self.w5, self.w6 = (square_linear(width, rank) for _ in range(4))

    def forward(
        self, x: Float[Tensor, "E N D"], time: Float[Tensor, "T D"], entry: Int64[Tensor, "T"] | None = None
    ) -> Float[Tensor, "T N D"]:
        """Normalise; `entry` says which of the E rows each of T frames shows, none where E is T."""
        normed = F.layer_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype)
        gamma = self._condition(self.w3, self.w4, x, time, entry)
        beta = self._condition(self.w5, self.w6, x, time, entry)
        return gamma * spread(normed, entry) + beta

    @staticmethod
    def _condition(
        first: nn.Linear | LowRankLinear, second: nn.Module, x: Tensor, time: Tensor, entry: Tensor | None
    ) -> Tensor:
        of_time = without_bias(first, time).unsqueeze(1)
        return second(F.silu(spread(first(x), entry) + of_time))


class TemporalAttention(nn.Module):
    """Causal attention over frames, for each patch on its own."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "T N D"],
        sequence_lengths: list[int],
        past: tuple[Tensor, Tensor] | None = None,
        window: int | None = None,
    ) -> tuple[Float[Tensor, "T N D"], tuple[Tensor, Tensor]]:
        """Attend inside each sequence; return the output and the keys and values [N, heads, L, d] of the last one.

        past: keys and values of earlier frames of the only sequence. window: how many frames back, itself included, a
        frame sees.
        """
        parts, kept = [], past
        for frames in self.qkv(x).split(sequence_lengths):
            query, key, value = (
                part.transpose(0, 1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                for part in frames.chunk(3, dim=-1)
            )  # [N, heads, T, d]
            if past is not None:
                key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
            mask = _window_mask(query.shape[2], key.shape[2], window, x.device)
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
            parts.append(out.transpose(1, 2).flatten(2).transpose(0, 1))
            kept = (key, value)
        assert kept is not None, "no sequence given"
        return self.proj(torch.cat(parts)), kept


def _window_mask(
    num_queries: int, num_keys: int, window: int | None, device: torch.device
) -> Bool[Tensor, "q k"] | None:
    """Let each of the last rows see itself and at most window - 1 frames before; none where plain causality does."""
    if num_queries == num_keys and (window is None or window >= num_keys):
        return None
    row = torch.arange(num_keys - num_queries, num_keys, device=device).unsqueeze(1)
    column = torch.arange(num_keys, device=device)
    seen = column <= row
    return seen if window is None else seen & (column > row - window)


class TemporalBranch(nn.Module):
    """What PVC adds to a vision layer, between its spatial attention and its feed-forward part.

    own_time: whether it embeds times itself [F]. gate_size: `width` for a vector, 1 for a scalar; file sizes cannot
    tell which [I].
    """

    def __init__(self, width: int, num_heads: int, eps: float, *, own_time: bool, gate_size: int) -> None:
        super().__init__()
        self.time = TimeMlp(width) if own_time else None
        self.adaln = TimeConditionedNorm(width, eps)
        self.attn = TemporalAttention(width, num_heads)
        self.gate = nn.Parameter(torch.zeros(gate_size))

    def forward(
        self,
        x: Float[Tensor, "E N D"],
        time: Float[Tensor, "T D"],
        sequence_lengths: list[int],
        entry: Int64[Tensor, "T"] | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        window: int | None = None,
    ) -> tuple[Float[Tensor, "T N D"], tuple[Tensor, Tensor]]:
        """Add gated attention over time to E entries that stand for T frames; also return the keys and values."""
        attended, kept = self.attn(self.adaln(x, time, entry), sequence_lengths, past, window)
        return spread(x, entry) + self.gate * attended, kept

    def neutral_start(self) -> None:
        """Set scale one and shift zero, gate shut: the tower then equals the static one, and the gate can learn."""
        neutral_norm(self.adaln)
        nn.init.zeros_(self.gate)


def neutral_norm(norm: TimeConditionedNorm) -> None:
    """Set scale one and shift zero, whatever the condition: a plain layer norm."""
    for linear, shift in ((norm.w4, 1.0), (norm.w6, 0.0)):
        last = linear.up if isinstance(linear, LowRankLinear) else linear
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, shift)
