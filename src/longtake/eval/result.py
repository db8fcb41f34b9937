"""What a run leaves behind: a manifest, a line an item, a line of costs an item."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from longtake._version import __version__
from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError, StorageError
from longtake.core.files import write_whole

MANIFEST, ITEMS, COSTS, SUMMARY = "manifest.json", "items.jsonl", "costs.jsonl", "summary.json"
FORMAT = 1
# Software that a score can depend on.
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "av", "torchcodec", "pillow")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one item in one arm of a run; two runs with the same manifest have the same records.

    arm: `model`, or the name of a baseline. text: the reply; parsed: what was read from it, none if nothing could be.
    prompt_hash, frame_hash: of the question as asked, and of the times of the sampled frames. tokens: visual ones that
    the language model read. counts: whether it is part of the accuracy.
    error: `Type: message` of an item that failed; it counts as neither right nor wrong.
    seconds: by stage; not part of what has to be equal, so it is kept in a file of its own. extra: more figures.
    """

    id: str
    arm: str
    group: str
    text: str = ""
    parsed: str | None = None
    right: bool = False
    score: float = 0.0
    chance: float = 0.0
    answer: str = ""
    num_choices: int = 0
    breakdowns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prompt_hash: str = ""
    frame_hash: str = ""
    frames: int = 0
    tokens: int = 0
    counts: bool = True
    error: str | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Return what tells it from the other records of a run."""
        return self.arm, self.id

    def result(self) -> dict[str, Any]:
        """Return all but the seconds, as plain values."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "seconds"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """Build from plain values.

        Raises: ConfigError for a field that no record has.
        """
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ConfigError(
                f"a record has the fields {sorted(unknown)}, which this version does not know; expected one of format "
                f"{FORMAT}; read it with the version that wrote it"
            )
        return cls(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(StrictConfig):
    """Everything that a run's scores follow from.

    task: its name, settings: its fields. model, model_name: fingerprint and what was typed to load it. dtype, device:
    as it ran. rule: the sampling rule in force. compress, reduce, select: methods with their fields, none where none.
    template, parser: of the task. dataset_hash: over the items. frame_grid_hash: over the times of all sampled frames,
    in the order of the items; filled in when a run is complete. seed: of all that is random. baselines: those that
    ran.
    """

    task: str
    settings: Mapping[str, Any]
    model: str
    model_name: str
    dtype: str
    device: str
    rule: Mapping[str, Any] | None
    budget: Mapping[str, Any]
    compress: Mapping[str, Any] | None
    reduce: Mapping[str, Any] | None
    select: Mapping[str, Any] | None
    template: str
    parser: str
    dataset_hash: str
    num_items: int
    limit: int | None
    seed: int
    baselines: tuple[str, ...]
    frame_grid_hash: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    def identity(self) -> str:
        """Return a SHA-256 over what is known before a run starts."""
        return dataclasses.replace(self, frame_grid_hash="").fingerprint()


def versions() -> dict[str, str]:
    """Return the versions of ours and of the software that scores can depend on; what is not installed is left out."""
    found = {"longtake": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def text_hash(*parts: object) -> str:
    """Return a SHA-256 over plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def line(values: Mapping[str, Any]) -> str:
    """Write plain values as one line; equal values give equal bytes."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False, default=str) + "\n"


def write_text(path: Path, text: str) -> Path:
    """Replace a file in one step: whoever reads it sees the old one or the new one, also after a loss of power.

    Raises: StorageError if it cannot be written.
    """
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise StorageError(
            f"{path} could not be written ({error}); expected room and permission; choose another folder"
        ) from error
    return path


def write_run(folder: Path, manifest: Manifest, records: Iterable[Record]) -> None:
    """Write the three files of a complete run; records in the order in which they arrive.

    Raises: StorageError if they cannot be written.
    """
    kept = list(records)
    costs = [{"arm": one.arm, "id": one.id, "seconds": dict(one.seconds)} for one in kept]
    write_text(folder / ITEMS, "".join(line(one.result()) for one in kept))
    write_text(folder / COSTS, "".join(line(one) for one in costs))
    write_text(folder / MANIFEST, json.dumps(manifest.to_dict(), sort_keys=True, indent=1, default=str) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; a last line that was cut off, as a kill leaves it, is left out.

    Raises: ConfigError if any other line is no JSON object.
    """
    texts = path.read_text(encoding="utf-8").split("\n")
    found = []
    for number, text in enumerate(texts[:-1], start=1):
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"line {number} of {path} is damaged ({error}); expected a JSON object; remove the line to run its "
                "item again"
            ) from error
        found.append(values)
    return found


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of a run.

    Raises: ConfigError if there is none, or it is of another format.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ConfigError(f"{folder} has no {MANIFEST}; expected the folder of a run; pass what --out named")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is damaged ({error}); expected JSON; run again into a new folder") from error
    return Manifest.from_dict(values)


def read_records(folder: str | Path) -> list[Record]:
    """Read the records of a complete run, with their seconds.

    Raises: ConfigError if the run is not complete, or a line is damaged.
    """
    items, costs = Path(folder) / ITEMS, Path(folder) / COSTS
    if not items.is_file():
        raise ConfigError(f"{folder} has no {ITEMS}; expected a complete run; run the same command to go on with it")
    seconds = {(one["arm"], one["id"]): one["seconds"] for one in read_lines(costs)} if costs.is_file() else {}
    found = [Record.from_dict(values) for values in read_lines(items)]
    return [dataclasses.replace(one, seconds=seconds.get(one.key, {})) for one in found]
