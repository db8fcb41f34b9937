"""How much selection depends on where something is instead of what it is: three protocols, three ways to score.

Source: XComp's paper claims that local windows remove the position bias and shows no measurement of it; the protocols
are those of its reference analysis: a null video, shuffled clips, and a needle at every depth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from longtake.core.errors import ConfigError, VideoError
from longtake.core.types import VideoMemory
from longtake.engine.figures import check_figure_path, new_figure, save_figure
from longtake.engine.select import relevance, subset
from longtake.methods.select.qc_comp import QcComp
from longtake.models.loaded import LoadedModel

EDGE_SHARE = 0.1
KEPT_SHARE = 0.1

Score = Callable[[VideoMemory], np.ndarray]


def ways(method: QcComp) -> dict[str, QcComp]:
    """Return the three ways to score: the whole chunk at once, in windows, and in windows corrected for their places.

    Raises: ConfigError if the method has no windows.
    """
    if method.window == 0:
        raise ConfigError("the method scores whole chunks (window 0); expected windows to compare with; set a window")
    plain = dataclasses.replace(method, position_correction=False, gate_frames=0)
    return {
        "global": dataclasses.replace(plain, window=0),
        "segment-local": plain,
        "position-corrected": dataclasses.replace(plain, position_correction=True),
    }


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NullVideo:
    """Scores of one clip repeated [K], as shares of their sum: content is constant, so what is not flat is position.

    edge_ratio: mean of the first and last tenth over the mean of the rest. kl: divergence from a flat profile, nats.
    """

    profile: Float[np.ndarray, "K"]
    edge_ratio: float
    kl: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shuffled:
    """Shares of the variance of clip scores over shufflings that the place and the content of a clip explain."""

    by_position: float
    by_content: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NeedleDepth:
    """Rank of a known clip (0: the best) among `num_clips`, by the depth at which it was put, 0 to 1."""

    depth: Float[np.ndarray, "D"]
    rank: Float[np.ndarray, "D"]
    num_clips: int

    def recall(self, kept_share: float = KEPT_SHARE) -> float:
        """Return how often the clip is among the best `kept_share` of all."""
        return float((self.rank < max(1, round(kept_share * self.num_clips))).mean())


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiasReport:
    """What the protocols say of each way to score."""

    null: Mapping[str, NullVideo]
    shuffled: Mapping[str, Shuffled]
    needle: Mapping[str, NeedleDepth]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, by way."""
        return {
            way: {
                "null_edge_ratio": null.edge_ratio,
                "null_kl": null.kl,
                "null_profile": null.profile.tolist(),
                "shuffled_by_position": self.shuffled[way].by_position,
                "shuffled_by_content": self.shuffled[way].by_content,
                "needle_recall_at_10_percent": self.needle[way].recall(),
                "needle_depth": self.needle[way].depth.tolist(),
                "needle_rank": self.needle[way].rank.tolist(),
            }
            for way, null in self.null.items()
        }


