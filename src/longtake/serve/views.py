"""What is answered: files, videos, spans and answers as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from longtake.core.types import Span
from longtake.serve.ingests import Progress
from longtake.serve.jobs import Done
from longtake.serve.reading import Reading
from longtake.serve.resident import Medium
from longtake.serve.store import StoredFile, StoredVideo

FINISHED = {"ready": 1.0, "failed": 1.0}


def file_view(file: StoredFile) -> dict[str, Any]:
    """Show a file as OpenAI does."""
    values = file.to_dict()
    return {
        "id": values["id"],
        "object": "file",
        "bytes": values["bytes"],
        "created_at": values["created_at"],
        "filename": values["filename"],
        "purpose": values["purpose"],
        "status": "processed",
    }


def video_view(video: StoredVideo, progress: Progress | None, ticket: str) -> dict[str, Any]:
    """Show a video: how far it is, what is known of it, and where its pictures are."""
    share = FINISHED.get(video.status, 0.0)
    if progress is not None and progress.total:
        share = progress.done / progress.total
    frames = int(video.info.get("frames", 0))
    now = Progress(video.status, frames, frames) if progress is None else progress
    return {
        "id": video.id,
        "object": "video",
        "name": video.name,
        "bytes": video.bytes,
        "created_at": video.created_at,
        "status": video.status,
        "progress": {"share": share, "stage": now.stage, "frames_done": now.done, "frames": now.total},
        "error": video.error,
        "wish": dict(video.wish),
        "info": dict(video.info),
        "media_url": f"/v1/videos/{video.id}/media{ticket}",
        "frames_url": f"/v1/videos/{video.id}/frames{ticket}",
    }


def span_view(span: Span, media: Sequence[Medium], ticket: str) -> dict[str, Any]:
    """Show a span of the evidence, with the address of a picture of it where it is of a video."""
    medium = media[(span.medium or 1) - 1]
    shown: dict[str, Any] = {"start_s": span.start_s, "end_s": span.end_s, "score": span.score}
    if medium.kind == "video":
        middle = f"t={(span.start_s + span.end_s) / 2:.2f}"
        query = f"{ticket}&{middle}" if ticket else f"?{middle}"
        shown |= {"video": medium.identity, "thumbnail": f"/v1/videos/{medium.identity}/frames{query}"}
    return shown | ({} if span.medium is None else {"medium": span.medium})


def usage_view(reading: Reading, done: Done) -> dict[str, Any]:
    """Show what an answer took, as OpenAI does; cached tokens had been read for an earlier question."""
    return {
        "prompt_tokens": reading.num_prompt,
        "completion_tokens": done.num_new,
        "total_tokens": reading.num_prompt + done.num_new,
        "prompt_tokens_details": {"cached_tokens": reading.num_prompt - reading.num_read},
    }


def evidence_view(reading: Reading, media: Sequence[Medium], ticket: str) -> dict[str, Any]:
    """Show what an answer rests on."""
    return {
        "evidence": [span_view(span, media, ticket) for span in reading.evidence],
        "evidence_kind": reading.evidence_kind,
        "timeline": list(reading.timeline),
        "notes": list(reading.notes),
    }


def server_event(value: object, name: str | None = None) -> bytes:
    """Write one server-sent event."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()
