"""Fetch a video from another machine, without being led to one that only this machine should reach."""

from __future__ import annotations

import dataclasses
import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable
from urllib.parse import SplitResult, urljoin, urlsplit

from longtake.serve.errors import ApiError

BLOCK_BYTES = 1 << 20
MAX_REDIRECTS = 5
SILENCE_S = 20.0
PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Special networks that some Pythons count as global.
_SPECIAL = [
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "100.64.0.0/10", "64:ff9b:1::/48", "100::/64", "5f00::/16")
]
_REDIRECTS = (301, 302, 303, 307, 308)


@runtime_checkable
class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take some."""
        ...


Resolve = Callable[[str, int], list[str]]
Connect = Callable[[str, int, float], socket.socket]


def refuse(address: str, why: str) -> ApiError:
    """Say why an address is not fetched."""
    return ApiError(400, f"{address[:200]} {why}; expected an address that this server may fetch.", code="bad_url")


def resolve(host: str, port: int) -> list[str]:
    """Return all addresses of a host."""
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})


def connect(address: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to an address of digits."""
    return socket.create_connection((address, port), timeout=timeout_s)


def is_public(address: str) -> bool:
    """Say whether an address of digits is one of the open internet, looking into those that carry another."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        carried = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if carried is None and found in _NAT64:
            carried = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if carried is not None:
            return is_public(str(carried))
        if found.is_site_local or int(found) >> 32 == 0:  # the last: IPv4 written as ::a.b.c.d
            return False
    if any(found.version == special.version and found in special for special in _SPECIAL):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """Say whether a host is on the list: by name, below a `*.name`, or because `*` is on it."""
    host = host.lower().rstrip(".")
    return any(
        name == "*" or host == name.lower() or (name.startswith("*.") and host.endswith(name[1:].lower()))
        for name in allowed
    )


@dataclasses.dataclass(frozen=True)
class Fetcher:
    """Fetches addresses; the connection goes to the very address that was checked, at every redirect anew."""

    allowed: tuple[str, ...]
    max_bytes: int
    time_s: float | int
    resolve: Resolve = resolve
    connect: Connect = connect

    def fetch(self, address: str, file: Sink) -> None:
        """Write what an address holds to a file.

        Raises: ApiError if remote addresses are off, it is not allowed, or it gives too much or takes too long.
        """
        if not self.allowed:
            raise ApiError(403, "Remote addresses are off; expected an upload; --remote-host turns them on.")
        deadline, here = time.monotonic() + self.time_s, address
        for _ in range(MAX_REDIRECTS + 1):
            parts, port = self._check(here)
            try:
                onward = self._read(parts, port, here, file, deadline)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise refuse(here, f"could not be fetched ({type(error).__name__})") from error
            if onward is None:
                return
            here = urljoin(here, onward)
        raise refuse(address, f"was redirected more than {MAX_REDIRECTS} times")

    def _check(self, address: str) -> tuple[SplitResult, int]:
        if any(ord(letter) < 33 or letter == "\\" or ord(letter) > 126 for letter in address):
            raise refuse(ascii(address), "holds letters that no address has")
        try:
            parts = urlsplit(address)
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise refuse(address, f"is no address ({error})") from error
        if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
            raise refuse(address, "is no plain http(s) address")
        if port != PORTS[parts.scheme]:
            raise refuse(address, f"names port {port}")
        if not is_allowed(parts.hostname, self.allowed):
            raise refuse(address, f"is on {parts.hostname}, which is not on the server's list")
        return parts, port

    def _address(self, parts: SplitResult, port: int, address: str) -> str:
        """Return the address of digits to connect to; one that is not public among them refuses the host."""
        found = self.resolve(str(parts.hostname), port)
        if not found or not all(is_public(each) for each in found):
            raise refuse(address, "leads into a network that is not public")
        return found[0]

    def _read(self, parts: SplitResult, port: int, address: str, file: Sink, deadline: float) -> str | None:
        """Write the reply's body, or return where it sends us."""
        host = str(parts.hostname)
        plain = self.connect(self._address(parts, port, address), port, SILENCE_S)
        with plain:
            plain.settimeout(SILENCE_S)
            secure = parts.scheme == "https"
            talking = http.client.HTTPConnection(host, port)
            talking.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            talking.request("GET", target, headers={"Host": parts.netloc, "Accept-Encoding": "identity"})
            reply = talking.getresponse()
            with reply:
                if reply.status in _REDIRECTS:
                    return reply.getheader("Location") or ""
                if reply.status != 200:
                    raise refuse(address, f"answered {reply.status}")
                self._copy(reply, address, file, deadline)
        return None

    def _copy(self, reply: http.client.HTTPResponse, address: str, file: Sink, deadline: float) -> None:
        promised, size = int(reply.getheader("Content-Length") or 0), 0
        if promised > self.max_bytes:
            raise refuse(address, f"has {promised} bytes, the limit is {self.max_bytes}")
        while block := reply.read1(BLOCK_BYTES):
            size += len(block)
            if size > self.max_bytes:
                raise refuse(address, f"has more than {self.max_bytes} bytes, the limit")
            if time.monotonic() > deadline:
                raise refuse(address, f"gave {size} bytes in {self.time_s:g} s and goes on")
            file.write(block)
        if size < promised:
            raise refuse(address, f"broke off after {size} of {promised} bytes")
