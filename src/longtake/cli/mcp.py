"""`longtake mcp`: tools for assistants on standard input and output."""

from __future__ import annotations

from typing import Any

from longtake.cli.output import err
from longtake.core.budget import Budget
from longtake.core.errors import MissingExtraError


def run(store: str, root: str, budget: Budget, model: dict[str, Any]) -> None:
    """Serve until standard input ends; nothing but the protocol is written to standard output."""
    try:
        from longtake.serve.service import Service
        from longtake.serve.settings import Limits, ServeSettings
        from longtake.serve.tools import build_tools
    except ImportError as error:
        raise MissingExtraError(
            f"tools for assistants need {error.name}; expected it to be installed; run pip install 'longtake[mcp]'"
        ) from error
    from longtake.cli.models import TINY_NOTICE, load_model, model_options

    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    limits = Limits(max_frames=budget.max_frames, max_tokens=budget.max_new_tokens)
    settings = ServeSettings(store=store, local_root=root, options=model_options(model), limits=limits)
    service = Service(load_model(**model), settings)
    try:
        build_tools(service).run("stdio")
    finally:
        service.close()
