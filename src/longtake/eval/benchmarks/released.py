"""Annotation files as they were released: which file of a folder, its records, and fields that have to be there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from longtake.core.errors import ConfigError, MissingExtraError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".gif")
READABLE = (".json", ".jsonl", ".parquet")
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Fields:
    """The fields of one record, which know where they stand so that an error can say it."""

    values: Mapping[str, Any]
    file: Path
    number: int

    @property
    def where(self) -> str:
        """Return the name of the file and the number of the record, from 0."""
        return f"record {self.number} of {self.file.name}"

    def get(self, name: str, kind: type[Value] | tuple[type, ...]) -> Any:
        """Return a field of the type that it has to have.

        Raises: ConfigError if it is not there, or is of another type.
        """
        if name not in self.values:
            raise ConfigError(
                f"{self.where} has the fields {sorted(self.values)}; expected {name!r}; pass the files as released, "
                "docs/benchmarks.md says which"
            )
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, kind):
            raise ConfigError(
                f"{name!r} of {self.where} is {value!r}; expected {kind}; pass the files as released, "
                "docs/benchmarks.md says which"
            )
        return value

    def text(self, name: str) -> str:
        """Return a field that is text; Raises: as `get`."""
        return self.get(name, str)

    def number_of(self, name: str) -> float:
        """Return a field that is a number; Raises: as `get`."""
        return float(self.get(name, (int, float)))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of texts; Raises: as `get`."""
        value = self.get(name, (list, tuple))
        if not value or not all(isinstance(one, str) for one in value):
            raise ConfigError(f"{name!r} of {self.where} is {value!r}; expected texts; pass the files as released")
        return tuple(value)

    def span(self, name: str) -> tuple[float, float]:
        """Return a field that holds two times in seconds; Raises: as `get`."""
        value = self.get(name, (list, tuple))
        if len(value) != 2 or not all(isinstance(one, int | float) for one in value):
            raise ConfigError(f"{name!r} of {self.where} is {value!r}; expected two times; pass the files as released")
        return float(value[0]), float(value[1])


def read_file(path: Path) -> list[Fields]:
    """Read the records of a .json list, a .jsonl, or a .parquet file.

    Raises: ConfigError if it is damaged or holds anything else; MissingExtraError for parquet without pyarrow.
    """
    if path.suffix == ".parquet":
        rows = _parquet(path)
    else:
        text = path.read_text(encoding="utf-8")
        try:
            rows = (
                [json.loads(one) for one in text.splitlines() if one] if path.suffix == ".jsonl" else json.loads(text)
            )
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path} is damaged ({error}); expected JSON; fetch it again") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path} holds no list of records; expected one; pass the files as released")
    return [Fields(row, path, number) for number, row in enumerate(rows)]


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{path.name} needs pyarrow, which is not installed; expected the extra; pip install 'longtake[parquet]'"
        ) from error
    return parquet.ParquetFile(path).read().to_pylist()


def find_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of a folder that the first fitting pattern names, by name; a file stands for itself.

    Raises: ConfigError if no pattern fits; the message names them.
    """
    if folder.is_file():
        return [folder]
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.suffix in READABLE)
        if found:
            return found
    raise ConfigError(
        f"{folder} has no annotations; expected {' or '.join(patterns)} in it; set data= to the folder that holds "
        "them, docs/benchmarks.md shows the layout"
    )


def find_video(folders: Sequence[Path], name: str) -> Path | None:
    """Return the video of that name in the first folder that has it: a file, with or without its suffix, or a folder.

    A folder holds the pictures of a video that was taken apart, as some benchmarks release it.
    """
    for folder in folders:
        whole = folder / name
        if whole.exists():
            return whole
        for base in (whole.with_suffix("") if whole.suffix in VIDEO_SUFFIXES else whole, whole):
            for suffix in VIDEO_SUFFIXES:
                for found in (base.with_name(base.name + suffix), base.with_name(base.name + suffix.upper())):
                    if found.is_file():
                        return found
    return None
