"""Scoring a film's clips for a first and a second question, against XComp's procedure, which repeats everything.

The procedure, with two repeats: every chunk of 576 frames is encoded again, runs through all layers, and each layer
runs once more over every window of 8 clips; for each question. It is written here generously: windows in one batch,
attention rows of the question only, and one token of the answer that the released code writes and throws away. All
chunks are alike, so of the longer film it does a quarter and its cost is taken four times.

One thread, so that other work on the machine does not make threads wait for each other.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from bench.pairs import row
from longtake.core.types import VideoMemory, VisualTokens
from longtake.engine.select import ScoredVideo
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.select.qc_comp import XCOMP_2B_RELEASED, XCOMP_CLEAN, QcComp, chunks, frame_scores, stitch
from longtake.models.tiny import build_random, tiny_config
from longtake.nn.language.layers import project_heads, rotation_at, run_layer
from longtake.ops.rope import rotate

CLIP, POOL, PREFIX, TEXT = 4, 16, 14, 70
# A quarter of the released depth; 128 channels a head and an inner width of 6 times, as in the released model.
DEPTH = 7
SHAPE = {"hidden_size": 128, "intermediate_size": 768, "num_attention_heads": 1, "num_key_value_heads": 1}
MOST_CHUNKS = 4
# The layers of the released preset at this depth: the same share of it.
RELEASED = QcComp.from_dict(XCOMP_2B_RELEASED.to_dict() | {"first_layer": -1, "last_layer": -1, "gate_frames": 0})
QUESTION = slice(27, TEXT)


class Work:
    """Counts token-layers: rows that pass a layer of the language model."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, rows: int) -> None:
        self.total += rows


def encode(model: Any, pool: torch.Tensor, clips: range | list[int]) -> torch.Tensor:
    """Encode clips; their pixels come from a small pool, as if a decoder had handed them over."""
    return torch.cat([model.connect(pool[clip % POOL : clip % POOL + 1])[0][0] for clip in clips])


def rescore_layer(
    language: Any, layer: Any, hidden: torch.Tensor, num_clips: int, num_visual: int, work: Work
) -> torch.Tensor:
    """Run a layer over every window of a chunk as the released code does; return the clips' scores."""
    per, end = num_visual // num_clips, PREFIX + num_visual
    starts = range(0, num_clips - 8 + 1, 4)
    windows = torch.stack(
        [
            torch.cat(
                [hidden[0, :PREFIX], hidden[0, PREFIX + s * per : PREFIX + (s + 8) * per], hidden[0, end : end + TEXT]]
            )
            for s in starts
        ]
    )
    work.add(windows.shape[0] * windows.shape[1])
    length = windows.shape[1]
    rotation = rotation_at(language, windows, torch.arange(length).unsqueeze(0))
    run_layer(layer, windows, rotation, None)
    normed = layer.input_layernorm(windows)
    query, key = (rotate(project_heads(layer, normed, name), *rotation) for name in ("q_proj", "k_proj"))
    query = query[:, :, length - TEXT :][:, :, QUESTION].unflatten(1, (key.shape[1], -1))
    attention = torch.einsum("wghrd,wgld->wghrl", query, key) * key.shape[-1] ** -0.5
    shares = attention.softmax(-1).mean(dim=(1, 2, 3))[:, PREFIX : PREFIX + 8 * per]
    return stitch(shares.unflatten(1, (8, per)).mean(-1), num_clips, RELEASED)


