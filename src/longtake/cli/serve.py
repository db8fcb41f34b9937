"""`longtake serve`: an OpenAI-compatible server over many memories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from longtake.cli.output import err, out, print_json, waiting
from longtake.core.errors import ConfigError, MissingExtraError


def run(
    settings: dict[str, Any],
    limits: Sequence[str],
    new_key: str | None,
    model: dict[str, Any],
    cluster: dict[str, Any] | None = None,
) -> None:
    """Serve until told to stop; or only make a key."""
    if new_key is not None:
        make_key(settings["keys"], new_key)
        return
    try:
        from longtake.serve.run import listen, make_server
        from longtake.serve.service import Service
        from longtake.serve.settings import Limits, ServeSettings
    except ImportError as error:
        raise MissingExtraError(
            f"serving needs {error.name}; expected it to be installed; run pip install 'longtake[serve]'"
        ) from error
    from longtake.cli.models import TINY_NOTICE, load_model, model_options

    notice = TINY_NOTICE if model["name"] is None and model["recipe"] is None else ""
    values = {"options": model_options(model), "notice": notice, "limits": Limits.from_dict(parse_limits(limits))}
    made = ServeSettings(**settings, **values)
    if notice:
        err.print(notice)
    if cluster is not None:
        run_on_ray(made, model, cluster)
        return
    listening = listen(made)
    with waiting("loading the model", quiet=False):
        loaded = load_model(**model)
    server = make_server(Service(loaded, made))
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    out.print(f"listening on http://{shown}:{port}", markup=False)
    server.run(sockets=[listening])


def run_on_ray(settings: Any, model: dict[str, Any], cluster: dict[str, Any]) -> None:
    """Serve from the workers of a cluster until told to stop."""
    import dataclasses
    from pathlib import Path

    from longtake.cli.models import loader
    from longtake.serve.ray_cluster import Cluster, connected, need_ray

    need_ray("serve")
    from longtake.serve import ray_serve

    places = {name: getattr(settings, name) for name in ("store", "keys", "local_root")}
    whole = {name: str(Path(place).absolute()) for name, place in places.items() if place is not None}
    wanted = Cluster(**cluster)
    with connected(wanted) as workers:
        with waiting("starting the servers", quiet=False):
            address = ray_serve.start(loader(model), dataclasses.replace(settings, **whole), wanted, workers)
        out.print(f"listening on {address}, {workers} servers", markup=False)
        try:
            ray_serve.wait_for_signal()
        finally:
            ray_serve.stop()


def make_key(path: str | None, name: str) -> None:
    """Make a key and show it, once.

    Raises: ConfigError without a file to note its hash in.
    """
    from longtake.serve.keys import add_key

    if path is None:
        raise ConfigError(f"a key {name} was asked for without a file; expected --keys FILE; name one")
    print_json({"name": name, "key": add_key(path, name)})


def parse_limits(limits: Sequence[str]) -> dict[str, Any]:
    """Read `name=number` texts.

    Raises: ConfigError for a text of another form.
    """
    found: dict[str, Any] = {}
    for text in limits:
        name, equals, value = text.partition("=")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--limit arrived as {text!r}; expected name=number, such as active=8") from error
        if not equals or not name:
            raise ConfigError(f"--limit arrived as {text!r}; expected name=number, such as active=8")
    return found
