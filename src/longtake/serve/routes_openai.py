"""OpenAI's part of the interface: chat completions, models, files."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from longtake.serve.errors import ApiError, as_api_error
from longtake.serve.jobs import Done, Event, Piece, first_of, whole
from longtake.serve.messages import Conversation, conversation_of
from longtake.serve.reading import Asked, Reading
from longtake.serve.resident import Medium
from longtake.serve.schemas import ChatRequest
from longtake.serve.service import Service
from longtake.serve.sniff import kind_of
from longtake.serve.uploads import Form, bad_form
from longtake.serve.views import evidence_view, file_view, server_event, usage_view
from longtake.serve.web import (
    NO_CACHE,
    STREAM_HEADERS,
    owner_of,
    service_of,
    space_of,
    ticket_of,
    until_gone,
)

router = APIRouter(prefix="/v1")
MAX_PURPOSE = 64
UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "maxLength": MAX_PURPOSE},
                    },
                }
            }
        },
    }
}


def asked_of(
    body: ChatRequest, conversation: Conversation, media: tuple[Medium, ...], owner: str, service: Service
) -> Asked:
    """Return the question of a chat.

    Raises: ApiError 400 for options that contradict each other or ask for too much.
    """
    most = service.settings.limits.max_tokens
    wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if wanted is not None and wanted > most:
        message = f"max_tokens is {wanted}; expected at most {most}; lower it."
        raise ApiError(400, message, code="invalid_value", param="max_tokens")
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Asked(
        owner=owner,
        media=media,
        question=conversation.question,
        later=conversation.later,
        max_tokens=most if wanted is None else wanted,
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=stops,
        tokens_per_frame=body.longtake.tokens_per_frame,
        frames_kept=body.longtake.frames_kept,
    )


@router.post("/chat/completions", responses={400: {}, 401: {}, 404: {}, 422: {}, 429: {}}, response_model=None)
async def chat(request: Request, body: ChatRequest) -> Response:
    """Continue a conversation about pictures and videos."""
    service, owner = service_of(request), owner_of(request)
    if (name := body.unsupported()) is not None:
        raise ApiError(400, f"{name} asks for what this server has not.", code="unsupported_parameter", param=name)
    check_model(service, body.model)
    conversation = conversation_of(body.messages)
    if len(conversation.media) > service.settings.limits.pictures:
        message = f"{len(conversation.media)} media; expected at most {service.settings.limits.pictures}; show fewer."
        raise ApiError(400, message, code="invalid_value", param="messages")
    wish = service.wish(body.longtake.max_frames, None, None)
    stack = contextlib.AsyncExitStack()
    try:
        media = tuple(
            [await until_gone(request, service.medium(owner, named, wish, stack)) for named in conversation.media]
        )
        asked = asked_of(body, conversation, media, owner, service)
        events = service.events(asked)
        writing = _Chat(service.settings.model_name, media, functools.partial(_ticket, request))
        if not body.stream:
            return JSONResponse(writing.whole(*await until_gone(request, whole(events))), headers=NO_CACHE)
        stack.push_async_callback(_aclose, events)
        reading = await until_gone(request, first_of(events))
        is_counted = body.stream_options is not None and body.stream_options.include_usage is True
        lines = writing.stream(reading, events, stack.pop_all(), is_counted=is_counted)
        return StreamingResponse(lines, media_type="text/event-stream", headers=STREAM_HEADERS)
    finally:
        await stack.aclose()


async def _aclose(events: AsyncIterator[Event]) -> None:
    if isinstance(events, AsyncGenerator):
        await events.aclose()


def _ticket(request: Request, video_id: str) -> str:
    return ticket_of(request, video_id)


def check_model(service: Service, name: str) -> None:
    """Refuse a model that is not served.

    Raises: ApiError 404.
    """
    if name != service.settings.model_name:
        message = f"The model {name[:100]!r} does not exist; expected {service.settings.model_name!r}."
        raise ApiError(404, message, code="model_not_found", param="model")


class _Chat:
    """Writes one completion, whole or in pieces."""

    def __init__(self, model: str, media: tuple[Medium, ...], ticket: Callable[[str], str]) -> None:
        self.media, self.ticket = media, ticket
        self.head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def _longtake(self, reading: Reading) -> dict[str, Any]:
        videos = [medium.identity for medium in self.media if medium.kind == "video"]
        ticket = self.ticket(videos[0]) if len(videos) == 1 else ""
        return evidence_view(reading, self.media, ticket) | {"videos": videos}

    def whole(self, reading: Reading, text: str, done: Done) -> dict[str, Any]:
        """Return the completion."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": done.reason}
        return self.head | {
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_view(reading, done),
            "longtake": self._longtake(reading),
        }

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self.head | {"object": "chat.completion.chunk", "choices": [choice]}

    async def stream(
        self, reading: Reading, events: AsyncIterator[Event], stack: contextlib.AsyncExitStack, *, is_counted: bool
    ) -> AsyncIterator[bytes]:
        """Yield the completion in pieces; the first one tells the evidence."""
        async with stack:
            first = self._chunk({"role": "assistant", "content": ""}) | {"longtake": self._longtake(reading)}
            yield server_event(first)
            try:
                async for event in events:
                    if isinstance(event, Piece):
                        yield server_event(self._chunk({"content": event.text}))
                    elif isinstance(event, Done):
                        yield server_event(self._chunk({}, event.reason))
                        if is_counted:
                            last = self._chunk({}) | {"choices": [], "usage": usage_view(reading, event)}
                            yield server_event(last)
            except Exception as error:  # noqa: BLE001 (the status is sent: the error is told in the stream)
                yield server_event(as_api_error(error).body())
            yield server_event("[DONE]")


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """List the model."""
    return {"object": "list", "data": [_model(service_of(request))]}


