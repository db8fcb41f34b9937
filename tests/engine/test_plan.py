"""The plan: what it predicts is what a run then takes, in frames, tokens, bytes and arithmetic."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from bench.live_bytes import LiveBytes
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from longtake.core.budget import Budget
from longtake.core.errors import ConfigError, VideoError
from longtake.core.protocols import LayerCompressor
from longtake.core.types import Frames
from longtake.engine.ask import ask
from longtake.engine.cost import Shapes, flops, memory_phases
from longtake.engine.ingest import ingest
from longtake.engine.plan import plan, plan_for
from longtake.media.clock import Clock
from longtake.media.sampling import SamplingRule
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.loaded import LoadedModel
from longtake.models.presets import PRESETS
from longtake.models.prompt import prompt_ids, video_prompt
from longtake.models.tiny import build_random, byte_tokenizer, tiny_config, tiny_model

QUESTION = "What?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    config: VideoChatFlashConfig
    num_frames: int
    reducer: LayerCompressor | None = None


def draw_case(seed: int) -> Case:
    """Return a random tiny shape: both towers, with and without dropping."""
    draw = random.Random(seed)
    kind, width = draw.choice(["umt", "internvideo2"]), draw.choice([64, 128])
    depth = draw.choice([2, 4, 6])
    config = tiny_config(
        hidden_size=draw.choice([64, 128, 256]),
        intermediate_size=draw.choice([128, 256, 512]),
        num_hidden_layers=depth,
        num_key_value_heads=draw.choice([1, 2, 4]),
        mm_hidden_size=width,
        vision={
            "kind": kind,
            "image_size": draw.choice([96, 128, 160]),
            "patch_size": 16,
            "width": width,
            "depth": draw.choice([2, 3]),
            "heads": 2,
        },
    )
    layers = (1,) if depth == 2 else (1, depth - 1)
    kind = draw.choice(["uniform", "attention"])
    drop = ProgressiveDrop.from_dict({"kind": kind, "layers": layers, "ratios": (1.0, 0.5, 0.25)[: len(layers) + 1]})
    return Case(
        config=config,
        num_frames=draw.choice([16, 32, 64, 128]),
        reducer=drop if draw.random() < 0.5 else None,
    )


def load(case: Case) -> LoadedModel:
    loaded = LoadedModel(build_random(case.config), byte_tokenizer(), case.config, "plan")
    loaded.model.reducer = case.reducer
    return loaded


def film(case: Case) -> Frames:
    side = case.config.vision_config.image_size
    pixels = np.random.default_rng(0).integers(0, 255, (case.num_frames, side, side, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(case.num_frames, dtype=np.float64))


@torch.no_grad()
def run(loaded: LoadedModel, frames: Frames, num_new: int) -> Shapes:
    """Ingest and ask; return what the plan would be told."""
    memory = ingest(frames, loaded, Budget(max_frames=len(frames)), rule=SamplingRule(min_frames=8))
    ask(memory, QUESTION, loaded, Budget(max_new_tokens=num_new))
    prompt = prompt_ids(loaded.tokenizer, video_prompt(QUESTION, memory.duration_s, memory.num_frames))
    return Shapes(
        config=loaded.config,
        num_frames=len(frames),
        num_text=len(prompt) - 1,
        num_new=num_new,
        dtype_bytes=4,
        reducer=loaded.model.reducer,
    )


@pytest.mark.parametrize("seed", range(30))
def test_predicted_peak_is_within_a_tenth_of_the_measured_one(seed: int):
    case = draw_case(seed)
    loaded, frames = load(case), film(case)
    with LiveBytes() as live:
        shapes = run(loaded, frames, num_new=2)
    predicted = max(memory_phases(shapes).values())
    assert predicted == pytest.approx(live.peak, rel=0.10)


@pytest.mark.parametrize("seed", range(5))
def test_predicted_arithmetic_is_what_is_counted(seed: int):
    case = draw_case(seed)
    loaded, frames = load(case), film(case)
    # The counter knows no fused attention of a CPU; as plain products it is counted, the masked half included.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        shapes = run(loaded, frames, num_new=2)
    masked_half = sum(2 * n * n * case.config.hidden_size for n in shapes.lengths())
    assert sum(flops(shapes).values()) == pytest.approx(counter.get_total_flops() - masked_half, rel=0.02)


def test_plan_counts_the_frames_and_tokens_that_ingest_then_makes():
    loaded = tiny_model()
    pixels = np.zeros((96, 96, 96, 3), dtype=np.uint8)
    frames = Frames(pixels, np.arange(96, dtype=np.float64))
    memory = ingest(frames, loaded, Budget(max_frames=64))
    planned = plan(loaded.config, Clock(frames.pts_s, 96.0), Budget(max_frames=64), dtype=torch.float32)
    assert (planned.num_frames, planned.num_visual_tokens) == (memory.num_frames, len(memory.tokens)) == (64, 1024)
    assert planned.weight_bytes == 4 * sum(parameter.numel() for parameter in loaded.model.parameters())
    assert planned.peak_bytes == planned.weight_bytes + max(planned.memory_phases.values())


def test_plan_drops_what_the_configuration_drops():
    clock, kinds = Clock.constant(3600.0, 25), []
    for compress in (False, True):
        config = PRESETS["videochat_flash_2b"].config()
        config.mm_llm_compress = compress
        kinds.append(plan(config, clock))
    whole, dropping = kinds
    assert dropping.flops["prefill"] < 0.7 * whole.flops["prefill"]
    assert dropping.flops["vision"] == whole.flops["vision"]


@pytest.mark.parametrize(
    "name, max_frames, vision_tflop, prefill_tflop",
    [
        ("videochat_flash_2b", 64, 44, 3),  # the published shapes' cost, by hand
        ("videochat_flash_2b", 512, 351, 27),
        ("videochat_flash_7b_224", 3600, 461, 1418),
    ],
)
def test_plan_of_released_shapes_equals_arithmetic_by_hand(
    name: str, max_frames: int, vision_tflop: float, prefill_tflop: float
):
    planned = plan(PRESETS[name].config(), Clock.constant(3600.0, 25), Budget(max_frames=max_frames))
    assert planned.flops["vision"] / 1e12 == pytest.approx(vision_tflop, rel=0.02)
    assert planned.flops["prefill"] / 1e12 == pytest.approx(prefill_tflop, rel=0.05, abs=1.0)


def test_plan_warns_where_the_prompt_does_not_fit_and_says_what_would():
    config = PRESETS["videochat_flash_2b"].config()
    clock = Clock.constant(3600.0, 25)
    warned = plan(config, clock, Budget(max_frames=3200)).warnings
    assert len(warned) == 1 and "does not fit the context" in warned[0]
    fits = int(warned[0].split("max_frames ")[1].split(" ")[0])
    assert not plan(config, clock, Budget(max_frames=fits)).warnings
    assert plan(config, clock, Budget(max_frames=fits + 8)).warnings


def test_plan_warns_where_the_peak_is_over_the_budget():
    config, clock = tiny_config(), Clock.constant(60.0, 25)
    assert "over the budget" in plan(config, clock, Budget(memory_gb=0.001)).warnings[0]
    assert not plan(config, clock, Budget(memory_gb=10.0)).warnings


@pytest.mark.parametrize(
    "video, duration_s, dtype, error",
    [
        (None, None, "bfloat16", ConfigError),
        ("film.mp4", 10.0, "bfloat16", ConfigError),
        (None, 0.0, "bfloat16", VideoError),
        (None, float("nan"), "bfloat16", VideoError),
        (None, float("inf"), "bfloat16", VideoError),
        (None, 10.0, "int8", ConfigError),
        (None, 10.0, "load", ConfigError),
    ],
)
def test_a_plan_of_nothing_sensible_is_refused(
    video: str | None, duration_s: float | None, dtype: str, error: type[Exception]
):
    with pytest.raises(error):
        plan_for(video, duration_s, "videochat_flash_2b", max_frames=64, max_new_tokens=8, dtype=dtype)


def test_a_plan_is_plain_values_and_rows():
    planned = plan_for(None, 60.0, "videochat_flash_2b", max_frames=64, max_new_tokens=8, dtype="bfloat16")
    assert planned.to_dict()["peak_bytes"] == planned.peak_bytes
    assert ("video", "60.0 s, 64 frames") in planned.rows()
