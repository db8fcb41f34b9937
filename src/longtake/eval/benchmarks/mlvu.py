"""MLVU, the multiple choice part of its development set: 2 175 questions of seven types about long videos.

A file a type, `1_plotQA.json` to `7_topic_reasoning.json`, each a list of::

    {"video": "count_1.mp4", "duration": 572.8, "question": "How many times is the trombone played?",
     "candidates": ["2", "1", "5", "4"], "answer": "1", "question_type": "count"}

Two released answers are none of their choices; nobody can have them right. The papers' number is the mean over
questions (micro), the benchmark's own M-Avg the mean of the seven types (macro), which is lower: both are printed.

Source: MLVU; prompt `vcf`: VideoChat-Flash lmms-eval fork, mlvu_mc; `vcf-best-option`: what it asks its own model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from longtake.eval.benchmarks.base import BEST_OPTION, LETTER_REQUEST, Choices, averages, letter_of, listed
from longtake.eval.benchmarks.released import Fields
from longtake.eval.result import Record
from longtake.eval.task import Item, register


@register("mlvu")
@register("mlvu-released", parser="vcf-first-letter")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mlvu(Choices):
    """MLVU's multiple choice questions."""

    patterns: ClassVar[tuple[str, ...]] = tuple(f"{folder}[1-7]_*.json" for folder in ("", "json/"))
    templates: ClassVar[tuple[str, ...]] = ("vcf", "vcf-best-option")

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        kind, choices, video = fields.file.stem, fields.texts("candidates"), fields.text("video")
        return Item(
            id=f"{kind}-{fields.number:03d}",
            media=self.locate(video, f"video/{kind}", kind),
            question=fields.text("question"),
            choices=choices,
            answer=letter_of(choices, fields.text("answer")),
            group=video,
            extra={"type": fields.text("question_type"), "duration_s": fields.number_of("duration")},
        )

    def prompt(self, item: Item) -> str:
        """Write the question as published."""
        ending = LETTER_REQUEST if self.template == "vcf" else f"\n{BEST_OPTION}"
        return "\n".join((f"Question:{item.question}", "Option:", *listed(item.choices, "({letter}) {choice}"), ending))

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by type."""
        return {"type": str(item.extra["type"])}

    def figures(self, records: Sequence[Record]) -> Mapping[str, object]:
        """Return the means over questions (the papers') and over types (the benchmark's own)."""
        return averages(records, "type")