def null_video(memory: VideoMemory, clips: list[int], score: Score) -> NullVideo:
    """Repeat one scored clip (given by its vision clips) as long as the memory is, and score that.

    Raises: VideoError if a score is missing.
    """
    scores = _scores(arranged(memory, clips * (len(memory.frame_pts_s) // len(clips))), score)
    profile = scores / scores.sum()
    edge = max(1, round(EDGE_SHARE * len(profile)))
    outer, inner = np.append(profile[:edge], profile[-edge:]), profile[edge:-edge]
    present = profile[profile > 0]
    kl = float((present * np.log(present * len(profile))).sum())
    return NullVideo(profile=profile, edge_ratio=float(outer.mean() / inner.mean()), kl=max(0.0, kl))


def shuffled(memory: VideoMemory, group: int, score: Score, rounds: int, seed: int = 0) -> Shuffled:
    """Score the clips in `rounds` random orders and split the variance between place and content.

    Raises: ConfigError for fewer than two rounds; VideoError if a score is missing.
    """
    if rounds < 2:
        raise ConfigError(f"rounds is {rounds}; expected at least 2, to tell place from content; raise it")
    random, count = np.random.default_rng(seed), len(memory.frame_pts_s) // group
    orders = [random.permutation(count) for _ in range(rounds)]
    by_place = np.stack([_scores(arranged(memory, grouped(order, group)), score) for order in orders])
    by_content = np.empty_like(by_place)
    for row, order in enumerate(orders):
        by_content[row, order] = by_place[row]
    total = by_place.var()
    if total == 0:
        return Shuffled(by_position=0.0, by_content=0.0)
    # A mean over R rounds keeps 1/R of the variance that it does not explain; that share is taken off again.
    shares = [(values.mean(0).var() / total - 1 / rounds) / (1 - 1 / rounds) for values in (by_place, by_content)]
    return Shuffled(by_position=float(max(0.0, shares[0])), by_content=float(max(0.0, shares[1])))


def needle_depth(
    memory: VideoMemory, needle: VideoMemory, group: int, score: Score, depths: int, skip: int | None = None
) -> NeedleDepth:
    """Put a clip in the place of another at `depths` even depths and rank it among all clips each time.

    needle: a memory whose first scored clip is the needle. skip: a scored clip of the memory that is left out, where
    the needle is that clip itself.

    Raises: ConfigError for fewer than one depth; VideoError if a score is missing.
    """
    if depths < 1:
        raise ConfigError(f"{depths} depths arrived; expected at least 1; raise it")
    count = len(memory.frame_pts_s) // group
    others = [clip for clip in range(count) if clip != skip]
    joined = joined_memory(memory, needle, group)
    places = np.linspace(0, count - 1, depths).round().astype(int)
    ranks = []
    for place in places.tolist():
        row = list(others if skip is not None else [clip for clip in others if clip != place])
        row.insert(place, count)
        scores = _scores(arranged(joined, grouped(np.array(row), group), memory), score)
        ranks.append(float((scores > scores[place]).sum()))
    return NeedleDepth(depth=places / max(count - 1, 1), rank=np.array(ranks), num_clips=count)


def grouped(order: np.ndarray, group: int) -> list[int]:
    """Return the vision clips of scored clips, `group` each, in their order."""
    return (order[:, None] * group + np.arange(group)).ravel().tolist()


def arranged(memory: VideoMemory, clips: list[int], timeline: VideoMemory | None = None) -> VideoMemory:
    """Return a film of the given clips in the given order, shown at the times of `timeline` (else of the memory)."""
    times = (timeline or memory).frame_pts_s[: len(clips)]
    return dataclasses.replace(subset(memory, clips), frame_pts_s=times)


def joined_memory(memory: VideoMemory, needle: VideoMemory, group: int) -> VideoMemory:
    """Put the first scored clip of another memory behind the clips of this one.

    Raises: VideoError if it has none, or another shape.
    """
    if len(needle.frame_pts_s) < group or needle.frame_pts_s.shape[1:] != memory.frame_pts_s.shape[1:]:
        raise VideoError(
            f"the needle has {needle.frame_pts_s.shape} frames; expected at least {group} clips of "
            f"{memory.frame_pts_s.shape[1]}; take a longer one"
        )
    part, whole = subset(needle, list(range(group))), memory.tokens
    tokens = dataclasses.replace(
        whole,
        features=torch.cat([whole.features, part.tokens.features.to(whole.features)]),
        frame_weight=torch.cat([whole.frame_weight, part.tokens.frame_weight.to(whole.frame_weight)]),
        clip_index=torch.cat([whole.clip_index.cpu(), part.tokens.clip_index.cpu() + len(memory.frame_pts_s)]),
    )
    times = np.concatenate([memory.frame_pts_s, part.frame_pts_s])
    return dataclasses.replace(memory, tokens=tokens, frame_pts_s=times)


def _scores(memory: VideoMemory, score: Score) -> np.ndarray:
    """Score a film and refuse scores that are missing."""
    found = score(memory)
    if not np.isfinite(found).all():
        raise VideoError(
            f"{int((~np.isfinite(found)).sum())} of {len(found)} clips have no finite score; expected one each; use a "
            "method whose windows reach every clip (edges keep, last_window), or a wider dtype"
        )
    return found


def measure(
    memory: VideoMemory,
    question: str,
    model: LoadedModel,
    method: QcComp,
    *,
    needle: VideoMemory | None = None,
    rounds: int = 16,
    limit_gb: float | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> BiasReport:
    """Run the three protocols with each way to score.

    needle: a memory whose first clip is hidden; else the video's own best clip is moved.

    Raises: VideoError for a video of fewer than 10 scored clips; else as `relevance`.
    """
    group, rest = divmod(method.clip_frames, memory.frame_pts_s.shape[1])
    count = memory.num_frames // method.clip_frames
    if rest or count < 10:
        raise VideoError(
            f"{memory.num_frames} frames in vision clips of {memory.frame_pts_s.shape[1]} arrived; expected at least "
            f"10 scored clips of {method.clip_frames}, made of whole vision clips; sample more frames"
        )
    memory = subset(memory, list(range(count * group)))
    null, by_order, by_depth = {}, {}, {}
    for index, (way, own) in enumerate(ways(method).items()):

        def score(film: VideoMemory, own: QcComp = own) -> np.ndarray:
            frames = relevance(film, question, model, own, limit_gb=limit_gb)
            return frames.unflatten(0, (-1, own.clip_frames)).mean(1).numpy()

        best = int(np.argmax(_scores(memory, score)))
        null[way] = null_video(memory, grouped(np.array([best]), group), score)
        by_order[way] = shuffled(memory, group, score, rounds)
        hidden, skip = (needle, None) if needle else (subset(memory, grouped(np.array([best]), group)), best)
        by_depth[way] = needle_depth(memory, hidden, group, score, min(rounds, count), skip)
        if on_progress is not None:
            on_progress("measure", index + 1, 3)
    return BiasReport(null=null, shuffled=by_order, needle=by_depth)


def draw(report: BiasReport, path: str | Path) -> Path:
    """Draw a report as one picture: profiles of the null video, shares of the variance, rank of the needle by depth.

    Raises: ConfigError, StorageError, MissingExtraError as `check_figure_path` and `save_figure`.
    """
    target = check_figure_path(path)
    figure = new_figure(13.0, 4.2)
    null, bars, depth = figure.subplots(1, 3)
    for place, (way, found) in enumerate(report.null.items()):
        where = (np.arange(len(found.profile)) + 0.5) / len(found.profile)
        null.plot(where, found.profile * len(found.profile), label=f"{way} (edge ratio {found.edge_ratio:.2f})")
        split = report.shuffled[way]
        bars.bar([place - 0.2], [split.by_position], 0.4, color="tab:red", label="place" if place == 0 else None)
        bars.bar([place + 0.2], [split.by_content], 0.4, color="tab:green", label="content" if place == 0 else None)
        needle = report.needle[way]
        depth.plot(
            needle.depth, needle.rank, "o-", markersize=3, label=f"{way} (recall at 10 %: {needle.recall():.0%})"
        )
    null.set(title="one clip repeated", xlabel="place in the video", ylabel="score / mean", ylim=(0, None))
    bars.set(title="shuffled clips", ylabel="share of the variance", ylim=(0, 1))
    bars.set_xticks(range(len(report.null)), list(report.null), fontsize=8)
    depth.set(title="a needle at every depth", xlabel="depth", ylabel="rank of the needle (0: first)")
    depth.invert_yaxis()
    for axes in (null, bars, depth):
        axes.legend(fontsize=8)
    return save_figure(figure, target)