@router.get("/models/{name}", responses={404: {}})
async def model(request: Request, name: str) -> dict[str, Any]:
    """Show the model."""
    check_model(service_of(request), name)
    return _model(service_of(request))


def _model(service: Service) -> dict[str, Any]:
    name, since = service.settings.model_name, service.began
    context = service.model.config.context_length
    return {"id": name, "object": "model", "created": since, "owned_by": "longtake", "context_length": context}


@router.post("/files", openapi_extra=UPLOAD_BODY, responses={400: {}, 413: {}, 422: {}})
async def upload(request: Request) -> dict[str, Any]:
    """Keep a video or picture, to be named in questions."""
    space = space_of(request)
    with space.incoming() as incoming:
        form = Form(request.headers.get("content-type", ""), incoming, frozenset({"purpose"}))
        await form.read(request.stream())
        purpose = form.fields.get("purpose", "")
        if not 0 < len(purpose) <= MAX_PURPOSE:
            raise bad_form("says no purpose, or too long a one", "purpose")
        kind = kind_of(incoming.head)
        return file_view(await asyncio.to_thread(space.keep_file, incoming, form.filename or "", purpose, kind))


@router.get("/files")
async def files(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    purpose: str | None = None,
    order: str | None = None,
    after: str | None = None,
) -> dict[str, Any]:
    """List the files of this key."""
    found = [file for file in await asyncio.to_thread(space_of(request).files) if purpose in (None, file.purpose)]
    found = found[::-1] if order == "asc" else found
    names = [file.id for file in found]
    found = found[names.index(after) + 1 :] if after in names else found
    page = [file_view(file) for file in found[:limit]]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, "has_more": len(found) > limit} | ends


@router.get("/files/{file_id}", responses={404: {}})
async def file(request: Request, file_id: str) -> dict[str, Any]:
    """Show a file."""
    return file_view(space_of(request).file(file_id))


@router.get("/files/{file_id}/content", responses={404: {}}, response_class=FileResponse)
async def content(request: Request, file_id: str) -> FileResponse:
    """Return the bytes of a file."""
    found = space_of(request).file(file_id)
    path = space_of(request).file_path(file_id)
    return FileResponse(path, media_type="application/octet-stream", filename=found.filename, headers=NO_CACHE)


@router.delete("/files/{file_id}", responses={404: {}})
async def delete_file(request: Request, file_id: str) -> dict[str, Any]:
    """Forget a file; videos made of it stay."""
    await asyncio.to_thread(space_of(request).delete_file, file_id)
    return {"id": file_id, "object": "file", "deleted": True}
