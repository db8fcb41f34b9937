"""Video-MME: 900 videos, short, medium and long, three questions each, four choices.

`test*.parquet` (or the same rows as .json or .jsonl), rows of::

    {"video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Astronomy", "videoID": "abc",
     "question_id": "001-1", "task_type": "Counting Problem", "question": "How many moons are shown?",
     "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."], "answer": "B"}

With subtitles the prompt holds all lines of `subtitle/abc.srt`, whichever frames are seen; a video without such a file
is asked about without. Three questions share a video: intervals draw videos.

Source: Video-MME; prompts: VideoChat-Flash lmms-eval fork, videomme.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from longtake.core.errors import ConfigError
from longtake.eval.benchmarks.base import LETTER_REQUEST, Choices
from longtake.eval.benchmarks.released import Fields
from longtake.eval.task import Item, register

DURATIONS = ("short", "medium", "long")
_SHOWN = re.compile(r'<font color="white" size=".72c">(.*?)</font>')
_INSTRUCTION = (
    "These are the frames{and_subtitles} of a video. Select the best answer to the following multiple-choice question "
    "based on the video{and_the_subtitles}. Respond with only the letter (A, B, C, or D) of the correct option."
)


@register("videomme")
@register("videomme-subtitles", subtitles=True)
@register("videomme-released", parser="videomme")
@register("videomme-subtitles-released", subtitles=True, parser="videomme")
@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoMme(Choices):
    """Video-MME. subtitles: put them into the prompt. durations: only these classes; none: all."""

    patterns: ClassVar[tuple[str, ...]] = ("test*.parquet", "videomme/test*.parquet", "*.jsonl", "test*.json")
    subtitles: bool = False
    durations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.durations) <= set(DURATIONS):
            raise ConfigError(f"durations are {self.durations}; expected some of {DURATIONS}; choose among them")

    def takes(self, fields: Fields) -> bool:
        """Take the classes of duration that are asked for."""
        return not self.durations or fields.text("duration") in self.durations

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        video = fields.text("videoID")
        kinds = {name: fields.text(name) for name in ("domain", "sub_category", "task_type")}
        return Item(
            id=fields.text("question_id"),
            media=self.locate(video, "data"),
            question=fields.text("question"),
            choices=fields.texts("options"),
            answer=fields.text("answer"),
            group=video,
            duration_class=fields.text("duration"),
            extra=kinds | ({"subtitles": self._lines(video)} if self.subtitles else {}),
        )

    def _lines(self, video: str) -> str | None:
        """Return the lines of a video's subtitles; none if it has no file of them."""
        for root in self.video_folders:
            for folder in (root.parent / "subtitle", root / "subtitle"):
                if (folder / f"{video}.srt").is_file():
                    return shown_lines(folder / f"{video}.srt")
        return None

    def prompt(self, item: Item) -> str:
        """Write the question as published; the one with subtitles ends otherwise."""
        question = "\n".join((f"Question: {item.question}", "Option:", *item.choices))
        lines = item.extra.get("subtitles")
        told = {"and_subtitles": " and subtitles", "and_the_subtitles": " and the subtitles"} if lines else {}
        instruction = _INSTRUCTION.format(**({"and_subtitles": "", "and_the_subtitles": ""} | told))
        if not self.subtitles:
            return f"{instruction}\n{question}\n{LETTER_REQUEST}"
        heading = "" if lines is None else f"This video's subtitles are listed below: \n{lines}"
        return f"{heading}\n{instruction}\n{question}\nThe best answer is:"

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by duration, domain, sub-category and type of question."""
        kinds = {name: str(item.extra[name]) for name in ("domain", "sub_category", "task_type")}
        return {"duration": item.duration_class} | kinds


def shown_lines(file: Path) -> str:
    """Return the words of a subtitle file, one line each: what stands in the white font tags of the released ones."""
    found = (_SHOWN.search(line) for line in file.read_text(encoding="utf-8").splitlines())
    return "\n".join(match[1] for match in found if match)
