"""The keys of a video beside its memory: found where they are the right ones, and said so where they are not."""

from __future__ import annotations

import logging

from jaxtyping import Int64
from torch import Tensor

from longtake._version import __version__
from longtake.core.errors import ConfigError, MemoryFormatError
from longtake.core.protocols import LayerCompressor
from longtake.core.types import VideoMemory
from longtake.engine.remember import STORED_AT, StoredAt
from longtake.memory.keys import REMEDY, KeysKey, StoredKeys, keys_path
from longtake.methods.select.qc_comp import QcComp
from longtake.models.loaded import LoadedModel

logger = logging.getLogger("longtake")


def place_of(memory: VideoMemory) -> StoredAt | None:
    """Return which file a memory was read from; none if it is of this process alone."""
    place = memory.kept.get(STORED_AT)
    return place if isinstance(place, StoredAt) else None


def key_of(
    memory: VideoMemory,
    loaded: LoadedModel,
    method: QcComp,
    reducer: LayerCompressor | None,
    prefix: Int64[Tensor, "P"],
    num_chunks: int,
) -> KeysKey:
    """Return what the keys of a stored memory's video depend on.

    Raises: ConfigError if the memory is not read from a file, or the reducer cannot be told apart from another.
    """
    place = place_of(memory)
    if place is None:
        raise ConfigError(
            f"the memory of {memory.source} is of this process alone; expected one that was read from a file, beside "
            "which its keys lie; run `longtake ingest` first"
        )
    fingerprint = getattr(reducer, "fingerprint", None)
    if reducer is not None and fingerprint is None:
        raise ConfigError(
            f"the reducer {type(reducer).__name__} has no fingerprint, so that its keys could be taken for another's; "
            "expected one; make it a longtake.core.config.StrictConfig"
        )
    thinned = memory.settings.get("tokens_per_frame")
    return KeysKey(
        memory=place.digest,
        tokens_per_frame=thinned if isinstance(thinned, int | float) else None,
        model=loaded.fingerprint,
        selector=method.fingerprint(),
        reducer=None if fingerprint is None else str(fingerprint()),
        prefix=tuple(prefix.tolist()),
        num_chunks=num_chunks,
        device=loaded.device.type,
        longtake=__version__,
    )


def find_keys(memory: VideoMemory, key: KeysKey) -> tuple[StoredKeys | None, str]:
    """Return the keys beside a memory, where they are those of this very question; else none, and what to tell of it.

    Nothing is told where there are none.
    """
    place = place_of(memory)
    if place is None or not keys_path(place.path).exists():
        return None, ""
    try:
        stored = StoredKeys(place.path)
    except MemoryFormatError as error:
        return None, anew(str(error))
    if stored.key == key:
        return stored, ""
    stored.close()
    fields = ", ".join(stored.key.differences(key))
    return None, anew(f"{stored.path} was made for another question ({fields} differ); {REMEDY}")


def anew(why: str) -> str:
    """Say that keys are not used, to the log too."""
    text = f"the video is read anew: {why}"
    logger.warning("%s", text)
    return text
