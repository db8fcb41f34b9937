"""Which Ray cluster the work is shared out on: one that runs already, or one that is started here and ended again."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError, MissingExtraError
from longtake.models.loaded import LoadedModel

ModelLoader = Callable[[], LoadedModel]
OBJECT_STORE_BYTES = 128 << 20  # names, outcomes and parts of requests pass through it, never a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster(StrictConfig):
    """A cluster, and what each worker of ours takes of it.

    address: of a running cluster, `auto` for the one of this machine; none starts one here. workers: how many, else as
    many as there is room for. cpus, gpus: of each; a half of a GPU is shared by two.

    Raises: ConfigError for a count that is not positive.
    """

    address: str | None = None
    workers: int | None = None
    cpus: float | int = 1
    gpus: float | int = 0

    def __post_init__(self) -> None:
        if (self.workers is not None and self.workers < 1) or self.cpus < 0 or self.gpus < 0:
            raise ConfigError(
                f"{self.workers} workers of {self.cpus:g} processors and {self.gpus:g} GPUs arrived; expected at least "
                "one worker, and no negative share; raise it"
            )

    @property
    def share(self) -> dict[str, float | int]:
        """Return what one worker takes, as Ray's options."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


def need_ray(part: Literal["data", "serve"]) -> Any:
    """Import Ray and one of its libraries.

    Raises: MissingExtraError if it is not installed.
    """
    try:
        import ray

        importlib.import_module(f"ray.{part}")
    except ImportError as error:
        raise MissingExtraError(
            f"sharing work out on a cluster needs {error.name}; expected Ray; run pip install 'longtake[ray]'"
        ) from error
    return ray


@contextmanager
def connected(cluster: Cluster) -> Iterator[int]:
    """Be connected to the cluster, and yield how many workers to have; one that was started here is ended.

    A connection that this process has already is used, and left as it is. Ask `need_ray` first.

    Raises: ConfigError if the cluster cannot be reached or has too little room.
    """
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, cluster)
    try:
        yield count_workers(cluster, ray.cluster_resources())
    finally:
        if is_ours:
            ray.shutdown()


def _connect(ray: Any, cluster: Cluster) -> None:
    for name in ("ray", "ray.data", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(cluster.address or "local", **options)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            f"the cluster {cluster.address or 'of this machine'} cannot be had ({error}); expected one that `ray "
            "start` made; check --ray-address, or leave it out"
        ) from error


def count_workers(cluster: Cluster, resources: Mapping[str, float | int]) -> int:
    """Return how many workers to have in a cluster with these resources.

    Raises: ConfigError if there is room for fewer than were asked for.
    """
    shares = [resources.get(name, 0) / need for name, need in (("CPU", cluster.cpus), ("GPU", cluster.gpus)) if need]
    room = int(min(shares, default=1))
    wanted = room if cluster.workers is None else cluster.workers
    if not 1 <= wanted <= room:
        raise ConfigError(
            f"{max(wanted, 1)} workers of {cluster.cpus:g} processors and {cluster.gpus:g} GPUs were asked for; the "
            f"cluster has {resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}; lower --workers or --gpus"
        )
    return wanted
