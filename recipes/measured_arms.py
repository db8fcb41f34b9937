"""What `measure_methods.py` holds against each other: every registered method, and beside it as much taken at random.

Names are read by people: docs/results.md shows them. A count in a name is tokens a frame of the film.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from film_patches import TokensPerClip

from longtake.eval.baselines import EvenPool, RandomDrop, RandomReduce
from longtake.methods.compress.pool import Pool
from longtake.methods.compress.tome import ToMe
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.methods.select.qc_comp import QcComp

CLIP_FRAMES = 4
LOCAL = QcComp(clip_frames=CLIP_FRAMES)
SELECTORS: Mapping[str, QcComp] = {
    "QC-Comp local": LOCAL,
    "QC-Comp local, uncorrected": dataclasses.replace(LOCAL, position_correction=False),
    "QC-Comp global": QcComp(clip_frames=CLIP_FRAMES, window=0, position_correction=False, chunk_frames=1_000_000),
}
EVEN, RANDOM = "uniform frames", "random frames"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to see a film and to read it.

    family: compress, memory, reduce, select, together or blind. compress: makes the method for a film's seed; none:
    the checkpoint's own, as it is. budget: tokens a frame that the memory is merged to afterwards. select: a key of
    SELECTORS, EVEN or RANDOM. tells_seconds: whether the prompt says which seconds were chosen, as `longtake ask` does;
    else it is that of the whole film, as released. control: the arm that takes as much at random, or a checkpoint
    trained alike. resize: rows and columns of patches that a plain resize of a frame leaves. is_black: shows a black
    film.
    """

    name: str
    family: str
    compress: Callable[[int], Any] | None
    budget: float | None = None
    reduce: Any = None
    select: str | None = None
    tells_seconds: bool = False
    control: str | None = None
    resize: tuple[int, int] | None = None
    is_black: bool = False


def tome(count: int) -> Callable[[int], Any]:
    """Return ToMe at a count of tokens a frame."""
    return lambda _: ToMe(tokens_per_frame=count)


def at_random(count: float) -> Callable[[int], Any]:
    """Return a random choice of patches; `count` a frame of the clip."""
    return lambda seed: RandomDrop(TokensPerClip(count=round(count * CLIP_FRAMES)), seed)


def compressing() -> list[Arm]:
    """Return fewer tokens for a clip, blind to the question: 16, 4 and 1 of the 64 patches of a frame."""
    arms = [Arm(name="all patches (64)", family="compress", compress=tome(64))]
    for count in (16, 4, 1):
        control = f"random patches ({count})"
        arms += [
            Arm(name=f"ToMe ({count})", family="compress", compress=tome(count), control=control),
            Arm(
                name=f"pool ({count})",
                family="compress",
                compress=lambda _, count=count: Pool(tokens_per_frame=count),
                control=control,
            ),
        ]
        if count < 16:
            arms.append(resized(count, control))
        arms.append(Arm(name=control, family="compress", compress=at_random(count)))
    return arms


def resized(count: int, control: str) -> Arm:
    """Return frames shrunk to as many patches as they get tokens, blown up again, and pooled."""
    side = {4: 2, 1: 1}[count]
    pool = EvenPool(like=TokensPerClip(count=count * CLIP_FRAMES))
    name = f"plain resize ({count})"
    return Arm(name=name, family="compress", compress=lambda _: pool, control=control, resize=(side, side))


def budgeting() -> list[Arm]:
    """Return what a memory merged afterwards keeps (`--tokens-per-frame`)."""
    few = "random patches (0.25)"
    return [
        Arm(name="ToMe (4), merged to 1", family="memory", compress=tome(4), budget=1, control="random patches (1)"),
        Arm(name="ToMe (4), merged to 0.25", family="memory", compress=tome(4), budget=0.25, control=few),
        Arm(name="ToMe (1), merged to 0.25", family="memory", compress=tome(1), budget=0.25, control=few),
        Arm(name=few, family="memory", compress=at_random(0.25)),
    ]


