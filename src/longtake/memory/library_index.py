"""The index of a folder of memories: which clips of which memory lie near a vector. It can always be made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.numpy import load, save

from longtake.core.errors import MemoryFormatError, MissingExtraError, StorageError
from longtake.core.files import write_whole

if TYPE_CHECKING:
    from usearch.index import Index

SUFFIX = ".ltx"
MAGIC = b"\x89LTX\r\n\x1a\n"
INDEX_VERSION = 1
DIGEST_BYTES = 32
CONNECTIVITY, EXPANSION = 16, 128
# The number of a vector: of its memory, of its clip, of its place in the clip.
CLIP_BITS, PLACE_BITS = 24, 8


class FileState(NamedTuple):
    """What of a file changes when it does."""

    size: int
    mtime_ns: int
    inode: int


class Segments(NamedTuple):
    """The segments of a memory: which clip each begins with, how many frames it has, its first and last second."""

    first_clips: Int64[np.ndarray, "S"]
    num_frames: Int64[np.ndarray, "S"]
    bounds_s: Float[np.ndarray, "S 2"]

    def of(self, clip: int) -> int:
        """Return the number of the segment that a clip lies in."""
        return int(np.searchsorted(self.first_clips, clip, side="right")) - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A memory in the index.

    number: its own, never used again. digest: of its key and of all that is committed in it. vectors: int64 [N], the
    keys of its vectors in the graph.
    """

    name: str
    number: int
    state: FileState
    digest: str
    segments: Segments
    vectors: Int64[np.ndarray, "N"]


class Match(NamedTuple):
    """A clip that was found, with its likeness: the cosine, at most one."""

    entry: Entry
    clip: int
    score: float


