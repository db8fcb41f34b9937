"""Ask a folder of memories: find the videos and segments that a question names, and answer from those alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from longtake.core.budget import Budget
from longtake.core.errors import BudgetError, ConfigError, MemoryFormatError, StorageError
from longtake.core.types import Answer, Span, VideoMemory
from longtake.engine.ask import ask
from longtake.engine.ledger import Ledger
from longtake.engine.remember import check_model
from longtake.engine.select import Selector
from longtake.memory.format import SUFFIX as MEMORY_SUFFIX
from longtake.memory.library_index import SUFFIX, Entry, FileState, LibraryIndex, Segments
from longtake.memory.reader import StoredMemory
from longtake.memory.thin import thin
from longtake.models.loaded import LoadedModel
from longtake.models.naming import NAMING_VERSION, question_vector, token_vectors

VECTORS_PER_CLIP = 4
NEIGHBOURS = 64
SEGMENTS_TOLD = 10
_KEY_SHOWN = 12
_ROUNDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """A memory of the folder that a question was not asked of, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A segment that the question names: its memory's file, its number and its seconds; the span's score is the
    cosine of the question and the nearest of the segment's tokens."""

    path: Path
    segment: int
    span: Span


@dataclasses.dataclass(frozen=True, kw_only=True)
class LibraryAnswer:
    """An answer from a library.

    answer: each span of its evidence says by `medium` which of `read` it is of, counted from 1. read: the memories
    that were read for it, best first. found: the best segments of the whole library. skipped: what was left out.
    """

    answer: Answer
    read: tuple[Path, ...]
    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]


