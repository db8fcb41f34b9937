"""Sees a video and asks about it the normal way, and notes what reached the language model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from longtake.core.budget import Budget
from longtake.core.protocols import LayerCompressor
from longtake.core.types import Frames, VideoMemory
from longtake.engine.ask import ask
from longtake.engine.ingest import Source, ingest
from longtake.engine.ledger import Ledger
from longtake.engine.limits import memory_errors
from longtake.engine.remember import within
from longtake.engine.select import Selector, subset
from longtake.engine.show import Showing, show
from longtake.eval.result import text_hash
from longtake.eval.task import Item, Task
from longtake.media.sampling import SamplingRule
from longtake.media.video import Video
from longtake.models.base import kept_visual_tokens
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore
from longtake.models.prompt import stop_ids
from longtake.models.pvc_configuration import PvcConfig
from longtake.nn.language.walk import WalkOutput

EVERY_FRAME = SamplingRule(kind="middle", frame_multiple=1, min_frames=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer and what it was read from.

    frames, tokens: visual ones in the prompt. reached: seconds of the frames of which a token is left at the last
    layer. evidence_s: the spans of the answer, strongest first.
    """

    text: str
    frames: int
    tokens: int
    frame_hash: str
    reached: frozenset[float]
    evidence_s: tuple[tuple[float, float], ...]


