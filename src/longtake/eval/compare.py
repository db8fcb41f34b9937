"""Two runs beside each other: what was set otherwise, which items one has right and the other wrong, and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longtake.core.errors import ConfigError
from longtake.eval.result import Manifest, Record, read_manifest, read_records
from longtake.eval.statistics import Interval, Paired, interval, paired

MODEL_ARM = "model"
# What a field of the manifest, or of the task's settings, is about; the first part of a field's name decides.
SUBJECTS: Mapping[str, str] = {
    "model": "model",
    "dtype": "model",
    "device": "software",
    "rule": "frames",
    "frame_grid_hash": "frames",
    "budget": "frames",
    "compress": "methods",
    "reduce": "methods",
    "select": "methods",
    "template": "prompt",
    "parser": "parser",
    "task": "items",
    "settings": "items",
    "dataset_hash": "items",
    "num_items": "items",
    "limit": "items",
    "versions": "software",
    "format": "software",
}
# They say where data lie or what else was run; no answer follows from them.
HARMLESS = ("settings.data", "settings.videos", "settings.template", "settings.parser", "model_name", "baselines")
UNKNOWN_CAUSE = "model, methods or software"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting that two manifests have otherwise. subject: what it is about, one of SUBJECTS, or `other`."""

    field: str
    subject: str
    first: Any
    second: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One run's own figures, over all its items that did not fail; accuracy is the share that is right."""

    folder: str
    num_items: int
    num_failed: int
    num_unparsed: int
    accuracy: float
    score: float
    interval: Interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip:
    """An item that just one of the runs has right. causes: what differs before the reply, or `parser` if only that."""

    id: str
    right_in: str
    first: str
    second: str
    first_parsed: str | None
    second_parsed: str | None
    answer: str
    causes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs compared.

    differences: settings that differ. only_first, only_second: items that one run alone has an answer to. shared: both
    runs on the items of both, the difference being that of their scores, first minus second. flips: items that one has
    right and the other wrong. causes: how many flips each cause has; one may have several.
    """

    first: Side
    second: Side
    differences: tuple[Difference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    shared: Paired
    shared_scores: tuple[float, float]
    flips: tuple[Flip, ...]
    causes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the verdict."""
        return dataclasses.asdict(self) | {"verdict": self.verdict}

    @property
    def verdict(self) -> str:
        """Return a sentence: which is better on the items of both, if that can be said."""
        if self.shared.verdict == "not different":
            return "on the same items the runs are not different"
        return f"on the same items the first is {self.shared.verdict} than the second"


def compare(first: str | Path, second: str | Path, arm: str = MODEL_ARM, seed: int = 0) -> Comparison:
    """Compare two complete runs, each the folder that `--out` named. arm: the model, or the name of a baseline.

    Raises: ConfigError if a folder holds no complete run or the runs have no item in common; MissingExtraError without
        scipy.
    """
    manifests = read_manifest(first), read_manifest(second)
    records = [_by_id(read_records(folder), arm, folder) for folder in (first, second)]
    answered = [{id: one for id, one in every.items() if one.error is None} for every in records]
    both = [id for id in answered[0] if id in answered[1]]
    if not both:
        raise ConfigError(
            f"{first} has {len(answered[0])} items of {manifests[0].task} and {second} has {len(answered[1])} of "
            f"{manifests[1].task}, none of them in common; expected runs of one task; check the folders"
        )
    ours, theirs = ([one[id] for id in both] for one in answered)
    flips = tuple(_flip(a, b) for a, b in zip(ours, theirs, strict=True) if a.right != b.right)
    scores = [[record.score for record in side] for side in (ours, theirs)]
    return Comparison(
        first=_side(first, records[0], seed),
        second=_side(second, records[1], seed),
        differences=tuple(differences(*manifests)),
        only_first=tuple(sorted(answered[0].keys() - answered[1].keys())),
        only_second=tuple(sorted(answered[1].keys() - answered[0].keys())),
        shared=paired(scores[0], scores[1], [record.group for record in ours], seed=seed),
        shared_scores=(sum(scores[0]) / len(both), sum(scores[1]) / len(both)),
        flips=flips,
        causes=dict(Counter(cause for flip in flips for cause in flip.causes).most_common()),
    )


def _by_id(records: Sequence[Record], arm: str, folder: str | Path) -> dict[str, Record]:
    """Return an arm's records that count, by the name of the item.

    Raises: ConfigError if there is no such arm.
    """
    found = {record.id: record for record in records if record.arm == arm and record.counts}
    if not found:
        arms = sorted({record.arm for record in records})
        raise ConfigError(f"{folder} has no items of arm {arm!r}; expected one of {arms}; choose one")
    return found


def _side(folder: str | Path, records: Mapping[str, Record], seed: int) -> Side:
    """Return a run's own figures.

    Raises: ConfigError if every item failed.
    """
    kept = [record for record in records.values() if record.error is None]
    if not kept:
        raise ConfigError(f"every item of {folder} failed; expected answers; see its records' errors")
    scores = [record.score for record in kept]
    return Side(
        folder=str(folder),
        num_items=len(kept),
        num_failed=len(records) - len(kept),
        num_unparsed=sum(record.parsed is None for record in kept),
        accuracy=sum(record.right for record in kept) / len(kept),
        score=sum(scores) / len(kept),
        interval=interval(scores, [record.group for record in kept], seed=seed),
    )


def differences(first: Manifest, second: Manifest) -> list[Difference]:
    """Return the fields, and the fields of fields, that two manifests have otherwise; harmless ones last."""
    ours, theirs = _flat("", first.to_dict()), _flat("", second.to_dict())
    names = [name for name in dict.fromkeys((*ours, *theirs)) if ours.get(name) != theirs.get(name)]
    found = [
        Difference(field=name, subject=_subject(name), first=ours.get(name), second=theirs.get(name)) for name in names
    ]
    return sorted(found, key=lambda one: one.subject == "other")


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted names."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    return found


def _subject(name: str) -> str:
    return "other" if name in HARMLESS else SUBJECTS.get(name.split(".")[0], "other")


def _flip(first: Record, second: Record) -> Flip:
    """Say what one item's two records differ in."""
    return Flip(
        id=first.id,
        right_in="first" if first.right else "second",
        first=first.text,
        second=second.text,
        first_parsed=first.parsed,
        second_parsed=second.parsed,
        answer=first.answer if first.answer == second.answer else f"{first.answer} / {second.answer}",
        causes=causes(first, second),
    )


def causes(first: Record, second: Record) -> tuple[str, ...]:
    """Return what could make two replies to an item differ, as far as the records know.

    `answer`: the right answers differ. `parser`: the replies are equal and were read otherwise. Else `prompt`,
    `frames`, `tokens`: what the model was shown differs; if none of them does, it is the model itself, its methods or
    software.
    """
    if first.answer != second.answer:
        return ("answer",)
    if first.text == second.text:
        return ("parser",)
    shown = {
        "prompt": first.prompt_hash != second.prompt_hash,
        "frames": first.frame_hash != second.frame_hash,
        "tokens": first.tokens != second.tokens,
    }
    return tuple(name for name, differs in shown.items() if differs) or (UNKNOWN_CAUSE,)