class Library:
    """A folder of memories and their index, which is kept beside them and follows them.

    Every question looks at the folder first: memories that came, changed or went are noticed by their key and what is
    committed in them. The index is made again where it is lost, damaged or of another version. Memories that this
    model cannot read are left out and named in `skipped`. options: as in `remember.Wish`, of the model that asks.

    Raises: MissingExtraError without usearch; ConfigError if there is no such folder.
    """

    def __init__(self, folder: str | Path, model: LoadedModel, *, options: str = "") -> None:
        self.folder, self.model, self.options = Path(folder), model, options
        if not self.folder.is_dir():
            raise ConfigError(f"{folder} is no folder; expected one of memories; run `longtake ingest VIDEO -o FOLDER`")
        self.notes: list[str] = []
        self._left_out: dict[str, tuple[FileState, str]] = {}
        self._index = self._opened()

    @property
    def path(self) -> Path:
        """Where the index is kept; each model has its own."""
        return self.folder / f"library-{self.model.fingerprint[:_KEY_SHOWN]}{SUFFIX}"

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Memories that are left out, by name."""
        return tuple(Skipped(name=name, reason=why) for name, (_, why) in sorted(self._left_out.items()))

    def refresh(self) -> int:
        """Bring the index up to date and return how many memories came, changed or went.

        An index that cannot be written is used all the same, and `notes` says so.
        """
        there, changed = self._files(), 0
        for name in set(self._index.entries) - set(there):
            self._index.remove(name)
            changed += 1
        self._left_out = {name: known for name, known in self._left_out.items() if name in there}
        for name, state in there.items():
            entry, left_out = self._index.entries.get(name), self._left_out.get(name)
            if (entry is None or entry.state != state) and (left_out is None or left_out[0] != state):
                changed += self._take(name, state)
        if not self._index.is_saved:
            self._save()
        return changed

    def rank(self, question: str, count: int = SEGMENTS_TOLD) -> list[Found]:
        """Return the segments of all videos that a question names most, best first, each once.

        Raises: PromptError for a bad question; MemoryFormatError if no memory of the folder can be asked.
        """
        self.refresh()
        return self._nearest(question_vector(self.model, question).numpy(), count)

    def ask(
        self,
        question: str,
        budget: Budget | None = None,
        *,
        videos: int = 1,
        selector: Selector | None = None,
        on_token: Callable[[str], None] | None = None,
        ledger: Ledger | None = None,
    ) -> LibraryAnswer:
        """Answer from the segments that the question names most.

        videos: from how many of the best videos. The frames of the budget are shared evenly among them; a video that
        fits its share is read whole, of any other the best segments. selector: as in `ask`, within what is read.

        Raises: as `rank` and `longtake.ask`; BudgetError if not one segment fits.
        """
        budget, ledger = budget or Budget(), ledger or Ledger()
        if videos < 1:
            raise ConfigError(f"videos is {videos}; expected at least one to answer from; raise it")
        with ledger.stage("find") as cost:
            vector = question_vector(self.model, question).numpy()
            self.refresh()
            cost.add(tokens=len(self._index))
        with ledger.stage("recall") as cost:
            found, memories = self._read(vector, budget, videos)
            cost.add(tokens=sum(len(memory.tokens) for memory in memories.values()))
        notes, self.notes = self.notes, []
        for note in [*notes, *(f"{one.name} was left out: {one.reason}" for one in self.skipped)]:
            ledger.note(note)
        answer = ask(
            list(memories.values()), question, self.model, budget, selector=selector, on_token=on_token, ledger=ledger
        )
        cited = tuple(dataclasses.replace(span, medium=span.medium or 1) for span in answer.evidence)
        answer = dataclasses.replace(answer, evidence=cited)
        return LibraryAnswer(answer=answer, read=tuple(memories), found=tuple(found), skipped=self.skipped)

    def _opened(self) -> LibraryIndex:
        """Read the index that is there, or begin a new one, and say why."""
        identity = {"model": self.model.fingerprint, "naming": NAMING_VERSION, "per_clip": VECTORS_PER_CLIP}
        width = self.model.model.lm_head.in_features
        if self.path.exists():
            try:
                return LibraryIndex.read(self.path, width, identity)
            except MemoryFormatError as error:
                self._note(error)
        return LibraryIndex(width, identity)

    def _save(self) -> None:
        try:
            self._index.save(self.path)
        except StorageError as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        if str(error) not in self.notes:
            self.notes.append(str(error))

    def _files(self) -> dict[str, FileState]:
        """Return the memories of the folder with what tells that they changed."""
        found: dict[str, FileState] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(MEMORY_SUFFIX) and not entry.name.startswith(".") and entry.is_file():
                    stat = entry.stat()
                    found[entry.name] = FileState(stat.st_size, stat.st_mtime_ns, stat.st_ino)
        return dict(sorted(found.items()))

    def _take(self, name: str, state: FileState) -> bool:
        """Put a memory into the index, or note why not; say whether it is another than before."""
        known = self._index.entries.get(name)
        try:
            with StoredMemory(self.folder / name) as stored:
                check_model(stored, self.model, self.options)
                if known is not None and known.digest == stored.digest:
                    self._index.touch(name, state)
                    return False
                memory, digest = stored.memory(), stored.digest
                clips = [len(segment.frame_pts_s) for segment in stored.segments()]
        except MemoryFormatError as error:
            self._left_out[name] = (state, str(error))
            self._index.remove(name)
            return known is not None
        self._left_out.pop(name, None)
        few = thin(memory, VECTORS_PER_CLIP / memory.frame_pts_s.shape[1])
        vectors = token_vectors(self.model, few.tokens.features).numpy()
        segments = _segments(memory, clips)
        self._index.add(name, state, digest, segments, vectors, few.tokens.clip_index.cpu().numpy())
        return True

    def _nearest(self, vector: Float[np.ndarray, "D"], count: int) -> list[Found]:
        """Return the best segments, each with the best likeness of its vectors.

        Raises: MemoryFormatError if no memory can be asked.
        """
        if not self._index.entries:
            left = "; ".join(f"{one.name}: {one.reason}" for one in self.skipped) or "there is none"
            raise MemoryFormatError(
                f"{self.folder} holds no memory that can be asked ({left}); expected *{MEMORY_SUFFIX} files of this "
                f"model; run `longtake ingest VIDEO -o {self.folder}`"
            )
        best: dict[tuple[str, int], Found] = {}
        for entry, clip, score in self._index.search(vector, max(NEIGHBOURS, VECTORS_PER_CLIP * count)):
            segment = entry.segments.of(clip)
            best.setdefault((entry.name, segment), self._found(entry, segment, score))
        return list(best.values())[:count]

    def _found(self, entry: Entry, segment: int, score: float) -> Found:
        start_s, end_s = (float(value) for value in entry.segments.bounds_s[segment])
        span = Span(start_s=start_s, end_s=end_s, score=score)
        return Found(path=self.folder / entry.name, segment=segment, span=span)

    def _read(
        self, vector: Float[np.ndarray, "D"], budget: Budget, videos: int
    ) -> tuple[list[Found], dict[Path, VideoMemory]]:
        """Find the best segments, and read those of the best videos; look again if one changed meanwhile.

        Raises: MemoryFormatError if they never stay as they are.
        """
        for _ in range(_ROUNDS):
            found = self._nearest(vector, max(SEGMENTS_TOLD, videos))
            names = list(dict.fromkeys(one.path.name for one in found))[:videos]
            memories = {self.folder / name: self._part(name, vector, budget, len(names)) for name in names}
            read = {path: memory for path, memory in memories.items() if memory is not None}
            if len(read) == len(memories):
                return found, read
            self.refresh()
        raise MemoryFormatError(
            f"the memories of {self.folder} change faster than they can be read; expected {_ROUNDS} looks to be "
            "enough; ask again when their writers are done"
        )

    def _part(self, name: str, vector: Float[np.ndarray, "D"], budget: Budget, videos: int) -> VideoMemory | None:
        """Read what of a memory fits its share of the budget: all of it, or its best segments; none if it changed.

        Raises: BudgetError if not one segment fits; MemoryFormatError if it is damaged.
        """
        entry, share = self._index.entries[name], budget.max_frames // videos
        try:
            stored = StoredMemory(self.folder / name)
        except MemoryFormatError:
            return None  # it went
        with stored:
            if stored.digest != entry.digest:
                return None
            num_frames = entry.segments.num_frames
            if num_frames.sum() <= share:
                return stored.memory()
            kept, left = [], share
            for segment in np.argsort(-self._index.scores(entry, vector), kind="stable").tolist():
                if num_frames[segment] <= left:
                    kept.append(segment)
                    left -= num_frames[segment]
            if not kept:
                least = int(num_frames.min())
                raise BudgetError(
                    f"segments of {least} frames and more arrived for {share} frames a video; expected room for one; "
                    f"pass max_frames {least * videos} or more"
                )
            return stored.part(sorted(kept))


def _segments(memory: VideoMemory, clips: list[int]) -> Segments:
    """Return where the segments of a memory begin and end, given how many clips each has."""
    first_clips = np.cumsum([0, *clips[:-1]])
    times = np.unique(memory.frame_pts_s)
    step_s = float(np.median(np.diff(times))) if len(times) > 1 else memory.duration_s
    starts_s = memory.frame_pts_s[first_clips, 0]
    ends_s = np.append(starts_s[1:], times[-1] + step_s)
    num_frames = np.array(clips) * memory.frame_pts_s.shape[1]
    return Segments(first_clips, num_frames, np.stack([starts_s, ends_s], 1))
