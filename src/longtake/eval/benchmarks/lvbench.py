"""LVBench: questions about videos of more than half an hour, four choices.

One file, `lvbench_clean.json`, or one a kind of video, `lvbench_clean_tv.json` and so on, each a list of::

    {"video": "00000007", "type": "tv", "question": "What does the second singer wear?",
     "candidates": ["(A) A hat", "(B) A scarf", "(C) A mask", "(D) A tie"], "answer": "(B) A scarf",
     "question_type": ["entity recognition"], "time_reference": "02:15-02:20"}

The benchmark has 1 549 questions, VideoChat-Flash's files 1 519, XComp's 1 492: their numbers are of different sets.
The letters stand in the choices already and again in front of them; the prompt is kept so. `time_reference` is the
proof of an answer.

Source: LVBench; prompt: VideoChat-Flash lmms-eval fork, lvbench.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

from longtake.eval.benchmarks.base import LETTER_REQUEST, Choices, letter_of, listed
from longtake.eval.benchmarks.released import Fields
from longtake.eval.task import Item, register

_TIME = r"((?:\d+:)?\d+:\d{2})"


@register("lvbench")
@register("lvbench-released", parser="vcf-first-letter")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LvBench(Choices):
    """LVBench."""

    patterns: ClassVar[tuple[str, ...]] = ("lvbench_clean.json", "lvbench_clean_*.json")

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        choices, video = fields.texts("candidates"), fields.text("video")
        return Item(
            id=f"{fields.file.stem}-{fields.number:04d}",
            media=self.locate(video),
            question=fields.text("question"),
            choices=choices,
            answer=letter_of(choices, fields.text("answer")),
            group=video,
            spans_s=proof(fields.text("time_reference")),
            extra={"type": fields.text("type"), "question_types": fields.texts("question_type")},
        )

    def prompt(self, item: Item) -> str:
        """Write the question as published, with its letters twice."""
        return "\n".join((item.question, *listed(item.choices, "{letter}. {choice}"), LETTER_REQUEST))

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by kind of video and by type of question; one may have several types."""
        types = item.extra["question_types"]
        assert isinstance(types, tuple)
        return {"type": str(item.extra["type"])} | {f"question type, {one}": "yes" for one in types}


def proof(reference: str) -> tuple[tuple[float, float], ...]:
    """Return the seconds of `02:15-02:20` or `1:02:15-1:02:20`; nothing if no times are given."""
    found = re.fullmatch(rf"\s*{_TIME}\s*-\s*{_TIME}\s*", reference)
    if found is None:
        return ()
    start_s, end_s = (
        sum(int(part) * 60**place for place, part in enumerate(reversed(time.split(":")))) for time in found.groups()
    )
    return ((float(start_s), float(end_s)),) if start_s <= end_s else ()
