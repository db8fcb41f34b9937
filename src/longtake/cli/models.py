"""Which model a command runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longtake.core.errors import ConfigError

if TYPE_CHECKING:
    from longtake.models.loaded import LoadedModel

RANDOM_NOTICE = (
    "These are untrained, random weights: the path from video to text is real, but the answer is noise. Pass --model "
    "to use a trained checkpoint."
)


def load_model(
    name: str | None, dtype: str, device: str | None, reduce: str | None, settings: list[str]
) -> LoadedModel:
    """Load the named model, or the tiny random one, and set its reducer.

    Raises: CheckpointError; ConfigError for an unknown method or setting.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if name is None:
        from longtake.models.tiny import tiny_model

        loaded = tiny_model()
    else:
        from longtake.convert.load import load

        loaded = load(name, dtype=dtype, device=device)
    values = parse_settings(settings)
    if reduce is not None:
        loaded.model.reducer = build_method("reduce", reduce, values.pop("reduce", {}))
    if "compress" in values:
        loaded.model.compressor = build_method("compress", "tome", values.pop("compress"))
    if values:
        raise ConfigError(f"--set names {sorted(values)}; expected compress.FIELD=… or, with --reduce, reduce.FIELD=…")
    return loaded


def build_method(kind: Any, name: str, values: dict[str, Any]) -> Any:
    """Build a registered method from plain values."""
    from longtake.core.registry import find

    return find(kind, name).from_dict(values)


def parse_settings(settings: list[str]) -> dict[str, dict[str, Any]]:
    """Read `part.field=value` texts; values are JSON, or else plain text.

    Raises: ConfigError for a text of another form.
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
    return parsed
