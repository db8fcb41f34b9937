"""Videos become memories one after the other, in a thread that gives way to answers, and goes on after a stop."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longtake.core.budget import Budget
from longtake.core.errors import BudgetError, LongtakeError, MemoryBusyError, MemoryFormatError, VideoError
from longtake.engine.remember import Wish, check_model, remember
from longtake.media.video import Video, VideoInfo, open_video
from longtake.memory.reader import StoredMemory
from longtake.models.loaded import LoadedModel
from longtake.serve.errors import ApiError, as_api_error, busy
from longtake.serve.metrics import Metrics
from longtake.serve.settings import Limits
from longtake.serve.store import Namespace, Store, StoredVideo

logger = logging.getLogger("longtake.serve")
MEMORY = "memory.ltm"
PAUSE_S = 0.005
BUSY_PAUSE_S = 0.5
ATTEMPTS = 2


class Stopped(Exception):  # noqa: N818 (no error: the server stops, or the video was deleted)
    """An ingest ends early; what it has committed stays."""


def open_limited(path: Path, limits: Limits) -> Video:
    """Open a video in a decoder's process with a limit of memory, and refuse one that is too large or too long.

    Raises: VideoError.
    """
    memory = int(limits.decode_gb * 1e9)
    video = open_video(path, time_limit_s=limits.decode_silence_s, memory_limit_bytes=memory)
    try:
        _check(video.info, limits)
    except BaseException:
        video.close()
        raise
    return video


def _check(info: VideoInfo, limits: Limits) -> None:
    if info.width * info.height > limits.pixels:
        raise VideoError(
            f"the video has {info.width} x {info.height} pixels; expected at most {limits.pixels}; make it smaller"
        )
    if info.duration_s > limits.duration_s:
        raise VideoError(
            f"the video lasts {info.duration_s:.0f} s; expected at most {limits.duration_s:g} s; send parts of it"
        )


@dataclasses.dataclass
class Progress:
    """How far an ingest is: the stage, and how many frames of how many."""

    stage: str = "queued"
    done: int = 0
    total: int = 0


class Ingests:
    """The queue of videos; keys take turns. A video is written down before it is queued, so that none is lost."""

    def __init__(
        self,
        model: LoadedModel,
        store: Store,
        limits: Limits,
        metrics: Metrics,
        options: str,
        is_answering: Callable[[], bool],
    ) -> None:
        self.model, self.store, self.limits, self.metrics, self.options = model, store, limits, metrics, options
        self._is_answering = is_answering
        self._changed = threading.Condition()
        self._queues: OrderedDict[str, deque[str]] = OrderedDict()
        self._progress: dict[tuple[str, str], Progress] = {}
        self._listeners: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._running: tuple[str, str] | None = None
        self._is_closing, self._must_stop = False, False
        self._thread = threading.Thread(target=self._work, name="ingest", daemon=True)

    def start(self) -> None:
        """Queue what an earlier server did not finish, and begin."""
        for owner in self.store.owners():
            for video in self.store.of(owner).videos():
                if video.status in ("queued", "running") or (
                    video.status == "ready" and not self._is_current(owner, video)
                ):
                    self._put(owner, video)
        self._thread.start()

    def _is_current(self, owner: str, video: StoredVideo) -> bool:
        """Say whether a memory can be read by this model; one that cannot is removed, to be made again."""
        path = self.store.of(owner).video_folder(video.id) / MEMORY
        try:
            with StoredMemory(path) as stored:
                check_model(stored, self.model, self.options)
        except MemoryFormatError as error:
            logger.warning("%s is made again: %s", video.id, error)
            path.unlink(missing_ok=True)
            return False
        return True

    @property
    def num_waiting(self) -> int:
        """Count of videos that wait or are being remembered."""
        with self._changed:
            return sum(map(len, self._queues.values())) + (self._running is not None)

    def check_room(self, owner: str) -> None:
        """Refuse another video of a key that has too many waiting.

        Raises: ApiError 429; 503 when the server is stopping.
        """
        with self._changed:
            if self._is_closing:
                raise ApiError(503, "The server is stopping; come again later.", code="stopping", retry_after_s=30)
            if len(self._queues.get(owner, ())) >= self.limits.ingests_per_key:
                raise busy(f"{self.limits.ingests_per_key} videos of this key wait", 10)

    def put(self, owner: str, video: StoredVideo) -> StoredVideo:
        """Queue a video unless it is ready, or on its way; one that failed is tried again."""
        with self._changed:
            if video.status == "ready" or (owner, video.id) in self._progress:
                return video
        return self._put(owner, video)

    def adopt(self, owner: str, video: StoredVideo) -> None:
        """Queue a video that is unfinished and not on its way here: another server over the same store has it, or had.

        Raises: ApiError as `check_room`.
        """
        if self.progress(owner, video.id) is None:
            self.check_room(owner)
            self.put(owner, video)

    def _put(self, owner: str, video: StoredVideo) -> StoredVideo:
        queued = dataclasses.replace(video, status="queued", error=None)
        self.store.of(owner).save_video(queued)
        with self._changed:
            self._queues.setdefault(owner, deque()).append(video.id)
            self._progress[owner, video.id] = Progress()
            self._changed.notify_all()
        return queued

    def progress(self, owner: str, video_id: str) -> Progress | None:
        """Return how far a video is, if it is on its way."""
        return self._progress.get((owner, video_id))

    def when_over(self, owner: str, video_id: str, tell: Callable[[], None]) -> bool:
        """Have `tell` called, from the thread of ingests, when a video is ready or failed; false if it is by now."""
        with self._changed:
            if (owner, video_id) not in self._progress:
                return False
            self._listeners.setdefault((owner, video_id), []).append(tell)
            return True

    def drop(self, owner: str, video_id: str) -> None:
        """Take a video that was deleted out of the queue, or stop it."""
        with self._changed:
            queue = self._queues.get(owner)
            if queue is not None and video_id in queue:
                queue.remove(video_id)
                if not queue:
                    del self._queues[owner]
                self._over((owner, video_id))

    def close(self, grace_s: float | int) -> None:
        """Begin no more; finish the one under way within the grace, else stop it where it can go on."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(grace_s)
        self._must_stop = True
        self._thread.join(self.limits.decode_silence_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or self._queues)
                if self._is_closing:
                    return
                owner, queue = next(iter(self._queues.items()))
                video_id = queue.popleft()
                del self._queues[owner]
                if queue:
                    self._queues[owner] = queue
                self._running = owner, video_id
            is_busy = False
            try:
                self._ingest(self.store.of(owner), video_id)
            except MemoryBusyError:  # another server over the same store writes it: look again when it is over
                is_busy = True
            except Exception:  # the thread must outlive any video
                logger.exception("%s failed", video_id)
            finally:
                with self._changed:
                    self._running = None
                    if is_busy and not self._is_closing:
                        self._queues.setdefault(owner, deque()).append(video_id)
                        self._changed.wait_for(lambda: self._is_closing, BUSY_PAUSE_S)
                    else:
                        self._over((owner, video_id))
                    self._changed.notify_all()

    def _over(self, key: tuple[str, str]) -> None:
        self._progress.pop(key, None)
        for tell in self._listeners.pop(key, ()):
            tell()

    def _ingest(self, space: Namespace, video_id: str) -> None:
        try:
            video = dataclasses.replace(space.video(video_id), status="running")
        except ApiError:  # it was deleted
            return
        try:
            space.save_video(video)
            info = self._remember(space, video)
            over = dataclasses.replace(video, status="ready", info=info)
        except MemoryBusyError:
            raise
        except Stopped:
            return  # deleted, or written down as running: the next server goes on with it
        except Exception as error:
            if not isinstance(error, LongtakeError):
                logger.exception("%s failed", video_id)
            told = as_api_error(error).message.replace(str(space.video_folder(video_id) / "source"), video.name)
            over = dataclasses.replace(video, status="failed", error=told.replace(str(space.folder), "the store"))
        space.save_video(over)
        self.metrics.ingests.labels(over.status).inc()

    def _remember(self, space: Namespace, video: StoredVideo) -> dict[str, Any]:
        """Write a video's memory; what went wrong is tried once more, from where it was: a decoder may
        have been killed for what others did."""
        folder, progress = space.video_folder(video.id), self._progress[space.name, video.id]
        watch = _Watch(self, space, video.id, progress)
        opened: list[VideoInfo] = []

        def opener(path: Path) -> Video:
            found = open_limited(path, self.limits)
            opened.append(found.info)
            return found

        wish = Wish(
            budget=Budget(max_frames=video.wish["max_frames"]),
            start_s=video.wish.get("start_s"),
            end_s=video.wish.get("end_s"),
            options=self.options,
        )
        source, path = str(folder / "source"), folder / MEMORY
        for attempt in range(1, ATTEMPTS + 1):
            try:
                remember(source, self.model, path, wish, on_progress=watch, opener=opener)
                break
            except VideoError:
                if attempt == ATTEMPTS:
                    raise
        with StoredMemory(path) as stored:
            memory = stored.memory()
        info = opened[-1]
        return {
            "duration_s": info.duration_s,
            "width": info.width,
            "height": info.height,
            "fps": info.average_fps,
            "container": info.container,
            "codec": info.codec,
            "frames": memory.num_frames,
            "tokens": len(memory.tokens),
            "memory_bytes": path.stat().st_size,
            "warnings": list(memory.warnings),
        }


class _Watch:
    """Told of every piece of an ingest: notes how far it is, gives way, and stops it."""

    def __init__(self, ingests: Ingests, space: Namespace, video_id: str, progress: Progress) -> None:
        self.ingests, self.space, self.video_id, self.progress = ingests, space, video_id, progress
        self.began_s = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        ingests, limits = self.ingests, self.ingests.limits
        if stage == "encode":
            ingests.metrics.frames.inc(max(0, done - self.progress.done))
            self.progress.done = done
        self.progress.stage, self.progress.total = stage, total
        if ingests._must_stop or not (self.space.video_folder(self.video_id) / "video.json").exists():
            raise Stopped
        if time.monotonic() - self.began_s > limits.ingest_s:
            raise BudgetError(
                f"{done} of {total} frames were remembered in {limits.ingest_s:g} s, the limit; expected all of them; "
                "pass fewer max_frames, or a part of the video"
            )
        ends_s = time.monotonic() + limits.give_way_s
        while stage == "decode" and ingests._is_answering() and time.monotonic() < ends_s:
            time.sleep(PAUSE_S)
