"""What a memory was made from: every field that changes its tokens, and one hash over all of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError, MemoryFormatError
from longtake.memory.format import FORMAT_VERSION

# Raised when the same video, model and settings give other tokens than before.
PIPELINE_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryKey(StrictConfig):
    """Everything that the tokens of a memory depend on; `fingerprint` is its full-width hash.

    content: SHA-256 of the video. model: its fingerprint (weights, configuration, dtype). compressor, sampling: the
    fingerprints of their settings. store: how tokens are kept. decoder, device, longtake: what computed them, since
    decoders and devices round differently. changes: what was done to the memory later.
    """

    content: str
    model: str
    compressor: str
    sampling: str
    max_frames: int
    max_tiles: int | None
    start_s: float | int | None
    end_s: float | int | None
    frames_per_clip: int
    clips_per_segment: int
    store: str
    decoder: str
    device: str
    longtake: str
    changes: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION
    pipeline_version: int = PIPELINE_VERSION


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryHeader(StrictConfig):
    """What a file says about itself before its first segment.

    key: the fields of its `MemoryKey`. source: what was opened. width: of a token. num_frames, duration_s: what the
    whole of it will cover, zero where that is not known; an unfinished memory covers less. aspect: width of the
    picture over its height. settings: as in `VideoMemory`. dtype: of the model. made_at, made_with: when, and by which
    options.
    """

    key: Mapping[str, Any]
    source: str
    width: int
    num_frames: int
    duration_s: float | int
    aspect: float | int
    settings: Mapping[str, Any]
    dtype: str
    made_at: str
    made_with: str

    @property
    def identity(self) -> MemoryKey:
        """Return the key with its type."""
        return MemoryKey.from_dict(self.key)

    def to_bytes(self) -> bytes:
        """Write the header as JSON."""
        return json.dumps(self.to_dict(), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> MemoryHeader:
        """Read a header.

        Raises: MemoryFormatError if its fields are not those of this version.
        """
        try:
            header = cls.from_dict(json.loads(data))
            header.identity.fingerprint()
        except (ValueError, TypeError, AttributeError, ConfigError) as error:
            raise MemoryFormatError(
                f"{name} has a header that this longtake cannot read ({error}); expected the fields of format version "
                f"{FORMAT_VERSION}; ingest the video again"
            ) from error
        return header
