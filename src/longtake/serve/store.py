"""What a server keeps on disk: for each key a folder of its own, which no other key's requests ever look into."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from longtake.core.config import StrictConfig
from longtake.core.errors import StorageError
from longtake.core.files import write_whole
from longtake.serve.errors import ApiError, not_found

ID = re.compile(r"(file|video)-[0-9a-f]{24}")
PRIVATE = 0o600
NAME_LENGTH = 200
LEFT_AFTER_S = 1.0  # a file that was made and is not locked yet
Status = Literal["queued", "running", "ready", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFile(StrictConfig):
    """An uploaded file: as its owner called it, its size, when it came (Unix seconds), and its SHA-256."""

    id: str
    filename: str
    bytes: int
    created_at: int
    purpose: str
    kind: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredVideo(StrictConfig):
    """A video on its way into a memory, or there.

    wish: max_frames, start_s, end_s. info: what is known of it once it was opened. error: why it failed.
    """

    id: str
    name: str
    bytes: int
    created_at: int
    wish: Mapping[str, Any]
    status: Status = "queued"
    error: str | None = None
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Incoming:
    """A file that is being received; it counts against its limit while it comes."""

    def __init__(self, file: IO[bytes], path: Path, max_bytes: int, over: str) -> None:
        self.file, self.path, self.max_bytes, self.over = file, path, max_bytes, over
        self.size, self._digest, self.head = 0, hashlib.sha256(), b""

    def write(self, data: bytes, /) -> int:
        """Take the next part.

        Raises: ApiError if it is too much; OSError if the disk is full.
        """
        self.size += len(data)
        if self.size > self.max_bytes:
            raise ApiError(413, f"The file has more than {self.max_bytes} bytes, {self.over}; send less.", code="size")
        if len(self.head) < 512:
            self.head = (self.head + data)[:512]
        self._digest.update(data)
        return self.file.write(data)

    @property
    def sha256(self) -> str:
        """Return the hash of what came."""
        return self._digest.hexdigest()


class Namespace:
    """One key's files and videos.

    Names of videos are made from their content and a secret of this folder: the same video is the same name here,
    and another one elsewhere.
    """

    def __init__(self, folder: Path, quota_bytes: int, upload_bytes: int) -> None:
        self.folder, self.name = folder, folder.name
        self.quota_bytes, self.upload_bytes = quota_bytes, upload_bytes
        self._lock = threading.RLock()
        for part in ("files", "videos", "incoming"):
            (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in (folder / "incoming").iterdir():
            _remove_left(left)
        self._secret = self._read_secret()

    def _read_secret(self) -> bytes:
        path = self.folder / "secret"
        if not path.exists():
            aside = self.folder / f".secret-{secrets.token_hex(8)}"
            write_whole(aside, secrets.token_bytes(32), PRIVATE)
            with suppress(FileExistsError):  # another server over this store was faster: its secret holds
                os.link(aside, path)
            aside.unlink()
        return path.read_bytes()

    def used_bytes(self) -> int:
        """Return the bytes of all that is kept; what is linked twice counts once."""
        seen = {(found.st_ino, found.st_size) for found in map(os.stat, self._all_files())}
        return sum(size for _, size in seen)

    def _all_files(self) -> Iterator[str]:
        for base, _, names in os.walk(self.folder):
            yield from (str(Path(base) / name) for name in names)

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Give a place to receive a file; it is gone afterwards unless it was kept.

        Raises: ApiError 413 if the quota is used up already.
        """
        left = self.quota_bytes - self.used_bytes()
        if left <= 0:
            raise ApiError(413, f"The key's {self.quota_bytes} bytes are used up; delete some.", code="quota")
        is_quota = left < self.upload_bytes
        over = "what is left of the key's quota" if is_quota else "the limit of an upload"
        handle, name = tempfile.mkstemp(dir=self.folder / "incoming")
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield Incoming(file, path, min(left, self.upload_bytes), over)
        finally:
            path.unlink(missing_ok=True)

    def keep_file(self, incoming: Incoming, filename: str, purpose: str, kind: str) -> StoredFile:
        """Keep a received file under a new name."""
        incoming.file.flush()
        stored = StoredFile(
            id=f"file-{secrets.token_hex(12)}",
            filename=clean_name(filename),
            bytes=incoming.size,
            created_at=int(time.time()),
            purpose=purpose,
            kind=kind,
            sha256=incoming.sha256,
        )
        folder = self.folder / "files" / stored.id
        with whole_folder(folder):
            os.link(incoming.path, folder / "data")
            write_json(folder / "file.json", stored.to_dict())
        return stored

    def file(self, name: str) -> StoredFile:
        """Return an uploaded file.

        Raises: ApiError 404 if there is none of that name here.
        """
        return StoredFile.from_dict(self._read(self._place("file", name) / "file.json", "file", name))

    def file_path(self, name: str) -> Path:
        """Return where the bytes of an uploaded file are."""
        return self._place("file", name) / "data"

    def files(self) -> list[StoredFile]:
        """Return all uploaded files, newest first."""
        found = [StoredFile.from_dict(self._json(path)) for path in (self.folder / "files").glob("*/file.json")]
        return sorted(found, key=lambda file: (-file.created_at, file.id))

    def delete_file(self, name: str) -> None:
        """Forget an uploaded file; videos made of it stay.

        Raises: ApiError 404.
        """
        with self._lock:
            self.file(name)
            shutil.rmtree(self._place("file", name), ignore_errors=True)

    def keep_video(self, source: Path, sha256: str, name: str, size: int, wish: Mapping[str, Any]) -> StoredVideo:
        """Keep a video that is to be remembered; the same content with the same wish is the one that is there."""
        asked = json.dumps([sha256, dict(wish)], sort_keys=True).encode()
        video_id = f"video-{hmac.new(self._secret, asked, hashlib.sha256).hexdigest()[:24]}"
        with self._lock:
            folder = self.folder / "videos" / video_id
            if (folder / "video.json").exists():
                return self.video(video_id)
            with whole_folder(folder):
                (folder / "source").unlink(missing_ok=True)
                os.link(source, folder / "source")
                made = StoredVideo(
                    id=video_id, name=clean_name(name), bytes=size, created_at=int(time.time()), wish=dict(wish)
                )
                self.save_video(made)
            return made

    def video(self, name: str) -> StoredVideo:
        """Return a video.

        Raises: ApiError 404 if there is none of that name here.
        """
        return StoredVideo.from_dict(self._read(self._place("video", name) / "video.json", "video", name))

    def video_folder(self, name: str) -> Path:
        """Return where a video's source and memory are.

        Raises: ApiError 404 for what is no name of a video.
        """
        return self._place("video", name)

    def videos(self) -> list[StoredVideo]:
        """Return all videos, newest first."""
        found = [StoredVideo.from_dict(self._json(path)) for path in (self.folder / "videos").glob("*/video.json")]
        return sorted(found, key=lambda video: (-video.created_at, video.id))

    def save_video(self, video: StoredVideo) -> None:
        """Write down how a video stands, unless it was deleted meanwhile."""
        with self._lock:
            folder = self._place("video", video.id)
            if folder.exists():
                write_json(folder / "video.json", video.to_dict())

    def delete_video(self, name: str) -> None:
        """Forget a video and its memory.

        Raises: ApiError 404.
        """
        with self._lock:
            self.video(name)
            folder = self._place("video", name)
            (folder / "video.json").unlink(missing_ok=True)  # from now on it is not there
            shutil.rmtree(folder, ignore_errors=True)

    def _place(self, kind: str, name: str) -> Path:
        if not ID.fullmatch(name) or not name.startswith(f"{kind}-"):
            raise not_found(kind, name[:64])
        return self.folder / f"{kind}s" / name

    def _read(self, path: Path, kind: str, name: str) -> dict[str, Any]:
        try:
            return self._json(path)
        except FileNotFoundError as error:
            raise not_found(kind, name) from error

    def _json(self, path: Path) -> dict[str, Any]:
        return json.loads(path.read_bytes())