class LibraryIndex:
    """Vectors of the clips of many memories; `identity` says whose they are, and an index of another's is refused.

    Raises: MissingExtraError without usearch.
    """

    def __init__(self, width: int, identity: Mapping[str, object]) -> None:
        self.width, self.identity = width, dict(identity)
        self.entries: dict[str, Entry] = {}
        self._graph = _new_graph(width)
        self._by_number: dict[int, Entry] = {}
        self._next = 0
        self.is_saved = True

    def __len__(self) -> int:
        return len(self._graph)

    def add(
        self,
        name: str,
        state: FileState,
        digest: str,
        segments: Segments,
        vectors: Float[np.ndarray, "N D"],
        clips: Int64[np.ndarray, "N"],
    ) -> None:
        """Put a memory into the index, in place of one of the same name; `clips` says which clip each vector is of."""
        self.remove(name)
        places = np.arange(len(clips)) - np.searchsorted(clips, clips)
        assert (np.diff(clips) >= 0).all() and places.max() < 1 << PLACE_BITS, "clips are out of order, or too full"
        keys = (self._next << CLIP_BITS | clips) << PLACE_BITS | places
        self._graph.add(keys.astype(np.uint64), vectors.astype(np.float32), threads=1)
        self._keep(Entry(name, self._next, state, digest, segments, keys))
        self._next += 1

    def remove(self, name: str) -> None:
        """Take a memory out, if it is there."""
        entry = self.entries.pop(name, None)
        if entry is not None:
            self.is_saved = False
            del self._by_number[entry.number]
            self._graph.remove(entry.vectors.astype(np.uint64), threads=1)

    def touch(self, name: str, state: FileState) -> None:
        """Note that a file has another state while what is in it is the same."""
        self._keep(dataclasses.replace(self.entries[name], state=state))

    def search(self, vector: Float[np.ndarray, "D"], count: int) -> list[Match]:
        """Return the vectors nearest to this one, best first; a clip may be there several times."""
        if not len(self):
            return []
        found = self._graph.search(vector.astype(np.float32), min(count, len(self)), threads=1)
        keys = found.keys.astype(np.int64) >> PLACE_BITS
        owners, clips = keys >> CLIP_BITS, keys & ((1 << CLIP_BITS) - 1)
        return [
            Match(self._by_number[int(owner)], int(clip), 1 - float(distance))
            for owner, clip, distance in zip(owners, clips, found.distances, strict=True)
        ]

    def scores(self, entry: Entry, vector: Float[np.ndarray, "D"]) -> Float[np.ndarray, "S"]:
        """Return the best likeness in each segment of a memory, compared with every vector of it."""
        stored = np.asarray(self._graph.get(entry.vectors.astype(np.uint64)), dtype=np.float32)
        stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        likeness = stored @ (vector / np.linalg.norm(vector)).astype(np.float32)
        clips = entry.vectors >> PLACE_BITS & ((1 << CLIP_BITS) - 1)
        return np.maximum.reduceat(likeness, np.searchsorted(clips, entry.segments.first_clips)).astype(np.float64)

    def save(self, path: Path) -> None:
        """Write the index beside its place, have it on disk, and put it there: a reader sees the old or the new one.

        Raises: StorageError if it cannot be written; what was there stays.
        """
        body = self._to_bytes()
        try:
            write_whole(path, MAGIC + hashlib.sha256(body).digest() + body)
            self.is_saved = True
        except OSError as error:
            raise StorageError(
                f"the index {path} cannot be written ({error.strerror}); expected room and permission; free some space"
            ) from error

    @classmethod
    def read(cls, path: Path, width: int, identity: Mapping[str, object]) -> LibraryIndex:
        """Read an index that `save` wrote; every byte is compared with a checksum before it is used.

        Raises: MemoryFormatError if there is none, it is damaged, or it is of another identity.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unusable(path, f"it cannot be read: {error.strerror}") from error
        start = len(MAGIC) + DIGEST_BYTES
        body = memoryview(data)[start:]
        if data[: len(MAGIC)] != MAGIC or hashlib.sha256(body).digest() != data[len(MAGIC) : start]:
            raise _unusable(path, "it does not match its checksum")
        try:
            arrays = load(bytes(body))
            said = json.loads(arrays["said"].tobytes())
        except (SafetensorError, KeyError, ValueError) as error:
            raise _unusable(path, f"it is of another form: {error}") from error
        index = cls(width, identity)
        if said["identity"] != index._identity():
            raise _unusable(path, "it is of another model or version")
        index._restore(said, arrays)
        index.is_saved = True
        return index

    def _identity(self) -> dict[str, object]:
        return self.identity | {"index_version": INDEX_VERSION, "width": self.width}

    def _keep(self, entry: Entry) -> None:
        self.is_saved = False
        self.entries[entry.name] = self._by_number[entry.number] = entry

    def _to_bytes(self) -> bytes:
        entries = list(self.entries.values())
        rows = [
            (entry.name, entry.number, entry.state, entry.digest, len(entry.segments.first_clips), len(entry.vectors))
            for entry in entries
        ]
        said = json.dumps({"identity": self._identity(), "next": self._next, "entries": rows}).encode()
        integers = np.empty(0, dtype=np.int64)
        return save(
            {
                "said": np.frombuffer(said, dtype=np.uint8),
                "graph": np.frombuffer(bytes(self._graph.save() or b""), dtype=np.uint8),
                "first_clips": np.concatenate([integers, *(entry.segments.first_clips for entry in entries)]),
                "num_frames": np.concatenate([integers, *(entry.segments.num_frames for entry in entries)]),
                "bounds_s": np.concatenate([np.empty((0, 2)), *(entry.segments.bounds_s for entry in entries)]),
                "vectors": np.concatenate([integers, *(entry.vectors for entry in entries)]),
            }
        )

    def _restore(self, said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self._graph.load(arrays["graph"].tobytes())
        self._next, segment, vector = said["next"], 0, 0
        for name, number, state, digest, num_segments, num_vectors in said["entries"]:
            at = slice(segment, segment + num_segments)
            segments = Segments(*(arrays[field][at] for field in Segments._fields))
            keys = arrays["vectors"][vector : vector + num_vectors]
            self._keep(Entry(name, number, FileState(*state), digest, segments, keys))
            segment, vector = segment + num_segments, vector + num_vectors


def _new_graph(width: int) -> Index:
    """Begin a graph of nearest neighbours (HNSW).

    Raises: MissingExtraError without usearch.
    """
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError(
            "a folder of memories is searched with usearch, which is not installed; expected the extra 'library'; run: "
            "pip install 'longtake[library]'"
        ) from error
    return Index(
        ndim=width,
        metric="cos",
        dtype="f16",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION,
        expansion_search=EXPANSION,
    )


def _unusable(path: Path, why: str) -> MemoryFormatError:
    return MemoryFormatError(f"the index {path} cannot be used ({why}); expected one of this model; it is made again")
