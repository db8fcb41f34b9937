"""Several servers over one store on a Ray cluster; requests about a video go to the one that has its memory ready.

Each replica is the whole application of `longtake.serve.app` with a model of its own. They share nothing but the
folder of the store: whoever takes a video in ingests it, and a lock on its memory keeps the others from doing it too.
"""

from __future__ import annotations

import re
import secrets
import signal
import threading
from typing import Any, no_type_check

from ray import serve
from ray.serve.config import HTTPOptions, RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.schema import LoggingConfig

from longtake.core.errors import ConfigError
from longtake.serve.app import build_app
from longtake.serve.guard import App
from longtake.serve.ray_cluster import Cluster, ModelLoader
from longtake.serve.service import Service
from longtake.serve.settings import ServeSettings

NAME = "longtake"
HEALTH_EVERY_S = 5.0
VIDEO_PATH = re.compile(rb"/v1/videos/(video-[0-9a-f]{24})(?![0-9a-f])")


@no_type_check
def video_of(request: object) -> str | None:
    """Return the video in the path of a request; none if there is none.

    Serve's proxy hands a request on as bytes in Python's own form. The path stands in them as it is, and is looked
    for there: nothing is unpickled. A header that holds such a path could be taken for it; what that changes is which
    replica answers, not what.
    """
    found = VIDEO_PATH.search(request) if isinstance(request, bytes) else None
    return None if found is None else found[1].decode()


@no_type_check
class ByVideo(ConsistentHashRouter):
    """Chooses a replica by consistent hashing of the video's id: from the path, else from the header x-session-id.

    A request that names no video goes to any. When a replica is gone its videos move to others, and only those.
    Ray sends this class to its proxies as it stands in memory, which a run-time checker around it would prevent.
    """

    def _routing_key(self, pending_request: Any) -> str | None:
        video = video_of(pending_request.args[0]) if pending_request is not None and pending_request.args else None
        return video or super()._routing_key(pending_request)


class Replica:
    """One server. secret: with which all of them sign the tickets of players."""

    def __init__(self, load: ModelLoader, settings: ServeSettings, secret: bytes) -> None:
        self.load, self.settings, self.secret = load, settings, secret

    def __serve_build_asgi_app__(self) -> App:  # Serve asks for it by this name
        """Load the model and return the application around it."""
        return build_app(Service(self.load(), self.settings, ticket_secret=self.secret))


def deployment(load: ModelLoader, settings: ServeSettings, cluster: Cluster, replicas: int) -> Any:
    """Return the application, ready for `ray.serve.run`.

    load: makes the model, in every replica; it must be importable there.
    """
    options = serve.deployment(
        name=NAME,
        num_replicas=replicas,
        ray_actor_options=cluster.share,
        max_ongoing_requests=settings.limits.connections,
        graceful_shutdown_timeout_s=settings.limits.grace_s + 1,
        health_check_period_s=HEALTH_EVERY_S,
        request_router_config=RequestRouterConfig.model_validate(
            {"request_router_class": ByVideo, "request_router_kwargs": {"num_fallback_replicas": replicas - 1}}
        ),
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    return options(serve.ingress()(Replica)).bind(load, settings, secrets.token_bytes(32))


def start(load: ModelLoader, settings: ServeSettings, cluster: Cluster, replicas: int) -> str:
    """Start the replicas in the cluster that is connected; return the address once all are ready.

    Raises: ConfigError if the address is taken, or a replica cannot be made.
    """
    if settings.port == 0:
        raise ConfigError("port is 0, any free one; expected a number, since the cluster's proxies share it; name one")
    try:
        serve.start(
            http_options=HTTPOptions(host=settings.host, port=settings.port),
            logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
        )
        serve.run(deployment(load, settings, cluster, replicas), name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise ConfigError(
            f"the servers could not be started ({str(error).splitlines()[0]}); expected {replicas} replicas; see the "
            "logs of Ray, and try without --ray"
        ) from error
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{shown}:{settings.port}"


def wait_for_signal() -> None:
    """Return when the process is told to stop: Ctrl-C or SIGTERM."""
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    told.wait()


def stop() -> None:
    """End the replicas; what is under way in them is finished within their grace."""
    serve.delete(NAME)
    serve.shutdown()
