"""The door: who may come in, how much they may bring, and how slowly."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from longtake.serve.errors import ApiError, busy
from longtake.serve.keys import KeyRing
from longtake.serve.metrics import Metrics
from longtake.serve.settings import LOOPBACK_NAMES, ServeSettings

Scope = MutableMapping[str, Any]
MessageOf = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MessageOf]]
Send = Callable[[MessageOf], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/", "/health")
OPEN_FOLDER = "/page/"
TICKET_S = 6 * 3600
_MEDIA = re.compile(r"/v1/videos/(video-[0-9a-f]{24})/(?:media|frames)")
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}


class Tickets:
    """Names of a video's pictures that a browser's player may read without a header, for some hours.

    secret: of several servers that are to take each other's tickets; else one of its own.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)

    def make(self, owner: str, video_id: str) -> str:
        """Return a ticket for one video of one key."""
        until = int(time.time()) + TICKET_S
        return f"{owner}.{until}.{self._sign(owner, video_id, until)}"

    def owner(self, ticket: str, video_id: str) -> str | None:
        """Return whose ticket it is, if it is good for this video and now."""
        owner, _, rest = ticket.partition(".")
        until, _, signature = rest.partition(".")
        if not re.fullmatch(r"[0-9]{1,12}", until) or int(until) < time.time():
            return None
        expected = self._sign(owner, video_id, int(until))
        return owner if hmac.compare_digest(signature.encode(), expected.encode()) else None

    def _sign(self, owner: str, video_id: str, until: int) -> str:
        return hmac.new(self._secret, f"{owner}\n{video_id}\n{until}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """Stands in front of the application: names, keys, sizes, times; then counts what came of it."""

    def __init__(self, app: App, settings: ServeSettings, keys: KeyRing, tickets: Tickets, metrics: Metrics) -> None:
        self.app, self.settings, self.keys = app, settings, keys
        self.tickets, self.metrics = tickets, metrics
        self.held_bytes = 0
        self.hosts = {*LOOPBACK_NAMES, settings.host.lower(), *(name.lower() for name in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a websocket that is never accepted is closed
        status, held = [0], [0]

        async def counted(message: MessageOf) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                known = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in _HEADERS.items() if name not in known]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            scope.setdefault("state", {})["owner"] = self._owner(scope)
            await self.app(scope, await self._limited(scope, receive, held), counted)
        except ApiError as error:
            if status[0]:
                raise
            await _refuse(error, counted)
        finally:
            self.held_bytes -= held[0]
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(route, str(status[0])).inc()

    def _owner(self, scope: Scope) -> str:
        """Say whose request it is.

        Raises: ApiError 401 or 403.
        """
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self.keys.entries is None:
            self._check_names(headers)
        path = str(scope["path"])
        if scope["method"] in ("GET", "HEAD") and (path in OPEN_PATHS or path.startswith(OPEN_FOLDER)):
            return ""
        owner = self.keys.owner(headers.get("authorization"))
        if owner is None and scope["method"] in ("GET", "HEAD"):
            owner = self._ticket_owner(path, scope["query_string"])
        if owner is None:
            raise ApiError(
                401, "Incorrect API key provided; expected Authorization: Bearer KEY.", code="invalid_api_key"
            )
        if path == "/metrics" and self.keys.entries is not None and owner != self.settings.metrics_key:
            raise ApiError(403, "This key may not read the metrics of all keys; see --metrics-key.", code="forbidden")
        return owner

    def _ticket_owner(self, path: str, query: bytes) -> str | None:
        found = _MEDIA.fullmatch(path)
        given = parse_qs(query.decode("latin-1")).get("ticket", [])
        return self.tickets.owner(given[0], found[1]) if found is not None and given else None

    def _check_names(self, headers: dict[str, str]) -> None:
        """Without keys, let no page of another site in through the user's browser.

        Raises: ApiError 403.
        """
        named = _host(f"//{headers.get('host', '')}")
        if named not in self.hosts:
            raise ApiError(403, f"The host {named!r} is not this server's; see --allow-host.", code="bad_host")
        origin = headers.get("origin")
        if origin is not None and _host(origin) not in self.hosts:
            raise ApiError(403, "The request comes from a page of another site; open this server's own.", code="origin")

    async def _limited(self, scope: Scope, receive: Receive, held: list[int]) -> Receive:
        """Return the body under its limits; all but an upload is read here, whole, and counted in `held`.

        Raises: ApiError 413, 408; 429 if the bodies of all requests take too much.
        """
        headers = dict(scope["headers"])
        is_upload = headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data")
        limits = self.settings.limits
        most = int((limits.upload_mb if is_upload else limits.json_mb) * 1e6)
        most += 1_000_000 if is_upload else 0  # what stands around the file
        promised = headers.get(b"content-length", b"0")
        if promised.isdigit() and int(promised) > most:
            raise ApiError(413, f"The body has {int(promised)} bytes; expected at most {most}.", code="size")
        body = _Body(receive, most, limits.silence_s, limits.slowest_bytes_s)
        if is_upload:
            return body
        parts = []
        while not body.is_over:
            message = await body()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "The body broke off; send it whole.", code="incomplete")
            parts.append(message.get("body", b""))
            held[0] += len(parts[-1])
            self.held_bytes += len(parts[-1])
            if self.held_bytes > limits.bodies_mb * 1e6:
                raise busy(f"The bodies of all requests take more than {limits.bodies_mb:g} MB", 2)
        return _Replay(b"".join(parts), receive)


class _Body:
    """A body that comes under limits of size and time."""

    def __init__(self, receive: Receive, max_bytes: int, silence_s: float | int, slowest_bytes_s: float | int) -> None:
        self.receive, self.max_bytes = receive, max_bytes
        self.silence_s, self.slowest_bytes_s = silence_s, slowest_bytes_s
        self.size, self.began_s, self.is_over = 0, time.monotonic(), False

    async def __call__(self) -> MessageOf:
        if self.is_over:
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), self.silence_s)
        except TimeoutError as error:
            raise ApiError(408, f"No part of the body came for {self.silence_s:g} s; send it again.") from error
        self.is_over = message["type"] != "http.request" or not message.get("more_body", False)
        self.size += len(message.get("body", b""))
        if self.size > self.max_bytes:
            raise ApiError(413, f"The body has more than {self.max_bytes} bytes; send less.", code="size")
        taken = time.monotonic() - self.began_s
        if not self.is_over and taken > self.silence_s and self.size < self.slowest_bytes_s * taken:
            raise ApiError(408, f"{self.size} bytes came in {taken:.0f} s; expected more; send it again.")
        return message


class _Replay:
    """Hands a body over that was read before, then says when the client goes."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.body: bytes | None = body
        self.receive = receive

    async def __call__(self) -> MessageOf:
        if self.body is None:
            return await self.receive()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


async def _refuse(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers().items()]
    headers.append((b"connection", b"close"))  # the rest of its body is not read
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
