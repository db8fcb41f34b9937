"""VDC, AuroraCap's captions: describe a video, as a whole or its camera, background, or main object.

`*.jsonl` (or .json, .parquet), one file a section, rows of::

    {"video_name": "clip_7", "caption": "A boy in a red coat feeds ducks at a pond …",
     "qa_list": [{"question": "What colour is the coat?", "answer": "Red"}]}

The published figure needs a judge: a language model answers each question from the caption alone and judges that
answer. None comes with longtake. `judge` names a function of yours, `module:function`, of question, answer and
caption, that returns 0 to 1; then the score is the mean over the questions, right from a half on. Without one the score
is BLEU-1 against the reference caption, which is what XComp reports, BLEU-4 stands beside it, and nothing is ever
right: there is no accuracy to compare with VideoChat-Flash's.

The released prompt is drawn at random from 16 to 24 paraphrases. Here it is the first of the section, the same in every
run; `prompts`, a .json file of `{"short": ["…"]}`, takes yours, drawn by the item's name.

Source: AuroraCap (VDC) as in lmms-eval 0.7.3; BLEU: Papineni et al. 2002, of single sentences, without smoothing.
The files are not among the samples that this was tested on: the schema is that of the harness.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError
from longtake.eval.benchmarks.base import Benchmark, find_judge
from longtake.eval.benchmarks.released import Fields
from longtake.eval.result import Record
from longtake.eval.task import Item, Scored, register

FIRST_PROMPTS = {
    "detailed": "Please imagine the video based on the sequence of frames, and provide a faithfully detailed "
    "description of this video in more than three sentences.",
    "background": "The images are given containing equally spaced video frames.Summary of the background. This should "
    "also include the objects, location, weather, and time.",
    "short": "Write a one-sentence summary of the video.",
    "main_object": "Description of the main subject actions or status sequence. This suggests including the main "
    "subjects (person, object, animal, or none) and their attributes, their action, their position, and movements "
    "during the video frames.",
    "camera": "Summary of the view shot, camera movement and changes in shooting angles in the sequence of "
    "video frames.",
}


@register("vdc-short", section="short")
@register("vdc-camera", section="camera")
@register("vdc-background", section="background")
@register("vdc-main-object", section="main_object")
@register("vdc-detailed", section="detailed")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Vdc(Benchmark):
    """One section of VDC. judge, prompts: see above."""

    patterns: ClassVar[tuple[str, ...]] = ("*.jsonl", "*.json", "*.parquet")
    templates: ClassVar[tuple[str, ...]] = ("first-paraphrase",)
    template: str = "first-paraphrase"
    parser: str = "caption"
    max_new_tokens: ClassVar[int] = 512
    section: str = "detailed"
    judge: str = ""
    prompts: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.section not in FIRST_PROMPTS:
            raise ConfigError(f"section is {self.section!r}; {nearest_name(self.section, list(FIRST_PROMPTS))}")

    def check_parser(self) -> None:
        """Raise ConfigError: a caption is taken as it is."""
        if self.parser != "caption":
            raise ConfigError(f"parser is {self.parser!r}; a caption is taken as it is; leave it out")

    @functools.cached_property
    def _prompts(self) -> Sequence[str]:
        if not self.prompts:
            return [FIRST_PROMPTS[self.section]]
        found = json.loads(Path(self.prompts).read_text(encoding="utf-8")).get(self.section)
        if not found:
            raise ConfigError(f"{self.prompts} has no prompt for {self.section}; expected a list; add one")
        return found

    def item(self, fields: Fields) -> Item:
        """Make an item of a record."""
        video = fields.text("video_name")
        pairs = [(str(pair["question"]), str(pair["answer"])) for pair in fields.values.get("qa_list") or ()]
        return Item(
            id=f"{self.section}-{video}",
            media=self.locate(video, "Test_Videos"),
            question=self._prompts[zlib.crc32(video.encode()) % len(self._prompts)],
            answer=fields.text("caption"),
            group=video,
            extra={"pairs": pairs},
        )

    def takes(self, fields: Fields) -> bool:
        """Take the records of the section's own file: the one whose name holds the section's."""
        return self.section in fields.file.stem or self.folder.is_file()

    def prompt(self, item: Item) -> str:
        """Return the request for a caption."""
        return item.question

    def score(self, text: str, item: Item) -> Scored:
        """Judge a caption by its questions, or compare its words with the reference's."""
        figures = {f"bleu_{longest}": bleu(text, item.answer, longest) for longest in (1, 4)}
        pairs = item.extra["pairs"]
        assert isinstance(pairs, list)
        parsed = text.strip() or None
        if not self.judge:
            return Scored(right=False, parsed=parsed, score=figures["bleu_1"], extra=figures)
        if not pairs:
            raise ConfigError(f"item {item.id} has no qa_list to judge by; expected questions; leave judge out")
        ask = find_judge(self.judge)
        judged = sum(ask(question, answer, text) for question, answer in pairs) / len(pairs)
        return Scored(right=judged >= 0.5, parsed=parsed, score=judged, extra=figures | {"judged": judged})

    def figures(self, records: Sequence[Record]) -> Mapping[str, object]:
        """Return the mean of each measure, in percent, and whether anybody judged."""
        kept = [record.extra for record in records if record.error is None]
        names = sorted({name for extra in kept for name in extra})
        means = {name: 100 * sum(float(extra[name]) for extra in kept) / len(kept) for name in names}
        return means | {"judge": self.judge or "none: no published figure to compare with"}


def words(text: str) -> list[str]:
    """Return the words of a text in small letters, without marks."""
    return re.findall(r"[a-z0-9']+", text.lower())


def bleu(text: str, reference: str, longest: int) -> float:
    """Return BLEU of one sentence: mean precision of sequences of 1 to `longest` words, less for too short a text.

    Source: Papineni et al. 2002, equations 1 to 3, one reference, no smoothing: 0 if no sequence of a length occurs.
    """
    said, meant = words(text), words(reference)
    if not said or not meant:
        return 0.0
    logs = []
    for length in range(1, longest + 1):
        ours, theirs = _sequences(said, length), _sequences(meant, length)
        shared = sum((ours & theirs).values())
        if not shared:
            return 0.0
        logs.append(math.log(shared / sum(ours.values())))
    penalty = min(0.0, 1 - len(meant) / len(said))
    return math.exp(penalty + sum(logs) / longest)


def _sequences(tokens: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1))
