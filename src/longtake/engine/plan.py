"""Preflight: what a question about a video would cost, without loading a weight."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from longtake.convert.config_reader import read_config
from longtake.core.budget import Budget
from longtake.core.chat import Turn, first_video_turn, render_chat
from longtake.core.errors import ConfigError, VideoError
from longtake.core.protocols import LayerCompressor
from longtake.engine.cost import Shapes, flops, memory_phases
from longtake.media.clock import Clock
from longtake.media.sampling import SamplingRule, sample_times
from longtake.media.video import open_video
from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.presets import PRESETS
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration

BYTES_PER_TEXT_TOKEN = 3  # of English prose, a cautious mean of the Qwen tokenizer
EXAMPLE_QUESTION = "What happens in this video, and when does it begin?"
ASSUMED_FPS = 25.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Predicted cost: counts, bytes, and floating-point operations by stage.

    memory_phases are activations in the worst moment of each phase; peak_bytes is the weights and the largest phase.
    """

    model: str
    dtype: str
    duration_s: float
    num_frames: int
    num_visual_tokens: int
    num_prompt_tokens: int
    context_length: int
    weight_bytes: int
    memory_phases: dict[str, int]
    flops: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """Weights and the largest phase of activations."""
        return self.weight_bytes + max(self.memory_phases.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self) | {"peak_bytes": self.peak_bytes}

    def rows(self) -> list[tuple[str, str]]:
        """Lay the plan out for people."""
        shown = [
            ("model", f"{self.model}, {self.dtype}"),
            ("video", f"{self.duration_s:.1f} s, {self.num_frames} frames"),
            ("visual tokens", str(self.num_visual_tokens)),
            ("prompt", f"about {self.num_prompt_tokens} tokens of {self.context_length}"),
            ("weights", f"{self.weight_bytes / 1e9:.2f} GB"),
        ]
        shown += [(f"memory, {name}", f"{size / 1e9:.3f} GB") for name, size in self.memory_phases.items()]
        shown.append(("peak memory", f"{self.peak_bytes / 1e9:.2f} GB, without what kernels and allocators hold"))
        return shown + [(f"arithmetic, {name}", f"{count / 1e12:.2f} TFLOP") for name, count in self.flops.items()]


def plan(
    config: VideoChatFlashConfig,
    clock: Clock,
    budget: Budget | None = None,
    *,
    question: str = EXAMPLE_QUESTION,
    dtype: torch.dtype = torch.bfloat16,
    name: str = "model",
    reducer: LayerCompressor | None = None,
    chunk_clips: int = 8,
) -> Plan:
    """Predict what asking one question of a video with this clock would cost.

    reducer: what drops visual tokens between layers; else what the configuration says.

    Raises: BudgetError, VideoError as sampling does.
    """
    budget = budget or Budget()
    rule = SamplingRule(frame_multiple=2 * config.mm_local_num_frames)
    sampled = sample_times(clock, rule, budget.max_frames)
    count = len(sampled.times_s)
    text = render_chat([Turn("user", first_video_turn(question, sampled.duration_s, count))])
    num_text = -(-len(text.encode()) // BYTES_PER_TEXT_TOKEN)
    model = _without_memory(config)
    shapes = Shapes(
        config=config,
        num_frames=count,
        num_text=num_text,
        num_new=budget.max_new_tokens,
        dtype_bytes=dtype.itemsize,
        chunk_clips=chunk_clips,
        reducer=model.reducer if reducer is None else reducer,
    )
    total = shapes.num_visual + num_text
    warnings = []
    if total > config.context_length:
        fits = (config.context_length - num_text) // shapes.tokens_per_frame // 8 * 8
        warnings.append(f"the prompt does not fit the context; max_frames {fits} would")
    planned = Plan(
        model=name,
        dtype=str(dtype).removeprefix("torch."),
        duration_s=sampled.duration_s,
        num_frames=count,
        num_visual_tokens=shapes.num_visual,
        num_prompt_tokens=total,
        context_length=config.context_length,
        weight_bytes=_count_parameters(model) * dtype.itemsize,
        memory_phases=dict(memory_phases(shapes)),
        flops=dict(flops(shapes)),
        warnings=tuple(warnings),
    )
    if budget.memory_gb is not None and planned.peak_bytes > budget.memory_gb * 1e9:
        over = (f"the peak is over the budget of {budget.memory_gb:g} GB; ask for fewer frames",)
        return dataclasses.replace(planned, warnings=planned.warnings + over)
    return planned


def _without_memory(config: VideoChatFlashConfig) -> VideoChatFlashForConditionalGeneration:
    """Build a model without memory for any of its parameters."""
    with torch.device("meta"):
        return VideoChatFlashForConditionalGeneration(config)


def _count_parameters(model: VideoChatFlashForConditionalGeneration) -> int:
    """Count a model's parameters; a tied head counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def plan_for(
    video: str | None, duration_s: float | None, model: str, *, max_frames: int, max_new_tokens: int, dtype: str
) -> Plan:
    """Plan for a file or a duration, and a preset's name or a checkpoint's folder.

    Raises: ConfigError if neither or both of video and duration are given, or the dtype is unknown.
    """
    if (video is None) == (duration_s is None):
        raise ConfigError("a video and a duration, or neither, arrived; expected one of the two; pass one")
    if video is not None:
        with open_video(video) as opened:
            clock = opened.clock
    elif duration_s is None or not 0 < duration_s < float("inf"):
        raise VideoError(f"the duration arrived as {duration_s}; expected a positive number of seconds; pass one")
    else:
        clock = Clock.constant(duration_s, ASSUMED_FPS)
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ConfigError(f"dtype is {dtype!r}; expected float32, bfloat16 or float16; choose one")
    released = {name: found for key, found in PRESETS.items() for name in (key, found.repository)}
    folder = Path(model).expanduser()
    config = released[model].config() if model in released and not folder.is_dir() else read_config(folder)
    if not isinstance(config, VideoChatFlashConfig):
        raise ConfigError(
            f"{model} is of the kind {config.model_type}, whose cost is not predicted; expected a VideoChat-Flash or "
            "XComp checkpoint or preset; choose one"
        )
    budget = Budget(max_frames=max_frames, max_new_tokens=max_new_tokens)
    return plan(config, clock, budget, dtype=kind, name=model)
