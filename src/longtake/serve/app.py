"""The application: routes, errors in one form, and the guard in front."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from longtake._version import __version__
from longtake.core.errors import LongtakeError
from longtake.serve.errors import ApiError, as_api_error
from longtake.serve.guard import Guard
from longtake.serve.routes_openai import router as openai_router
from longtake.serve.routes_page import router as page_router
from longtake.serve.routes_videos import from_validation
from longtake.serve.routes_videos import router as videos_router
from longtake.serve.service import Service
from longtake.serve.web import service_of

logger = logging.getLogger("longtake.serve")


def build_api(service: Service) -> FastAPI:
    """Return the application without its guard; when it ends, what is under way is finished."""

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    api = FastAPI(title="longtake", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    api.state.service = service
    api.include_router(openai_router)
    api.include_router(videos_router)
    api.include_router(page_router)
    api.add_api_route("/health", health, methods=["GET"])
    api.add_api_route("/metrics", metrics, methods=["GET"], response_class=PlainTextResponse)
    for kind in (LongtakeError, ApiError, OSError, Exception):
        api.add_exception_handler(kind, _told)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    return api


def build_app(service: Service) -> Guard:
    """Return the application with its guard."""
    api: Any = build_api(service)
    return Guard(api, service.settings, service.keys, service.tickets, service.metrics)


async def health(request: Request) -> dict[str, Any]:
    """Say that the server is up, which model it serves, and what is to be known of that model."""
    settings = service_of(request).settings
    return {"status": "ok", "model": settings.model_name, "version": __version__, "notice": settings.notice}


async def metrics(request: Request) -> PlainTextResponse:
    """Return the counters in Prometheus's form."""
    return PlainTextResponse(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4")


async def _told(request: Request, error: Exception) -> JSONResponse:
    told = as_api_error(error)
    if told.code == "internal_error":
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse(told.body(), status_code=told.status, headers=told.headers())


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return await _told(request, from_validation(error.errors()))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:100]}: {error.detail}."
    told = ApiError(error.status_code, message, code="not_found" if error.status_code == 404 else "bad_request")
    return JSONResponse(told.body(), status_code=told.status, headers={**told.headers(), **(error.headers or {})})
