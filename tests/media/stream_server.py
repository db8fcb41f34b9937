"""Servers of streams for tests: HTTP with or without ranges, and RTSP; both may break off in the middle."""

from __future__ import annotations

import base64
import http.server
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import av

FIRST_STAMP = 12345678  # cameras begin anywhere, but not at 0


class StreamServer(http.server.ThreadingHTTPServer):
    """Serves the files of a folder; num_cuts: so many long replies break off in the middle."""

    daemon_threads = True

    def __init__(self, folder: Path, *, has_ranges: bool, num_cuts: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.has_ranges, self.num_cuts = folder, has_ranges, num_cuts

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StreamServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        data, wanted = (self.server.folder / self.path.lstrip("/")).read_bytes(), self.headers.get("Range")
        start, end = 0, len(data)
        if wanted and self.server.has_ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else end
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.server.num_cuts and end - start > len(data) // 2:
            self.server.num_cuts -= 1
            end = start + (end - start) // 2
        try:
            self.wfile.write(data[start:end])
        except OSError:
            return  # the client has what it wanted

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, *, has_ranges: bool = True, num_cuts: int = 0) -> Iterator[StreamServer]:
    server = StreamServer(folder, has_ranges=has_ranges, num_cuts=num_cuts)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class RtspServer:
    """A camera that is asked over RTSP and sends H.264 through the same connection; each viewer sees it from the start.

    parts: how much of the film each viewer gets before the connection breaks; who comes later is refused.
    """

    def __init__(self, film: Path, parts: list[float]) -> None:
        with av.open(str(film)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size and packet.pts is not None]
            self.frames = [(packet.pts or 0, nal_units(bytes(packet))) for packet in packets]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"rtsp://127.0.0.1:{self.listener.getsockname()[1]}/camera"
        threading.Thread(target=self._serve, args=(parts,), daemon=True).start()

    def _serve(self, parts: list[float]) -> None:
        for part in parts:
            viewer, _ = self.listener.accept()
            with viewer, viewer.makefile("rb") as requests:
                while not self._answer(viewer, requests):
                    pass
                self._play(viewer, self.frames[: round(part * len(self.frames))])
        self.listener.close()

    def _answer(self, viewer: socket.socket, requests: IO[bytes]) -> bool:
        """Answer one request; say whether the film is to begin."""
        lines = []
        while line := requests.readline().strip():
            lines.append(line.decode())
        method, number = lines[0].split()[0], next(line for line in lines if line.lower().startswith("cseq"))
        heads, body = [number, "Session: 1"], ""
        if method == "DESCRIBE":
            body = self._description()
            heads += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            heads.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        else:
            heads.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        viewer.sendall("\r\n".join(["RTSP/1.0 200 OK", *heads, "", body]).encode())
        return method == "PLAY"

    def _description(self) -> str:
        parameters = [base64.b64encode(unit).decode() for unit in self.frames[0][1] if unit[0] & 31 in (7, 8)]
        lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "t=0 0", "m=video 0 RTP/AVP 96"]
        lines += ["a=rtpmap:96 H264/90000", "a=control:track"]
        lines += [f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={','.join(parameters)}"]
        return "\r\n".join([*lines, ""])

    def _play(self, viewer: socket.socket, frames: list[tuple[int, list[bytes]]]) -> None:
        """Send a packet for each unit (RFC 6184, single units), framed as RFC 2326, section 10.12, has it."""
        number = 0
        for stamp, units in frames:
            for unit in units:
                is_last = unit is units[-1]
                head = struct.pack(
                    ">BBHII", 0x80, 96 | is_last << 7, number & 0xFFFF, (stamp + FIRST_STAMP) & 0xFFFFFFFF, 1
                )
                packet, number = head + unit, number + 1
                try:
                    viewer.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                except OSError:
                    return  # the viewer has gone


def nal_units(data: bytes) -> list[bytes]:
    """Split a packet of H.264 at its start codes."""
    return [part.rstrip(b"\0") for part in data.split(b"\0\0\1") if part.strip(b"\0")]
