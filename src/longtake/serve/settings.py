"""What a server allows: one frozen value, made from the command line's options."""

from __future__ import annotations

import dataclasses
import ipaddress

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits(StrictConfig):
    """How much one server, key, request or file may take. Megabytes and gigabytes are powers of ten.

    upload_mb: of one file. json_mb: of any other body, base64 pictures included; bodies_mb: of all of these that are
    being handled. quota_gb: of all that a key keeps.
    duration_s, pixels: of a video; pixels of a picture too. max_frames: that a video is remembered by. max_tokens: of
    an answer. pictures: and videos in one question. active: answers written together. waiting, waiting_per_key:
    questions that wait, beyond which there is a 429. ingests_per_key: videos that wait. answer_s: from a question to
    the end of its answer. ingest_s: of one video. decode_silence_s, decode_gb: of the decoder's process.
    headers_s: until a request's head is there. silence_s: between two parts of a body. slowest_bytes_s: of a body, on
    average, once it has taken `silence_s`. connections: at once. resident_gb: memories and what was read of them.
    select_gb: what selection keeps of one video. chunk_rows: of a prefill step. remote_mb, remote_s: of a download.
    grace_s: for what is under way when the server is told to stop. give_way_s: how long a piece of an ingest waits for
    answers at most.

    Raises: ConfigError if a limit is not a positive number.
    """

    upload_mb: float | int = 2000
    json_mb: float | int = 64
    bodies_mb: float | int = 512
    quota_gb: float | int = 50
    duration_s: float | int = 4 * 3600
    pixels: int = 7680 * 4320
    max_frames: int = 1024
    max_tokens: int = 1024
    pictures: int = 16
    active: int = 32
    waiting: int = 64
    waiting_per_key: int = 32
    ingests_per_key: int = 32
    answer_s: float | int = 600
    ingest_s: float | int = 4 * 3600
    decode_silence_s: float | int = 60
    decode_gb: float | int = 6
    headers_s: float | int = 10
    silence_s: float | int = 20
    slowest_bytes_s: float | int = 2000
    connections: int = 512
    resident_gb: float | int = 4
    select_gb: float | int = 1
    chunk_rows: int = 2048
    remote_mb: float | int = 2000
    remote_s: float | int = 300
    grace_s: float | int = 30
    give_way_s: float | int = 0.5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 < value < float("inf") or (field.type == "int" and not isinstance(value, int)):
                raise ConfigError(f"limit {field.name} is {value!r}; expected a positive {field.type}; change it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeSettings(StrictConfig):
    """Where a server listens, what it may read, and who may ask.

    store: the folder of files and memories. keys: a file of hashed keys; none is only allowed on loopback.
    hosts: names under which browsers may reach it, besides loopback and `host`. model_name: what `/v1/models` lists.
    remote_hosts: from which videos may be fetched: names, `*.name` for those below, `*` for all; none turns it off.
    local_root: a folder whose videos may be named by path. metrics_key: whose key reads `/metrics` where there are
    keys. options: of the command line that chose the model, to say how a memory was made. notice: what the page says
    of the model.

    Raises: ConfigError for a host that others can reach without keys, or a port out of range.
    """

    store: str
    host: str = "127.0.0.1"
    port: int = 8000
    keys: str | None = None
    hosts: tuple[str, ...] = ()
    model_name: str = "longtake"
    remote_hosts: tuple[str, ...] = ()
    local_root: str | None = None
    metrics_key: str | None = None
    options: str = ""
    notice: str = ""
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}; expected 0 to 65535, 0 for any free one; change it")
        if self.keys is None and not self.is_loopback:
            raise ConfigError(
                f"host is {self.host}, which other machines can reach, and there are no keys; expected keys; make one "
                "with --add-key NAME --keys FILE, or leave --host out"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
