"""What the routes have in common: the request's owner, its parts, and the client that may have gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from longtake.serve.errors import ApiError
from longtake.serve.service import Service
from longtake.serve.store import Namespace

LOOK_EVERY_S = 0.1
T = TypeVar("T")
NO_CACHE = {"Cache-Control": "no-store"}
STREAM_HEADERS = NO_CACHE | {"X-Accel-Buffering": "no"}


def service_of(request: Request) -> Service:
    """Return the server's parts."""
    return request.app.state.service


def owner_of(request: Request) -> str:
    """Return whose request it is, as the guard has found."""
    return request.scope["state"]["owner"]


def space_of(request: Request) -> Namespace:
    """Return the files and videos of the request's key."""
    return service_of(request).store.of(owner_of(request))


def ticket_of(request: Request, video_id: str) -> str:
    """Return the query with which a browser may read a video's pictures; nothing where there are no keys."""
    service = service_of(request)
    if service.keys.entries is None:
        return ""
    return f"?ticket={service.tickets.make(owner_of(request), video_id)}"


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for something, unless the client goes away; it is cancelled then.

    Raises: ApiError 499, which nobody reads.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_EVERY_S)
            if not task.done() and await request.is_disconnected():
                raise ApiError(499, "The client went away.", code="gone")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
