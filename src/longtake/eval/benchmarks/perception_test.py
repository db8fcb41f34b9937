"""Perception Test, multiple choice, validation: 19 140 questions about short videos, three choices.

`mc_question_val*.parquet` (or the same rows as .json or .jsonl), rows of::

    {"video_name": "video_7", "question": "Where was the cup put?", "question_id": "12",
     "options": ["On the table", "Under it", "Nowhere"], "answer_id": "0", "area": "Memory",
     "reasoning": "Descriptive", "tag": ["object recognition"]}

Its released scripts offer two ways: the letter that is written, which is measured here, and the choice of least
perplexity, which is not. Test answers are hidden.

Source: Perception Test as in lmms-eval; prompt: VideoChat-Flash lmms-eval fork, perceptiontest. The files are not among
the samples that this was tested on: the schema is that of the harness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from longtake.eval.benchmarks.base import BEST_OPTION, Choices, check_index, listed
from longtake.eval.benchmarks.released import Fields
from longtake.eval.parsers import LETTERS
from longtake.eval.task import Item, register


@register("perception-test")
@register("perception-test-released", parser="perception-test")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PerceptionTest(Choices):
    """Perception Test."""

    patterns: ClassVar[tuple[str, ...]] = ("mc_question_val*", "mc_question_val/*", "validation*")

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        choices, video = fields.texts("options"), fields.text("video_name")
        right = check_index(float(fields.text("answer_id")), choices, fields)
        return Item(
            id=f"{video}-{fields.get('question_id', (str, int))}",
            media=self.locate(video),
            question=fields.text("question"),
            choices=choices,
            answer=LETTERS[right],
            group=video,
            extra={"area": fields.text("area"), "reasoning": fields.text("reasoning")},
        )

    def prompt(self, item: Item) -> str:
        """Write the question as published."""
        return "\n".join(("", f"Question: {item.question}", *listed(item.choices, "({letter}). {choice}"), BEST_OPTION))

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by area and by kind of reasoning."""
        return {name: str(item.extra[name]) for name in ("area", "reasoning")}
