"""Annotation lists: a yaml of data sets, or one .json or .jsonl file; which records of each are taken."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longtake.core.config import StrictConfig, nearest_name
from longtake.core.errors import ConfigError
from longtake.data.failures import Failures

Modality = Literal["text", "image", "video"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "video")
STRATEGIES = ("all", "first", "first2", "first3", "first4", "end", "random")
MEDIA_CHECKED = 3
_STRATEGY = re.compile(r"^(?P<name>[a-z]+\d?):(?P<amount>\d+|\d+(\.\d+)?%)$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet(StrictConfig):
    """One entry of the yaml list.

    json_path: a .json list or .jsonl. data_root: joined in front of every media path. Both are taken from the yaml's
    folder if they are relative. sampling_strategy: `all`, `first:n`, `first2:n` to `first4:n` (the second to fourth
    slice of that size), `end:n`, `random:n`; n is a count, or a percentage rounded up. media_type: what the records
    hold, else each record says. video_read_type: accepted and not needed, since files are recognised by content.

    Source: VideoChat-Flash data list; it refuses `random`, which depends here on nothing but the list's seed.
    """

    json_path: str
    data_root: str = ""
    sampling_strategy: str = "all"
    media_type: str | None = None
    video_read_type: str | None = None

    def __post_init__(self) -> None:
        if self.media_type is not None and self.media_type not in MODALITIES:
            raise ConfigError(f"media_type is {self.media_type!r}; {nearest_name(self.media_type, list(MODALITIES))}")
        chosen_rows(self.sampling_strategy, 1, 0)


def chosen_rows(strategy: str, count: int, seed: int) -> list[int]:
    """Return which of `count` records a strategy takes, in the order of the file.

    Raises: ConfigError for a strategy that is not known.
    """
    if strategy == "all":
        return list(range(count))
    found = _STRATEGY.match(strategy)
    name = found["name"] if found else strategy.split(":")[0]
    if found is None or name not in STRATEGIES:
        raise ConfigError(
            f"sampling_strategy is {strategy!r}; expected all, NAME:n or NAME:n%; {nearest_name(name, [*STRATEGIES])}"
        )
    amount = found["amount"]
    size = math.ceil(float(amount[:-1]) * count / 100 - 1e-9) if amount.endswith("%") else int(amount)
    if name == "end":
        return list(range(max(count - size, 0), count))
    if name == "random":
        return sorted(random.Random(seed).sample(range(count), min(size, count)))
    start = (int(name[-1]) - 1 if name[-1].isdigit() else 0) * size
    return list(range(min(start, count), min(start + size, count)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Readable records of one file: where each lies, what it holds, how many words it has."""

    read: Callable[[int], Mapping[str, Any]]
    places: list[int]
    modalities: list[int]
    words: list[int]


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """Every record that a run may see; a .jsonl file is read again line by line, never held.

    modality: int8 [R], an index into MODALITIES. words: int64 [R], words of the whole conversation. fingerprint: of
    which records there are, in which order.
    """

    sets: Sequence[DataSet]
    files: Sequence[_Rows]
    file_of: np.ndarray
    row_of: np.ndarray
    modality: np.ndarray
    words: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.file_of)

    def name(self, index: int) -> str:
        """Return a name of a record that people can find: its file and its line or place, counted from 1."""
        file = int(self.file_of[index])
        return f"{self.sets[file].json_path}:{int(self.row_of[index]) + 1}"

    def record(self, index: int) -> tuple[Mapping[str, Any], Path, Modality]:
        """Read a record, where its media lie, and what it holds."""
        file = int(self.file_of[index])
        found = self.files[file].read(int(self.row_of[index]))
        return found, Path(self.sets[file].data_root), MODALITIES[int(self.modality[index])]


