"""NExT-QA, multiple choice: why, how, before and after in short everyday videos, five choices.

`MC/test*.parquet` (or the same rows as .json or .jsonl), rows of::

    {"video": 4010069381, "question": "why did the boy turn around", "a0": "to wave", "a1": "to run", "a2": "to sit",
     "a3": "to eat", "a4": "to sleep", "answer": 2, "qid": 6, "type": "CW"}

The first letter of `type` is the kind that is reported: causal, temporal, descriptive.

Source: NExT-QA as in lmms-eval; prompt `upstream`: lmms-eval 0.7.3, nextqa_mc_test, which asks for no letter. The
papers' own is not public. The files are not among the samples that this was tested on: the schema is that of the
harness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from longtake.eval.benchmarks.base import Choices, check_index, listed
from longtake.eval.benchmarks.released import Fields
from longtake.eval.parsers import LETTERS
from longtake.eval.task import Item, register

KINDS = {"C": "causal", "T": "temporal", "D": "descriptive"}


@register("nextqa")
@register("nextqa-released", parser="mmmu-last")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NextQa(Choices):
    """NExT-QA."""

    patterns: ClassVar[tuple[str, ...]] = ("MC/test*", "test*")
    templates: ClassVar[tuple[str, ...]] = ("upstream",)
    template: str = "upstream"

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        video = str(fields.get("video", (str, int)))
        choices = tuple(fields.text(f"a{number}").strip() for number in range(5))
        right = check_index(fields.number_of("answer"), choices, fields)
        return Item(
            id=f"{video}-{fields.number:05d}",
            media=self.locate(video, "NExTVideo"),
            question=fields.text("question"),
            choices=choices,
            answer=LETTERS[right],
            group=video,
            extra={"type": fields.text("type")},
        )

    def prompt(self, item: Item) -> str:
        """Write the question as lmms-eval does."""
        return "\n".join((item.question.strip(), *listed(item.choices, "{letter}. {choice}")))

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by kind and by type."""
        kind = str(item.extra["type"])
        return {"kind": KINDS.get(kind[:1], "other"), "type": kind}
