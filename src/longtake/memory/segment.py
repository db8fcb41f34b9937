"""One segment of a memory: the tokens of some clips, their times, a picture; as safetensors."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from longtake.core.errors import MemoryFormatError
from longtake.core.types import VisualTokens
from longtake.memory.quantize import Store, pack_tokens, relative_error, unpack_tokens

THUMBNAIL_HEIGHT = 72
THUMBNAIL_QUALITY = 60
_LARGEST_UINT16 = 65535
_NO_PICTURE = torch.empty(0, dtype=torch.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class StoredSegment:
    """What a segment holds.

    tokens: `clip_index` counts clips from the start of the memory. frame_pts_s: float64 [K, F]. thumbnail: a small
    JPEG of its middle, or nothing. relative_error: what storing lost of the tokens. first_frame: how many frames came
    before, those that were forgotten counted.
    """

    tokens: VisualTokens
    frame_pts_s: np.ndarray
    thumbnail: bytes
    relative_error: float
    first_frame: int


def thumbnail(pixels: np.ndarray, aspect: float | int) -> bytes:
    """Write a small JPEG of a picture, uint8 [H, W, 3], which may have been squeezed from another aspect ratio."""
    size = (max(1, round(THUMBNAIL_HEIGHT * aspect)), THUMBNAIL_HEIGHT)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return file.getvalue()


def pack_segment(
    tokens: VisualTokens, frame_pts_s: np.ndarray, picture: bytes, store: Store, first_frame: int = 0
) -> bytes:
    """Write a segment; its clips are counted anew from the first one in it."""
    clips = (tokens.clip_index - tokens.clip_index[0]).cpu()
    counts = clips.bincount(minlength=len(frame_pts_s))
    assert torch.equal(clips, torch.arange(len(frame_pts_s)).repeat_interleave(counts)), "clips are not in order"
    features = tokens.features.detach().cpu()
    packed = pack_tokens(features, store)
    packed |= {
        "first_frame": torch.tensor(first_frame),
        "relative_error": torch.tensor(relative_error(features, packed), dtype=torch.float64),
        "tokens_per_clip": counts.to(torch.int32),
        "frame_weight": _narrow(tokens.frame_weight.cpu()).contiguous(),
        "frame_pts_s": torch.from_numpy(np.ascontiguousarray(frame_pts_s, dtype=np.float64)),
        "thumbnail": torch.frombuffer(bytearray(picture), dtype=torch.uint8) if picture else _NO_PICTURE,
    }
    return save(packed)


def unpack_segment(data: bytes, first_clip: int, dtype: torch.dtype, name: str) -> StoredSegment:
    """Read a segment whose first clip is number `first_clip` of the memory.

    Raises: MemoryFormatError if it is no segment.
    """
    try:
        packed = load(data)
        counts = packed["tokens_per_clip"].long()
        clips = torch.arange(first_clip, first_clip + len(counts)).repeat_interleave(counts)
        tokens = VisualTokens(unpack_tokens(packed, dtype), packed["frame_weight"].long(), clips)
        if not len(clips) == len(tokens.features) == len(tokens.frame_weight):
            raise ValueError(f"{len(tokens.features)} tokens for {len(clips)} places")
        return StoredSegment(
            tokens,
            packed["frame_pts_s"].numpy(),
            packed["thumbnail"].numpy().tobytes(),
            float(packed["relative_error"]),
            int(packed["first_frame"]),
        )
    except (SafetensorError, KeyError, ValueError, RuntimeError) as broken:
        raise MemoryFormatError(
            f"{name} holds a segment that cannot be read ({broken!r}); expected one of this version; ingest it again"
        ) from broken


def _narrow(weight: Tensor) -> Tensor:
    return weight.to(torch.uint16) if int(weight.max()) <= _LARGEST_UINT16 else weight
