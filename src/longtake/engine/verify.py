"""Put an answer to the test: does it change without the seconds that it cites, and does it stay without others?"""

from __future__ import annotations

import dataclasses

import numpy as np

from longtake.core.budget import Budget
from longtake.core.errors import ConfigError
from longtake.core.types import Answer, Span, VideoMemory
from longtake.engine.ask import ask
from longtake.engine.select import Selector, subset
from longtake.models.loaded import LoadedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """What became of an answer when parts of the video were taken away.

    without_cited, without_others: the answers without the clips that the strongest evidence touches, and without as
    many others, spread over the video. removed_cited, removed_others: the seconds that were missing. An answer that
    rests on its evidence changes in the first case and stays in the second.
    """

    answer: str
    without_cited: str
    without_others: str
    removed_cited: tuple[Span, ...]
    removed_others: tuple[Span, ...]

    @property
    def changes_without_cited(self) -> bool:
        """Whether the answer is another one without what it cites."""
        return self.without_cited != self.answer

    @property
    def changes_without_others(self) -> bool:
        """Whether the answer is another one without as much that it does not cite."""
        return self.without_others != self.answer

    @property
    def holds(self) -> bool:
        """Whether the evidence is what the answer hangs on."""
        return self.changes_without_cited and not self.changes_without_others

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        verdicts = ("changes_without_cited", "changes_without_others", "holds")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in verdicts}


def cited_clips(memory: VideoMemory, evidence: tuple[Span, ...]) -> list[int]:
    """Return the clips that have a frame within the evidence: of its strongest spans, as many as leave most clips."""
    times = memory.frame_pts_s
    cited = np.zeros(len(times), dtype=bool)
    for span in evidence:
        within = (times >= span.start_s) & (times < max(span.end_s, np.nextafter(span.start_s, np.inf)))
        more = cited | within.any(1)
        if 2 * more.sum() >= len(times):
            break
        cited = more
    return np.flatnonzero(cited).tolist()


def spread_out(clips: list[int], count: int) -> list[int]:
    """Choose so many of some clips, evenly."""
    return [clips[(2 * place + 1) * len(clips) // (2 * count)] for place in range(count)]


def verify(
    memory: VideoMemory,
    question: str,
    model: LoadedModel,
    answer: Answer,
    budget: Budget | None = None,
    *,
    selector: Selector | None = None,
) -> Check:
    """Ask again without the clips that an answer cites, and without as many that it does not.

    Raises: ConfigError if that cannot be done: a picture, no evidence, or a first span over half of the clips.
    """
    num_clips = len(memory.frame_pts_s)
    cited = cited_clips(memory, answer.evidence)
    rest = [clip for clip in range(num_clips) if clip not in set(cited)]
    if memory.settings.get("kind") != "video" or not cited:
        raise ConfigError(
            f"no part of {num_clips} clips can be left out for the evidence; expected a video, and a strongest span "
            "that touches some of its clips and fewer than half; ask about a longer video, or sample more frames"
        )
    others = spread_out(rest, len(cited))
    texts = []
    for removed in (cited, others):
        kept = [clip for clip in range(num_clips) if clip not in set(removed)]
        texts.append(ask(subset(memory, kept), question, model, budget, selector=selector).text)
    return Check(
        answer=answer.text,
        without_cited=texts[0],
        without_others=texts[1],
        removed_cited=_seconds(memory, cited),
        removed_others=_seconds(memory, others),
    )


def _seconds(memory: VideoMemory, clips: list[int]) -> tuple[Span, ...]:
    """Return when clips begin and end; neighbours are one span."""
    runs = np.split(np.array(clips), np.flatnonzero(np.diff(clips) > 1) + 1)
    times = memory.frame_pts_s
    return tuple(Span(start_s=float(times[run[0], 0]), end_s=float(times[run[-1], -1])) for run in runs)
