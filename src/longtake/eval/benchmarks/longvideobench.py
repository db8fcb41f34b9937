"""LongVideoBench: questions that refer to a moment of a video with subtitles, up to an hour; two to five choices.

`lvb_val.json` (or `validation*.parquet`, where `option0` to `option4` hold the choices, filled up with `N/A`), a list
of::

    {"video_id": "abc", "id": "abc_0", "question": "What does the man wear when the subtitle mentions rain?",
     "candidates": ["A coat", "A shirt"], "correct_choice": 0, "question_category": "T2A", "level": "L1-Perception",
     "video_path": "abc.mp4", "subtitle_path": "abc_en.json", "duration_group": 60, "duration": 51.2,
     "starting_timestamp_for_subtitles": 0}

and a folder `subtitles` of lists of `{"timestamp": [0.0, 2.0], "text": "…"}` or `{"start": "00:00:00.000", "end":
"00:00:02.000", "line": "…"}`. The papers' prompt holds every subtitle that is shown at one of 512 times at most, spread
over the video, whichever frames the model sees: their numbers are with subtitles. Test answers are hidden.

Source: LongVideoBench; prompts `vcf` with, `upstream` without subtitles: VideoChat-Flash lmms-eval fork and lmms-eval
0.7.3, longvideobench.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from longtake.core.errors import ConfigError
from longtake.eval.benchmarks.base import LETTER_REQUEST, Choices, NotThere, check_index, listed
from longtake.eval.benchmarks.released import Fields
from longtake.eval.parsers import LETTERS
from longtake.eval.task import Item, register

FILLER = "N/A"
MOST_TIMES = 512
SHORTEST_S = 1.0


@register("longvideobench")
@register("longvideobench-no-subtitles", template="upstream")
@register("longvideobench-released", parser="mmmu-last")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LongVideoBench(Choices):
    """LongVideoBench's validation set. most_times: at how many times subtitles are looked up at most."""

    patterns: ClassVar[tuple[str, ...]] = ("lvb_val.json", "validation*.parquet", "data/validation*.parquet")
    templates: ClassVar[tuple[str, ...]] = ("vcf", "upstream")
    max_new_tokens: ClassVar[int] = 32
    most_times: int = MOST_TIMES

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        choices = options(fields)
        right = check_index(fields.number_of("correct_choice"), choices, fields)
        group, level = fields.number_of("duration_group"), fields.values.get("level")
        more = {"category": fields.text("question_category")} | ({"level": str(level)} if level else {})
        subtitles = self._subtitles(fields) if self.template == "vcf" else ""
        return Item(
            id=fields.text("id"),
            media=self.locate(fields.text("video_path")),
            question=fields.text("question"),
            choices=choices,
            answer=LETTERS[right],
            group=fields.text("video_id"),
            duration_class=f"{group:g} s",
            extra=more | {"subtitles": subtitles},
        )

    def _subtitles(self, fields: Fields) -> str:
        """Return the subtitles that the prompt holds.

        Raises: NotThere if their file is not in the folder; ConfigError if it is damaged.
        """
        name = fields.text("subtitle_path")
        name = name if "_en.json" in name else name.replace(".json", "_en.json")
        places = [
            folder / name for root in self.video_folders for folder in (root.parent / "subtitles", root / "subtitles")
        ]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise NotThere(f"subtitles/{name}")
        duration_s, shift_s = fields.number_of("duration"), fields.number_of("starting_timestamp_for_subtitles")
        return subtitle_block(read_subtitles(file), lookup_times(duration_s, self.most_times), duration_s, shift_s)

    def prompt(self, item: Item) -> str:
        """Write the question as published."""
        question = "\n".join((item.question, *listed(item.choices, "({letter}). {choice}")))
        if self.template == "upstream":
            return f"{question}\n{LETTER_REQUEST}\n"
        return (
            f" This video's subtitles are listed below: \n{item.extra['subtitles']}.\n Select the best answer to the "
            "following multiple-choice question based on the video and the subtitles. Respond with only the letter of "
            f"the correct option.\nQuestion: {question}\n{LETTER_REQUEST}\n"
        )

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by length of the video, by category and by level."""
        more = {name: str(item.extra[name]) for name in ("category", "level") if name in item.extra}
        return {"duration": item.duration_class} | more


def options(fields: Fields) -> tuple[str, ...]:
    """Return the choices, of either form of the file."""
    if "candidates" in fields.values:
        return fields.texts("candidates")
    every = [fields.text(f"option{number}") for number in range(5)]
    return tuple(option for option in every if option != FILLER)


def read_subtitles(file: Path) -> list[dict[str, Any]]:
    """Read a file of subtitles.

    Raises: ConfigError if it is no list.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file} is damaged ({error}); expected JSON; fetch it again") from error
    if not isinstance(found, list):
        raise ConfigError(f"{file} holds no list; expected subtitles as released; fetch it again")
    return found


def lookup_times(duration_s: float, most: int) -> list[float]:
    """Return the seconds at which subtitles are looked up: every second, or `most` spread evenly over longer videos."""
    if duration_s > most:
        return [duration_s / most * number for number in range(most)]
    return [float(number) for number in range(int(duration_s))]


def subtitle_block(
    subtitles: Sequence[Mapping[str, Any]], times_s: Sequence[float], duration_s: float, shift_s: float
) -> str:
    """Return the lines that are shown at one of the times; one shorter than a second lasts a second around its middle.

    A line without an end lasts to the end of the video.

    Source: VideoChat-Flash lmms-eval fork, insert_subtitles_into_frames without its image marks.
    """
    kept = []
    for line in subtitles:
        if "timestamp" in line:
            start, end = line["timestamp"]
            end = end if isinstance(end, float) else duration_s
            text = line["text"]
        else:
            start, end, text = clock_s(line["start"]), clock_s(line["end"]), line["line"]
        start, end = start - shift_s, end - shift_s
        if end - start < SHORTEST_S:
            middle = (start + end) / 2
            start, end = middle - SHORTEST_S / 2, middle + SHORTEST_S / 2
        if any(start < time < end for time in times_s):
            kept.append(text)
    return "\n".join(kept)


def clock_s(text: str) -> float:
    """Return the seconds of `00:01:02.500`."""
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
