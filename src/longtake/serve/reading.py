"""From a question to the first word of its answer: what is shown, the prefill, the evidence."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from longtake.core.chat import PLACEHOLDER_ID, Turn, render_chat
from longtake.core.errors import PromptError
from longtake.core.types import Span, VideoMemory
from longtake.engine.evidence import attention_at, frame_mass, spans, spans_of_all, token_attention
from longtake.engine.limits import memory_errors
from longtake.engine.select import Selector, clip_means, select, selected_prompt, selector_of, subset
from longtake.engine.show import Showing, check_fits, prompt_of, show, shown
from longtake.models.generation import Step
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore
from longtake.models.prompt import check_question
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.pvc_prompt import pvc_prompt
from longtake.nn.language.cache import RaggedCache
from longtake.serve.resident import Medium, Residents
from longtake.serve.settings import Limits
from longtake.serve.together import own_copy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A question with all that its answer depends on.

    media: shown before it, in order. later: turns after this question. tokens_per_frame, frames_kept: as in `Budget`
    and `Selector`; none leaves the video as it is stored.
    """

    owner: str
    media: tuple[Medium, ...]
    question: str
    later: tuple[Turn, ...] = ()
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tokens_per_frame: float | None = None
    frames_kept: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A prompt that was read, ready to be answered.

    logits: [V], of the first token. timeline: of the first video, per clip: start_s, end_s, heat (its share of what
    was looked at, the largest 1), tokens. num_read: tokens read for this question; the rest had been read before.
    """

    cache: RaggedCache
    logits: Tensor
    evidence: tuple[Span, ...]
    evidence_kind: Literal["attention", "relevance"]
    timeline: tuple[dict[str, float], ...]
    num_prompt: int
    num_read: int
    notes: tuple[str, ...]


def read(asked: Asked, model: LoadedModel, residents: Residents, limits: Limits) -> Reading:
    """Read a question and what it shows.

    Raises: PromptError, BudgetError, MemoryFormatError, VideoError as the parts do.
    """
    if not asked.media:
        return _read_text(asked, model, limits)
    is_alone = len(asked.media) == 1
    entries = [residents.get(asked.owner, m, asked.tokens_per_frame, is_alone=is_alone) for m in asked.media]
    memories = [entry.memory for entry in entries]
    notes = [warning for memory in memories for warning in memory.warnings]
    prompt, chosen, prefixes = "", None, entries[0].prefixes if is_alone else None
    evidence: tuple[Span, ...] | None = None
    relevance: np.ndarray | None = None
    if asked.frames_kept is not None and is_alone:
        selector = selector_of(model, asked.frames_kept)
        chosen = _select(memories[0], asked, model, selector, limits)
    if chosen is not None:
        memories[0], prompt, evidence, relevance = chosen
        prefixes, notes = None, [*notes, f"{memories[0].num_frames} frames were selected"]
    showing = show(memories, prompt or prompt_of([shown(m, model) for m in memories], model, *_said(asked)), model)
    check_fits(showing, model.config.context_length, 2 * model.config.mm_local_num_frames)
    step = _prefill(showing, model, limits, prefixes)
    if prefixes is not None and step.walked.cache is not None:
        entries[0].prefix_bytes = step.walked.cache.num_bytes()
    mass = _mass(showing, model, step)
    if evidence is None:
        evidence = _spans(showing, mass)
    assert step.walked.cache is not None
    return Reading(
        own_copy(step.walked.cache, asked.max_tokens),
        step.logits[0],
        evidence,
        "attention" if chosen is None else "relevance",
        _timeline(showing.memories[0], mass, relevance),
        step.num_prompt_tokens[0],
        step.num_read,
        tuple(notes),
    )


def _said(asked: Asked) -> tuple[str, tuple[Turn, ...]]:
    return asked.question, asked.later


def _read_text(asked: Asked, model: LoadedModel, limits: Limits) -> Reading:
    """Read a question that shows nothing."""
    if isinstance(model.config, PvcConfig):
        prompt = pvc_prompt(asked.question, [], asked.later)
    else:
        for turn in (Turn("user", asked.question), *asked.later):
            if turn.role == "user":
                check_question(turn.text)
        prompt = render_chat([Turn("user", asked.question), *asked.later])
    showing = show([], prompt, model)
    step = _prefill(showing, model, limits, None)
    assert step.walked.cache is not None
    cache = own_copy(step.walked.cache, asked.max_tokens)
    return Reading(cache, step.logits[0], (), "attention", (), step.num_prompt_tokens[0], step.num_read, ())


def _prefill(showing: Showing, model: LoadedModel, limits: Limits, prefixes: PrefixStore | None) -> Step:
    num_frames = sum(memory.num_frames for memory in showing.memories)
    with memory_errors(num_frames, model):
        steps = model.model.stream(
            showing.ids.unsqueeze(0),
            showing.blocks,
            max_new_tokens=1,
            chunk_size=limits.chunk_rows,
            prefixes=prefixes,
            num_said=showing.num_said,
        )
        return next(steps)


_Chosen = tuple[VideoMemory, str, tuple[Span, ...], np.ndarray]


def _select(
    memory: VideoMemory, asked: Asked, model: LoadedModel, selector: Selector, limits: Limits
) -> _Chosen | None:
    """Choose frames: the memory of them, its prompt, the spans they are, and the relevance of their clips."""
    with memory_errors(memory.num_frames, model):
        chosen = select(memory, asked.question, model, selector, later=asked.later, limit_gb=float(limits.select_gb))
    if chosen is None:
        return None
    kept = subset(memory, chosen.clips)
    prompt = selected_prompt(memory, chosen, asked.question, asked.later, selector, model)
    relevance = clip_means(chosen.relevance, memory)[chosen.clips]
    return kept, prompt, chosen.spans(memory), relevance.clamp_min(0).cpu().double().numpy()


def _mass(showing: Showing, model: LoadedModel, step: Step) -> Tensor:
    """Return the share of the attention that each visual token got."""
    if len(showing.blocks) == 1:
        start = int((showing.ids == PLACEHOLDER_ID).nonzero()[0])
        return token_attention(model, step.walked, start, len(showing.blocks[0]))
    return attention_at(model, step.walked, showing.places)


def _spans(showing: Showing, mass: Tensor) -> tuple[Span, ...]:
    first, *others = showing.memories
    return spans_of_all(showing.memories, mass) if others else spans(first, frame_mass(first, mass))


def _timeline(memory: VideoMemory, mass: Tensor, relevance: np.ndarray | None) -> tuple[dict[str, float], ...]:
    """Say of each clip of a video how much was looked at it and how many tokens it took."""
    if memory.settings.get("kind") == "image":
        return ()
    heat = frame_mass(memory, mass[: len(memory.tokens)]).sum(1) if relevance is None else relevance
    heat = heat / max(float(heat.max()), 1e-30)
    tokens = torch.bincount(memory.tokens.clip_index.cpu(), minlength=len(memory.frame_pts_s)).tolist()
    starts = memory.frame_pts_s[:, 0]
    ends = np.append(starts[1:], max(memory.duration_s, float(memory.frame_pts_s[-1, -1])))
    return tuple(
        {"start_s": float(starts[k]), "end_s": float(ends[k]), "heat": float(heat[k]), "tokens": float(tokens[k])}
        for k in range(len(starts))
    )


def check_options(asked: Asked, limits: Limits) -> None:
    """Refuse what no reading could serve, before it waits.

    Raises: PromptError.
    """
    if not asked.question.strip():
        raise PromptError("the question is empty; expected some text; ask something")
    if len(asked.media) > limits.pictures:
        raise PromptError(
            f"{len(asked.media)} pictures and videos arrived; expected at most {limits.pictures}; show fewer"
        )
