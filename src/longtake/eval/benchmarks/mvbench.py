"""MVBench: 20 kinds of questions about short videos, 200 each, two to five choices.

A file a kind, `action_sequence.json` and so on, each a list of::

    {"video": "clip_7.mp4", "question": "What happened after the person took the cup?",
     "candidates": ["Ate the apple.", "Opened the door."], "answer": "Opened the door.",
     "start": 0.0, "end": 15.2}

`start` and `end` (s) are there in five kinds, and only that part is shown. Episodic reasoning names a folder of
pictures, three a second. Chance is 28.3 %; the score is the mean of the kinds, which all have 200 questions.

Source: OpenGVLab/MVBench; prompt `vcf`: VideoChat-Flash lmms-eval fork, mvbench; prompt `pvc`: PVC eval/mvbench. PVC
puts `Frame1: <image>` and so on in front, which here the model's own prompt does, and searches with 5 beams; ours is
greedy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from longtake.eval.benchmarks.base import BEST_OPTION, Choices, averages, letter_of, listed
from longtake.eval.benchmarks.released import Fields
from longtake.eval.result import Record
from longtake.eval.task import Item, register

_CHARADES, _CLEVRER, _PERCEPTION = "star/Charades_v1_480", "clevrer/video_validation", "perception/videos"
# Where the released videos of a kind lie, in the folder of videos.
PLACES = {
    "action_sequence": _CHARADES,
    "action_prediction": _CHARADES,
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": _CLEVRER,
    "object_interaction": _CHARADES,
    "object_shuffle": _PERCEPTION,
    "moving_direction": _CLEVRER,
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": _PERCEPTION,
    "moving_count": _CLEVRER,
    "moving_attribute": _CLEVRER,
    "state_change": _PERCEPTION,
    "fine_grained_pose": "nturgbd",
    "character_order": _PERCEPTION,
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "counterfactual_inference": _CLEVRER,
}
PVC_INSTRUCTION = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question.\n"
)


@register("mvbench")
@register("mvbench-released", parser="vcf-first-letter")
@register("mvbench-pvc", template="pvc", parser="pvc-contains")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MvBench(Choices):
    """MVBench. kinds: only these of its kinds; none: all.

    The released script leaves empty replies out of the count; here they are wrong.
    """

    patterns: ClassVar[tuple[str, ...]] = tuple(f"{folder}*_*.json" for folder in ("", "json/"))
    templates: ClassVar[tuple[str, ...]] = ("vcf", "pvc")
    kinds: tuple[str, ...] = ()

    def takes(self, fields: Fields) -> bool:
        """Take the kinds that are asked for, of the twenty that there are."""
        kind = fields.file.stem
        return kind in PLACES and (not self.kinds or kind in self.kinds)

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        kind, choices, video = fields.file.stem, fields.texts("candidates"), fields.text("video")
        media = self.locate(video, PLACES[kind], kind)
        is_part = "start" in fields.values
        return Item(
            id=f"{kind}-{fields.number:03d}",
            media=media,
            question=fields.text("question"),
            choices=choices,
            answer=letter_of(choices, fields.text("answer")),
            group=video,
            start_s=fields.number_of("start") if is_part else None,
            end_s=fields.number_of("end") if is_part else None,
            folder_fps=fields.number_of("fps") if "fps" in fields.values else 1.0,
            extra={"kind": kind},
        )

    def prompt(self, item: Item) -> str:
        """Write the question as published."""
        options = listed(item.choices, "({letter}) {choice}")
        if self.template == "pvc":
            block = "\n".join((f"Question: {item.question}", "Options:", *options)).rstrip()
            return f"{PVC_INSTRUCTION}\n{block}\n{BEST_OPTION}"
        return "\n".join((f"Question: {item.question}", "Option:", *options, "", BEST_OPTION))

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by kind."""
        return {"kind": str(item.extra["kind"])}

    def figures(self, records: Sequence[Record]) -> Mapping[str, object]:
        """Return the means over questions and over kinds, which are equal where all 20 are whole."""
        return averages(records, "kind")
