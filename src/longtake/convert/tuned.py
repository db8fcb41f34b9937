"""Which methods a checkpoint's weights were tuned for: attached when it is loaded, and refused where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longtake.core.errors import CheckpointError, ConfigError
from longtake.core.protocols import LayerCompressor
from longtake.core.registry import Kind, find
from longtake.models.configuration import DEFAULT_CONTEXT, MODEL_TYPE
from longtake.models.loaded import AnyConfig, AnyModel

ADVICE = "pass untuned=True (--untuned) to use them all the same"


def tuned_method(config: AnyConfig, kind: Kind) -> Any:
    """Build the method of a kind that a configuration names; none if it names none.

    Raises: CheckpointError if there is no such method, or it has no such fields.
    """
    described = (config.methods or {}).get(kind)
    if described is None:
        return None
    try:
        fields = {key: value for key, value in described.items() if key != "name"}
        return find(kind, described["name"]).from_dict(fields)
    except (ConfigError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"the configuration names the {kind} method {described!r}, which cannot be built ({error}); expected a "
            "name and the fields of a known method; correct `methods` in config.json"
        ) from error


def attach_methods(model: AnyModel) -> None:
    """Give a model the compressor and the reducer that its configuration names.

    Raises: CheckpointError as `tuned_method`.
    """
    compressor, reducer = (tuned_method(model.config, kind) for kind in ("compress", "reduce"))
    if compressor is not None:
        model.use_compressor(compressor)
    if reducer is not None:
        model.reducer = reducer


def check_tuned(config: AnyConfig, reducer: LayerCompressor | None) -> None:
    """Refuse a reducer that the weights were not tuned for.

    Raises: CheckpointError naming both.
    """
    if reducer is None:
        return
    tuned = tuned_method(config, "reduce")
    if tuned is None and not getattr(reducer, "needs_tuning", False):
        return
    if tuned != reducer:
        raise CheckpointError(
            f"the reducer {reducer} arrived for weights that were tuned for {tuned or 'no such method'}; expected the "
            f"same; load weights that were tuned with it, or {ADVICE}"
        )


def check_preset(folder: Path, preset: str, config: AnyConfig) -> None:
    """Refuse a preset for a folder whose own config.json says that its weights were tuned for something else.

    Raises: CheckpointError.
    Source: XComp's weights have the names and shapes of VideoChat-Flash-2B and its released files say nothing of its
        methods. What tells them apart is the context: VideoChat-Flash's own files say 32,768 with its model type.
    """
    path = folder / "config.json"
    values = _plain(path)
    if values is None:
        return
    wanted = (config.methods or {}).get("reduce")
    stored = (values.get("methods") or {}).get("reduce")
    context = values.get("tokenizer_model_max_length", DEFAULT_CONTEXT)
    from_elsewhere = "methods" not in values and values.get("model_type") == MODEL_TYPE and context == DEFAULT_CONTEXT
    if stored is not None and not _same(stored, wanted):
        said = f"were tuned for {stored}"
    elif wanted is not None and (from_elsewhere or ("methods" in values and stored is None)):
        said = "were tuned without dropping by that method (VideoChat-Flash)"
    else:
        return
    raise CheckpointError(
        f"the preset {preset} arrived for weights that, by {path}, {said}; expected weights tuned for {wanted}; "
        f"choose the preset that belongs to them, or {ADVICE}"
    )


def _same(stored: Mapping[str, object], wanted: Mapping[str, object] | None) -> bool:
    return wanted is not None and json.dumps(stored, sort_keys=True) == json.dumps(dict(wanted), sort_keys=True)


def _plain(path: Path) -> dict[str, Any] | None:
    """Read a configuration as it lies there; none if there is none that can be read, since the preset replaces it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
