"""What a method has to beat: no picture, one picture, tokens dropped at random, a plain resize; as many tokens each."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.config import StrictConfig, nearest_name
from longtake.core.errors import ConfigError
from longtake.core.protocols import Compressed, DropPoint, Grid, LayerCompressor
from longtake.core.reduction import Reduction
from longtake.core.types import Frames, VideoMemory
from longtake.engine.select import Selector, subset
from longtake.eval.reader import Reader, current_compressor, methods_set, still
from longtake.eval.task import Item, Task
from longtake.media.pixels import resize_exact
from longtake.media.video import Video
from longtake.models.pvc_configuration import PvcConfig

BASELINES = {
    "blind": "a black film as long, in as many tokens: what the question alone gives away",
    "single-frame": "the middle frame all along, in as many tokens: what one look gives away",
    "random-drop": "the methods under test replaced by a random choice of as many tokens or frames",
    "low-resolution": "every frame shrunk until its patches are as many as its tokens: what a plain resize reaches",
}
MethodKind = Literal["compress", "reduce", "select"]


class RandomDrop:
    """Keep as many patches of a clip as another method makes tokens of it, drawn at random, in order.

    What is drawn follows from the seed and from how many clips came before: take a new one for each video. Not
    registered: it is what methods are held against, not one of them.
    """

    def __init__(self, like: Any, seed: int = 0) -> None:
        self.like, self.seed = like, seed
        self._num_clips = 0

    def fingerprint(self) -> str:
        """Return what tells it from other methods."""
        return f"{type(self).__name__} {self.seed}, {getattr(self.like, 'fingerprint', str)()}"

    def out_tokens(self, grid: Grid) -> int:
        """Return the other method's count."""
        return self.like.out_tokens(grid)

    def __call__(self, x: Float[Tensor, "K N D"], grid: Grid) -> Compressed:
        """Keep random patches of each clip."""
        kept = torch.stack([self._draw(x.shape[1], self.out_tokens(grid)) for _ in range(len(x))]).to(x.device)
        target = torch.full(x.shape[:2], -1, dtype=torch.int64, device=x.device)
        target.scatter_(1, kept, torch.arange(kept.shape[1], device=x.device).expand_as(kept))
        features = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        return Compressed(features, Reduction(target, kept.shape[1]))

    def _draw(self, total: int, count: int) -> Tensor:
        """Return which patches of the next clip stay."""
        drawn = np.random.default_rng([self.seed, self._num_clips]).permutation(total)[:count]
        self._num_clips += 1
        return torch.from_numpy(np.sort(drawn))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomReduce(StrictConfig):
    """Keep as many visual tokens after each layer as another reducer does, drawn at random, in order."""

    like: Any
    seed: int = 0

    def schedule(self, num_layers: int, num_tokens: int) -> Mapping[int, int]:
        """Return the other reducer's counts."""
        return self.like.schedule(num_layers, num_tokens)

    def needs_attention(self, stage: int) -> bool:
        """Say that nothing is ranked."""
        return False

    def __call__(self, point: DropPoint, attention: Callable[[], Float[Tensor, "N"]]) -> Reduction:
        """Keep random tokens."""
        draw = np.random.default_rng([self.seed, point.stage, point.num_tokens])
        kept = np.sort(draw.permutation(point.num_tokens)[: point.keep])
        return Reduction.keep(torch.from_numpy(kept), point.num_tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvenPool(StrictConfig):
    """Make as many tokens of a clip as another method does: means of blocks of neighbouring patches.

    A frame is cut into blocks as square as the count allows, which need not be of one size; where there are fewer
    tokens than frames, neighbouring frames are averaged whole.

    Raises: ConfigError, when it is used, if the count is no multiple of the frames and above them, or does not fit.
    """

    like: Any

    def out_tokens(self, grid: Grid) -> int:
        """Return the other method's count."""
        return self.like.out_tokens(grid)

    def blocks(self, grid: Grid) -> tuple[int, int, int]:
        """Return into how many parts a clip is cut in time, height and width."""
        count = self.out_tokens(grid)
        if count < grid.num_frames:
            return count, 1, 1
        per_frame, rest = divmod(count, grid.num_frames)
        fitting = [
            (high, per_frame // high)
            for high in range(1, grid.rows + 1)
            if per_frame % high == 0 and per_frame // high <= grid.columns
        ]
        if rest or not fitting:
            raise ConfigError(
                f"{count} tokens were asked for {grid.num_frames} frames of {grid.rows} x {grid.columns} patches; "
                "expected as many for each frame, in rows and columns; choose another count"
            )
        high, wide = min(fitting, key=lambda blocks: abs(blocks[0] - blocks[1]))
        return grid.num_frames, high, wide

    def __call__(self, x: Float[Tensor, "K N D"], grid: Grid) -> Compressed:
        """Average every block."""
        long, high, wide = self.blocks(grid)
        frame, row, column = (
            torch.arange(length, device=x.device) * parts // length
            for length, parts in ((grid.num_frames, long), (grid.rows, high), (grid.columns, wide))
        )
        block = (frame.view(-1, 1, 1) * high + row.view(1, -1, 1)) * wide + column.view(1, 1, -1)
        reduction = Reduction(block.flatten().expand(len(x), -1), long * high * wide)
        return Compressed(reduction.mean(x), reduction)


class LowResolution(Video):
    """A video whose frames carry no more than `most` (height, width) pixels, blown up to whatever size is asked for."""

    def __init__(self, inner: Video, most: tuple[int, int]) -> None:
        self.info, self.clock, self.warnings = inner.info, inner.clock, inner.warnings
        self.inner, self.most = inner, most
        self._pictures = None

    def frames_at(
        self,
        times_s: np.ndarray,
        *,
        size: tuple[int, int] | None = None,
        resize: Literal["exact", "fast"] = "exact",
        chunk_frames: int = 32,
    ) -> Iterator[Frames]:
        """Yield frames as `Video.frames_at`, shrunk and blown up.

        Raises: as `Video.frames_at`.
        """
        size = size or (self.info.height, self.info.width)
        for frames in self.inner.frames_at(times_s, size=self.most, resize=resize, chunk_frames=chunk_frames):
            pixels = np.stack([resize_exact(picture, size) for picture in frames.pixels])
            yield dataclasses.replace(frames, pixels=pixels)

    def close(self) -> None:
        """Close the video."""
        self.inner.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """One video as an arm of a run sees it: its memory, and the methods that its questions are asked with."""

    memory: VideoMemory
    selector: Selector | None
    reducer: LayerCompressor | None = None


class Arms:
    """The arms of a run over one video: the model as it is, and baselines by name.

    tested: the methods that the run is about, which `random-drop` replaces; with none of them named it is the
    compressor.
    """

    def __init__(self, reader: Reader, tested: Sequence[MethodKind] = (), seed: int = 0) -> None:
        self.reader, self.seed = reader, seed
        self.tested: tuple[MethodKind, ...] = tuple(tested) or ("compress",)

    def why_not(self, name: str, task: Task) -> str | None:
        """Return why a baseline cannot be had for this model and task; none if it can."""
        if task.composes and name != "blind":
            return "the task puts tokens together: there is no video that could be seen otherwise"
        if name == "random-drop" and "compress" in self.tested and current_compressor(self.reader.model) is None:
            return "the compressor is a part of the model (PVC) and has no random counterpart; name a method to test"
        if name == "low-resolution":
            try:
                EvenPool(like=self.reader.model.model.compressor).blocks(self._clip_grid())
            except ConfigError as error:
                return f"no pooling makes as many tokens ({error})"
        return None

    def see(self, name: str, video: Video | None, item: Item, memory: VideoMemory) -> Seen:
        """Return what an arm sees of a video; memory: what the model itself sees; no video where it has none.

        Raises: as `longtake.ingest`; ConfigError if the video is a picture, or there is none and one is needed.
        """
        if name == "model":
            return Seen(memory=memory, selector=self.reader.selector)
        if memory.settings.get("kind") == "image":
            raise ConfigError(f"baseline {name} arrived for a picture; expected a video; turn baselines off")
        if name == "blind":
            side = self.reader.model.config.vision_config.image_size
            return self._plain(still(np.zeros((side, side, 3), np.uint8), memory, self.reader))
        if video is None:
            raise ConfigError(f"baseline {name} arrived for tokens without a video; expected a video; turn it off")
        if name == "random-drop":
            return self._random(video, item, memory)
        if name == "single-frame":
            return self._plain(still(self._middle(video, memory), memory, self.reader))
        return self._low_resolution(video, item)

    def _plain(self, memory: VideoMemory) -> Seen:
        return Seen(memory=memory, selector=self.reader.selector)

    def _middle(self, video: Video, memory: VideoMemory) -> np.ndarray:
        """Return the frame in the middle of those that were sampled, at the size that the tower takes."""
        times = memory.frame_pts_s.ravel()
        side = self.reader.model.config.vision_config.image_size
        with self.reader.ledger.stage("decode"):
            return next(video.frames_at(times[len(times) // 2 :][:1], size=(side, side))).pixels[0]

    def _random(self, video: Video, item: Item, memory: VideoMemory) -> Seen:
        reader, model = self.reader, self.reader.model
        if "compress" in self.tested:
            random = RandomDrop(like=current_compressor(model), seed=self.seed)
            with methods_set(model, compressor=random):
                memory = reader.see(video, item.start_s, item.end_s)
        reducer: LayerCompressor | None = None
        if "reduce" in self.tested and model.model.reducer is not None:
            reducer = RandomReduce(like=model.model.reducer, seed=self.seed)
        selector = reader.selector
        if "select" in self.tested and selector is not None:
            wanted = selector.frames_kept // memory.frame_pts_s.shape[1]
            if memory.num_frames >= selector.method.gate_frames and wanted < len(memory.frame_pts_s):
                draw = np.random.default_rng([self.seed, zlib.crc32(item.media_key.encode())])
                memory = subset(memory, sorted(draw.permutation(len(memory.frame_pts_s))[:wanted].tolist()))
            selector = None
        return Seen(memory=memory, selector=selector, reducer=reducer)

    def _low_resolution(self, video: Video, item: Item) -> Seen:
        """Shrink frames to as many patches as they have tokens, and pool the patches that the tower makes of them."""
        reader, model = self.reader, self.reader.model
        grid = self._clip_grid()
        pool = EvenPool(like=model.model.compressor)
        _, high, wide = pool.blocks(grid)
        patch = model.config.vision_config.image_size // grid.rows
        shrunk = LowResolution(video, (high * patch, wide * patch))
        # PVC's own compressor always makes the same count, so that there only the pixels shrink.
        in_place = None if isinstance(model.config, PvcConfig) else pool
        with methods_set(model, compressor=in_place):
            return self._plain(reader.see(shrunk, item.start_s, item.end_s))

    def _clip_grid(self) -> Grid:
        model: Any = self.reader.model.model
        return model.vision.grid(self.reader.model.config.mm_local_num_frames)


def chosen_baselines(without: Sequence[str]) -> tuple[str, ...]:
    """Return the baselines that are left when some are turned off; `all` turns off every one.

    Raises: ConfigError for an unknown name.
    """
    for name in without:
        if name not in (*BASELINES, "all"):
            raise ConfigError(f"baseline {name!r} was turned off; {nearest_name(name, [*BASELINES, 'all'])}")
    return () if "all" in without else tuple(name for name in BASELINES if name not in without)
