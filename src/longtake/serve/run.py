"""Listen: the application under uvicorn, until it is told to stop."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn

from longtake.core.errors import ConfigError
from longtake.serve.app import build_app
from longtake.serve.protocol import patient
from longtake.serve.service import Service
from longtake.serve.settings import ServeSettings

KEEP_ALIVE_S = 15
BACKLOG = 128


def listen(settings: ServeSettings) -> socket.socket:
    """Open the server's socket.

    Raises: ConfigError if the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror or error}); expected a free "
            "address; choose another --port or --host"
        ) from error


def make_server(service: Service) -> uvicorn.Server:
    """Return a server that is not running yet."""
    limits = service.settings.limits
    app: Any = build_app(service)
    config = uvicorn.Config(
        app,
        http=patient(limits.headers_s),
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(limits.grace_s) + 1,
        limit_concurrency=limits.connections,
        log_level="warning",
    )
    return uvicorn.Server(config)
