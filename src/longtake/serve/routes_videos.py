"""Videos: ingest them, see how far they are, ask them, see their pictures."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import ValidationError

from longtake.core.chat import PLACEHOLDER, Turn
from longtake.serve.errors import ApiError, as_api_error
from longtake.serve.jobs import Done, Event, Piece, first_of, whole
from longtake.serve.reading import Asked, Reading
from longtake.serve.resident import Medium
from longtake.serve.schemas import AskRequest, VideoRequest
from longtake.serve.store import StoredVideo
from longtake.serve.uploads import Form
from longtake.serve.views import evidence_view, server_event, usage_view, video_view
from longtake.serve.web import (
    NO_CACHE,
    STREAM_HEADERS,
    owner_of,
    service_of,
    space_of,
    ticket_of,
    until_gone,
)

router = APIRouter(prefix="/v1/videos")
FORM_FIELDS = frozenset({"name", "max_frames", "start_s", "end_s"})
_FILE = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
VIDEO_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": VideoRequest.model_json_schema()},
            "multipart/form-data": {"schema": _FILE},
        },
    }
}
TYPES = ((4, b"ftyp", "video/mp4"), (0, b"\x1aE\xdf\xa3", "video/webm"), (0, b"OggS", "video/ogg"))


def _view(request: Request, video: StoredVideo) -> dict[str, Any]:
    progress = service_of(request).ingests.progress(owner_of(request), video.id)
    return video_view(video, progress, ticket_of(request, video.id))


@router.post("", status_code=202, openapi_extra=VIDEO_BODY, responses={400: {}, 404: {}, 413: {}, 422: {}, 429: {}})
async def ingest(request: Request) -> dict[str, Any]:
    """Turn a video into a memory; the reply comes at once, and `GET /v1/videos/{id}` says how far it is."""
    service, space = service_of(request), space_of(request)
    service.ingests.check_room(space.name)
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await _ingest_form(request)
    body = _parsed(await request.body())
    wish = service.wish(body.max_frames, body.start_s, body.end_s)
    if body.file_id is not None:
        video = await asyncio.to_thread(service.begin_file, space, body.file_id, body.name, wish)
        return _view(request, video)
    address = body.url if body.url is not None else f"file:{body.path}"
    with space.incoming() as incoming:
        await until_gone(request, service.receive(address, incoming))
        incoming.file.flush()
        name = body.name or address.split("?")[0][-100:]
        name = "data" if address[:5].lower() == "data:" and not body.name else name
        video = await asyncio.to_thread(service.begin, space, incoming.path, incoming.sha256, incoming.head, name, wish)
    return _view(request, video)


def _parsed(data: bytes) -> VideoRequest:
    """Read a body that names one source.

    Raises: ApiError 400.
    """
    try:
        body = VideoRequest.model_validate_json(data)
    except ValidationError as error:
        raise from_validation(error.errors()) from error
    if sum(part is not None for part in (body.file_id, body.url, body.path)) != 1:
        raise ApiError(400, "Expected one of file_id, url and path; give one.", code="missing_required_parameter")
    return body


def from_validation(errors: Any) -> ApiError:
    """Say what is wrong with the first field that is, as OpenAI does."""
    error = errors[0]
    place = [str(part) for part in error["loc"] if part != "body"]
    name = ".".join(place) or None
    if error["type"] == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: {name!r}.", code="unknown_parameter", param=name)
    if error["type"] == "missing":
        message = f"Missing required parameter: {name!r}." if name else "The body is missing; expected JSON."
        return ApiError(400, message, code="missing_required_parameter", param=name)
    is_json = error["type"] in ("json_invalid", "model_attributes_type", "model_type")
    code = "invalid_json" if is_json else "invalid_value"
    return ApiError(400, f"{name or 'The body'} is not as expected: {error['msg']}.", code=code, param=name)


async def _ingest_form(request: Request) -> dict[str, Any]:
    service, space = service_of(request), space_of(request)
    with space.incoming() as incoming:
        form = Form(request.headers["content-type"], incoming, FORM_FIELDS)
        await form.read(request.stream())
        incoming.file.flush()
        values: dict[str, Any] = {"file_id": ""}
        for name, text in form.fields.items():
            values[name] = text if name == "name" else _number(name, text)
        body = _parsed(json.dumps(values).encode())
        wish = service.wish(body.max_frames, body.start_s, body.end_s)
        name = body.name or form.filename or ""
        video = await asyncio.to_thread(service.begin, space, incoming.path, incoming.sha256, incoming.head, name, wish)
    return _view(request, video)


def _number(name: str, text: str) -> float | int:
    try:
        value = float(text)
    except ValueError as error:
        raise ApiError(400, f"{name} is {text[:50]!r}; expected a number.", code="invalid_value", param=name) from error
    if value != value or abs(value) == float("inf"):
        raise ApiError(400, f"{name} is {text[:50]!r}; expected a number.", code="invalid_value", param=name)
    return int(value) if value.is_integer() else value


@router.get("")
async def videos(request: Request) -> dict[str, Any]:
    """List the videos of this key, newest first."""
    found = await asyncio.to_thread(space_of(request).videos)
    return {"object": "list", "data": [_view(request, video) for video in found]}


@router.get("/{video_id}", responses={404: {}})
async def video(request: Request, video_id: str) -> dict[str, Any]:
    """Show a video and how far its ingest is."""
    return _view(request, space_of(request).video(video_id))


@router.delete("/{video_id}", responses={404: {}})
async def delete(request: Request, video_id: str) -> dict[str, Any]:
    """Forget a video, its memory, and what was read of it; an ingest under way stops."""
    await asyncio.to_thread(service_of(request).delete_video, space_of(request), video_id)
    return {"id": video_id, "object": "video", "deleted": True}


@router.get("/{video_id}/frames", responses={404: {}}, response_class=Response)
async def frames(
    request: Request, video_id: str, t: Annotated[float, Query(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
) -> Response:
    """Return the small picture that the memory keeps nearest to a time; X-Time-S says when it was shown."""
    picture, time_s = await asyncio.to_thread(service_of(request).thumbnail, space_of(request), video_id, t)
    headers = {"X-Time-S": f"{time_s:.3f}", "Cache-Control": "private, max-age=3600"}
    return Response(picture, media_type="image/jpeg", headers=headers)


@router.get("/{video_id}/media", responses={206: {}, 404: {}, 416: {}}, response_class=FileResponse)
async def media(request: Request, video_id: str) -> FileResponse:
    """Return the video as it came, whole or a range of it."""
    space = space_of(request)
    space.video(video_id)
    path = space.video_folder(video_id) / "source"
    with path.open("rb") as file:
        head = file.read(16)
    kinds = (kind for place, mark, kind in TYPES if head[place:].startswith(mark))
    kind = next(kinds, "application/octet-stream")
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})


@router.post("/{video_id}/ask", responses={400: {}, 404: {}, 422: {}, 429: {}}, response_model=None)
async def ask(request: Request, video_id: str, body: AskRequest) -> Response:
    """Answer a question about a video, with the spans it rests on.

    As a stream: an event `evidence`, then `piece` for each piece of text, then `done`, or `error`.
    """
    service, space = service_of(request), space_of(request)
    medium = await until_gone(request, service.ready(space, video_id))
    asked = _asked(body, medium, owner_of(request), service.settings.limits.max_tokens)
    events, ticket = service.events(asked), ticket_of(request, video_id)
    if not body.stream:
        reading, text, done = await until_gone(request, whole(events))
        shown = {"object": "answer", "video": video_id, "answer": text, "finish_reason": done.reason}
        shown |= {"usage": usage_view(reading, done)} | evidence_view(reading, (medium,), ticket)
        return JSONResponse(shown, headers=NO_CACHE)
    reading = await until_gone(request, first_of(events))
    lines = _stream(reading, events, medium, ticket)
    return StreamingResponse(lines, media_type="text/event-stream", headers=STREAM_HEADERS)


def _asked(body: AskRequest, medium: Medium, owner: str, most: int) -> Asked:
    if body.max_tokens is not None and body.max_tokens > most:
        message = f"max_tokens is {body.max_tokens}; expected at most {most}; lower it."
        raise ApiError(400, message, code="invalid_value", param="max_tokens")
    turns = [*(Turn(turn.role, turn.text) for turn in body.history), Turn("user", body.question)]
    if turns[0].role != "user" or any(PLACEHOLDER in turn.text for turn in turns):
        message = f"The history begins with a question, and nothing in it may hold {PLACEHOLDER!r}; change it."
        raise ApiError(400, message, code="invalid_value", param="history")
    return Asked(
        owner=owner,
        media=(medium,),
        question=turns[0].text,
        later=tuple(turns[1:]),
        max_tokens=most if body.max_tokens is None else body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        tokens_per_frame=body.tokens_per_frame,
        frames_kept=body.frames_kept,
    )


async def _stream(reading: Reading, events: AsyncIterator[Event], medium: Medium, ticket: str) -> AsyncIterator[bytes]:
    text: list[str] = []
    async with contextlib.aclosing(events):  # pyright: ignore[reportArgumentType]
        yield server_event(evidence_view(reading, (medium,), ticket), "evidence")
        try:
            async for event in events:
                if isinstance(event, Piece):
                    text.append(event.text)
                    yield server_event({"text": event.text}, "piece")
                elif isinstance(event, Done):
                    shown = {"answer": "".join(text).strip(), "finish_reason": event.reason}
                    yield server_event(shown | {"usage": usage_view(reading, event)}, "done")
        except Exception as error:  # noqa: BLE001 (the status is sent: the error is told in the stream)
            yield server_event(as_api_error(error).body(), "error")
