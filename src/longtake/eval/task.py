"""What is measured: a task has items, writes the prompt of each, and says what an answer is worth."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from longtake.core.config import StrictConfig, nearest_name
from longtake.core.errors import ConfigError
from longtake.core.types import Frames, VideoMemory
from longtake.eval.result import Record
from longtake.media.sampling import SamplingRule

Encode = Callable[[Path | Frames], VideoMemory]
ENTRY_POINT_GROUP = "longtake.tasks"
# Modules and packages whose import registers the tasks that come with the house.
HOMES = ("longtake.eval.benchmarks", "longtake.eval.filmstrip_tasks", "longtake.eval.needles")
_TASKS: dict[str, tuple[type[Task], Mapping[str, object]]] = {}


@runtime_checkable
class Drawn(Protocol):
    """A video that does not exist until it is needed; equal keys give equal videos."""

    @property
    def key(self) -> str:
        """Return what tells it from every other one; short, good for a file name."""
        ...

    @property
    def suffix(self) -> str:
        """Return the suffix of the file, such as `.mp4`."""
        ...

    def write(self, path: Path) -> Path:
        """Write it as a real file, frame by frame, never the whole of it in memory."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One question about one video.

    id: the same in every run, unique in the task. media: a file or folder of pictures, or what draws one when it is
    needed. question, choices, answer: as the data have them; choices empty where the answer is open. group: what makes
    items depend on one another, the film of a question: intervals treat the items of a group as one draw; none: the
    media. duration_class: such as short, medium, long; none where a task has none. spans_s: the seconds that prove the
    answer. start_s, end_s: the part of the video that is shown. folder_fps: pictures a second, of a folder of them.
    extra: fields for the prompt, the score and breakdowns.
    """

    id: str
    media: Path | Drawn
    question: str
    choices: tuple[str, ...] = ()
    answer: str = ""
    group: str = ""
    duration_class: str = ""
    spans_s: tuple[tuple[float, float], ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    folder_fps: float = 1.0
    extra: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def media_key(self) -> str:
        """Return what tells this item's video, and its part, from others."""
        name = str(self.media) if isinstance(self.media, Path) else self.media.key
        return name if self.start_s is None and self.end_s is None else f"{name} {self.start_s} {self.end_s}"

    @property
    def cluster(self) -> str:
        """Return the group, else the video."""
        return self.group or (str(self.media) if isinstance(self.media, Path) else self.media.key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """What an answer is worth.

    right: what accuracy counts. score: 0 to 1, equal to `right` where there is nothing between (an overlap of spans
    has). parsed: what was read from the text; none if nothing could be, which is wrong and counted as unparsed.
    extra: more figures of the item, by name.
    """

    right: bool
    parsed: str | None
    score: float | None = None
    extra: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def value(self) -> float:
        """Return the score, else 1 or 0 for right or wrong."""
        return float(self.right) if self.score is None else self.score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(StrictConfig, abc.ABC):
    """A task by name, with its settings as fields: `build` makes one from plain values.

    A subclass gives `items`, `prompt` and `score`. template, parser: names that the manifest writes down, of the prompt
    and of what reads the answer; change one with what it names. max_new_tokens: what an answer needs at most. composes:
    whether `compose` makes the memories, so that there is no file which a baseline could see otherwise.
    """

    template: ClassVar[str] = "question"
    parser: ClassVar[str] = "none"
    max_new_tokens: ClassVar[int] = 64
    composes: ClassVar[bool] = False
    name: str

    @abc.abstractmethod
    def items(self) -> Sequence[Item]:
        """Return all items whose media can be had, in an order that never changes."""

    @abc.abstractmethod
    def prompt(self, item: Item) -> str:
        """Write the question as the model is asked it; the video and its time message are put in front later."""

    @abc.abstractmethod
    def score(self, text: str, item: Item) -> Scored:
        """Read an answer and compare it with the right one."""

    def chance(self, item: Item) -> float:
        """Return how often a guess among the choices is right; 0 where there are none."""
        return 1 / len(item.choices) if item.choices else 0.0

    def rule(self) -> SamplingRule | None:
        """Return the frames that the task's protocol takes; none leaves it to the model's own rule."""
        return None

    def max_frames(self) -> int | None:
        """Return how many frames the task shows at most; none leaves it to the user's budget."""
        return None

    def missing(self) -> list[str]:
        """Return the media that the annotations name and the data folder lacks."""
        return []

    def counts(self, item: Item) -> bool:
        """Say whether an item is part of the accuracy; one that is not serves a breakdown or a figure alone."""
        return True

    def figures(self, records: Sequence[Record]) -> Mapping[str, object]:
        """Return the task's own figures of one arm's records, of those too that do not count: a mean of means, hops."""
        return {}

    def compose(self, item: Item, encode: Encode) -> VideoMemory | None:
        """Return a memory put together from parts that `encode` made; none lets the runner ingest the item's media."""
        return None

    def chat(self, item: Item) -> str | None:
        """Return the whole conversation with `<image>` in it; none has the model's own prompt written around `prompt`.

        Source: needed where a protocol has no time message or puts the question elsewhere.
        """
        return None

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Return under which names, by kind, the item is counted again: {"duration": "long", "area": "memory"}."""
        return {"duration": item.duration_class} if item.duration_class else {}

    def dataset_hash(self) -> str:
        """Return a SHA-256 over everything of the items that a score depends on, but for the media's bytes."""
        digest = hashlib.sha256()
        for item in self.items():
            media = item.media.name if isinstance(item.media, Path) else item.media.key
            values = dataclasses.asdict(dataclasses.replace(item, media=Path(media))) | {"media": media}
            digest.update(json.dumps(values, sort_keys=True, default=str).encode())
        return digest.hexdigest()


def register(name: str, **fields: object) -> Callable[[type], type]:
    """Class decorator: make a Task (a frozen dataclass) known by name, perhaps by several, each with fields set."""

    def add(cls: type) -> type:
        known = _TASKS.get(name)
        if known is not None and known[0].__qualname__ != cls.__qualname__:
            raise ConfigError(f"a task {name!r} is already {known[0].__qualname__}; choose another name")
        _TASKS[name] = (cls, fields)
        return cls

    return add


def _load_all() -> None:
    for home in HOMES:
        for module in _modules(home):
            importlib.import_module(module)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        point.load()


def _modules(home: str) -> Iterator[str]:
    yield home
    for found in pkgutil.walk_packages(getattr(importlib.import_module(home), "__path__", []), f"{home}."):
        yield found.name


def tasks() -> dict[str, tuple[type[Task], Mapping[str, object]]]:
    """Return every registered task by name: its class, and the fields that the name sets."""
    _load_all()
    return dict(_TASKS)


def build(name: str, values: Mapping[str, object] | None = None) -> Task:
    """Build the task of that name; values set its other fields. An underscore in the name counts as a hyphen.

    Raises: ConfigError with the nearest known task or field, or for a value of the wrong type.
    """
    known = tasks()
    name = name if name in known else name.replace("_", "-")
    if name not in known:
        raise ConfigError(f"no task is called {name!r}; {nearest_name(name, list(known))}")
    cls, fields = known[name]
    try:
        return cls.from_dict({**fields, **(values or {}), "name": name})
    except TypeError as error:
        raise ConfigError(
            f"task {name} cannot take {dict(values or {})} ({error}); expected values for its fields; see "
            "docs/evaluation.md"
        ) from error
