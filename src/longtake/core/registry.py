"""Methods by name: ours register themselves, other packages add theirs through the entry-point group."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Literal

from longtake.core.config import StrictConfig, nearest_name
from longtake.core.errors import ConfigError

Kind = Literal["compress", "reduce", "select"]
ENTRY_POINT_GROUP = "longtake.methods"
_METHODS: dict[tuple[Kind, str], type[StrictConfig]] = {}


def register(kind: Kind, name: str) -> Callable[[type], type]:
    """Class decorator: make a method (a frozen StrictConfig dataclass with `__call__`) known by name."""

    def add(cls: type) -> type:
        known = _METHODS.get((kind, name))
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ConfigError(f"{kind} method {name!r} is already {known.__qualname__}; choose another name")
        _METHODS[kind, name] = cls
        return cls

    return add


def _load_all() -> None:
    package = importlib.import_module("longtake.methods")
    for module in pkgutil.walk_packages(package.__path__, "longtake.methods."):
        importlib.import_module(module.name)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        point.load()


def methods(kind: Kind) -> dict[str, type[StrictConfig]]:
    """Return every registered method of a kind by name."""
    _load_all()
    return {name: cls for (of, name), cls in _METHODS.items() if of == kind}


def find(kind: Kind, name: str) -> type[StrictConfig]:
    """Return the method of that name; a hyphen in it counts as an underscore.

    Raises: ConfigError with the nearest known name.
    """
    known = methods(kind)
    name = name.replace("-", "_")
    if name not in known:
        raise ConfigError(f"no {kind} method is called {name!r}; {nearest_name(name, list(known))}")
    return known[name]
