"""Keep a video's tokens in a file, so that every later question costs no decoding and no vision tower."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from longtake._version import __version__
from longtake.core.budget import Budget
from longtake.core.errors import ConfigError, MemoryFormatError, StorageError, VideoError
from longtake.core.files import make_folder
from longtake.core.types import Frames, Span, VideoMemory
from longtake.engine.ingest import Progress, Source, default_rule, ingest, ingest_segments
from longtake.engine.ledger import Ledger
from longtake.engine.limits import memory_errors
from longtake.engine.pictures import settings_of
from longtake.media.sampling import Sampled, SamplingRule, sample_times
from longtake.media.sources import content_hash, download, is_address, local_file
from longtake.media.video import Video, VideoInfo, open_video
from longtake.memory.key import PIPELINE_VERSION, MemoryHeader, MemoryKey
from longtake.memory.prune import KEY_SHOWN, file_name
from longtake.memory.quantize import Store, find_store
from longtake.memory.reader import StoredMemory, is_memory_file
from longtake.memory.segment import pack_segment, thumbnail
from longtake.memory.thin import thin
from longtake.memory.writer import MemoryWriter
from longtake.models.loaded import LoadedModel
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration

DEFAULT_FRAMES = 4096
CLIPS_PER_SEGMENT = 8
_THINNED = "thinned"
STORED_AT = "stored_at"


@dataclasses.dataclass(frozen=True)
class StoredAt:
    """Which file a memory was read from, and the hash over all that was in it then."""

    path: Path
    digest: str
    is_complete: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """How a video is to be remembered.

    rule: which frames, else `default_rule`; start_s, end_s: only this part. store: how tokens are kept, `float32`,
    `float16`, `bfloat16`, `int8`, or `auto`, which is the model's own dtype and loses nothing. options: the command
    line's options that chose the model, to say how a memory was made and could be made again.
    """

    budget: Budget = dataclasses.field(default_factory=lambda: Budget(max_frames=DEFAULT_FRAMES))
    rule: SamplingRule | None = None
    start_s: float | int | None = None
    end_s: float | int | None = None
    store: str = "auto"
    clips_per_segment: int = CLIPS_PER_SEGMENT
    options: str = ""


def remember(
    source: str | Path,
    model: LoadedModel,
    target: str | Path,
    wish: Wish | None = None,
    *,
    ledger: Ledger | None = None,
    on_progress: Progress | None = None,
    opener: Callable[[Path], Video] = open_video,
) -> Path:
    """Turn a video, or a picture, into a memory on disk and return its path.

    target: a folder, in which the file is named after the video and the key, or a path that ends in `.ltm`. A memory
    that is there already under the same key is left as it is; one that was interrupted is gone on with. opener: opens
    the local file, under limits of its own perhaps.

    Raises: VideoError, BudgetError as `ingest` does; StorageError if the file cannot be written or somebody else is
        writing it; MemoryFormatError if another memory is in its place; ConfigError for an unknown way to store.
    """
    wish, ledger = wish or Wish(), ledger or Ledger()
    store = find_store(wish.store, model.dtype)
    owned = download(str(source)) if is_address(source) else None
    try:
        path = owned or local_file(source)
        with ledger.stage("hash"):
            before, content = _state(path), content_hash(path)
        with ledger.stage("open"):
            video = opener(path)
        with video:
            writing = _Writing(video, model, wish, store, str(source), content, ledger, on_progress)
            return writing.run(Path(target), lambda: _state(path) == before)
    finally:
        if owned is not None:
            owned.unlink(missing_ok=True)


def recall(path: str | Path, model: LoadedModel, *, options: str = "") -> VideoMemory:
    """Read a memory that `remember` made; no picture is decoded, no vision tower runs.

    options: as in `Wish`, of the model that asks.

    Raises: MemoryFormatError if the memory is damaged, or was made by another model or version: the message says how
        to make it again.
    """
    with StoredMemory(path) as stored:
        check_model(stored, model, options)
        memory = stored.memory()
        memory.kept[STORED_AT] = StoredAt(stored.path, stored.digest, stored.is_complete)
        return memory


def memory_of(
    source: Source | Video | VideoMemory,
    model: LoadedModel,
    budget: Budget,
    *,
    rule: SamplingRule | None = None,
    start_s: float | int | None = None,
    end_s: float | int | None = None,
    options: str = "",
    ledger: Ledger | None = None,
    on_progress: Progress | None = None,
) -> VideoMemory:
    """Return the memory of anything that can be asked: itself, read from its `*.ltm` file, or made from a video.

    Raises: as `recall` and `ingest`; ConfigError if a part is asked of a stored memory.
    """
    if isinstance(source, VideoMemory):
        return source
    if not is_memory_file(source):
        return ingest(
            source, model, budget, rule=rule, start_s=start_s, end_s=end_s, ledger=ledger, on_progress=on_progress
        )
    if start_s is not None or end_s is not None:
        raise ConfigError(
            f"a part ({start_s} to {end_s} s) of the memory {source} was asked for; expected the whole of it, whose "
            "frames are chosen already; leave out start and end, or ingest that part"
        )
    with (ledger or Ledger()).stage("recall") as cost:
        memory = recall(str(source), model, options=options)
        cost.add(bytes=Path(str(source)).stat().st_size, tokens=len(memory.tokens))
    return memory


def within(memory: VideoMemory, budget: Budget) -> VideoMemory:
    """Return a video's memory with no more tokens a frame than the budget has; the same one for every question.

    Raises: BudgetError as `thin`.
    """
    wanted, settings = budget.tokens_per_frame, memory.settings
    if wanted is None or settings.get("kind") != "video" or settings.get("tokens_per_frame") == wanted:
        return memory
    kept = memory.kept.get(_THINNED)
    if not isinstance(kept, VideoMemory) or kept.settings.get("tokens_per_frame") != wanted:
        kept = thin(memory, wanted)
        memory.kept[_THINNED] = kept
        if STORED_AT in memory.kept:
            kept.kept[STORED_AT] = memory.kept[STORED_AT]
    return kept


def save_pictures(path: str | Path, spans: Sequence[Span], folder: str | Path) -> list[Path]:
    """Write the picture that a memory keeps nearest to the middle of each span; return where they are.

    Raises: MemoryFormatError as opening does; StorageError if they cannot be written.
    """
    target, found = Path(folder), []
    make_folder(target)
    with StoredMemory(path) as stored:
        parts = [(part.frame_pts_s.ravel(), part.thumbnail) for part in stored.segments() if part.thumbnail]
    for span in spans if parts else ():
        middle_s = (span.start_s + span.end_s) / 2
        _, picture = min(parts, key=lambda part: float(np.abs(part[0] - middle_s).min()))
        found.append(target / f"{span.start_s:.1f}-{span.end_s:.1f}.jpg")
        try:
            found[-1].write_bytes(picture)
        except OSError as error:
            raise StorageError(
                f"{found[-1]} cannot be written ({error.strerror}); expected room and permission; choose another folder"
            ) from error
    return found


def check_model(stored: StoredMemory, model: LoadedModel, options: str = "") -> None:
    """Refuse a memory whose tokens this model would not have made.

    Raises: MemoryFormatError naming both, with the command that makes it again.
    """
    key, header = stored.header.identity, stored.header
    command = " ".join(filter(None, ["longtake ingest", shlex.quote(header.source), "-o", "FOLDER", options]))
    if key.pipeline_version != PIPELINE_VERSION:
        raise MemoryFormatError(
            f"{stored.path} was made by version {key.pipeline_version} of the pipeline (longtake {key.longtake}); this "
            f"is version {PIPELINE_VERSION} (longtake {__version__}), whose tokens differ; run: {command}"
        )
    if key.model != model.fingerprint:
        made_by = header.made_with or "no options"
        raise MemoryFormatError(
            f"{stored.path} was made by model {key.model[:KEY_SHOWN]} ({made_by}); this is model "
            f"{model.fingerprint[:KEY_SHOWN]} ({options or 'no options'}), which cannot read its tokens; run: {command}"
        )


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Return what tells that a file, or a folder of pictures, was changed."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def stamp(
    key: MemoryKey, source: str, info: VideoInfo, model: LoadedModel, settings: Mapping[str, object], options: str
) -> MemoryHeader:
    """Return the header of a memory that is made now; how long it will be is not known yet."""
    return MemoryHeader(
        key=key.to_dict(),
        source=source,
        width=model.model.lm_head.in_features,
        num_frames=0,
        duration_s=0.0,
        aspect=info.width / info.height,
        settings=dict(settings),
        dtype=str(model.dtype).removeprefix("torch."),
        made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        made_with=options,
    )


def compressor_identity(model: LoadedModel) -> str:
    """Return what identifies the compressor: its fingerprint, or nothing where it is part of the weights.

    Raises: ConfigError if it cannot be told apart from another.
    """
    compressor = model.model.compressor
    fingerprint = getattr(compressor, "fingerprint", None)
    if fingerprint is None and isinstance(compressor, nn.Module):
        return type(compressor).__qualname__
    if fingerprint is None:
        raise ConfigError(
            f"the compressor {type(compressor).__name__} has no fingerprint, so its memory could be taken for "
            "another's; expected one; make it a longtake.core.config.StrictConfig"
        )
    return str(fingerprint())


@dataclasses.dataclass(frozen=True, eq=False)
class _Writing:
    """One video on its way into one file."""

    video: Video
    model: LoadedModel
    wish: Wish
    store: Store
    source: str
    content: str
    ledger: Ledger
    on_progress: Progress | None

    @property
    def is_image(self) -> bool:
        return self.video.info.container == "image"

    def run(self, target: Path, is_unchanged: Callable[[], bool]) -> Path:
        """Write what is not there yet; a memory of a video that changed meanwhile is removed again."""
        sampled = self._sample()
        header = self._header(sampled)
        stem = Path(self.source.rstrip("/")).stem or "video"
        path = target if is_memory_file(target) else target / file_name(stem, header.identity)
        if _is_finished(path, header):
            return path
        make_folder(path.parent)
        with MemoryWriter(path, header) as writer:
            if writer.is_complete:  # somebody else was faster
                return path
            if self.is_image:
                self._write_image(writer)
            else:
                self._write_video(writer, sampled)
            if not is_unchanged():
                path.unlink()
                raise VideoError(f"{self.source} changed while it was read; expected it at rest; ingest it again")
            writer.finish(sampled.duration_s, self.video.warnings)
        return path

    def _sample(self) -> Sampled:
        if self.is_image:
            return Sampled(np.zeros(1), 0.0)
        with self.ledger.stage("sample"):
            return sample_times(
                self.video.clock,
                self.wish.rule or default_rule(self.model),
                self.wish.budget.max_frames,
                start_s=self.wish.start_s,
                end_s=self.wish.end_s,
            )

    def _header(self, sampled: Sampled) -> MemoryHeader:
        rule = self.wish.rule or default_rule(self.model)
        key = MemoryKey(
            content=self.content,
            model=self.model.fingerprint,
            compressor=compressor_identity(self.model),
            sampling=rule.fingerprint(),
            max_frames=self.wish.budget.max_frames,
            max_tiles=self.wish.budget.max_tiles,
            frames_per_clip=self.model.config.mm_local_num_frames,
            clips_per_segment=self.wish.clips_per_segment,
            store=self.store,
            decoder=self.video.info.backend,
            device=self.model.device.type,
            longtake=__version__,
            start_s=self.wish.start_s,
            end_s=self.wish.end_s,
        )
        settings = settings_of(self.model, "image" if self.is_image else "video")
        if not self.is_image:
            settings |= {"rule": rule.to_dict(), "start_s": self.wish.start_s, "end_s": self.wish.end_s}
        header = stamp(key, self.source, self.video.info, self.model, settings, self.wish.options)
        return dataclasses.replace(header, num_frames=len(sampled.times_s), duration_s=sampled.duration_s)

    def _write_image(self, writer: MemoryWriter) -> None:
        if writer.num_segments:
            return
        memory = ingest(self.video, self.model, self.wish.budget, ledger=self.ledger)
        pixels = next(self.video.frames_at(np.zeros(1))).pixels[0]
        picture = thumbnail(pixels, writer.header.aspect)
        writer.append(pack_segment(memory.tokens, memory.frame_pts_s, picture, self.store))

    def _write_video(self, writer: MemoryWriter, sampled: Sampled) -> None:
        """Encode the segments that are not there yet, each into the file as soon as it is made."""
        size = self.wish.clips_per_segment * self.model.config.mm_local_num_frames
        done = writer.num_segments
        # Where clips are encoded on their own, those that are there need not even be decoded again.
        skipped = done if isinstance(self.model.model, VideoChatFlashForConditionalGeneration) else 0
        rest = sampled._replace(times_s=sampled.times_s[skipped * size :])
        pictures: list[bytes] = []

        def keep_picture(frames: Frames) -> None:
            pictures.append(thumbnail(frames.pixels[len(frames) // 2], writer.header.aspect))

        segments = ingest_segments(
            self.video,
            self.model,
            rest,
            chunk_clips=self.wish.clips_per_segment,
            ledger=self.ledger,
            on_progress=self.on_progress,
            on_frames=keep_picture,
        )
        with memory_errors(len(sampled.times_s), self.model):
            for number, segment in enumerate(segments, start=skipped):
                if number < done:
                    continue
                with self.ledger.stage("store") as cost:
                    data = pack_segment(segment.tokens, segment.frame_pts_s, pictures[-1], self.store, number * size)
                    writer.append(data)
                    cost.add(bytes=len(data), tokens=len(segment.tokens))


def _is_finished(path: Path, header: MemoryHeader) -> bool:
    """Say whether a whole memory under this key is there.

    Raises: MemoryFormatError if it is there and damaged.
    """
    try:
        stored = StoredMemory(path)
    except MemoryFormatError:
        return False  # there is none, or none yet; the writer refuses anything else
    with stored:
        if not stored.is_complete or stored.header.identity.fingerprint() != header.identity.fingerprint():
            return False
        stored.verify()
        return True
