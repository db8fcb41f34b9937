"""A film decoded and seen once, compressed as often as there are methods: what `measure_methods.py` measures with."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.budget import Budget
from longtake.core.config import StrictConfig
from longtake.core.protocols import Compressed, Grid
from longtake.core.types import VideoMemory, VisualTokens
from longtake.engine.ingest import frame_weights, ingest
from longtake.engine.ledger import Ledger
from longtake.eval.reader import methods_set
from longtake.media.sampling import SamplingRule
from longtake.media.video import Video
from longtake.methods.compress.pool import Pool
from longtake.models.loaded import LoadedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokensPerClip(StrictConfig):
    """A compressor's count without the compressor: how many tokens a control is to make of a clip."""

    count: int

    def out_tokens(self, grid: Grid) -> int:
        """Return the count."""
        return self.count


def own_memory(video: Video, model: LoadedModel, num_frames: int, fps: float) -> tuple[VideoMemory, float]:
    """Return the memory of every frame of a film, as a checkpoint itself makes it, and the seconds that it took."""
    started = time.perf_counter()
    memory = _see_all(video, model, num_frames, fps, Ledger())
    return memory, time.perf_counter() - started


def _see_all(video: Video, model: LoadedModel, num_frames: int, fps: float, ledger: Ledger) -> VideoMemory:
    """Ingest every frame of a film, in whole clips."""
    length = model.config.mm_local_num_frames
    rule = SamplingRule(fps=fps, frame_multiple=length, min_frames=length)
    return ingest(video, model, Budget(max_frames=num_frames // length * length), rule=rule, ledger=ledger)


class Noting:
    """Averages each frame, and notes the patches that it is handed."""

    def __init__(self) -> None:
        self.patches: list[Tensor] = []
        self._pool = Pool(tokens_per_frame=1)

    def out_tokens(self, grid: Grid) -> int:
        """Return one a frame."""
        return self._pool.out_tokens(grid)

    def __call__(self, x: Float[Tensor, "K N D"], grid: Grid) -> Compressed:
        """Note the patches; average."""
        self.patches.append(x)
        return self._pool(x, grid)


class FilmPatches:
    """What the tower made of each frame of a film; `memory` is what `longtake.ingest` makes of it with a compressor.

    pooled: the memory of one mean a frame. encode_s: seconds to open, decode and see the film, without a compressor.
    """

    def __init__(self, video: Video, model: LoadedModel, num_frames: int, fps: float) -> None:
        noting, ledger = Noting(), Ledger()
        self.model, self._patches = model, noting.patches
        with methods_set(model, compressor=noting):
            self.pooled = _see_all(video, model, num_frames, fps, ledger)
        self.encode_s = sum(cost.seconds for name, cost in ledger.stages.items() if name != "compress")

    @torch.no_grad()
    def memory(self, method: Any) -> tuple[VideoMemory, float]:
        """Return the film's memory under a compressor, and the seconds that this one took."""
        started, model, num_frames = time.perf_counter(), self.model.model, self.pooled.frame_pts_s.shape[1]
        features, weights = [], []
        for patches in self._patches:
            compressed = method(patches, model.vision.grid(num_frames))
            features.append(model.projector(compressed.features))
            weights.append(frame_weights(compressed.reduction, num_frames))
        joined = torch.cat(features)  # [K, M, D]
        clips = torch.arange(len(joined)).repeat_interleave(joined.shape[1])
        tokens = VisualTokens(joined.flatten(0, 1), torch.cat(weights).flatten(0, 1), clips)
        settings = dict(self.pooled.settings) | {"compressor": method.fingerprint()}
        memory = dataclasses.replace(self.pooled, tokens=tokens, settings=settings)
        return memory, time.perf_counter() - started
