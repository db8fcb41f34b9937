"""A video becomes a memory: decode, normalise, encode, compress, in bounded chunks, blind to any question."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from longtake.core.budget import Budget
from longtake.core.errors import VideoError
from longtake.core.reduction import Reduction
from longtake.core.types import Frames, VideoMemory, VisualTokens
from longtake.engine.ledger import Ledger
from longtake.engine.limits import memory_errors
from longtake.engine.pictures import ingest_picture
from longtake.engine.pictures import settings_of as settings_of
from longtake.media.sampling import PVC_CLEAN, Sampled, SamplingRule, sample_times
from longtake.media.transforms import normalize_pixels
from longtake.media.video import Video, open_video
from longtake.models.base import ClipEncoder
from longtake.models.loaded import LoadedModel
from longtake.models.pvc_configuration import PvcConfig

Source = str | Path | bytes | Mapping[str, object] | Frames
Progress = Callable[[str, int, int], None]
PVC_TRAINED_FRAMES = 96


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """Tokens of some consecutive clips, and when their frames are shown, float64 [K, F]."""

    tokens: VisualTokens
    frame_pts_s: np.ndarray


def default_rule(loaded: LoadedModel) -> SamplingRule:
    """Return the rule in force where none is given: the released counts, but by time, and the budget's limit wins.

    `longtake.media.sampling.RELEASED` is what the released evaluation does, to the frame, `PVC_RELEASED` PVC's.
    """
    if isinstance(loaded.config, PvcConfig):
        return PVC_CLEAN
    return SamplingRule(frame_multiple=2 * loaded.config.mm_local_num_frames)


def frame_limit(loaded: LoadedModel, budget: Budget, rule: SamplingRule | None, ledger: Ledger) -> int:
    """Return the most frames: the budget's, and of PVC without a rule no more than it was trained on, which is noted.

    Source: PVC, frames per video in [16, 96].
    """
    if rule is not None or not isinstance(loaded.config, PvcConfig) or budget.max_frames <= PVC_TRAINED_FRAMES:
        return budget.max_frames
    ledger.note(f"at most {PVC_TRAINED_FRAMES} frames are taken, as many as PVC was trained on; a rule may take more")
    return PVC_TRAINED_FRAMES


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
    on_frames: Callable[[Frames], None] | None = None,
) -> Iterator[Segment]:
    """Yield the tokens of the sampled frames, `chunk_clips` clips at a time; no more frames than that are held.

    The tokens do not depend on `chunk_clips`: on a CPU in float32 they are equal to the last bit. on_frames is shown
    the pictures of each segment before it is encoded.

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
    encoder = loaded.model.encoder(total)
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
        if on_frames is not None:
            on_frames(frames)
        yield _encode(loaded, encoder, frames, done // length, ledger)
        done += len(frames)
        if on_progress is not None:
            on_progress("encode", done, total)


@torch.no_grad()
def _encode(loaded: LoadedModel, encoder: ClipEncoder, frames: Frames, first_clip: int, ledger: Ledger) -> Segment:
    """Turn the next chunk of frames, in whole clips, into tokens."""
    model, num_frames = loaded.model, loaded.config.mm_local_num_frames
    with ledger.stage("preprocess"):
        pixels = torch.from_numpy(frames.pixels).to(model.device).permute(0, 3, 1, 2)
        clips = normalize_pixels(pixels).unflatten(0, (-1, num_frames))
    features, weights = [], []
    for group in clips.split(model.clips_per_pass):
        with ledger.stage("vision") as cost:
            patches = encoder.encode(group)
            cost.add(tokens=patches.shape[0] * patches.shape[1])
        with ledger.stage("compress") as cost:
            compressed = encoder.compress(patches)
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
        return ingest_picture(video, model, budget, ledger)
    limit, rule = frame_limit(model, budget, rule, ledger), rule or default_rule(model)
    with ledger.stage("sample"):
        sampled = sample_times(video.clock, rule, limit, start_s=start_s, end_s=end_s)
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
    settings = settings_of(model, "video") | {"rule": rule.to_dict(), "start_s": start_s, "end_s": end_s}
    return VideoMemory(tokens, times, sampled.duration_s, video.info.source, settings, tuple(video.warnings))
