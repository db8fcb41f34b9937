"""The released annotations of needles: one picture, or a chain of pictures among decoys, with questions."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from longtake.core.errors import ConfigError

NUM_CHOICES = 4
NUM_DECOYS = 3
_STEP = re.compile(r"niah_(\d+)_(\d+)_COCO")
_OPTION = re.compile(r"^(?:Options: )?\(([A-D])\) ?(.*)$", re.MULTILINE)
SINGLE_FIELDS = ("question", "answer", "image", "id")
CHAIN_FIELDS = ("images", "question1", "answer1", "question2", "answer2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A question as released, its options in it; it ends with an opening bracket. answer: a letter A to D."""

    text: str
    answer: str

    @property
    def options(self) -> tuple[str, ...]:
        """Return the four options, without their letters."""
        return tuple(text for _, text in _OPTION.findall(self.text))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SingleRecord:
    """One needle picture and a question about it."""

    id: str
    image: str
    asked: Asked


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainRecord:
    """Pictures in the order in which they are put into the haystack, a question for a caption, one about the target.

    links: which of the pictures lead to the target, in the order of the chain, the one that the question names first;
    target, decoys: as well. Each link shows a text that says which picture comes next, in words.
    """

    id: str
    images: tuple[str, ...]
    links: tuple[int, ...]
    target: int
    decoys: tuple[int, ...]
    caption: Asked
    about: Asked


def read_single(path: str | Path) -> list[SingleRecord]:
    """Read the file of single needles.

    Raises: ConfigError naming the record that is not as it should be.
    """
    found = []
    for place, fields in enumerate(_records(path, SINGLE_FIELDS)):
        asked = _asked(fields, "question", "answer", f"record {place} of {path}")
        found.append(SingleRecord(id=str(fields["id"]), image=str(fields["image"]), asked=asked))
    return found


def read_chains(path: str | Path) -> list[ChainRecord]:
    """Read the file of chains, and recover each chain from the names of its pictures.

    Raises: ConfigError naming the record that is not as it should be.
    """
    found = []
    for place, fields in enumerate(_records(path, CHAIN_FIELDS)):
        where, images = f"record {place} of {path}", tuple(map(str, fields["images"]))
        links, target, decoys = chain_of(images, where)
        caption, about = (_asked(fields, f"question{n}", f"answer{n}", where) for n in (1, 2))
        found.append(
            ChainRecord(
                id=str(place), images=images, links=links, target=target, decoys=decoys, caption=caption, about=about
            )
        )
    return found


def chain_of(images: Sequence[str], where: str = "a record") -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """Return which pictures are links in order, which one is the target, which are decoys in order.

    The names say it: `niah_CHAIN_STEP_COCO…` is a picture with a text, a name without is the target. Of N pictures the
    target is step N - 3, and the last three steps are a chain of decoys.

    Raises: ConfigError if the names do not say so.
    """
    steps = {int(match.group(2)): place for place, name in enumerate(images) if (match := _STEP.search(name))}
    bare = [place for place, name in enumerate(images) if not _STEP.search(PurePosixPath(name).name)]
    last_link = len(images) - NUM_DECOYS - 1
    wanted = {*range(1, last_link + 1), *range(last_link + 2, len(images) + 1)}
    if len(bare) != 1 or set(steps) != wanted:
        raise ConfigError(
            f"{where} has {len(images)} pictures with steps {sorted(steps)} and {len(bare)} without; expected steps "
            f"{sorted(wanted)} and one without; check the file"
        )
    links = tuple(steps[step] for step in range(1, last_link + 1))
    return links, bare[0], tuple(steps[step] for step in range(last_link + 2, len(images) + 1))


def placements(count: int, frames: int) -> list[int]:
    """Return before which frame of the haystack each of `count` needles stands: the first one before all of them.

    Source: VideoChat-Flash multi-hop needles: a gap of frames / (count - 1), the last needle behind all frames.
    """
    return [0] if count == 1 else [place * frames // (count - 1) for place in range(count)]


def words_overlap(record: ChainRecord) -> str:
    """Return the caption's letter that the words of the second question point to, without looking at any picture.

    Source: a control; what it finds is not skill in following a chain.
    """
    said = _words(record.about.text.rsplit("final frame:", 1)[-1])
    shared = [len(_words(option) & said) for option in record.caption.options]
    return "ABCD"[max(range(len(shared)), key=lambda place: (shared[place], -place))]


_COMMON = {"a", "an", "the", "of", "in", "on", "is", "are", "and", "to", "with", "what", "at", "only", "give", "best",
           "option", "options", "b", "c", "d", "color", "how", "many", "there", "where"}  # fmt: skip


def _words(text: str) -> set[str]:
    """Return the words that say something, each also without the ending of a plural."""
    words = {word for word in re.findall(r"[a-z]+", text.lower()) if word not in _COMMON}
    return words | {word.removesuffix(ending) for word in words for ending in ("s", "es") if len(word) > 4}


def _records(path: str | Path, names: Sequence[str]) -> list[dict[str, Any]]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); expected a JSON list of records; check the path"
        ) from error
    if not isinstance(found, list) or not found:
        raise ConfigError(f"{path} holds a {type(found).__name__}; expected a list of records; check the file")
    for place, fields in enumerate(found):
        if not isinstance(fields, dict) or set(fields) != set(names):
            keys = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
            raise ConfigError(f"record {place} of {path} has {keys}; expected {sorted(names)}; check the file")
    return found


def _asked(fields: Mapping[str, Any], question: str, answer: str, where: str) -> Asked:
    asked = Asked(text=str(fields[question]), answer=str(fields[answer]))
    if len(asked.options) != NUM_CHOICES or asked.answer not in "ABCD" or len(asked.answer) != 1:
        raise ConfigError(
            f"{where} has {len(asked.options)} options and the answer {asked.answer!r} to {question}; expected four "
            "options and a letter A to D; check the file"
        )
    return asked
