"""longtake: turn an hour of video into a small memory once; then ask anything about it, with the proof."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from longtake._version import __version__

if TYPE_CHECKING:
    from longtake.convert.load import from_state_dict, load
    from longtake.core.budget import Budget
    from longtake.core.errors import LongtakeError
    from longtake.engine.ask import Chat, ask
    from longtake.engine.ingest import ingest
    from longtake.engine.plan import plan
    from longtake.media.video import open_video

_HOME = {
    "Budget": "longtake.core.budget",
    "Chat": "longtake.engine.ask",
    "LongtakeError": "longtake.core.errors",
    "ask": "longtake.engine.ask",
    "from_state_dict": "longtake.convert.load",
    "ingest": "longtake.engine.ingest",
    "load": "longtake.convert.load",
    "open_video": "longtake.media.video",
    "plan": "longtake.engine.plan",
}

__all__ = [
    "Budget",
    "Chat",
    "LongtakeError",
    "__version__",
    "ask",
    "from_state_dict",
    "ingest",
    "load",
    "open_video",
    "plan",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'longtake' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