def read_annotations(
    path: str | Path,
    failures: Failures,
    *,
    set_seed: int | None = None,
    keep_share: float = 1.0,
    keep_seed: int = 42,
) -> Annotations:
    """Read a yaml of data sets, or one list, and choose records.

    set_seed: shuffle each set before its strategy slices it. keep_share: of each set's choice, so much is kept after
    another shuffle with keep_seed. Lines that are no record are counted in `failures`.

    Raises: ConfigError if a list cannot be read, has unknown keys, or none of its first media files is there.
    Source: VideoChat-Flash data list; XComp shuffles each set with 12345 and keeps a quarter after a second shuffle.
    """
    sets = _read_sets(Path(path))
    files = [_read_file(entry, failures) for entry in sets]
    parts: list[tuple[int, int]] = []
    for number, (entry, rows) in enumerate(zip(sets, files, strict=True)):
        _check_media(entry, rows)
        order = list(range(len(rows.places)))
        if set_seed is not None:
            random.Random(set_seed).shuffle(order)
        chosen = [order[i] for i in chosen_rows(entry.sampling_strategy, len(order), set_seed or 0)]
        if keep_share < 1:
            random.Random(keep_seed).shuffle(chosen)
            chosen = chosen[: math.floor(keep_share * len(chosen))]
        parts += [(number, row) for row in chosen]
    if not parts:
        raise ConfigError(f"{path} leaves no record to train on; expected at least one; change the sampling strategies")
    file_of = np.array([file for file, _ in parts], dtype=np.int64)
    modality = np.array([files[file].modalities[row] for file, row in parts], dtype=np.int8)
    words = np.array([files[file].words[row] for file, row in parts], dtype=np.int64)
    places = np.array([files[file].places[row] for file, row in parts], dtype=np.int64)
    digest = hashlib.sha256(json.dumps([entry.json_path for entry in sets]).encode())
    for column in (file_of, places, modality, words):
        digest.update(column.tobytes())
    return Annotations(sets, files, file_of, places, modality, words, digest.hexdigest())


def _read_sets(path: Path) -> list[DataSet]:
    if path.suffix in (".json", ".jsonl"):
        return [DataSet(json_path=str(path), data_root=str(path.parent))]
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected a yaml with a list `datasets`") from error
    entries = values.get("datasets") if isinstance(values, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "json_path" in entry for entry in entries):
        raise ConfigError(f"{path} holds no list `datasets` of entries with a json_path; expected one; write it so")
    found = [DataSet.from_dict(entry) for entry in entries]
    return [
        dataclasses.replace(
            entry, json_path=str(path.parent / entry.json_path), data_root=str(path.parent / entry.data_root)
        )
        for entry in found
    ]


def _read_file(entry: DataSet, failures: Failures) -> _Rows:
    path = Path(entry.json_path)
    try:
        if path.suffix == ".jsonl":
            return _read_lines(path, entry.media_type, failures)
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected a list of records; correct the file") from error
    if not isinstance(records, list):
        raise ConfigError(f"{path} holds a {type(records).__name__}; expected a list of records; correct the file")
    rows = _Rows(lambda place: records[place], [], [], [])
    for place, record in enumerate(records):
        _add(rows, place, record, entry.media_type, failures, f"{path}:{place + 1}")
    return rows


def _read_lines(path: Path, media_type: str | None, failures: Failures) -> _Rows:
    """Note where each line of a .jsonl file begins; the lines themselves are let go."""
    offsets: list[int] = []

    def read(place: int) -> Mapping[str, Any]:
        with path.open("rb") as file:
            file.seek(offsets[place])
            return json.loads(file.readline())

    rows, offset = _Rows(read, [], [], []), 0
    with path.open("rb") as file:
        for place, line in enumerate(file):
            offsets.append(offset)
            offset += len(line)
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:  # also bytes that are no UTF-8
                failures.add(f"{path}:{place + 1}", "bad_json", str(error))
                continue
            _add(rows, place, record, media_type, failures, f"{path}:{place + 1}")
    return rows


def _add(rows: _Rows, place: int, record: object, media_type: str | None, failures: Failures, name: str) -> None:
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(turns, list) or not all(isinstance(t, dict) for t in turns):
        failures.add(name, "bad_record", "no object with a list `conversations` of turns")
        return
    guess = next((kind for kind in ("image", "video") if record.get(kind)), "text")
    rows.places.append(place)
    rows.modalities.append(MODALITIES.index(media_type or guess))  # pyright: ignore[reportArgumentType]
    rows.words.append(sum(len(str(turn.get("value", turn.get("content", ""))).split()) for turn in turns))


def _check_media(entry: DataSet, rows: _Rows) -> None:
    """Refuse a list none of whose first media is there: its data_root is wrong."""
    missing = []
    for row in range(min(MEDIA_CHECKED, len(rows.places))):
        record = rows.read(rows.places[row])
        media = record.get("image") or record.get("video")
        if not isinstance(media, str) or (Path(entry.data_root) / media).exists():
            return
        missing.append(media)
    if missing:
        raise ConfigError(
            f"none of the first {len(missing)} media files of {entry.json_path} is below {entry.data_root!r} (first: "
            f"{missing[0]}); expected them there; correct data_root"
        )
