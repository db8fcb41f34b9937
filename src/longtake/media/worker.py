"""The decoder's own process: it may hang or crash without taking the caller with it.

Requests are lines of JSON on standard input; replies are a JSON line that says how many raw bytes follow. Nothing is
ever unpickled. Between replies it says now and then that it is alive: a slow decoder is not a stuck one.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, BinaryIO

import numpy as np

from longtake.core.errors import LongtakeError
from longtake.media.backends import decoder
from longtake.media.images import open_picture
from longtake.media.scan import Scan

ALIVE_EVERY_S = 0.5


def send(out: BinaryIO, head: dict[str, Any], payload: bytes = b"") -> None:
    """Write one message."""
    out.write(json.dumps(head | {"bytes": len(payload)}).encode() + b"\n")
    out.write(payload)
    out.flush()


class Pulse:
    """Tells the caller that there is progress, not more often than every ALIVE_EVERY_S."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.next_s = time.monotonic() + ALIVE_EVERY_S

    def __call__(self) -> None:
        """Take a sign of life."""
        now = time.monotonic()
        if now >= self.next_s:
            self.next_s = now + ALIVE_EVERY_S
            send(self.out, {"kind": "alive"})


def answer(request: dict[str, Any], tables: dict[tuple[str, str], Scan], out: BinaryIO) -> None:
    """Carry out one request."""
    if request["kind"] == "still":
        pixels = open_picture(request["path"]).pixels
        send(out, {"kind": "still", "shape": pixels.shape}, pixels.tobytes())
        return
    backend, path, alive = request["backend"], request["path"], Pulse(out)
    if (backend, path) not in tables:
        tables[backend, path] = decoder(backend).scan(path, alive)
    table = tables[backend, path]
    if request["kind"] == "scan":
        head, payload = table.to_message()
        send(out, {"kind": "scan"} | head, payload)
        return
    size = None if request["size"] is None else (request["size"][0], request["size"][1])
    indices = np.array(request["indices"], dtype=np.int64)
    for picture in decoder(backend).pictures(path, table, indices, size, exact=request["exact"], alive=alive):
        shape, num_lost = picture.pixels.shape, picture.num_lost_packets
        head = {"kind": "picture", "shape": shape, "is_damaged": picture.is_damaged, "num_lost_packets": num_lost}
        send(out, head, picture.pixels.tobytes())
    send(out, {"kind": "end"})


def main() -> None:
    """Serve requests until standard input ends."""
    out = sys.stdout.buffer
    tables: dict[tuple[str, str], Scan] = {}
    for line in sys.stdin.buffer:
        try:
            answer(json.loads(line), tables, out)
        except BrokenPipeError:
            return  # the caller has gone
        except LongtakeError as error:
            send(out, {"kind": "error", "type": type(error).__name__, "message": str(error)})
        except MemoryError:
            message = "the decoder ran out of memory; expected frames that fit its limit; make the pictures smaller"
            send(out, {"kind": "error", "type": "VideoError", "message": message})


if __name__ == "__main__":
    main()
