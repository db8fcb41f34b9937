"""A video becomes a memory: decode, normalise, encode, compress, in bounded chunks, blind to any question."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longtake.core.budget import Budget
from longtake.core.errors import VideoError
from longtake.core.reduction import Reduction
from longtake.core.types import Frames, VideoMemory, VisualTokens
from longtake.engine.ledger import Ledger
from longtake.engine.limits import memory_errors
from longtake.media.sampling import Sampled, SamplingRule, sample_times
from longtake.media.transforms import normalize_pixels, tile_image
from longtake.media.video import Video, open_video
from longtake.models.loaded import LoadedModel
from longtake.models.splice import order_image_tokens

Source = str | Path | bytes | Mapping[str, object] | Frames
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """Tokens of some consecutive clips, and when their frames are shown, float64 [K, F]."""

    tokens: VisualTokens
    frame_pts_s: np.ndarray


def default_rule(loaded: LoadedModel) -> SamplingRule:
    """Return the rule in force where none is given: the released counts, but by time, and the budget's limit wins.

    `longtake.media.sampling.RELEASED` is what the released evaluation does, to the frame.
    """
    return SamplingRule(frame_multiple=2 * loaded.config.mm_local_num_frames)


def frame_weights(reduction: Reduction, num_frames: int) -> Int64[Tensor, "K M F"]:
    """Count, for each new token of each clip, its source patches in every frame."""
    num_clips, num_patches = reduction.target.shape
    frame = torch.arange(num_patches, device=reduction.target.device) // (num_patches // num_frames)
    kept = reduction.target >= 0
    index = reduction.target.clamp(min=0) * num_frames + frame
    counts = torch.zeros(num_clips, reduction.num_targets * num_frames, dtype=torch.int64, device=index.device)
    return counts.scatter_add(1, index, kept.long()).unflatten(1, (reduction.num_targets, num_frames))


def ingest_segments(
    video: Video,
    loaded: LoadedModel,
    sampled: Sampled,
    *,
    chunk_clips: int = 8,
    ledger: Ledger | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Segment]:
    """Yield the tokens of the sampled frames, `chunk_clips` clips at a time; no more frames than that are held.

    The tokens do not depend on `chunk_clips`: on a CPU in float32 they are equal to the last bit.

    Raises: VideoError if the count of frames is not a multiple of the clip length.
    """
    ledger = ledger or Ledger()
    length = loaded.config.mm_local_num_frames
    total = len(sampled.times_s)
    if total % length:
        raise VideoError(
            f"{total} frames were sampled; expected a multiple of the clip length {length}; change the rule"
        )
    side = loaded.config.vision_config.image_size
    chunks = video.frames_at(sampled.times_s, size=(side, side), chunk_frames=chunk_clips * length)
    done = 0
    while True:
        with ledger.stage("decode") as cost:
            frames = next(chunks, None)
            if frames is None:
                return
            cost.add(bytes=frames.pixels.nbytes)
        if on_progress is not None:
            on_progress("decode", done + len(frames), total)
        yield _encode(loaded, frames, done // length, ledger)
        done += len(frames)
        if on_progress is not None:
            on_progress("encode", done, total)


@torch.no_grad()
def _encode(loaded: LoadedModel, frames: Frames, first_clip: int, ledger: Ledger) -> Segment:
    """Turn a chunk of frames, in whole clips, into tokens."""
    model, num_frames = loaded.model, loaded.config.mm_local_num_frames
    with ledger.stage("preprocess"):
        pixels = torch.from_numpy(frames.pixels).to(model.device).permute(0, 3, 1, 2)
        clips = normalize_pixels(pixels).unflatten(0, (-1, num_frames))
    features, weights = [], []
    for group in clips.split(model.clips_per_pass):
        with ledger.stage("vision") as cost:
            patches = model.encode_clips(group)
            cost.add(tokens=patches.shape[0] * patches.shape[1])
        with ledger.stage("compress") as cost:
            compressed = model.compress(patches, num_frames)
            features.append(model.projector(compressed.features))
            weights.append(frame_weights(compressed.reduction, num_frames))
            cost.add(tokens=features[-1].shape[0] * features[-1].shape[1])
    with ledger.stage("compress") as cost:
        joined = torch.cat(features)  # [K, M, D]
        cost.add(bytes=joined.numel() * joined.element_size())
        clip_index = torch.arange(first_clip, first_clip + len(joined)).repeat_interleave(joined.shape[1])
        tokens = VisualTokens(joined.flatten(0, 1), torch.cat(weights).flatten(0, 1), clip_index)
    return Segment(tokens, frames.pts_s.reshape(-1, num_frames))


def ingest(
    video: Source | Video,
    model: LoadedModel,
    budget: Budget | None = None,
    *,
    rule: SamplingRule | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    chunk_clips: int = 8,
    ledger: Ledger | None = None,
    on_progress: Progress | None = None,
) -> VideoMemory:
    """Turn a video, or a picture, into a memory that any question can be asked of.

    start_s, end_s: take only this part, in seconds. rule: which frames; else `default_rule`.

    Raises: VideoError, BudgetError as opening and sampling do; BudgetError if memory runs out.
    """
    budget, ledger = budget or Budget(), ledger or Ledger()
    if not isinstance(video, Video):
        with ledger.stage("open"):
            opened = open_video(video)
        try:
            return ingest(
                opened,
                model,
                budget,
                rule=rule,
                start_s=start_s,
                end_s=end_s,
                chunk_clips=chunk_clips,
                ledger=ledger,
                on_progress=on_progress,
            )
        finally:
            with ledger.stage("decode"):
                opened.close()
    ledger.note(f"decoder {video.info.backend}")
    ledger.note(f"device {model.device}, {str(model.dtype).removeprefix('torch.')}")
    if video.info.container == "image":
        return _ingest_image(video, model, ledger)
    rule = rule or default_rule(model)
    with ledger.stage("sample"):
        sampled = sample_times(video.clock, rule, budget.max_frames, start_s=start_s, end_s=end_s)
    with memory_errors(len(sampled.times_s), model):
        segments = ingest_segments(
            video, model, sampled, chunk_clips=chunk_clips, ledger=ledger, on_progress=on_progress
        )
        parts = list(segments)
        with ledger.stage("compress"):
            tokens = VisualTokens(
                torch.cat([part.tokens.features for part in parts]),
                torch.cat([part.tokens.frame_weight for part in parts]),
                torch.cat([part.tokens.clip_index for part in parts]),
            )
            times = np.concatenate([part.frame_pts_s for part in parts])
    settings = _settings(model, "video") | {"rule": rule.to_dict(), "start_s": start_s, "end_s": end_s}
    return VideoMemory(tokens, times, sampled.duration_s, video.info.source, settings, tuple(video.warnings))


def _settings(model: LoadedModel, kind: str) -> dict[str, object]:
    compressor = model.model.compressor
    return {"kind": kind, "model": model.fingerprint, "compressor": getattr(compressor, "fingerprint", lambda: "")()}


@torch.no_grad()
def _ingest_image(video: Video, model: LoadedModel, ledger: Ledger) -> VideoMemory:
    """Turn a picture into tokens: the whole of it and its tiles."""
    with ledger.stage("decode"):
        pixels = next(video.frames_at(np.zeros(1))).pixels[0]
    with ledger.stage("preprocess"):
        tiles, grid = tile_image(pixels, model.config.vision_config.image_size)
        values = normalize_pixels(torch.from_numpy(tiles).to(model.device).permute(0, 3, 1, 2).contiguous())
    with ledger.stage("vision") as cost:
        tokens: Float[Tensor, "N D"] = order_image_tokens(model.model.connect(values.unsqueeze(1))[0], grid)
        cost.add(tokens=len(tokens))
    weight, clip = torch.ones(len(tokens), 1, dtype=torch.int64), torch.zeros(len(tokens), dtype=torch.int64)
    visual = VisualTokens(tokens, weight, clip)
    return VideoMemory(visual, np.zeros((1, 1)), 0.0, video.info.source, _settings(model, "image"))
