"""The parts of a server, put together: the model, the store, the threads that ingest and answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil

from longtake.core.errors import VideoError
from longtake.engine.ingest import default_rule
from longtake.media.sampling import check_max_frames
from longtake.memory.reader import StoredMemory
from longtake.models.loaded import LoadedModel
from longtake.serve.answers import Answers
from longtake.serve.errors import ApiError
from longtake.serve.guard import Tickets
from longtake.serve.ingests import MEMORY, Ingests
from longtake.serve.jobs import Done, Event, Failed
from longtake.serve.keys import KeyRing
from longtake.serve.local import open_below
from longtake.serve.messages import Named
from longtake.serve.metrics import Metrics
from longtake.serve.reading import Asked
from longtake.serve.remote import Fetcher, refuse
from longtake.serve.resident import Medium, Residents
from longtake.serve.settings import ServeSettings
from longtake.serve.sniff import kind_of
from longtake.serve.store import ID, Incoming, Namespace, Store, StoredVideo

FETCH_THREADS = 4
BLOCK_BYTES = 1 << 20
T = TypeVar("T")


class Service:
    """One model and everything that asks of it.

    Raises: StorageError if the store cannot be made; ConfigError for bad keys; BudgetError for a limit of frames that
        the model's rule cannot meet.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: ServeSettings,
        *,
        max_together: int | None = None,
        ticket_secret: bytes | None = None,
    ) -> None:
        limits = settings.limits
        check_max_frames(default_rule(model), limits.max_frames)
        self.model, self.settings, self.keys = model, settings, KeyRing.read(settings.keys)
        self.metrics, self.tickets, self.began = Metrics(), Tickets(ticket_secret), int(time.time())
        self.store = Store(settings.store, int(limits.quota_gb * 1e9), int(limits.upload_mb * 1e6))
        self.residents = Residents(
            model, int(limits.resident_gb * 1e9), limits.decode_silence_s, int(limits.decode_gb * 1e9), limits.pixels
        )
        self.fetcher = Fetcher(settings.remote_hosts, int(limits.remote_mb * 1e6), limits.remote_s)
        self.answers = Answers(model, self.residents, limits, self.metrics, max_together=max_together)
        self.ingests = Ingests(
            model, self.store, limits, self.metrics, settings.options, lambda: self.answers.is_answering
        )
        self._fetching = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self.metrics.watch("waiting_questions", "Questions that nobody has read", lambda: self.answers.num_waiting)
        self.metrics.watch("active_answers", "Answers under way", lambda: self.answers.num_active)
        self.metrics.watch("waiting_ingests", "Videos on their way", lambda: self.ingests.num_waiting)
        self.metrics.watch("resident_bytes", "Memories held", lambda: self.residents.num_bytes)
        self.metrics.watch("resident_set_bytes", "Of the process", lambda: psutil.Process().memory_info().rss)
        self.ingests.start()

    def close(self) -> None:
        """Finish what is under way within the grace; what is not finished is gone on with at the next start."""
        began = time.monotonic()
        self.answers.close(self.settings.limits.grace_s)
        self.ingests.close(max(0.0, self.settings.limits.grace_s - (time.monotonic() - began)))
        self._fetching.shutdown(wait=False, cancel_futures=True)

    async def events(self, asked: Asked) -> AsyncIterator[Event]:
        """Yield what becomes of a question; closing the iterator cancels it.

        Raises: ApiError 429 if too many wait; whatever kept the answer from being written.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Event]()
        job = self.answers.submit(asked, functools.partial(_tell, loop, queue.put_nowait))
        try:
            while True:
                event = await queue.get()
                if isinstance(event, Failed):
                    raise event.error
                yield event
                if isinstance(event, Done):
                    return
        finally:
            job.cancel()

    def wish(self, max_frames: int | None, start_s: float | None, end_s: float | None) -> dict[str, Any]:
        """Return how a video is to be remembered.

        Raises: ApiError 400 for more frames than are allowed; BudgetError for a count that the rule cannot meet.
        """
        most = self.settings.limits.max_frames
        if max_frames is not None and max_frames > most:
            message = f"max_frames is {max_frames}; expected at most {most}; lower it."
            raise ApiError(400, message, code="invalid_value", param="max_frames")
        if start_s is not None and end_s is not None and end_s <= start_s:
            message = f"end_s {end_s:g} is not behind start_s {start_s:g}; swap them."
            raise ApiError(400, message, code="invalid_value", param="end_s")
        frames = most if max_frames is None else max_frames
        check_max_frames(default_rule(self.model), frames)
        return {"max_frames": frames, "start_s": start_s, "end_s": end_s}

    def begin(
        self, space: Namespace, source: Path, sha256: str, head: bytes, name: str, wish: Mapping[str, Any]
    ) -> StoredVideo:
        """Keep a video and queue it, unless it is there.

        Raises: ApiError 429 if too many wait, 400 for a picture; VideoError for what is no video.
        """
        if kind_of(head) == "image":
            raise ApiError(400, "A picture arrived; expected a video; show pictures in a question.", code="bad_video")
        self.ingests.check_room(space.name)
        video = space.keep_video(source, sha256, name, source.stat().st_size, wish)
        return self.ingests.put(space.name, video)

    def begin_file(self, space: Namespace, file_id: str, name: str | None, wish: Mapping[str, Any]) -> StoredVideo:
        """Keep an uploaded file as a video.

        Raises: ApiError 404, and as `begin`.
        """
        stored, path = space.file(file_id), space.file_path(file_id)
        with path.open("rb") as file:
            head = file.read(512)
        return self.begin(space, path, stored.sha256, head, name or stored.filename, wish)

    async def receive(self, address: str, incoming: Incoming) -> None:
        """Write what an address names into a file: data, a remote video, a local one.

        Raises: ApiError if it is not allowed, or is no address.
        """
        scheme = address[:8].lower()
        if scheme.startswith("data:"):
            await asyncio.to_thread(_write_data, address, incoming)
        elif scheme.startswith(("http:", "https:")):
            await self._in_time(functools.partial(self.fetcher.fetch, address, incoming))
        elif scheme.startswith("file:") or "://" not in address[:32]:
            await asyncio.to_thread(self._copy, address, incoming)
        else:
            raise refuse(ascii(address), "is of a kind that is not known")

    async def _in_time(self, work: Callable[[], T]) -> T:
        """Run a download; it ends itself in time but for a name that does not resolve."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.settings.limits.remote_s + 30):
                return await loop.run_in_executor(self._fetching, work)
        except TimeoutError as error:
            raise ApiError(504, "The address was not fetched in time; send the video itself.") from error

    def _copy(self, address: str, incoming: Incoming) -> None:
        with open_below(self.settings.local_root, address) as file:
            while block := file.read(BLOCK_BYTES):
                incoming.write(block)

    async def medium(
        self, owner: str, named: Named, wish: Mapping[str, Any], stack: contextlib.AsyncExitStack
    ) -> Medium:
        """Return a picture or video of a question, ready to be shown; a video is ingested first if it has to be.

        stack: closed when the question is answered; pictures that came with it are gone then.

        Raises: ApiError, VideoError as the parts do.
        """
        space = await asyncio.to_thread(self.store.of, owner)
        if ID.fullmatch(named.address):
            return await self._stored(space, named, wish)
        incoming = stack.enter_context(space.incoming())
        await self.receive(named.address, incoming)
        incoming.file.flush()
        kind = kind_of(incoming.head)
        if named.kind not in ("any", kind):
            message = f"A {kind} arrived as {named.kind}_url; expected {kind}_url; change the part's type."
            raise ApiError(400, message, code="invalid_value", param="messages")
        if kind == "image":
            return Medium("image", incoming.sha256, incoming.path, "the picture")
        video = await asyncio.to_thread(
            self.begin, space, incoming.path, incoming.sha256, incoming.head, "from a question", wish
        )
        return await self.ready(space, video.id)

    async def _stored(self, space: Namespace, named: Named, wish: Mapping[str, Any]) -> Medium:
        if named.address.startswith("video-"):
            return await self.ready(space, named.address)
        stored = space.file(named.address)
        if named.kind not in ("any", stored.kind):
            message = f"{named.address} is a {stored.kind}; expected {stored.kind}_url; change the part's type."
            raise ApiError(400, message, code="invalid_value", param="messages")
        if stored.kind == "image":
            return Medium("image", stored.sha256, space.file_path(stored.id), stored.filename)
        video = await asyncio.to_thread(self.begin_file, space, stored.id, None, wish)
        return await self.ready(space, video.id)

    async def ready(self, space: Namespace, video_id: str) -> Medium:
        """Wait until a video can be asked.

        Raises: ApiError 404; VideoError with what its ingest said if it failed.
        """
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        if space.video(video_id).status in ("queued", "running"):
            self.ingests.adopt(space.name, space.video(video_id))
        if self.ingests.when_over(space.name, video_id, functools.partial(_tell, loop, lambda _: over.set(), None)):
            await over.wait()
        video = space.video(video_id)
        if video.status == "failed":
            raise VideoError(f"{video.name} could not be remembered: {video.error}")
        if video.status != "ready":
            raise ApiError(503, "The server is stopping; ask again later.", code="stopping", retry_after_s=30)
        return Medium("video", video_id, space.video_folder(video_id) / MEMORY, video.name)

    def thumbnail(self, space: Namespace, video_id: str, time_s: float) -> tuple[bytes, float]:
        """Return the picture that a video's memory keeps nearest to a time, and when it was shown.

        Raises: ApiError 404 if there is none (yet).
        """
        video = space.video(video_id)
        path = space.video_folder(video_id) / MEMORY
        if not path.exists():
            raise ApiError(404, f"{video_id} has no pictures yet; wait for its ingest.", code="not_found")
        with StoredMemory(path) as stored:
            parts = [(part.frame_pts_s.ravel(), part.thumbnail) for part in stored.segments() if part.thumbnail]
        if not parts:
            raise ApiError(404, f"{video.name} keeps no pictures yet; wait for its ingest.", code="not_found")
        times, picture = min(parts, key=lambda part: float(abs(part[0] - time_s).min()))
        return picture, float(times[len(times) // 2])

    def delete_video(self, space: Namespace, video_id: str) -> None:
        """Forget a video everywhere.

        Raises: ApiError 404.
        """
        space.delete_video(video_id)
        self.ingests.drop(space.name, video_id)
        self.residents.forget(space.name, video_id)


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[[Any], None], event: object) -> None:
    """Hand an event to the event loop, from another thread; one that has ended needs none."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(tell, event)


def _write_data(address: str, incoming: Incoming) -> None:
    """Write the bytes of a data URL.

    Raises: ApiError if it holds none.
    """
    head, comma, data = address.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ApiError(400, "A data URL without ;base64, arrived; expected data:video/mp4;base64,…", code="bad_url")
    try:
        incoming.write(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"A data URL is no base64 ({error}); encode it again.", code="bad_url") from error
