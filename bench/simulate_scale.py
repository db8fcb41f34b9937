"""A million hours of video: what it takes by arithmetic, and how a queue of workers that fail gets through it.

    python -m bench.simulate_scale arithmetic [--hours …] [--utilisation …] [--price …] [--mbit …]
    python -m bench.simulate_scale queue [--hours …] [--workers …] [--frames-per-s …] [--seed …]

Nothing here was timed on a GPU: frames a second follow from counted operations (`longtake.engine.cost`), the
vendor's peak and a utilisation that is assumed. What is assumed is an option. docs/scale.md shows the output.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import sys

import numpy as np

from bench.bench_memory import arithmetic_bytes
from longtake.engine.cost import Shapes, flops
from longtake.media.synthetic import draw_clock
from longtake.memory.segment import thumbnail
from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.presets import preset

HOUR_FRAMES = 3600
PRESET = "videochat_flash_2b"
# Dense bfloat16, as the vendor's data sheets give it.
PEAK_FLOPS = {"A100": 312e12, "H200": 989e12}
# docs/bench.md: 1 fps from 10 min of 720p H.264, isolated, one core of a virtual server.
DECODE_S_PER_HOUR = 6 * 12.43
SEGMENT_FRAMES = 32


def flops_per_frame(tokens_per_frame: int) -> float:
    """Count the operations of tower, merging and projector for one frame."""
    config = preset(PRESET).config()
    assert isinstance(config, VideoChatFlashConfig)
    shapes = Shapes(
        config=config,
        num_frames=HOUR_FRAMES,
        num_text=0,
        num_new=0,
        dtype_bytes=2,
        tokens_per_frame=tokens_per_frame,
    )
    stages = flops(shapes)
    return (stages["vision"] + stages["compress"]) / HOUR_FRAMES


def hour_bytes(tokens_per_frame: int, store: str) -> float:
    """Count the bytes of an hour's memory at one frame a second."""
    width = preset(PRESET).config().hidden_size
    picture = len(thumbnail(draw_clock(0.0, 224, 224), 16 / 9))
    in_int8 = arithmetic_bytes(HOUR_FRAMES, tokens_per_frame, width, picture)
    wider = HOUR_FRAMES * tokens_per_frame * (2 * width - (width + 4))
    return in_int8 + (wider if store == "float16" else 0)


