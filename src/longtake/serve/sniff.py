"""Which files are let near a decoder: containers by their first bytes, so that no playlist can name other files."""

from __future__ import annotations

from typing import Literal

from longtake.core.errors import VideoError

HEAD_BYTES = 512
_PACKET, _SYNC = 188, 0x47
_EXPECTED = "MP4, MOV, Matroska, WebM, AVI, MPEG-TS, MPEG-PS, FLV, Ogg; PNG, JPEG, WebP, GIF, BMP, TIFF"


def kind_of(head: bytes) -> Literal["video", "image"]:
    """Say what a file is by its first bytes.

    Raises: VideoError for anything else: text, playlists, archives.
    """
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*")):
        return "image"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    is_box = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot")
    is_riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    starts = (b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"\x00\x00\x01\xba", b"GIF87a", b"GIF89a")
    if is_box or is_riff or head.startswith(starts) or _is_transport_stream(head):
        return "video"
    raise VideoError(
        f"a file arrived that begins with {head[:12]!r}; expected one of {_EXPECTED}; convert it, or check the file"
    )


def _is_transport_stream(head: bytes) -> bool:
    return any(
        len(head) > first + _PACKET and head[first] == _SYNC and head[first + size] == _SYNC
        for first, size in ((0, 188), (4, 192))
        if len(head) > first + size
    )
