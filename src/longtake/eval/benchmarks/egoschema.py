"""EgoSchema, the subset of 500 with public answers: three minutes seen through somebody's eyes, five choices.

`Subset/*.parquet` (or the same rows as .json or .jsonl), rows of::

    {"video_idx": "0a01", "question_idx": "7", "question": "What is C doing, overall?",
     "option": ["A. C cooks.", "B. C reads.", "C. C sews.", "D. C paints.", "E. C runs."], "answer": "2"}

The full set of 5 031 is scored by its owners' server, which is not asked here: a number of ours is of the subset.

Source: EgoSchema as in lmms-eval; prompt `upstream`: lmms-eval 0.7.3, egoschema. VideoChat-Flash's own is not public.
The files are not among the samples that this was tested on: the schema is that of the harness.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from longtake.eval.benchmarks.base import LETTER_REQUEST, Choices, check_index
from longtake.eval.benchmarks.released import Fields
from longtake.eval.parsers import LETTERS
from longtake.eval.task import Item, register


@register("egoschema")
@register("egoschema-released", parser="mmmu-first")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EgoSchema(Choices):
    """EgoSchema's subset."""

    patterns: ClassVar[tuple[str, ...]] = ("Subset/*", "subset*", "test*")
    templates: ClassVar[tuple[str, ...]] = ("upstream",)
    template: str = "upstream"

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        choices, video = fields.texts("option"), fields.text("video_idx")
        answer = str(fields.values.get("answer"))
        right = check_index(float(answer) if answer.isdigit() else -1.0, choices, fields)
        return Item(
            id=video,
            media=self.locate(video),
            question=fields.text("question"),
            choices=choices,
            answer=LETTERS[right],
            group=video,
        )

    def prompt(self, item: Item) -> str:
        """Write the question as lmms-eval does."""
        return "\n".join((item.question, *item.choices, LETTER_REQUEST))