def arithmetic(hours: float, utilisation: float, price: float, mbit: float) -> list[str]:
    """Write the tables of storage, GPUs and network."""
    lines = ["| tokens a frame | store | MB an hour | TB for all |", "|---|---|---|---|"]
    for tokens in (16, 4, 1):
        for store in ("float16", "int8"):
            size = hour_bytes(tokens, store)
            lines.append(f"| {tokens} | {store} | {size / 1e6:.1f} | {size * hours / 1e12:.1f} |")
    work, video = flops_per_frame(16), mbit * 1e6 / 8 * HOUR_FRAMES
    lines += ["", f"{work / 1e9:.0f} GFLOP a frame; {video * hours / 1e15:.2f} PB of video at {mbit:g} Mbit/s.", ""]
    lines += [
        f"| GPU | frames a second | GPU-hours | cost at {price:g} an hour | decoding cores a GPU "
        "| read MB/s a GPU | write MB/s a GPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, peak in PEAK_FLOPS.items():
        rate = peak * utilisation / work
        needed = hours * HOUR_FRAMES / rate / 3600
        hours_a_s = rate / HOUR_FRAMES
        lines.append(
            f"| {name} | {rate:.0f} | {needed:,.0f} | {needed * price:,.0f} | {hours_a_s * DECODE_S_PER_HOUR:.1f} "
            f"| {hours_a_s * video / 1e6:.0f} | {hours_a_s * hour_bytes(16, 'int8') / 1e6:.0f} |"
        )
    cores = hours * DECODE_S_PER_HOUR / 3600
    return [*lines, "", f"Decoding takes {cores:,.0f} core-hours, whatever the GPU."]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet:
    """Workers, and what goes wrong with them.

    mtbf_h: mean time between failures of one worker; restart_s: until it, or another one in its place, has the model
    ready again. slow_share of the workers have speed slow_speed. resumes: a video is gone on with at its last
    committed segment, else from its beginning. open_s: for each video, to hash and open it.
    """

    workers: int
    frames_per_s: float
    mtbf_h: float = float("inf")
    restart_s: float = 300.0
    slow_share: float = 0.0
    slow_speed: float = 0.5
    resumes: bool = True
    longest_first: bool = True
    open_s: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What came of it: hours on the clock, the share of worker-hours in which frames were encoded that were kept,
    failures, worker-hours of encoding that were lost, and hours from the first idle worker to the end."""

    wall_h: float
    utilisation: float
    failures: int
    lost_h: float
    tail_h: float


def video_frames(hours: float, median_h: float, sigma: float, generator: np.random.Generator) -> np.ndarray:
    """Draw videos of lognormal length that last so many hours together; frames of each, at one a second."""
    mean_h = median_h * np.exp(sigma**2 / 2)
    lengths = generator.lognormal(np.log(median_h), sigma, max(1, round(hours / mean_h)))
    return np.maximum(1, np.round(lengths * (hours / lengths.sum()) * HOUR_FRAMES))


def simulate(fleet: Fleet, frames: np.ndarray, seed: int) -> Run:
    """Let each free worker take the next video until there is none."""
    generator = np.random.default_rng(seed)
    ordered = np.sort(frames)[::-1] if fleet.longest_first else generator.permutation(frames)
    slow = generator.permutation(fleet.workers) < round(fleet.slow_share * fleet.workers)
    rates = np.where(slow, fleet.slow_speed, 1.0) * fleet.frames_per_s
    breaks = [_next_break(fleet, 0.0, generator) for _ in range(fleet.workers)]
    free = [(0.0, worker) for worker in range(fleet.workers)]
    useful_s = lost_s = 0.0
    failures = 0
    for left in ordered.tolist():
        time_s, worker = free[0]
        rate, whole = float(rates[worker]), left
        time_s += fleet.open_s
        while time_s + left / rate > breaks[worker]:
            done = max(0.0, breaks[worker] - time_s) * rate
            left_before = left
            left = left - done // SEGMENT_FRAMES * SEGMENT_FRAMES if fleet.resumes else whole
            lost_s += (done - (left_before - left)) / rate
            failures += 1
            time_s = breaks[worker] + fleet.restart_s + fleet.open_s
            breaks[worker] = _next_break(fleet, time_s, generator)
        useful_s += whole / rate
        heapq.heapreplace(free, (time_s + left / rate, worker))
    ends = [time_s for time_s, _ in free]
    return Run(
        wall_h=max(ends) / 3600,
        utilisation=useful_s / (fleet.workers * max(ends)),
        failures=failures,
        lost_h=lost_s / 3600,
        tail_h=(max(ends) - min(ends)) / 3600,
    )


def _next_break(fleet: Fleet, now_s: float, generator: np.random.Generator) -> float:
    return now_s + (generator.exponential(fleet.mtbf_h * 3600) if np.isfinite(fleet.mtbf_h) else np.inf)


def scenarios(workers: int, frames_per_s: float, open_s: float) -> list[tuple[str, Fleet]]:
    """Return the fleets that are compared."""
    clean = Fleet(workers=workers, frames_per_s=frames_per_s, open_s=open_s)
    bad = dataclasses.replace(clean, mtbf_h=50_000, slow_share=0.02)
    shared = dataclasses.replace(bad, workers=2 * workers, frames_per_s=frames_per_s / 2)
    spot = dataclasses.replace(bad, mtbf_h=6)
    slow = dataclasses.replace(spot, workers=100 * workers, frames_per_s=frames_per_s / 100)
    return [
        ("A: nothing fails", clean),
        ("B: a worker fails every 50,000 h, 2 % run at half speed", bad),
        ("C: as B, videos in any order", dataclasses.replace(bad, longest_first=False)),
        ("D: as B, twice the workers at half the speed, two on a GPU", shared),
        ("E: as B, a worker is taken away every 6 h", spot),
        ("F: as E, a video is begun again", dataclasses.replace(spot, resumes=False)),
        ("G: as E, 100 times the workers at a hundredth of the speed", slow),
        ("H: as G, a video is begun again", dataclasses.replace(slow, resumes=False)),
    ]


def queue(
    hours: float, workers: int, frames_per_s: float, median_h: float, sigma: float, open_s: float, seed: int, only: str
) -> list[str]:
    """Write the table of what happens to each fleet, or to those whose letters are in `only`."""
    frames = video_frames(hours, median_h, sigma, np.random.default_rng(seed))
    longest = frames.max() / HOUR_FRAMES
    lines = [f"{len(frames):,} videos, {frames.sum() / HOUR_FRAMES:,.0f} hours, the longest {longest:.1f} h.", ""]
    lines += [
        "| | hours on the clock | utilisation | failures | worker-hours lost | tail, h |",
        "|---|---|---|---|---|---|",
    ]
    for name, fleet in scenarios(workers, frames_per_s, open_s):
        if only and name[0] not in only:
            continue
        run = simulate(fleet, frames, seed)
        lines.append(
            f"| {name} | {run.wall_h:.2f} | {run.utilisation:.1%} | {run.failures:,} | {run.lost_h:,.2f} "
            f"| {run.tail_h:.2f} |"
        )
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    table = kinds.add_parser("arithmetic")
    table.add_argument("--utilisation", type=float, default=0.4, help="of the peak")
    table.add_argument("--price", type=float, default=1.0, help="of a GPU-hour")
    table.add_argument("--mbit", type=float, default=2.0, help="a second, of the videos")
    fleet = kinds.add_parser("queue")
    fleet.add_argument("--workers", type=int, default=256)
    fleet.add_argument("--frames-per-s", type=float, default=576.0, help="of one worker")
    fleet.add_argument("--median-h", type=float, default=0.3)
    fleet.add_argument("--sigma", type=float, default=1.2)
    fleet.add_argument("--open-s", type=float, default=1.0, help="to hash and open each video")
    fleet.add_argument("--seed", type=int, default=0)
    fleet.add_argument("--only", default="", help="letters of the fleets, else all")
    for each in (table, fleet):
        each.add_argument("--hours", type=float, default=1e6)
    values = vars(parser.parse_args(arguments))
    lines = {"arithmetic": arithmetic, "queue": queue}[values.pop("kind")](**values)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
