"""PVC encodes a video piece by piece in memory that does not grow with its length, to the features of the whole.

The window bounds what the temporal layers remember. Offline means all frames at once under the same window.
"""

from __future__ import annotations

import tempfile
from typing import BinaryIO

import torch

from bench.live_bytes import LiveBytes
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.tiny_pvc import random_pvc, tiny_pvc_config

WINDOW, CHUNK, SIDE = 32, 8, 56
OFFLINE_FRAMES = 256


def frames(start: int, count: int) -> torch.Tensor:
    """Make the frames of a film that has a picture for every index."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 3, SIDE, SIDE, generator=generator)
    return torch.cat([base.roll(index, dims=-1) * (1 + index % 7) for index in range(start, start + count)])


def encode(model: PvcForConditionalGeneration, num_frames: int, chunk: int, sink: BinaryIO) -> int:
    """Write the tokens of a film to `sink`, so many frames at once; return the peak bytes of living tensors."""
    encoder = model.encoder(num_frames)
    with LiveBytes() as live:
        for start in range(0, num_frames, chunk):
            clips = frames(start, min(chunk, num_frames - start)).unsqueeze(1)
            sink.write(model.projector(encoder.compress(encoder.encode(clips)).features).numpy().tobytes())
    return live.peak


def tokens(model: PvcForConditionalGeneration, num_frames: int, chunk: int) -> tuple[torch.Tensor, int]:
    with tempfile.TemporaryFile() as file:
        peak = encode(model, num_frames, chunk, file)
        file.seek(0)
        return torch.frombuffer(bytearray(file.read()), dtype=torch.float32), peak


@torch.no_grad()
def run(quick: bool) -> list[dict]:
    counts = (64, 256) if quick else (64, 256, 1024, 4096)
    model = random_pvc(tiny_pvc_config(temporal_window=WINDOW))
    rows, peaks = [], []
    for count in counts:
        with tempfile.TemporaryFile() as sink:
            peaks.append(encode(model, count, CHUNK, sink))
        rows.append(
            {
                "claim": f"streaming peak of living tensors at {count} frames against {counts[0]}",
                "baseline": f"{peaks[0] / 1e6:.2f} MB",
                "ours": f"{peaks[-1] / 1e6:.2f} MB",
                "ratio": f"{peaks[-1] / peaks[0]:.3f}",
                "target": "<= 1.05",
                "ok": peaks[-1] <= 1.05 * peaks[0],
                "n": 1,
            }
        )
    streamed, peak = tokens(model, OFFLINE_FRAMES, CHUNK)
    offline, whole_peak = tokens(model, OFFLINE_FRAMES, OFFLINE_FRAMES)
    apart = float((streamed - offline).abs().max() / offline.abs().max())
    rows.append(
        {
            "claim": f"streamed tokens of {OFFLINE_FRAMES} frames against all at once: largest relative difference",
            "baseline": f"{whole_peak / 1e6:.2f} MB",
            "ours": f"{peak / 1e6:.2f} MB",
            "ratio": f"{apart:.1e}",
            "target": "<= 1e-5",
            "ok": apart <= 1e-5,
            "n": 1,
        }
    )
    return rows
