"""Make a stored memory smaller: fewer tokens, or fewer bytes a token; the old one stays until the new one is whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from longtake.core.errors import ConfigError, MemoryFormatError
from longtake.memory.demote import packed_at
from longtake.memory.format import SUFFIX
from longtake.memory.key import MemoryHeader, MemoryKey
from longtake.memory.keys import remove_keys
from longtake.memory.quantize import Store, find_store
from longtake.memory.reader import StoredMemory
from longtake.memory.writer import MemoryWriter, replacing

KEY_SHOWN = 12


def file_name(stem: str, key: MemoryKey) -> str:
    """Return what the file of a video's memory is called."""
    return f"{stem}-{key.fingerprint()[:KEY_SHOWN]}{SUFFIX}"


def prune(path: str | Path, *, tokens_per_frame: float | int | None = None, store: str | None = None) -> Path:
    """Rewrite a finished memory with at most so many tokens a frame, or stored another way; return where it is.

    Its key changes; so does its name, where the name holds the key. Killed at any moment, the old memory is there, or
    the new one, or both.

    Raises: MemoryFormatError if it is damaged or unfinished; ConfigError if nothing is to be changed; StorageError if
        it cannot be written, or somebody is writing it.
    """
    path = Path(path)
    if tokens_per_frame is None and store is None:
        raise ConfigError("prune arrived without a wish; expected tokens_per_frame or store; give one")
    with StoredMemory(path) as stored:
        if not stored.is_complete:
            raise MemoryFormatError(
                f"{path} is unfinished; expected a finished memory; run the command that made it again, then prune"
            )
        header = _changed(stored.header, tokens_per_frame, store)
        old_name = path.name == file_name(path.name[: -KEY_SHOWN - len(SUFFIX) - 1], stored.header.identity)
        target = path.with_name(file_name(path.name[: -KEY_SHOWN - len(SUFFIX) - 1], header.identity))
        target = target if old_name else path
        # The lock on the old memory is held until the new one stands in its place: nobody adds to it meanwhile.
        with MemoryWriter(path, stored.header), replacing(path, target) as aside:
            _copy(stored, aside, header, tokens_per_frame)
    remove_keys(path)  # they were of what is not there any more
    return target


def _changed(header: MemoryHeader, tokens_per_frame: float | int | None, store: str | None) -> MemoryHeader:
    """Return the header of the smaller memory, under a key that says what was changed."""
    key, dtype = header.identity, getattr(torch, header.dtype)
    changes, kept = list(key.changes), key.store
    if tokens_per_frame is not None:
        changes.append(f"tokens_per_frame={tokens_per_frame:g}")
    if store is not None:
        kept = find_store(store, dtype)
        changes.append(f"store={kept}")
    return dataclasses.replace(header, key=dataclasses.replace(key, store=kept, changes=tuple(changes)).to_dict())


def _copy(stored: StoredMemory, aside: Path, header: MemoryHeader, tokens_per_frame: float | int | None) -> None:
    kept: Store = find_store(header.identity.store, torch.float32)
    closing = stored.closing()
    with MemoryWriter(aside, header) as writer:
        for segment in stored.segments():
            writer.append(packed_at(segment, tokens_per_frame, kept))
        writer.finish(closing["duration_s"], closing["warnings"])
