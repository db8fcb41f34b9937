"""Sampling one frame a second from a long H.264 file, against decoding every frame to RGB and picking.

`python -m bench.bench_decode [--minutes 10] [--pairs 3]` measures; both ways run in one process, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np

from bench.pairs import row
from longtake.media.pixels import resize_exact
from longtake.media.video import open_video

FPS, KEY_FRAME_EVERY, NUM_B_FRAMES = 25, 250, 2
SIDE = 224
TARGET_RATIO = 2.0


def write_moving_video(path: Path, duration_s: float) -> None:
    """Encode a moving test card with noise, 1280x720, 25 frames a second, a key frame every 250, two B-frames."""
    graph = av.filter.Graph()
    card = graph.add("testsrc2", f"size=1280x720:rate={FPS}:duration={duration_s}")
    steps = [graph.add("noise", "alls=6:allf=t"), graph.add("format", "yuv420p"), graph.add("buffersink")]
    for one, other in zip([card, *steps], steps, strict=False):
        one.link_to(other)
    graph.configure()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, width=1280, height=720, pix_fmt="yuv420p")
        stream.codec_context.gop_size = KEY_FRAME_EVERY
        options = {"preset": "veryfast", "crf": "28", "bf": str(NUM_B_FRAMES), "sc_threshold": "0"}
        stream.codec_context.options = options
        for number in range(round(duration_s * FPS)):
            frame = graph.vpull()
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, FPS), 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode_all_and_pick(path: Path, times_s: np.ndarray) -> np.ndarray:
    """Decode every frame to RGB, with all threads, and keep the first one at or after each time."""
    kept: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            pixels = frame.to_ndarray(format="rgb24")
            if len(kept) < len(times_s) and frame.time >= times_s[len(kept)] - 1e-6:
                kept.append(resize_exact(pixels, (SIDE, SIDE)))
    return np.stack(kept)


def sample(path: Path, times_s: np.ndarray, *, isolate: bool = False) -> np.ndarray:
    """Ask our reader for the same times."""
    with open_video(path, isolate=isolate) as video:
        return np.concatenate([frames.pixels for frames in video.frames_at(times_s, size=(SIDE, SIDE))])


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(path: Path, minutes: float, num_pairs: int, *, isolate: bool) -> dict:
    """Measure pairs of runs, each way first in turn; the ratio is the median over pairs.

    Raises: AssertionError if the frames of the two ways differ in a single value.
    """
    times_s = np.arange(round(minutes * 60), dtype=np.float64)
    ways: list[Callable[[], np.ndarray]] = [
        lambda: decode_all_and_pick(path, times_s),
        lambda: sample(path, times_s, isolate=isolate),
    ]
    seconds: list[tuple[float, float]] = []
    for number in range(num_pairs):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        results = {way: timed(ways[way]) for way in order}
        assert np.array_equal(results[0][1], results[1][1]), "the two ways gave different frames"
        seconds.append((results[0][0], results[1][0]))
    return row(
        f"1 fps from {minutes:g} min of 720p H.264, {'isolated' if isolate else 'in-process'}, equal frames",
        statistics.median(baseline for baseline, _ in seconds),
        statistics.median(ours for _, ours in seconds),
        sorted(baseline / ours for baseline, ours in seconds),
        target=TARGET_RATIO,
    )


def measure_both(minutes: float, num_pairs: int) -> list[dict]:
    """Write the video, and measure decoding in this process and in a worker."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moving.mp4"
        write_moving_video(path, minutes * 60)
        return [measure(path, minutes, num_pairs, isolate=isolate) for isolate in (False, True)]


def run(quick: bool) -> list[dict]:
    """Return one row a claim: ten minutes of video, or half a minute where it must be quick."""
    return measure_both(0.5, 1) if quick else measure_both(10.0, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    print(json.dumps(measure_both(given.minutes, given.pairs), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