class Reader:
    """A model with the settings of a run. One video's questions share its beginning; the last one is kept.

    selector: as `longtake.ask` takes it. ledger: where all of the time goes.
    """

    def __init__(
        self,
        model: LoadedModel,
        budget: Budget,
        rule: SamplingRule | None = None,
        selector: Selector | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.model, self.budget, self.rule, self.selector = model, budget, rule, selector
        self.ledger = ledger or Ledger()
        self._prefixes = PrefixStore()

    def see(self, source: Source | Video, start_s: float | None = None, end_s: float | None = None) -> VideoMemory:
        """Turn a video into a memory.

        Raises: as `longtake.ingest`.
        """
        return ingest(source, self.model, self.budget, rule=self.rule, start_s=start_s, end_s=end_s, ledger=self.ledger)

    def encode(self, source: Source) -> VideoMemory:
        """Turn all frames of a source, or what the rule takes of a file, into tokens; what a task composes from.

        Raises: as `longtake.ingest`.
        """
        if isinstance(source, Frames):
            budget = dataclasses.replace(self.budget, max_frames=len(source))
            return ingest(source, self.model, budget, rule=EVERY_FRAME, ledger=self.ledger)
        return self.see(source)

    def ask(self, memory: VideoMemory, item: Item, task: Task, selector: Selector | None = None) -> Reply:
        """Ask an item's question.

        Raises: as `longtake.ask`.
        """
        budget = dataclasses.replace(self.budget, max_new_tokens=min(self.budget.max_new_tokens, task.max_new_tokens))
        seen: list[tuple[Showing, WalkOutput]] = []
        conversation = task.chat(item)
        if conversation is not None:
            text = self._complete(memory, conversation, budget, seen)
            evidence: tuple[tuple[float, float], ...] = ()
        else:
            answer = ask(
                memory,
                task.prompt(item),
                self.model,
                budget,
                selector=selector,
                prefixes=self._prefixes,
                on_read=lambda showing, walked: seen.append((showing, walked)),
                ledger=self.ledger,
            )
            text = answer.text
            evidence = tuple((span.start_s, span.end_s) for span in answer.evidence)
        showing, walked = seen[0]
        with self.ledger.stage("score"):
            shown = showing.memories[0]
            return Reply(
                text=text,
                frames=shown.num_frames,
                tokens=sum(len(block) for block in showing.blocks),
                frame_hash=frame_hash(memory),
                reached=reached(shown, walked),
                evidence_s=evidence,
            )

    def _complete(
        self, memory: VideoMemory, conversation: str, budget: Budget, seen: list[tuple[Showing, WalkOutput]]
    ) -> str:
        """Write on from a conversation that the task wrote itself."""
        model, ledger = self.model, self.ledger
        with ledger.stage("prefill") as cost, memory_errors(memory.num_frames, model):
            showing = show([within(memory, budget)], conversation, model)
            steps = model.model.stream(
                showing.ids.unsqueeze(0),
                showing.blocks,
                max_new_tokens=budget.max_new_tokens,
                stop_ids=stop_ids(model.tokenizer),
                prefixes=self._prefixes,
            )
            step = next(steps)
            cost.add(tokens=step.num_read)
        seen.append((showing, step.walked))
        ids: list[int] = []
        with ledger.stage("decode_text") as cost, memory_errors(memory.num_frames, model):
            while step is not None:
                if step.ids[0] is not None and step.ids[0] not in stop_ids(model.tokenizer):
                    ids.append(step.ids[0])
                cost.add(tokens=1)
                step = next(steps, None)
        return str(model.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def frame_hash(memory: VideoMemory) -> str:
    """Return a SHA-256 over the times of all frames of a memory, to a millisecond."""
    return text_hash(np.round(memory.frame_pts_s, 3).tolist())


def reached(memory: VideoMemory, walked: WalkOutput) -> frozenset[float]:
    """Return the times of the frames that any token is made of which is left after the last drop between layers."""
    tokens = memory.tokens
    stages = kept_visual_tokens(walked.reductions[0])
    alive = torch.ones(len(tokens), dtype=torch.bool)
    if stages:
        alive[:] = False
        alive[stages[max(stages)].cpu()] = True
    holds = (tokens.frame_weight.cpu() > 0) & alive.unsqueeze(1)  # [N, F]
    clips, frames = tokens.clip_index.cpu().unsqueeze(1).expand_as(holds)[holds], holds.nonzero()[:, 1]
    return frozenset(memory.frame_pts_s[clips.numpy(), frames.numpy()].tolist())


def covered(spans_s: Sequence[tuple[float, float]], times_s: Sequence[float] | frozenset[float]) -> bool:
    """Say whether every span holds one of these times; a span without length holds the time that it is."""
    return all(any(start <= time < end or time == start for time in times_s) for start, end in spans_s)


def proof_figures(item: Item, memory: VideoMemory, reply: Reply) -> Mapping[str, Any]:
    """Return whether the proof of an answer was sampled, whether any of it reached the last layer, and was cited.

    covered: each span of the proof has a sampled frame. survived: and one of them has a token left at the last layer.
    cited: and one of the spans of the answer's evidence touches one of the proof.
    """
    if not item.spans_s:
        return {}
    sampled = np.unique(memory.frame_pts_s).tolist()
    touches = any(start < end_s and start_s < end for start, end in item.spans_s for start_s, end_s in reply.evidence_s)
    return {
        "covered": covered(item.spans_s, sampled),
        "survived": covered(item.spans_s, reply.reached),
        "cited": touches,
    }


@contextmanager
def methods_set(
    loaded: LoadedModel, compressor: Any | None = None, reducer: LayerCompressor | None = None
) -> Iterator[None]:
    """Give a model other methods for a while; none leaves one as it is."""
    model: Any = loaded.model
    before = (current_compressor(loaded), model.reducer)
    try:
        if compressor is not None:
            model.use_compressor(compressor)
        if reducer is not None:
            model.reducer = reducer
        yield
    finally:
        if compressor is not None:
            if isinstance(loaded.config, PvcConfig):
                model.compressor.after = before[0]
            else:
                model.compressor = before[0]
        if reducer is not None:
            model.reducer = before[1]


def current_compressor(loaded: LoadedModel) -> Any | None:
    """Return the method that merges the tokens of a clip; of PVC what follows its own compressor, if anything does."""
    compressor: Any = loaded.model.compressor
    return compressor.after if isinstance(loaded.config, PvcConfig) else compressor


def still(pixels: np.ndarray, like: VideoMemory, reader: Reader) -> VideoMemory:
    """Return a memory as long as another one that shows a single picture, uint8 [H, W, 3], all along.

    Where clips are encoded apart from each other, one of them stands for all.
    """
    num_clips, length = like.frame_pts_s.shape
    apart = not isinstance(reader.model.config, PvcConfig)
    count = length if apart else like.num_frames
    frames = Frames(np.broadcast_to(pixels, (count, *pixels.shape)), np.arange(count, dtype=np.float64))
    memory = reader.encode(frames)
    if apart:
        memory = subset(memory, [0] * num_clips)
    return dataclasses.replace(
        memory, frame_pts_s=like.frame_pts_s, duration_s=like.duration_s, source=like.source, settings=like.settings
    )