def reducers() -> dict[str, Any]:
    """Return what drops tokens between layers, all from 4 a frame to 1 at the last."""
    halves: dict[str, Any] = {"layers": (1, 2), "ratios": (1.0, 0.5, 0.25)}
    kinds = ("uniform", "attention", "uniform0_attention", "uniform1_attention")
    return {
        "LP-Comp cosine": LpComp(tokens_per_frame=4),
        "LP-Comp cosine, uniform survivors": LpComp(tokens_per_frame=4, survivors="uniform"),
        "LP-Comp cosine, ceiling": LpComp(tokens_per_frame=4, rounding="ceiling"),
        "LP-Comp linear": LpComp(tokens_per_frame=4, schedule_kind="linear"),
        "LP-Comp step": LpComp(tokens_per_frame=4, schedule_kind="step", step_layers=(1, 2), step_strides=(2, 2)),
        **{f"progressive drop, {kind.replace('_', ' then ')}": ProgressiveDrop(kind=kind, **halves) for kind in kinds},
    }


def reducing() -> list[Arm]:
    """Return each reducer, and for each schedule of counts one that drops at random."""
    arms, controls = [], {}
    for name, method in reducers().items():
        counts = tuple(sorted(method.schedule(4, 64).items()))
        control = controls.setdefault(counts, f"random tokens, as {name}")
        arms.append(Arm(name=name, family="reduce", compress=tome(4), reduce=method, control=control))
        if control.endswith(name):
            arms.append(Arm(name=control, family="reduce", compress=tome(4), reduce=RandomReduce(like=method)))
    return arms


def selecting() -> list[Arm]:
    """Return what chooses frames for a question, and what chooses them without looking."""
    arms = [
        Arm(name=name, family="select", compress=tome(1), select=name, control=f"{RANDOM}, 1 token")
        for name in (*SELECTORS, EVEN)
    ]
    arms.append(dataclasses.replace(arms[0], name=f"{arms[0].name}, seconds told", tells_seconds=True))
    return [*arms, Arm(name=f"{RANDOM}, 1 token", family="select", compress=tome(1), select=RANDOM)]


def together() -> list[Arm]:
    """Return the papers' ways as a whole, on the same weights, and the controls of each part at once."""
    cosine, drop = LpComp(tokens_per_frame=4), reducers()["progressive drop, attention"]
    flash, xcomp = "random patches, random tokens", "random frames, LP-Comp"
    return [
        Arm(name="VideoChat-Flash way", family="together", compress=tome(1), reduce=drop, control=flash),
        Arm(name=flash, family="together", compress=at_random(1), reduce=RandomReduce(like=drop)),
        Arm(
            name="XComp way",
            family="together",
            compress=tome(4),
            reduce=cosine,
            select="QC-Comp local",
            control=xcomp,
        ),
        Arm(name=xcomp, family="together", compress=tome(4), reduce=cosine, select=RANDOM),
    ]


BLACK = Arm(name="black film", family="blind", compress=tome(1), is_black=True)
ARMS: Mapping[str, Arm] = {
    arm.name: arm for arm in [*compressing(), *budgeting(), *reducing(), *selecting(), *together(), BLACK]
}
# Longer films are asked in fewer ways: what one method of each kind does, and its control.
LONG = (
    "ToMe (4)", "random patches (4)", "ToMe (1)", "pool (1)", "random patches (1)",
    "ToMe (1), merged to 0.25", "random patches (0.25)",
    "LP-Comp cosine", "random tokens, as LP-Comp cosine", "progressive drop, uniform", "random tokens, as LP-Comp step",
    "QC-Comp local", "QC-Comp local, uncorrected", "QC-Comp global", "uniform frames", "random frames, 1 token",
    "VideoChat-Flash way", "random patches, random tokens", "XComp way", "random frames, LP-Comp", "black film",
)  # fmt: skip
SYSTEMS = ("ToMe (1)", "VideoChat-Flash way", "XComp way")
NEEDLE_ARMS = (*SYSTEMS, "random patches (1)", "random patches, random tokens", "random frames, LP-Comp")

# Checkpoints of their own (`tiny_pvc_films.py`), each measured by itself: a control is another one, trained alike.
STATIC = Arm(name="static frames", family="together", compress=None)
PVC = Arm(name="PVC", family="together", compress=None, control=STATIC.name)
PVC_CHOSEN = Arm(
    name="PVC, frames chosen", family="together", compress=None, select="QC-Comp local", control="PVC, random frames"
)
PVC_RANDOM = Arm(name="PVC, random frames", family="together", compress=None, select=RANDOM)
OWN_ARMS: Mapping[str, Arm] = {arm.name: arm for arm in (PVC, PVC_CHOSEN, PVC_RANDOM, STATIC)}
EVERY_ARM: Mapping[str, Arm] = {**ARMS, **OWN_ARMS}
