"""What does not get in: other machines' addresses, other folders' files, playlists, too much, too slowly."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from longtake.core.errors import ConfigError, VideoError
from longtake.models.loaded import LoadedModel
from longtake.serve.errors import ApiError
from longtake.serve.keys import KeyRing, add_key, hash_key
from longtake.serve.local import open_below
from longtake.serve.remote import Fetcher, is_allowed, is_public
from longtake.serve.settings import Limits, ServeSettings
from longtake.serve.sniff import kind_of
from tests.serve.conftest import Live, serving

PUBLIC = "93.184.216.34"
PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "fec0::1",
    "fe80::1%eth0",
    "2001:db8::1",
    "localhost",
    "2130706433",
    "0x7f.1",
]
ADDRESSES = [
    "http://example.org.evil.test/a",
    "http://evil.test/a",
    "http://user:pass@example.org/a",
    "http://@example.org/a",
    "ftp://example.org/a",
    "gopher://example.org/",
    "file:///etc/passwd",
    "http:///a",
    "http://example.org:22/a",
    "https://example.org:80/a",
    "http://example.org\\@evil.test/",
    "http://[::1]/a",
    "http://127.0.0.1/a",
    "http://2130706433/a",
    "http://0x7f.0.0.1/a",
    "http://localhost/a",
    "http://example.org:99999/a",
    "http://exa%6dple.org/a",
    "http://example。org/a",
    "http://example.org%00.evil.test/",
    "http://[::ffff:127.0.0.1]/",
    "jar:http://example.org!/",
    "http://example.org\t/a",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_other_networks_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "2002:808:808::"])
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(address)


def test_the_list_of_hosts_is_exact() -> None:
    allowed = ("example.org", "*.films.test")
    assert all(is_allowed(host, allowed) for host in ("example.org", "EXAMPLE.org.", "a.films.test", "a.b.films.test"))
    assert not any(is_allowed(host, allowed) for host in ("films.test", "xexample.org", "a.example.org", "filmsXtest"))
    assert is_allowed("anything", ("*",)) and not is_allowed("anything", ())


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path
        moves = {
            "/inside": "http://inside.test/a",
            "/metadata": "http://169.254.169.254/a",
            "/file": "file:///etc/hosts",
        }
        if path in moves or path == "/loop":
            self.send_response(302)
            self.send_header("Location", moves.get(path, "/loop"))
            self.end_headers()
            return
        self.send_response(200)
        if path == "/promise":
            self.send_header("Content-Length", "5000")
        self.end_headers()
        for _ in range(20 if path == "/slow" else 1):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(b"x" * (2000 if path == "/large" else 10))
                self.wfile.flush()
            time.sleep(0.1 if path == "/slow" else 0)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def pages() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


def fetcher(port: int, allowed: tuple[str, ...] = ("example.org", "inside.test", "169.254.169.254")) -> Fetcher:
    """Return one to which our pages look like a machine of the open internet."""
    connected: list[str] = []

    def connect(address: str, _port: int, timeout_s: float) -> socket.socket:
        connected.append(address)
        assert address == PUBLIC, "it connects to what was checked"
        return socket.create_connection(("127.0.0.1", port), timeout_s)

    def resolve(host: str, _port: int) -> list[str]:
        return {"example.org": [PUBLIC], "inside.test": [PUBLIC, "10.0.0.7"]}.get(host, [host])

    return Fetcher(allowed, 1000, 0.5, resolve, connect)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_leads_elsewhere(pages: int, address: str) -> None:
    with pytest.raises(ApiError) as caught:
        fetcher(pages).fetch(address, io.BytesIO())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "path, why",
    [
        ("inside", "not public"),
        ("metadata", "not public"),
        ("file", "no plain"),
        ("loop", "redirected more"),
        ("large", "more than 1000 bytes"),
        ("promise", "has 5000 bytes"),
        ("slow", "goes on"),
    ],
)
def test_neither_redirects_nor_replies_lead_elsewhere(pages: int, path: str, why: str) -> None:
    with pytest.raises(ApiError, match=why):
        fetcher(pages).fetch(f"http://example.org/{path}", io.BytesIO())


def test_an_allowed_address_is_fetched_and_none_is_without_a_list(pages: int) -> None:
    file = io.BytesIO()
    fetcher(pages).fetch("http://example.org/film?x=1", file)
    assert file.getvalue() == b"x" * 10
    with pytest.raises(ApiError, match="off") as caught:
        fetcher(pages, ()).fetch("http://example.org/film", io.BytesIO())
    assert caught.value.status == 403


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("base")
    (base / "outside.mp4").write_bytes(b"secret")
    (base / "root-too").mkdir()
    (base / "root-too" / "a.mp4").write_bytes(b"secret")
    inner = base / "root" / "films"
    inner.mkdir(parents=True)
    (inner / "a b.mp4").write_bytes(b"film")
    (inner / "link.mp4").symlink_to(base / "outside.mp4")
    (base / "root" / "way").symlink_to(base)
    (base / "root" / "same").symlink_to(inner)
    os.mkfifo(inner / "pipe")
    return base / "root"


@pytest.mark.parametrize(
    "path",
    [
        "../outside.mp4",
        "films/../../outside.mp4",
        "films/link.mp4",
        "way/outside.mp4",
        "same/a%20b.mp4",
        "/etc/passwd",
        "/root",
        "{root}/../outside.mp4",
        "{root}-too/a.mp4",
        "file:///etc/passwd",
        "file:{root}/../outside.mp4",
        "file://host/a.mp4",
        "file:../outside.mp4",
        "file:%2e%2e/outside.mp4",
        "films",
        "films/",
        "films/pipe",
        "films/missing.mp4",
        ".",
        "..",
        "/",
        "//",
        "~",
        "~root",
        "films/a%00.mp4",
        "..\\outside.mp4",
        "/proc/self/environ",
        "/dev/zero",
        "{root}",
        "{root}/",
        "file:",
        "file:%00",
    ],
)
def test_no_path_leaves_the_root(root: Path, path: str) -> None:
    with pytest.raises(ApiError) as caught:
        open_below(str(root), path.format(root=root)).close()
    assert caught.value.status == 400 and "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["films/a b.mp4", "{root}/films/a b.mp4", "file:{root}/films/a%20b.mp4"])
def test_a_file_below_the_root_is_read(root: Path, path: str) -> None:
    with open_below(str(root), path.format(root=root)) as file:
        assert file.read() == b"film"
    with pytest.raises(ApiError, match="off"):
        open_below(None, path)


@pytest.mark.parametrize(
    "head",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
        b'<?xml version="1.0"?><MPD></MPD>',
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"",
        b"GIF8",
    ],
)
def test_no_playlist_or_archive_comes_near_a_decoder(head: bytes) -> None:
    with pytest.raises(VideoError, match="expected one of"):
        kind_of(head)


def test_keys_are_kept_as_hashes_and_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    one, two = add_key(path, "one"), add_key(path, "two")
    assert path.stat().st_mode & 0o077 == 0
    text = path.read_text()
    assert one not in text and hash_key(one) in text
    ring = KeyRing.read(str(path))
    assert [ring.owner(f"Bearer {key}") for key in (one, two, one + "x", "")] == ["one", "two", None, None]
    assert ring.owner(one) is None and ring.owner(None) is None and ring.owner(f"Basic {one}") is None
    with pytest.raises(ConfigError, match="already"):
        add_key(path, "one")
    with pytest.raises(ConfigError, match="expected 1 to 64"):
        add_key(path, "../one")
    with pytest.raises(ConfigError, match="line 3"):
        path.write_text(text + "three nothash\n")
        KeyRing.read(str(path))


def test_only_loopback_goes_without_keys() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        assert ServeSettings(store="x", host=host).is_loopback
    for host in ("0.0.0.0", "192.168.1.2", "example.org", "::"):
        with pytest.raises(ConfigError, match="--add-key"):
            ServeSettings(store="x", host=host)
    for values in ({"active": 0}, {"upload_mb": -1}, {"answer_s": float("inf")}, {"pixels": True}):
        with pytest.raises(ConfigError, match="expected a positive"):
            Limits(**values)  # pyright: ignore[reportArgumentType]


def test_a_page_of_another_site_does_not_get_in(live: Live) -> None:
    with live.http() as http:
        assert http.get("/v1/videos").status_code == 200
        assert http.get("/v1/videos", headers={"Host": "evil.test"}).status_code == 403
        for origin in ("http://evil.test", "null", f"http://localhost.evil.test:{live.port}"):
            assert http.get("/v1/videos", headers={"Origin": origin}).status_code == 403
        assert http.get("/v1/videos", headers={"Origin": live.url}).status_code == 200


def raw(port: int, data: bytes, *, then: bytes = b"", pause_s: float = 0.0, times: int = 0) -> bytes:
    """Send bytes, more of them in small pieces, and return all that comes back until the end."""
    with socket.create_connection(("127.0.0.1", port), 20) as talking:
        received = b""
        try:
            talking.sendall(data)
            for _ in range(times):
                talking.sendall(then)
                time.sleep(pause_s)
            while part := talking.recv(65536):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            return received
        return received


def test_slow_clients_are_let_go_and_large_bodies_refused(model: LoadedModel, tmp_path: Path) -> None:
    limits = {"headers_s": 0.4, "silence_s": 0.4, "json_mb": 0.01, "upload_mb": 0.02, "slowest_bytes_s": 100_000}
    with serving(model, tmp_path, limits=limits) as live, live.http() as http:
        host = b"Host: localhost\r\n"
        began = time.monotonic()
        assert raw(live.port, b"") == b"" and raw(live.port, b"GET / HT") == b""
        trickled = raw(live.port, b"GET / HTTP/1.1\r\nX: ", then=b"y", pause_s=0.1, times=30)
        assert trickled == b"" and time.monotonic() - began < 20
        form = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9999\r\n"
        post = b"POST /v1/files HTTP/1.1\r\n" + form + host
        assert b" 408 " in raw(live.port, post + b"\r\n--x\r\n")
        dripped = raw(live.port, post + b"\r\n", then=b"--x\r\nContent-D", pause_s=0.1, times=12)
        assert b" 408 " in dripped or dripped == b""
        assert b" 400 " in raw(live.port, b"\x16\x03\x01 nonsense\r\n\r\n")
        assert http.post("/v1/chat/completions", content=b"[" * 20_000).status_code == 413
        assert http.post("/v1/files", files={"file": b"x" * 1_100_000}).status_code == 413
        too_much = http.post("/v1/files", files={"file": b"\x1aE\xdf\xa3" + b"x" * 30_000}, data={"purpose": "x"})
        assert too_much.status_code == 413 and "limit of an upload" in too_much.text
        assert http.get("/health").json()["status"] == "ok"
        assert not list((tmp_path / "local" / "incoming").iterdir())
