"""What a question looks at, as a picture: relevance over time, the top frames, and where the tokens are spent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from longtake.core.budget import Budget
from longtake.core.types import Frames, VideoMemory
from longtake.engine.figures import check_figure_path, new_figure, save_figure
from longtake.engine.ingest import Progress, Source, ingest
from longtake.engine.select import Selector, best_clips, relevance
from longtake.media.video import Video, open_video
from longtake.methods.select.qc_comp import top_frames
from longtake.models.loaded import LoadedModel

THUMBNAILS = 6
THUMBNAIL_HEIGHT = 144


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What a question looks at.

    times_s, relevance, kept: [T], the time of each frame, its relevance over the video's mean (NaN where it has
    none), and whether an answer is written from it. tokens: [L, T], how many tokens of each frame enter each layer;
    where a reducer looks at the question, the mean of its frames. top: the pictures of the most relevant clips, in
    order of time.
    """

    question: str
    source: str
    times_s: Float[np.ndarray, "T"]
    relevance: Float[np.ndarray, "T"]
    kept: np.ndarray
    tokens: Float[np.ndarray, "L T"]
    top: Frames

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; relevance that is not known is none."""
        return {
            "question": self.question,
            "times_s": self.times_s.tolist(),
            "relevance": [float(value) if np.isfinite(value) else None for value in self.relevance],
            "kept": self.kept.tolist(),
            "tokens_per_layer": self.tokens.sum(1).tolist(),
            "top_s": self.top.pts_s.tolist(),
        }


def layer_tokens(loaded: LoadedModel, num_visual: int) -> Float[np.ndarray, "L"]:
    """Return how many of a prompt's visual tokens enter each layer of the language model."""
    reducer, depth = loaded.model.reducer, len(loaded.model.language.layers)
    stages = dict(reducer.schedule(depth, num_visual)) if reducer is not None else {}
    alive, counts = num_visual, []
    for layer in range(depth):
        alive = stages.get(layer, alive)
        counts.append(float(alive))
    return np.array(counts)


def explain(
    video: Source | Video,
    question: str,
    model: LoadedModel,
    budget: Budget | None = None,
    *,
    selector: Selector | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    memory: VideoMemory | None = None,
    on_progress: Progress | None = None,
) -> Explanation:
    """Score every frame of a video for a question; short videos too, whatever the selector's gate says.

    memory: of this video, if it was made before.

    Raises: as `ingest` and `longtake.engine.select.select`.
    """
    if not isinstance(video, Video):
        with open_video(video) as opened:
            return explain(
                opened,
                question,
                model,
                budget,
                selector=selector,
                start_s=start_s,
                end_s=end_s,
                memory=memory,
                on_progress=on_progress,
            )
    budget, selector = budget or Budget(), selector or Selector()
    if memory is None:
        memory = ingest(video, model, budget, start_s=start_s, end_s=end_s, on_progress=on_progress)
    scores = relevance(memory, question, model, selector.method, limit_gb=budget.memory_gb)
    clips = best_clips(scores, memory, min(selector.frames_kept, memory.num_frames)).clips
    kept = np.zeros(memory.frame_pts_s.shape, dtype=bool)
    kept[clips] = True
    per_layer = layer_tokens(model, len(memory.tokens) * len(clips) // len(memory.frame_pts_s)) / max(kept.sum(), 1)
    values = np.where(np.isfinite(scores.numpy()), scores.numpy(), np.nan)
    top_s = memory.frame_pts_s.ravel()[_middles_of_best(scores, selector.method.clip_frames)]
    height, width = next(video.frames_at(top_s[:1])).pixels.shape[1:3]
    size = (THUMBNAIL_HEIGHT, max(1, round(THUMBNAIL_HEIGHT * width / height)))
    pictures = next(video.frames_at(top_s, size=size, chunk_frames=len(top_s)))
    return Explanation(
        question=question,
        source=video.info.source,
        times_s=memory.frame_pts_s.ravel(),
        relevance=values / max(float(np.nanmean(values)), np.finfo(float).tiny),
        kept=kept.ravel(),
        tokens=per_layer[:, None] * kept.ravel(),
        top=pictures,
    )


def _middles_of_best(scores: Float[Tensor, "T"], clip_frames: int) -> list[int]:
    """Return the middle frame of each of the most relevant scored clips, in order of time."""
    per_clip = scores.unflatten(0, (-1, clip_frames)).mean(1)
    best = top_frames(per_clip, min(THUMBNAILS, int(per_clip.isfinite().sum())))
    return [clip * clip_frames + clip_frames // 2 for clip in best]


def draw(explanation: Explanation, path: str | Path) -> Path:
    """Draw an explanation as one picture.

    Raises: ConfigError, StorageError, MissingExtraError as `check_figure_path` and `save_figure`.
    """
    target = check_figure_path(path)
    figure = new_figure(11.0, 8.0)
    grid = figure.add_gridspec(3, len(explanation.top), height_ratios=(1.1, 1.6, 2))
    for place, (picture, time_s) in enumerate(zip(explanation.top.pixels, explanation.top.pts_s, strict=True)):
        axes = figure.add_subplot(grid[0, place])
        axes.imshow(picture)
        axes.set_title(f"{time_s:.1f} s", fontsize=9)
        axes.set_axis_off()
    timeline = figure.add_subplot(grid[1, :])
    _draw_relevance(timeline, explanation)
    _draw_tokens(figure, figure.add_subplot(grid[2, :], sharex=timeline), explanation)
    question = explanation.question if len(explanation.question) <= 100 else explanation.question[:99] + "…"
    # A dollar sign would start a formula.
    figure.suptitle(f"{Path(explanation.source).name}: {question}".replace("$", r"\$"), fontsize=11)
    return save_figure(figure, target)


def _edges(times_s: Float[np.ndarray, "T"]) -> Float[np.ndarray, "E"]:
    """Return where each frame's share of the timeline begins, and where the last one's ends."""
    steps = np.diff(times_s)
    last = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    return np.append(times_s, times_s[-1] + last)


def _draw_relevance(axes: Any, explanation: Explanation) -> None:
    edges = _edges(explanation.times_s)
    axes.stairs(explanation.relevance, edges, color="tab:blue", label="relevance")
    shown = np.where(explanation.kept, explanation.relevance, np.nan)
    axes.stairs(np.nan_to_num(shown), edges, fill=True, color="tab:orange", alpha=0.5, label="kept for the answer")
    axes.plot(
        explanation.top.pts_s, np.full(len(explanation.top), np.nanmax(explanation.relevance) * 1.05), "v", color="k"
    )
    axes.set_ylabel("relevance / mean")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.tick_params(labelbottom=False)
    axes.legend(loc="lower center", ncols=2, fontsize=8)


def _draw_tokens(figure: Any, axes: Any, explanation: Explanation) -> None:
    depth = len(explanation.tokens)
    mesh = axes.pcolormesh(_edges(explanation.times_s), np.arange(depth + 1) + 0.5, explanation.tokens, cmap="viridis")
    axes.set_xlabel("seconds")
    axes.set_ylabel("layer")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.invert_yaxis()
    total = explanation.tokens.sum() / depth
    figure.colorbar(mesh, ax=axes, label="tokens of a frame", pad=0.01)
    axes.set_title(f"tokens spent: {total:.0f} a layer in the mean", fontsize=9)
