"""Strict configurations: frozen keyword-only dataclasses that refuse unknown keys and know their fingerprint."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import TypeVar

from longtake.core.errors import ConfigError

# Not typing.Self: the run-time checker of the tests does not know it on single methods.
ConfigT = TypeVar("ConfigT", bound="StrictConfig")


def nearest_name(name: str, known: list[str]) -> str:
    """Return a hint `did you mean …` for a misspelt name, or the list of known ones."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrictConfig:
    """Base of every configuration. Subclasses are frozen, keyword-only dataclasses of plain values."""

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, object]) -> ConfigT:
        """Build from plain values.

        Raises: ConfigError on an unknown key, naming the nearest known one.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"{cls.__name__} has no field {key!r}; {nearest_name(key, known)}")
        plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, object]:
        """Return plain values that `from_dict` turns into an equal configuration."""
        return dataclasses.asdict(self)

    def fingerprint(self) -> str:
        """Return a full-width SHA-256 over the class name and every field."""
        text = json.dumps([type(self).__name__, self.to_dict()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()
