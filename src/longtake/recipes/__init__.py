"""Training runs by name: the four stages of VideoChat-Flash and XComp's compression tuning."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError
from longtake.recipes.sct import SCT, XCOMP
from longtake.recipes.stages import STAGES
from longtake.train.recipe import Recipe

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*STAGES, SCT, XCOMP)}


def find_recipe(name: str) -> Recipe:
    """Return a recipe by name, or what the function module:function of the working directory returns.

    Raises: ConfigError with the nearest known name.
    """
    if ":" not in name:
        if name not in RECIPES:
            raise ConfigError(f"no recipe is called {name!r}; {nearest_name(name, list(RECIPES))}")
        return RECIPES[name]
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"recipe {name} was not found ({error}); expected a function; check its name") from error
    finally:
        sys.path.pop(0)
    if not isinstance(found, Recipe):
        raise ConfigError(f"recipe {name} returned a {type(found).__name__}; expected a Recipe; return one")
    return found
