"""VideoEval-Pro: questions about long videos that were multiple choice and are asked openly, and both compared.

`test*.parquet` (or the same rows as .json or .jsonl), rows of::

    {"video": "abc.mp4", "question": "What does the guide point at?", "answer_text": "A waterfall",
     "options": ["A. A bridge", "B. A waterfall"], "answer": "B", "qa_type": "Local Perception"}

The published figure of the open questions is a judge's, gpt-4o-2024-11-20 by name. None comes with longtake: `judge`
names a function of yours, `module:function`, of question, answer and reply, that returns 0 to 1. Without one a reply is
right only if it is the answer, or holds it word for word, which is stricter than any judge and not comparable. With
`mcq` the choices are shown and a letter is asked for; the gap to the open ones is what the benchmark is about.

Source: VideoEval-Pro as in lmms-eval 0.7.3, videoevalpro and videoevalpro_mcq. The files are not among the samples
that this was tested on: the schema is that of the harness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from longtake.eval.benchmarks.base import Benchmark, find_judge
from longtake.eval.benchmarks.released import Fields
from longtake.eval.benchmarks.vdc import words
from longtake.eval.parsers import find_reader
from longtake.eval.task import Item, Scored, register


@register("videoeval-pro")
@register("videoeval-pro-mcq", mcq=True)
@register("videoeval-pro-mcq-released", mcq=True, parser="lmms-ranked")
@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoEvalPro(Benchmark):
    """VideoEval-Pro. mcq: show the choices. judge: see above."""

    patterns: ClassVar[tuple[str, ...]] = ("test*", "data/test*", "*.jsonl")
    templates: ClassVar[tuple[str, ...]] = ("upstream",)
    template: str = "upstream"
    mcq: bool = False
    judge: str = ""

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        video = fields.text("video")
        right = fields.text("answer").strip().upper() if self.mcq else fields.text("answer_text")
        return Item(
            id=f"{fields.number:04d}-{video}",
            media=self.locate(video, "videos_filtered"),
            question=fields.text("question"),
            choices=fields.texts("options") if self.mcq else (),
            answer=right,
            group=video,
            extra={"type": fields.text("qa_type")},
        )

    def prompt(self, item: Item) -> str:
        """Write the question as lmms-eval does."""
        if self.mcq:
            return "\n".join((item.question, *map(str.strip, item.choices), "Answer with the option letter only."))
        return f"{item.question} Keep the answer short and concise."

    def score(self, text: str, item: Item) -> Scored:
        """Read the letter, or let the reply be judged."""
        if self.mcq:
            read = find_reader(self.parser)(text, item.choices)
            return Scored(right=item.answer != "" and item.answer in read, parsed=read or None)
        parsed = text.strip() or None
        if self.judge:
            worth = find_judge(self.judge)(item.question, item.answer, text)
            return Scored(right=worth >= 0.5, parsed=parsed, score=worth)
        return Scored(right=holds(text, item.answer), parsed=parsed)

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by type of question."""
        return {"type": str(item.extra["type"])}


def holds(reply: str, answer: str) -> bool:
    """Say whether a reply holds the words of an answer, in order and together."""
    said, meant = words(reply), words(answer)
    return bool(meant) and any(said[start : start + len(meant)] == meant for start in range(len(said)))