class Store:
    """The folders of all keys.

    Raises: StorageError if its own folder cannot be made.
    """

    def __init__(self, folder: str | Path, quota_bytes: int, upload_bytes: int) -> None:
        self.folder = Path(folder)
        self._limits = quota_bytes, upload_bytes
        self._lock, self._open = threading.Lock(), dict[str, Namespace]()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"the store {folder} cannot be made ({error.strerror}); expected a folder; choose another with --store"
            ) from error

    def of(self, owner: str) -> Namespace:
        """Return the folder of a key's name, which `longtake.serve.keys` has checked."""
        with self._lock:
            if owner not in self._open:
                self._open[owner] = Namespace(self.folder / owner, *self._limits)
            return self._open[owner]

    def owners(self) -> list[str]:
        """Return the names that have a folder."""
        return sorted(path.parent.name for path in self.folder.glob("*/secret"))


def _remove_left(path: Path) -> None:
    """Remove what was being received when a server stopped; what another one is receiving now is locked, and stays."""
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - path.stat().st_mtime > LEFT_AFTER_S:
            path.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[None]:
    """Make a folder, and take it away again if what is put into it does not come through, as with a full disk."""
    path.mkdir(exist_ok=True)
    try:
        yield
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        raise


def clean_name(name: str) -> str:
    """Return a name for people: no folders, nothing that cannot be printed; never used as a path."""
    last = re.split(r"[\\/]", name)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:NAME_LENGTH] or "unnamed"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values, whole or not at all."""
    write_whole(path, json.dumps(dict(values)).encode(), PRIVATE)