def reference(
    model: Any, pool: torch.Tensor, prefix: torch.Tensor, text: torch.Tensor, num_frames: int, work: Work
) -> tuple[torch.Tensor, float, float]:
    """Score the frames by the released procedure; return the scores, and the seconds of encoding and of the rest.

    The scores are those of the first chunks; what is left out is added to the seconds and to the work.
    """
    language, counts = model.language, LpComp().counts(DEPTH)
    found, frames, encoding, reading = [], chunks(num_frames, RELEASED), 0.0, 0.0
    for chunk in frames[:MOST_CHUNKS]:
        start = time.perf_counter()
        visual = encode(model, pool, (chunk[::CLIP] // CLIP).tolist())
        encoded = time.perf_counter()
        hidden, num_clips, scores = torch.cat([prefix, visual, text]).unsqueeze(0), len(chunk) // 8, []
        for index, layer in enumerate(language.layers):
            alive = len(chunk) * counts[index + 1]
            if counts[index + 1] < counts[index]:
                inner = hidden[0, PREFIX : PREFIX + len(chunk) * counts[index]].unflatten(0, (-1, counts[index]))
                kept = inner[:, counts[index] - counts[index + 1] :].flatten(0, 1)
                after = hidden[0, PREFIX + len(chunk) * counts[index] :]
                hidden = torch.cat([hidden[0, :PREFIX], kept, after]).unsqueeze(0)
            rescored = rescore_layer(language, layer, hidden, num_clips, alive, work)
            scores.append(rescored)
            rotation = rotation_at(language, hidden, torch.arange(hidden.shape[1]).unsqueeze(0))
            hidden = run_layer(layer, hidden, rotation, None)
            work.add(hidden.shape[1])
        model.lm_head(language.norm(hidden[:, -1]))
        found.append(torch.stack(scores)[RELEASED.layers(DEPTH).start : RELEASED.layers(DEPTH).stop])
        encoding, reading = encoding + encoded - start, reading + time.perf_counter() - encoded
    share = len(frames) / len(found)
    work.total = round(work.total * share)
    return frame_scores(found, frames[: len(found)], num_frames, 8), encoding * share, reading * share


def memory_of(features: torch.Tensor, num_frames: int) -> VideoMemory:
    count = num_frames // CLIP
    weight = torch.ones(len(features), CLIP, dtype=torch.int64)
    tokens = VisualTokens(features, weight, torch.arange(count).repeat_interleave(CLIP * 16))
    times = np.arange(num_frames, dtype=np.float64).reshape(count, CLIP)
    return VideoMemory(tokens, times, float(num_frames), "bench", {"kind": "video"})


def ours_work(method: QcComp, num_frames: int) -> int:
    """Token-layers of reading every chunk once, up to the last scored layer."""
    alive = LpComp().counts(DEPTH)[1 : method.layers(DEPTH).stop + 1]
    return sum(len(chunk) * count + PREFIX for chunk in chunks(num_frames, method) for count in alive)


@torch.no_grad()
def measure(quick: bool) -> list[dict]:
    """Measure both sides.

    The goal of question 1 with the clean settings is 6 times less of the language model's work and time. Its time
    misses that: what is saved most is windows, whose attention is short; a whole chunk's attention is long.
    """
    torch.manual_seed(0)
    model = build_random(tiny_config(num_hidden_layers=DEPTH, **SHAPE))
    pool = torch.randn(POOL, CLIP, 3, 96, 96)
    ids = torch.tensor([*range(PREFIX), -200, *range(20, 20 + TEXT)])
    prefix, text = model.embed_text(ids[:PREFIX]), model.embed_text(ids[PREFIX + 1 :])
    other = torch.cat([ids[: PREFIX + 1], ids[PREFIX + 1 :].flip(0)])
    rows = []
    for num_frames in (576,) if quick else (1024, 4096):
        work = Work()
        expected, encoding, reading = reference(model, pool, prefix, text, num_frames, work)
        start = time.perf_counter()
        features = encode(model, pool, range(num_frames // CLIP))
        encoded = time.perf_counter() - start
        memory = memory_of(features, num_frames)
        # The released settings read every frame 2.25 times, and the same numbers cannot be had for less.
        for name, method, one, two in (("released settings", RELEASED, 2, 25), ("clean settings", XCOMP_CLEAN, 6, 50)):
            state = ScoredVideo(memory, model.language, method, LpComp())
            seconds = []
            for prompt in (ids, other, ids, other):
                start = time.perf_counter()
                scores = state.frame_scores(prompt, QUESTION, TEXT)
                seconds.append(time.perf_counter() - start)
                if method is RELEASED and prompt is ids and len(state.frames) <= MOST_CHUNKS:
                    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=0)
            what = f"{num_frames} frames, {name}"
            first, second = seconds[0], seconds[1:]
            base, again = encoding + reading, min(second)
            texts = TEXT * method.layers(DEPTH).stop * len(state.frames)
            whole = texts + ours_work(method, num_frames)
            both, alone = [sorted(side / s for s in second) for side in (base, reading)]
            rows += [
                row(f"{what}: question 1 with encoding", base, encoded + first, [base / (encoded + first)], 2),
                row(f"{what}: question 1, language model", reading, first, [reading / first], one),
                row(f"{what}: question 1, token-layers", work.total, whole, [work.total / whole], max(one, 3), "rows"),
                row(f"{what}: question 2 with encoding", base, again, both, two),
                row(f"{what}: question 2, language model", reading, again, alone, two),
                row(f"{what}: question 2, token-layers", work.total, texts, [work.total / texts], 50, "rows"),
            ]
    return rows


def run(quick: bool) -> list[dict]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(quick)
    finally:
        torch.set_num_threads(threads)
