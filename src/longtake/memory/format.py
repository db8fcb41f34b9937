"""The bytes of a `*.ltm` file: a log of committed records, and what tells an interrupted write from damage.

The file begins with a preamble of 64 bytes (magic, format version). Records follow, each of three parts: a head of 64
bytes (kind, number, length, SHA-256 of the payload), the payload, filled up to 64 bytes, and a commit of 64 bytes with
a SHA-256 chained over every head so far. A record counts once its commit is there. Since the file only ever grows, a
writer that was killed leaves the beginning of a record; anything else that does not fit is damage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
from typing import NamedTuple

from longtake.core.errors import MemoryFormatError

SUFFIX = ".ltm"
MAGIC = b"\x89LTM\r\n\x1a\n"
FORMAT_VERSION = 1
BLOCK_BYTES = 64
HEAD, SEGMENT, END, COMMIT = b"HEAD", b"SEGM", b"DONE", b"CMIT"

_PREAMBLE = struct.Struct("<8sI52x")
_BLOCK = struct.Struct("<4sIQ32s16s")  # kind, number, payload length, SHA-256, check of this block
_NO_CHAIN = bytes(32)
_BLOCKS_AT_ONCE = 1 << 20


class Record(NamedTuple):
    """A committed record: what it is, where its payload lies, and the payload's SHA-256."""

    kind: bytes
    start: int
    length: int
    digest: bytes

    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return where its payload lies in the file, and where the zeros behind it do."""
        end = self.start + self.length
        return (self.start, end), (end, self.start + filled(self.length))


@dataclasses.dataclass(frozen=True)
class Log:
    """What is committed in a file.

    end: the byte behind the last commit. chain: the digest over all heads. num_torn_bytes: how many bytes behind the
    end a writer has not committed, because it is at work or was stopped.
    """

    records: tuple[Record, ...] = ()
    end: int = 0
    chain: bytes = _NO_CHAIN
    num_torn_bytes: int = 0


def preamble() -> bytes:
    """Return the first bytes of a file."""
    return _PREAMBLE.pack(MAGIC, FORMAT_VERSION)


def filled(length: int) -> int:
    """Return how many bytes a payload of `length` takes in the file."""
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def pack_block(kind: bytes, number: int, length: int, digest: bytes) -> bytes:
    """Write a block that can tell whether it was changed."""
    body = _BLOCK.pack(kind, number, length, digest, bytes(16))[:-16]
    return body + hashlib.sha256(body).digest()[:16]


def pack_record(log: Log, kind: bytes, payload: bytes) -> tuple[bytes, bytes, Log]:
    """Return the bytes of the next record, those that commit it, and the log with it."""
    number, digest = len(log.records), hashlib.sha256(payload).digest()
    head = pack_block(kind, number, len(payload), digest)
    chain = hashlib.sha256(log.chain + head).digest()
    body = head + payload.ljust(filled(len(payload)), b"\0")
    end = log.end + len(body) + BLOCK_BYTES
    record = Record(kind, log.end + BLOCK_BYTES, len(payload), digest)
    return body, pack_block(COMMIT, number, len(payload), chain), Log((*log.records, record), end, chain)


def read_log(handle: int, name: str, after: Log | None = None) -> Log:
    """Read which records are committed, from the heads alone; `after` is what was known of this file before.

    Raises: MemoryFormatError if the file is no memory, of another version, or damaged.
    """
    size = os.fstat(handle).st_size
    log = dataclasses.replace(after, num_torn_bytes=0) if after is not None else Log()
    if size < log.end:
        raise MemoryFormatError(
            f"{name} shrank from {log.end} to {size} bytes; expected it to grow only; open it again"
        )
    if log.end == 0:
        if not _has_preamble(os.pread(handle, BLOCK_BYTES, 0), name):
            return dataclasses.replace(log, num_torn_bytes=size)
        log = dataclasses.replace(log, end=BLOCK_BYTES)
    while log.end < size:
        grown = _next_record(handle, log, size, name)
        if grown is None:
            return dataclasses.replace(log, num_torn_bytes=size - log.end)
        log = grown
    return log


def check_payload(record: Record, data: bytes, filling: bytes, name: str) -> bytes:
    """Return a payload that matches its checksum, with nothing but zeros behind it.

    Raises: MemoryFormatError if it does not.
    """
    if hashlib.sha256(data).digest() != record.digest or any(filling):
        raise _damaged(name, record.start, f"{record.length} bytes do not match their checksum")
    return data


def _has_preamble(found: bytes, name: str) -> bool:
    """Say whether a file begins as it should; false where not even that much was written."""
    if found == preamble():
        return True
    if len(found) < BLOCK_BYTES and preamble().startswith(found):
        return False
    if not found.startswith(MAGIC) or len(found) < BLOCK_BYTES:
        raise MemoryFormatError(f"{name} is no memory; expected a {SUFFIX} file of `longtake ingest`; check the path")
    version = _PREAMBLE.unpack(found)[1]
    if version == FORMAT_VERSION:
        raise _damaged(name, 0, "the first block is not what every memory begins with")
    raise MemoryFormatError(
        f"{name} has format version {version}; this longtake reads version {FORMAT_VERSION}; ingest the video again "
        "with it"
    )


def _next_record(handle: int, log: Log, size: int, name: str) -> Log | None:
    """Return the log with the record behind it; none if that record was not written to its end."""
    number, at = len(log.records), log.end
    head = os.pread(handle, BLOCK_BYTES, at)
    if _is_torn(handle, head, at, size):
        return None
    kind, found, length, digest = _unpack(head, name, at)
    if found != number or kind not in (HEAD, SEGMENT, END) or (kind == HEAD) != (number == 0):
        raise _damaged(name, at, f"record {number} is missing or misplaced")
    commit_at = at + BLOCK_BYTES + filled(length)
    if commit_at > size:
        return None
    commit = os.pread(handle, BLOCK_BYTES, commit_at)
    if _is_torn(handle, commit, commit_at, size):
        return None
    chain = hashlib.sha256(log.chain + head).digest()
    if _unpack(commit, name, commit_at) != (COMMIT, number, length, chain):
        raise _damaged(name, commit_at, f"the commit of record {number} belongs to another record")
    record = Record(kind, at + BLOCK_BYTES, length, digest)
    return Log((*log.records, record), commit_at + BLOCK_BYTES, chain)


def _is_torn(handle: int, block: bytes, at: int, size: int) -> bool:
    """Say whether the file ends within this block, or holds zeros alone from it on: room that was never filled."""
    if len(block) < BLOCK_BYTES:
        return True
    while not any(block):
        at += len(block)
        if at >= size:
            return True
        block = os.pread(handle, _BLOCKS_AT_ONCE, at)
    return False


def _unpack(block: bytes, name: str, at: int) -> tuple[bytes, int, int, bytes]:
    kind, number, length, digest, _ = _BLOCK.unpack(block)
    if block != pack_block(kind, number, length, digest):
        raise _damaged(name, at, "a block does not match its checksum")
    return kind, number, length, digest


def _damaged(name: str, at: int, what: str) -> MemoryFormatError:
    return MemoryFormatError(
        f"{name} is damaged at byte {at} ({what}); expected it as it was written; copy it again, or "
        "remove it and ingest the video again"
    )
