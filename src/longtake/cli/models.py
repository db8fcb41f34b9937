"""Which model a command runs on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from longtake.engine.select import Selector
    from longtake.models.loaded import LoadedModel

TINY_NOTICE = (
    "This is the bundled longtake-tiny, which was trained on FILMSTRIP films alone: of other videos it knows nothing. "
    "Pass --model to use another checkpoint."
)


def load_model(
    name: str | None,
    dtype: str = "auto",
    device: str | None = None,
    reduce: str | None = None,
    settings: Sequence[str] = (),
    recipe: str | None = None,
    compress: str | None = None,
    preset: str | None = None,
    untuned: bool = False,
    select: tuple[str | None, int] = (None, 512),
) -> LoadedModel:
    """Load the named model, the one that a recipe builds, or the bundled tiny one, and set its methods.

    What `select` names is built by `selector_for`; its settings are only taken out of the others here.

    Raises: CheckpointError; ConfigError for an unknown recipe, method, setting, dtype or device.
    """
    values = parse_settings(settings)
    kind, place = find_dtype(dtype), find_device(device)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if preset is not None and name is None:
        raise ConfigError(
            f"a preset {preset} arrived without a model; expected the folder of its weights; pass --model"
        )
    reducer = None if reduce is None else build_method("reduce", reduce, values.pop("reduce", {}))
    if select[0] is not None:
        values.pop("select", None)
    if recipe is not None:
        if name is not None:
            raise ConfigError(f"a model {name} and a recipe {recipe} arrived; expected one of the two; drop one")
        loaded = moved(from_recipe(recipe), kind, place)
    else:
        from longtake.convert.load import load
        from longtake.models.tiny import bundled_tiny

        name = name or str(bundled_tiny())
        loaded = load(name, dtype=dtype, device=device, preset=preset, reducer=reducer, untuned=untuned)
    if reducer is not None:
        loaded.model.reducer = reducer
    if compress is not None or "compress" in values:
        loaded.model.use_compressor(build_method("compress", compress or "tome", values.pop("compress", {})))
    if values:
        raise ConfigError(
            f"--set names {sorted(values)}; expected compress.FIELD=…, with --reduce reduce.FIELD=…, or with --select "
            "select.FIELD=…"
        )
    return loaded


def loader(model: dict[str, Any]) -> Callable[[], LoadedModel]:
    """Return what loads the model in another process, whose working directory is another one."""
    name = model["name"]
    if name is not None and Path(name).is_dir():
        name = str(Path(name).absolute())
    return functools.partial(load_model, **(model | {"name": name}))


def model_options(model: dict[str, Any]) -> str:
    """Write the options that chose a model as they were typed."""
    flags = {"--model": model["name"], "--recipe": model["recipe"], "--preset": model["preset"]}
    flags |= {"--compress": model["compress"], "--dtype": None if model["dtype"] == "auto" else model["dtype"]}
    pairs = [(flag, value) for flag, value in flags.items() if value is not None]
    pairs += [("--set", text) for text in model["settings"] if text.startswith("compress.")]
    return " ".join([*(f"{flag} {shlex.quote(value)}" for flag, value in pairs), *["--untuned"] * model["untuned"]])


def selector_for(loaded: LoadedModel, model: dict[str, Any]) -> Selector | None:
    """Build the selector that was asked for; none if none was.

    Raises: ConfigError for an unknown method or field.
    """
    from longtake.core.registry import find
    from longtake.engine.select import selector_of

    name, frames_kept = model["select"]
    if name is None:
        return None
    find("select", name)
    fields = parse_settings(model["settings"]).get("select", {})
    try:
        return selector_of(loaded, frames_kept, fields)
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot take {fields} ({error}); expected numbers, lists or names; see its fields"
        ) from error


def find_dtype(name: str) -> torch.dtype | None:
    """Return the floating-point type of that name; none for auto.

    Raises: ConfigError if there is no such type.
    """
    if name == "auto":
        return None
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(f"dtype is {name!r}; expected auto, float32, bfloat16 or float16; choose one")
    return found


def find_device(name: str | None) -> torch.device | None:
    """Return the device of that name, having asked it for memory.

    Raises: ConfigError if this machine has no such device, or it cannot be used.
    """
    if name is None:
        return None
    import torch

    try:
        found = torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise ConfigError(f"device is {name!r} ({reason}); expected one that `longtake doctor` lists") from error
    if found.type == "meta":
        raise ConfigError("device is 'meta', which holds no values; expected one that `longtake doctor` lists")
    return found


def moved(loaded: LoadedModel, dtype: torch.dtype | None, device: torch.device | None) -> LoadedModel:
    """Move a model that was not loaded from a checkpoint; in another dtype it is another model."""
    from torch.nn import Module

    if device is not None:
        Module.to(loaded.model, device)
    if dtype is None:
        return loaded
    Module.to(loaded.model, dtype)
    identity = hashlib.sha256(f"{loaded.fingerprint} {dtype}".encode()).hexdigest()
    return dataclasses.replace(loaded, fingerprint=identity)


def build_method(kind: Any, name: str, values: dict[str, Any]) -> Any:
    """Build a registered method from plain values.

    Raises: ConfigError for an unknown method or field, or a value of the wrong type.
    """
    from longtake.core.registry import find

    method = find(kind, name)
    try:
        return method.from_dict(values)
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot take {values} ({error}); expected numbers, lists or names; see its fields"
        ) from error


def from_recipe(recipe: str) -> LoadedModel:
    """Call a function without arguments that returns a model; modules of the working directory are found too.

    Raises: ConfigError if there is no such function, or it returns something else.
    """
    from longtake.models.loaded import LoadedModel

    module, colon, name = recipe.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"--recipe arrived as {recipe!r}; expected module:function; write it so")
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"recipe {recipe} was not found ({error}); expected a function; check its name") from error
    found = function()
    if not isinstance(found, LoadedModel):
        raise ConfigError(f"recipe {recipe} returned a {type(found).__name__}; expected a LoadedModel; return one")
    return found


def parse_settings(settings: Sequence[str], parts: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Read `part.field=value` texts; values are JSON, or else plain text. parts: those that there are; none: any.

    Raises: ConfigError for a text of another form, or of another part.
    """
    import json

    parsed: dict[str, dict[str, Any]] = {}
    for text in settings:
        path, equals, value = text.partition("=")
        part, dot, field = path.partition(".")
        if not (equals and dot and field):
            raise ConfigError(f"--set arrived as {text!r}; expected part.field=value, such as reduce.kind=uniform")
        try:
            parsed.setdefault(part, {})[field] = json.loads(value)
        except json.JSONDecodeError:
            parsed.setdefault(part, {})[field] = value
    if parts and (unknown := set(parsed) - set(parts)):
        raise ConfigError(f"--set names the part {min(unknown)!r}; expected {' or '.join(parts)}; correct it")
    return parsed
