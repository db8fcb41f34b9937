"""The peak memory that `longtake plan` predicts, against what is measured, over tiny shapes."""

from __future__ import annotations

import random

import numpy as np
import torch

from bench.live_bytes import LiveBytes
from longtake.core.budget import Budget
from longtake.core.types import Frames
from longtake.engine.ask import ask
from longtake.engine.cost import Shapes, memory_phases
from longtake.engine.ingest import ingest
from longtake.media.sampling import SamplingRule
from longtake.models.loaded import LoadedModel
from longtake.models.prompt import prompt_ids, video_prompt
from longtake.models.tiny import build_random, byte_tokenizer, tiny_config

QUESTION = "What?"


def compare(draw: random.Random) -> float:
    """Return predicted / measured for one random shape."""
    side, width, frames = draw.choice([96, 128, 160]), draw.choice([64, 128]), draw.choice([16, 32, 64, 128])
    config = tiny_config(
        hidden_size=draw.choice([64, 128, 256]),
        intermediate_size=draw.choice([128, 256, 512]),
        num_hidden_layers=draw.choice([2, 4, 6]),
        mm_hidden_size=width,
        vision={"kind": "umt", "image_size": side, "patch_size": 16, "width": width, "depth": 3, "heads": 2},
    )
    loaded = LoadedModel(build_random(config), byte_tokenizer(), config, "bench")
    pixels = np.random.default_rng(0).integers(0, 255, (frames, side, side, 3), dtype=np.uint8)
    video, rule = Frames(pixels, np.arange(frames, dtype=np.float64)), SamplingRule(min_frames=8)
    with LiveBytes() as live, torch.no_grad():
        memory = ingest(video, loaded, Budget(max_frames=frames), rule=rule)
        ask(memory, QUESTION, loaded, Budget(max_new_tokens=4))
    prompt = prompt_ids(loaded.tokenizer, video_prompt(QUESTION, memory.duration_s, memory.num_frames))
    shapes = Shapes(config=config, num_frames=frames, num_text=len(prompt) - 1, num_new=4, dtype_bytes=4)
    return max(memory_phases(shapes).values()) / live.peak


def run(quick: bool) -> list[dict]:
    draw = random.Random(0)
    ratios = sorted(compare(draw) for _ in range(3 if quick else 30))
    worst = max(abs(ratio - 1) for ratio in ratios)
    return [
        {
            "claim": "predicted against measured peak of activations",
            "baseline": "measured",
            "ours": "predicted",
            "ratio": f"{ratios[len(ratios) // 2]:.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})",
            "target": "within 10 %",
            "ok": worst <= 0.10,
            "n": len(ratios),
        }
    ]
