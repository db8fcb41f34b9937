"""Charades-STA: when does a described event happen? 3 720 sentences about 1 334 videos of half a minute.

`temporal_grounding_charades.json`, a list of::

    {"video": "ABCDE.mp4", "caption": "person opens the window.", "timestamp": [3.1, 9.4]}

The score of an item is the overlap (intersection over union) of the two spans, right is one of at least `threshold`;
mIoU and the shares of 0.3, 0.5 and 0.7 are printed beside it. A reply without a span overlaps by 0. The instruction
is the released one with its spelling and its example, which is the answer of the first item.

Source: Charades-STA; prompt: VideoChat-Flash lmms-eval fork, temporal_grounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from longtake.core.errors import ConfigError
from longtake.eval.answers import overlap
from longtake.eval.benchmarks.base import Benchmark
from longtake.eval.benchmarks.released import Fields
from longtake.eval.parsers import find_span_reader
from longtake.eval.result import Record
from longtake.eval.task import Item, Scored, register

THRESHOLDS = (0.3, 0.5, 0.7)
INSTRUCTION = (
    "Please find the visual event described by a sentence in the video, determining its starting and ending times. The "
    "format should be: 'The event happens in the start time - end time'. For example, The event 'person turn a light "
    "on' happens in the 24.3 - 30.4 seonds. Now I will give you the textual sentence: "
)


@register("charades-sta")
@register("charades-sta-released", parser="vcf-span")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CharadesSta(Benchmark):
    """Charades-STA. threshold: the least overlap that counts as right."""

    patterns: ClassVar[tuple[str, ...]] = ("temporal_grounding_charades.json", "json/temporal_grounding_charades.json")
    max_new_tokens: ClassVar[int] = 50
    parser: str = "span"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}; expected above 0, at most 1; the usual one is 0.5")

    def check_parser(self) -> None:
        """Raise ConfigError if there is no such reader of spans."""
        find_span_reader(self.parser)

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        video, span = fields.text("video"), fields.span("timestamp")
        return Item(
            id=f"{video}-{fields.number:04d}",
            media=self.locate(video, "Charades_v1_480", "Charades"),
            question=fields.text("caption"),
            answer=f"{span[0]:g} - {span[1]:g}",
            group=video,
            spans_s=(span,),
        )

    def prompt(self, item: Item) -> str:
        """Write the sentence as published, with both full stops."""
        return f"{INSTRUCTION}{item.question}. Please return its start time and end time."

    def score(self, text: str, item: Item) -> Scored:
        """Return the overlap of the span that is read with the right one."""
        span = find_span_reader(self.parser)(text)
        iou = 0.0 if span is None else overlap(span, item.spans_s[0])
        return Scored(
            right=iou >= self.threshold,
            parsed=None if span is None else f"{span[0]:g} - {span[1]:g}",
            score=iou,
            extra={"iou": iou},
        )

    def figures(self, records: Sequence[Record]) -> Mapping[str, object]:
        """Return mIoU and the share of spans that reach each threshold, in percent."""
        ious = [float(record.extra["iou"]) for record in records if record.error is None]
        if not ious:
            return {}
        reached = {f"R@{least}": 100 * sum(iou >= least for iou in ious) / len(ious) for least in THRESHOLDS}
        return {"mIoU": 100 * sum(ious) / len(ious)} | reached | {"n": len(ious)}
