"""What all published benchmarks share: a folder of annotations, a folder of videos, choices, and averages."""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError
from longtake.eval.benchmarks.released import Fields, find_files, find_video, read_file
from longtake.eval.parsers import LETTERS, find_reader, letters_of
from longtake.eval.result import Record
from longtake.eval.task import Item, Scored, Task

LETTER_REQUEST = "Answer with the option's letter from the given choices directly."
BEST_OPTION = "Only give the best option."
Judge = Callable[[str, str, str], float]


class NotThere(Exception):  # noqa: N818 - not an error: it ends in the report of what is missing
    """A video, or subtitles, that the annotations name and the folder lacks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark(Task):
    """A benchmark whose data the user has.

    data: the folder of the annotations as released, or one file of them. videos: the folder of the videos; none: the
    folder `videos` beside the annotations, else the annotations' own. template: which published prompt. parser: what
    reads the reply (eval/parsers.py).
    """

    patterns: ClassVar[tuple[str, ...]]
    templates: ClassVar[tuple[str, ...]] = ("vcf",)
    template: str = "vcf"  # pyright: ignore[reportIncompatibleVariableOverride] - a setting here, a constant elsewhere
    parser: str = "letter"  # pyright: ignore[reportIncompatibleVariableOverride]
    max_new_tokens: ClassVar[int] = 16
    data: str = ""
    videos: str = ""

    def __post_init__(self) -> None:
        if self.template not in self.templates:
            raise ConfigError(
                f"template is {self.template!r}; {nearest_name(self.template, list(self.templates))}; choose one"
            )
        self.check_parser()

    def check_parser(self) -> None:
        """Raise ConfigError if there is no such parser."""
        find_reader(self.parser)

    @abc.abstractmethod
    def item(self, fields: Fields) -> Item:
        """Make an item of a record.

        Raises: ConfigError if it is not as released; NotThere if its video is not in the folder.
        """

    def takes(self, fields: Fields) -> bool:
        """Say whether a record belongs to what is measured."""
        return True

    def items(self) -> Sequence[Item]:
        """Return the items whose video is in the folder, in the order of the files.

        Raises: ConfigError if there is no annotation, or not one video.
        """
        return self._read[0]

    def missing(self) -> list[str]:
        """Return the names of the videos, and of subtitles, that are not in the folder, each once."""
        return self._read[1]

    @functools.cached_property
    def _read(self) -> tuple[list[Item], list[str]]:
        found: list[Item] = []
        missing: dict[str, None] = {}
        for file in find_files(self.folder, self.patterns):
            for fields in read_file(file):
                if not self.takes(fields):
                    continue
                try:
                    found.append(self.item(fields))
                except NotThere as gone:
                    missing[str(gone)] = None
        if not found:
            raise ConfigError(
                f"task {self.name} has no item: {len(missing)} of its videos are not in "
                f"{' or '.join(map(str, self.video_folders))} (first: {next(iter(missing), 'no record was taken')}); "
                "expected at least one; set videos= to their folder"
            )
        return found, list(missing)

    @property
    def folder(self) -> Path:
        """Return the folder, or file, of the annotations.

        Raises: ConfigError if none is set, or it is not there.
        """
        if not self.data or not Path(self.data).exists():
            raise ConfigError(
                f"task {self.name} reads its annotations from a folder of yours and data is {self.data!r}; expected "
                "one that exists; set data=FOLDER, docs/benchmarks.md shows the layout"
            )
        return Path(self.data)

    @property
    def video_folders(self) -> list[Path]:
        """Return the folders in which videos are looked for."""
        if self.videos:
            return [Path(self.videos)]
        beside = self.folder.parent if self.folder.is_file() else self.folder
        return [beside / "videos", beside]

    def locate(self, name: str, *places: str) -> Path:
        """Return a video by name, from one of these places in the folder of videos, else from the folder itself.

        Raises: NotThere.
        """
        folders = [folder / place for place in (*places, "") for folder in self.video_folders]
        found = find_video(folders, name)
        if found is None:
            raise NotThere(name)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices(Benchmark):
    """A benchmark whose answer is one of several choices; an item's answer is its letter, empty where none is right."""

    def score(self, text: str, item: Item) -> Scored:
        """Read the letter and compare; a reply without one is wrong."""
        read = find_reader(self.parser)(text, item.choices)
        return Scored(right=item.answer != "" and item.answer in read, parsed=read or None)


def letter_of(choices: Sequence[str], answer: str) -> str:
    """Return the letter of the first choice that is the answer; nothing if none is, as in a few released records."""
    return LETTERS[choices.index(answer)] if answer in choices else ""


def listed(choices: Sequence[str], form: str) -> list[str]:
    """Write each choice by a form such as `({letter}) {choice}`."""
    return [
        form.format(letter=letter, choice=choice) for letter, choice in zip(letters_of(choices), choices, strict=True)
    ]


def check_index(index: float, choices: Sequence[str], fields: Fields) -> int:
    """Return which choice is right.

    Raises: ConfigError if it is none of them; hidden test sets say -1.
    """
    if not 0 <= index < len(choices):
        raise ConfigError(
            f"{fields.where} says that choice {index:g} of {len(choices)} is right; expected one of them; answers of "
            "hidden test sets are scored by their owners, take the validation set"
        )
    return int(index)


def averages(records: Sequence[Record], kind: str) -> Mapping[str, object]:
    """Return two averages, in percent, that published numbers mix up: over questions, and over the means of a kind.

    Failed items are left out; n is what is left.
    """
    groups: dict[str, list[bool]] = {}
    for record in records:
        if record.error is None and kind in record.breakdowns:
            groups.setdefault(record.breakdowns[kind], []).append(record.right)
    if not groups:
        return {}
    rights = [right for group in groups.values() for right in group]
    macro = sum(sum(group) / len(group) for group in groups.values()) / len(groups)
    return {"micro": 100 * sum(rights) / len(rights), "macro": 100 * macro, "over": kind, "n": len(rights)}


def find_judge(name: str) -> Judge:
    """Return the judge at `module:function`: it takes question, answer and reply, and returns 0 to 1.

    Raises: ConfigError if it is not found.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"judge {name!r} was not found ({error}); expected module:function of an installed module that takes "
            "question, answer and reply and returns 0 to 1; check its name"
        ) from error
