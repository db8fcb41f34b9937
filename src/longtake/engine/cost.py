"""Arithmetic and memory of a question, from shapes alone.

Memory counts the tensors that are alive together in the worst moment of each phase; the largest phase is the peak.
What kernels take inside themselves and what an allocator keeps back are not in it. FLOPs are two for each
multiply-add of the matrix products; norms and activations are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from longtake.core.protocols import LayerCompressor
from longtake.models.configuration import VideoChatFlashConfig
from longtake.nn.vision.umt import UmtConfig
from longtake.ops.matching import merge_steps

FLOAT32 = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """What the cost of a question depends on."""

    config: VideoChatFlashConfig
    num_frames: int
    num_text: int
    num_new: int
    dtype_bytes: int
    chunk_clips: int = 8
    clips_per_pass: int = 1
    tokens_per_frame: int = 16
    reducer: LayerCompressor | None = None

    @property
    def frames_per_clip(self) -> int:
        """Frames of one clip."""
        return self.config.mm_local_num_frames

    @property
    def num_visual(self) -> int:
        """Visual tokens that enter the language model."""
        return self.num_frames * self.tokens_per_frame

    @property
    def patches(self) -> int:
        """Patches of one clip."""
        vision = self.config.vision_config
        return self.frames_per_clip * (vision.image_size // vision.patch_size) ** 2

    def lengths(self) -> list[int]:
        """Return the length of the sequence that enters each layer."""
        depth = self.config.num_hidden_layers
        schedule = dict(self.reducer.schedule(depth, self.num_visual)) if self.reducer is not None else {}
        found, alive = [], schedule.get(0, self.num_visual)
        for layer in range(depth):
            found.append(self.num_text + alive)
            alive = schedule.get(layer + 1, alive)
        return found


def memory_phases(shapes: Shapes) -> Mapping[str, int]:
    """Return the bytes of activations alive in the worst moment of each phase, weights not counted."""
    config, size = shapes.config, shapes.dtype_bytes
    kept = shapes.num_visual * config.hidden_size * size
    weights = shapes.num_visual * (shapes.frames_per_clip + 1) * 8
    chunk = min(shapes.chunk_clips * shapes.frames_per_clip, shapes.num_frames)
    pixels = chunk * 3 * config.vision_config.image_size**2
    memory_before_last = (kept + weights) * max(0, shapes.num_frames - chunk) // max(shapes.num_frames, 1)
    chunk_tokens = kept * chunk // max(shapes.num_frames, 1)
    return {
        "preprocess": memory_before_last + pixels * FLOAT32,
        "vision": memory_before_last + chunk_tokens + pixels * FLOAT32 + _vision_clip(shapes),
        "gather": 2 * (kept + weights),
        "prefill": kept + weights + _prefill(shapes),
    }


def _vision_clip(shapes: Shapes) -> int:
    """Return the bytes alive while one clip passes the tower and is merged."""
    vision, size = shapes.config.vision_config, shapes.dtype_bytes
    rows = shapes.patches * vision.width * size
    hidden = int(vision.width * vision.mlp_ratio) if isinstance(vision, UmtConfig) else vision.mlp_hidden
    block = rows * max(8, 2 + 2 * hidden / vision.width)
    steps = merge_steps(shapes.patches, shapes.frames_per_clip * shapes.tokens_per_frame)
    half = shapes.patches // 2
    matching = 2 * rows + half * half * size if steps else 0
    making = kept = 0
    if isinstance(vision, UmtConfig):  # the fixed position table is made in float64 on first use, and kept
        making = rows + vision.pretrained_frames * vision.pretrained_grid**2 * vision.width * (8 + FLOAT32)
        kept = rows
    return max(int(shapes.clips_per_pass * max(block, matching)) + kept, making)


def _prefill(shapes: Shapes) -> int:
    """Return the bytes alive in the worst layer of the prefill, with the caches of the layers before it."""
    config, size = shapes.config, shapes.dtype_bytes
    width, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    groups = (config.num_key_value_heads or config.num_attention_heads) * head
    worst = cached = 0
    lengths = shapes.lengths()
    for layer, length in enumerate(lengths):
        cached += 2 * groups * length
        own = 6 if layer else 5  # rotating the queries needs three copies of them; the first layer reads the prompt
        attention = length * (own * width + 2 * head)
        mlp = length * (3 * width + 3 * config.intermediate_size)
        worst = max(worst, cached + max(attention, mlp))
    spliced = lengths[0] * width
    return (worst + spliced) * size


def flops(shapes: Shapes) -> Mapping[str, float]:
    """Return the floating-point operations of each stage."""
    config, vision = shapes.config, shapes.config.vision_config
    clips, patches, width = shapes.num_frames / shapes.frames_per_clip, shapes.patches, vision.width
    hidden = int(width * vision.mlp_ratio) if isinstance(vision, UmtConfig) else vision.mlp_hidden
    block = patches * (4 * width * width + 2 * width * hidden) + 2 * patches * patches * width
    embed = patches * width * 3 * vision.patch_size**2
    tokens = shapes.frames_per_clip * shapes.tokens_per_frame
    project = tokens * (width * config.hidden_size + config.hidden_size**2)
    per_token = _layer_products(config)
    prefill = sum(n * per_token + n * n * config.hidden_size for n in shapes.lengths())
    decode = sum((per_token + 2 * n * config.hidden_size) * shapes.num_new for n in shapes.lengths())
    head = config.vocab_size * config.hidden_size * (shapes.num_new + 1)
    return {
        "vision": 2.0 * clips * (vision.num_blocks * block + embed),
        "compress": 2.0 * clips * (project + patches * patches // 4 * (width // vision.num_heads)),
        "prefill": 2.0 * prefill,
        "decode_text": 2.0 * (decode + head),
    }


def _layer_products(config: VideoChatFlashConfig) -> int:
    width, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    groups = (config.num_key_value_heads or config.num_attention_heads) * head
    return 2 * width * width + 2 * width * groups + 3 * width * config.intermediate_size
