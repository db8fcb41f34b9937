"""The decoder's own process: it may hang or crash without taking the caller with it.

Run as `python -m longtake.media.worker`. Requests are lines of JSON on standard input; replies are a JSON line that
says how many raw bytes follow. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import sys
from typing import Any, BinaryIO

import numpy as np

from longtake.core.errors import LongtakeError
from longtake.media.backends import decoder
from longtake.media.scan import Scan


def send(out: BinaryIO, head: dict[str, Any], payload: bytes = b"") -> None:
    """Write one message."""
    out.write(json.dumps(head | {"bytes": len(payload)}).encode() + b"\n")
    out.write(payload)
    out.flush()


def answer(request: dict[str, Any], tables: dict[tuple[str, str], Scan], out: BinaryIO) -> None:
    """Carry out one request."""
    backend, path = request["backend"], request["path"]
    if (backend, path) not in tables:
        tables[backend, path] = decoder(backend).scan(path)
    table = tables[backend, path]
    if request["kind"] == "scan":
        head, payload = table.to_message()
        send(out, {"kind": "scan"} | head, payload)
        return
    size = None if request["size"] is None else (request["size"][0], request["size"][1])
    indices = np.array(request["indices"], dtype=np.int64)
    for picture in decoder(backend).pictures(path, table, indices, size, exact=request["exact"]):
        head = {"kind": "picture", "shape": picture.pixels.shape, "is_damaged": picture.is_damaged}
        send(out, head, picture.pixels.tobytes())
    send(out, {"kind": "end"})


def main() -> None:
    """Serve requests until standard input ends."""
    out = sys.stdout.buffer
    tables: dict[tuple[str, str], Scan] = {}
    for line in sys.stdin.buffer:
        try:
            answer(json.loads(line), tables, out)
        except LongtakeError as error:
            send(out, {"kind": "error", "type": type(error).__name__, "message": str(error)})


if __name__ == "__main__":
    main()
