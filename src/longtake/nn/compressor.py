"""PVC's compressor: neighbouring patches become one vector, normalised by what it holds and when it is shown."""

from __future__ import annotations

import dataclasses
from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import ClipCompressor, Compressed, Grid
from longtake.core.reduction import Reduction
from longtake.nn.vision.progressive import TimeConditionedNorm, TimeMlp, neutral_norm, time_code
from longtake.ops.pixel_shuffle import ShuffleVersion, pixel_shuffle, shuffle_targets

Conditioning = Literal["full", "low_rank", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressorConfig(StrictConfig):
    """What the compressor does with the patches of a frame.

    factor: how many patches high and wide a token is. conditioning: `full`, the released form, whose five square
    matrices hold 1.35 billion numbers at full size; `low_rank`, of `rank`, and `none`, a plain layer norm, for models
    of our own (the ablation gives the conditioning 0.1 to 0.9 points). norm_eps: that of the norm in its place in
    InternVL2 [I]. version: of the pixel shuffle.

    Raises: ConfigError on a value that is not known.
    """

    factor: int = 4
    conditioning: str = "full"
    rank: int = 64
    norm_eps: float = 1e-5
    version: str = "v2"

    def __post_init__(self) -> None:
        if self.conditioning not in ("full", "low_rank", "none"):
            raise ConfigError(f"conditioning is {self.conditioning!r}; expected full, low_rank or none; choose one")
        if self.version not in ("v1", "v2"):
            raise ConfigError(f"ps_version is {self.version!r}; expected v1 or v2; correct the configuration")
        if self.factor < 1 or self.rank < 1:
            raise ConfigError(f"factor {self.factor} and rank {self.rank} arrived; expected both above 0; raise them")


class ProgressiveCompressor(nn.Module):
    """Shuffle patches into tokens and normalise each under the condition of itself and the time of its frame.

    The conditioned norm takes the place of InternVL's plain one before the projector [I]. `after` may be set to a
    method that makes even fewer tokens of each frame.

    Source: PVC, adaptive compression.
    """

    after: ClipCompressor | None = None

    def __init__(self, width: int, config: CompressorConfig) -> None:
        super().__init__()
        self.config = config
        self.width = width * config.factor**2
        if config.conditioning == "none":
            self.norm = nn.LayerNorm(self.width, eps=config.norm_eps)
            return
        rank = config.rank if config.conditioning == "low_rank" else None
        self.time = TimeMlp(self.width, rank)
        self.adaln = TimeConditionedNorm(self.width, config.norm_eps, rank)

    def token_grid(self, grid: Grid) -> Grid:
        """Return the grid of a frame's tokens, before a method after it."""
        factor = self.config.factor
        return dataclasses.replace(grid, rows=grid.rows // factor, columns=grid.columns // factor)

    def out_tokens(self, grid: Grid) -> int:
        """Return the count of tokens that the frames of a grid become."""
        shuffled = self.token_grid(grid)
        return shuffled.num_patches if self.after is None else self.after.out_tokens(shuffled)

    def fingerprint(self) -> str:
        """Return what tells memories apart that were made with different methods after it; its weights do not count.

        Raises: ConfigError if the method after it cannot be told apart from another.
        """
        name, own = type(self).__qualname__, getattr(self.after, "fingerprint", None)
        if self.after is not None and own is None:
            raise ConfigError(
                f"the compressor {type(self.after).__name__} has no fingerprint; expected one, so that its memory is "
                "not taken for another's; make it a longtake.core.config.StrictConfig"
            )
        return name if own is None else f"{name}, {own()}"

    def forward(self, patches: Float[Tensor, "T P C"], times: Float[Tensor, "T"], grid: Grid) -> Compressed:
        """Turn the patches of T frames, without CLS, shown at these times, into tokens of factor² times the width."""
        version = cast(ShuffleVersion, self.config.version)
        shuffled = pixel_shuffle(patches.unflatten(1, (grid.rows, grid.columns)), self.config.factor, version)
        tokens = shuffled.flatten(1, 2)
        if self.config.conditioning == "none":
            tokens = self.norm(tokens)
        else:
            tokens = self.adaln(tokens, self.time(time_code(times.to(tokens.device))))
        target = shuffle_targets(grid.rows, grid.columns, self.config.factor, version).to(tokens.device)
        reduction = Reduction(target.expand(len(tokens), -1), tokens.shape[1])
        if self.after is None:
            return Compressed(tokens, reduction)
        fewer = self.after(tokens, self.token_grid(grid))
        return Compressed(fewer.features, reduction.then(fewer.reduction))

    def neutral_start(self) -> None:
        """Make the conditioned norm a plain one, to begin training with."""
        if self.config.conditioning != "none":
            neutral_norm(self.adaln)
