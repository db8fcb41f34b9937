from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from longtake.core.types import VisualTokens
from longtake.memory.key import MemoryHeader, MemoryKey
from longtake.memory.segment import pack_segment
from longtake.memory.writer import MemoryWriter

CLIPS, FRAMES, TOKENS, WIDTH = 2, 4, 6, 8


def key(**changes: object) -> MemoryKey:
    fields: dict[str, object] = {
        "content": "c" * 64,
        "model": "m" * 64,
        "compressor": "t" * 64,
        "sampling": "s" * 64,
        "max_frames": 64,
        "max_tiles": None,
        "start_s": None,
        "end_s": None,
        "frames_per_clip": FRAMES,
        "clips_per_segment": CLIPS,
        "store": "float32",
        "decoder": "pyav",
        "device": "cpu",
        "longtake": "0.1",
    }
    return MemoryKey.from_dict(fields | changes)


def header(num_segments: int = 3, **changes: object) -> MemoryHeader:
    return MemoryHeader(
        key=key(**changes).to_dict(),
        source="film.mp4",
        width=WIDTH,
        num_frames=num_segments * CLIPS * FRAMES,
        duration_s=float(num_segments * CLIPS * FRAMES),
        aspect=2.0,
        settings={"kind": "video"},
        dtype="float32",
        made_at="2026-01-01T00:00:00+00:00",
        made_with="",
    )


def tokens_of(number: int) -> tuple[VisualTokens, np.ndarray]:
    """Return the tokens and times of a segment that depend on its number alone."""
    generator = torch.Generator().manual_seed(number)
    features = torch.randn(CLIPS * TOKENS, WIDTH, generator=generator)
    weight = torch.randint(1, 9, (CLIPS * TOKENS, FRAMES), generator=generator)
    clips = torch.arange(CLIPS).repeat_interleave(TOKENS) + number * CLIPS
    times = np.arange(CLIPS * FRAMES, dtype=np.float64).reshape(CLIPS, FRAMES) + number * CLIPS * FRAMES
    return VisualTokens(features, weight, clips), times


def segment(number: int) -> bytes:
    return pack_segment(*tokens_of(number), b"picture", "float32")


def write(path: Path, num_segments: int = 3, *, finish: bool = True) -> Path:
    with MemoryWriter(path, header(num_segments)) as writer:
        for number in range(writer.num_segments, num_segments):
            writer.append(segment(number))
        if finish:
            writer.finish(float(num_segments), ["a packet was lost"])
    return path


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a finished memory of three segments."""
    return write(tmp_path_factory.mktemp("memory") / "film.ltm").read_bytes()
