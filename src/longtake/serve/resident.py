"""Memories that are held ready, each with what was read of it, for the next question of the same key."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from PIL import Image

from longtake.core.budget import Budget
from longtake.core.errors import VideoError
from longtake.core.types import VideoMemory
from longtake.engine.ledger import Ledger
from longtake.engine.pictures import ingest_picture
from longtake.engine.remember import recall, within
from longtake.engine.select import ScoredVideo
from longtake.media.process import DecoderProcess
from longtake.media.video import open_video
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore


@dataclasses.dataclass(frozen=True)
class Medium:
    """A picture or video of a question, and where it is: a memory's file, or a picture's.

    identity: what tells it from the others of its key.
    """

    kind: Literal["video", "image"]
    identity: str
    path: Path
    name: str


@dataclasses.dataclass(eq=False)
class Entry:
    """A memory, the beginning of a prompt that shows it, and the bytes of both."""

    memory: VideoMemory
    prefixes: PrefixStore
    prefix_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the tokens, of the keys read, and of what selection keeps."""
        tokens = self.memory.tokens
        tensors = (tokens.features, tokens.frame_weight, tokens.clip_index)
        kept = sum(part.kept_bytes for part in self.memory.kept.values() if isinstance(part, ScoredVideo))
        return sum(part.numel() * part.element_size() for part in tensors) + self.prefix_bytes + kept


class Residents:
    """The memories in use, the least recently asked forgotten first.

    Every entry belongs to one key: what one key has asked makes nothing faster for another.
    """

    def __init__(
        self, model: LoadedModel, max_bytes: int, decode_silence_s: float | int, decode_bytes: int, max_pixels: int
    ) -> None:
        self.model, self.max_bytes = model, max_bytes
        self._decoding = decode_silence_s, decode_bytes, max_pixels
        self._entries: OrderedDict[tuple[str, str, float | int | None, bool], Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, owner: str, medium: Medium, tokens_per_frame: float | int | None, *, is_alone: bool) -> Entry:
        """Return a memory, from its file if it is not held.

        Raises: as `recall`, `within` and `ingest_picture`.
        """
        alone = is_alone or medium.kind == "video"
        key = (owner, medium.identity, tokens_per_frame, alone)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        if medium.kind == "image":
            memory = self._picture(medium, is_alone=alone)
        else:
            memory = self._video(owner, medium, tokens_per_frame)
        entry = Entry(memory, PrefixStore())
        with self._lock:
            self._entries[key] = entry
        return entry

    def _video(self, owner: str, medium: Medium, tokens_per_frame: float | int | None) -> VideoMemory:
        if tokens_per_frame is None:
            return recall(medium.path, self.model)
        whole = self.get(owner, medium, None, is_alone=True).memory
        return within(whole, Budget(tokens_per_frame=tokens_per_frame))

    def _picture(self, medium: Medium, *, is_alone: bool) -> VideoMemory:
        """Encode a picture; it is decoded in the decoder's process and comes over as plain pixels."""
        silence_s, decode_bytes, max_pixels = self._decoding
        process = DecoderProcess(silence_s, decode_bytes)
        try:
            pixels = process.still(str(medium.path)).pixels
        except VideoError as error:
            raise type(error)(str(error).replace(str(medium.path), medium.name)) from error
        finally:
            process.close()
        if pixels.shape[0] * pixels.shape[1] > max_pixels:
            raise VideoError(
                f"{medium.name} has {pixels.shape[1]} x {pixels.shape[0]} pixels; expected at most {max_pixels}; "
                "shrink it"
            )
        with tempfile.NamedTemporaryFile(prefix="longtake-", suffix=".bmp") as plain:
            Image.fromarray(pixels).save(plain, "BMP")
            plain.flush()
            opened = open_video(plain.name)
        with opened:
            room = self.model.config.context_length
            return ingest_picture(opened, self.model, Budget(), Ledger(), is_alone=is_alone, room=room)

    def trim(self) -> None:
        """Forget what has not been asked for longest, until the rest fits; the last one asked stays."""
        with self._lock:
            held = sum(entry.num_bytes for entry in self._entries.values())
            while held > self.max_bytes and len(self._entries) > 1:
                _, dropped = self._entries.popitem(last=False)
                held -= dropped.num_bytes

    def forget(self, owner: str, identity: str) -> None:
        """Forget one video of a key."""
        self._drop(lambda key: key[:2] == (owner, identity))

    def _drop(self, matches: Callable[[tuple[str, str, float | int | None, bool]], bool]) -> None:
        with self._lock:
            for key in [key for key in self._entries if matches(key)]:
                del self._entries[key]

    @property
    def num_bytes(self) -> int:
        """Bytes of all that is held."""
        with self._lock:
            return sum(entry.num_bytes for entry in self._entries.values())
