"""Ask a question of a video or its memory: the answer, the spans that it rests on, and what each stage cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from longtake.core.budget import Budget
from longtake.core.chat import PLACEHOLDER, PLACEHOLDER_ID, Turn, render_chat
from longtake.core.errors import PromptError
from longtake.core.types import Answer, Span, VideoMemory
from longtake.engine.evidence import frame_mass, spans, token_attention
from longtake.engine.ingest import Progress, Source, ingest
from longtake.engine.ledger import Ledger
from longtake.engine.limits import memory_errors
from longtake.engine.select import Selector, select, selected_prompt, subset
from longtake.media.sampling import SamplingRule
from longtake.media.video import Video
from longtake.models.generation import Step
from longtake.models.loaded import LoadedModel
from longtake.models.prompt import check_question, prompt_ids, stop_ids, video_prompt

FRAME_GROUP = 8
BROKEN_CHARACTER = "\ufffd"


class TextStream:
    """Turns token ids into text piece by piece; a character whose bytes are not all there yet is held back."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.text = ""

    def add(self, token: int) -> str:
        """Return the text that this token completes."""
        self.ids.append(token)
        whole = str(self.tokenizer.decode(self.ids, skip_special_tokens=True))
        if whole.endswith(BROKEN_CHARACTER):
            return ""
        new, self.text = whole[len(self.text) :], whole
        return new

    def rest(self) -> str:
        """Return what is held back, when no more tokens follow."""
        whole = str(self.tokenizer.decode(self.ids, skip_special_tokens=True))
        new, self.text = whole[len(self.text) :], whole
        return new


def ask(
    video: Source | Video | VideoMemory,
    question: str,
    model: LoadedModel,
    budget: Budget | None = None,
    *,
    rule: SamplingRule | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    selector: Selector | None = None,
    later: tuple[Turn, ...] = (),
    temperature: float = 0.0,
    seed: int | None = None,
    chunk_size: int | None = None,
    on_token: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
    ledger: Ledger | None = None,
) -> Answer:
    """Answer a question about a video, a picture, or a memory made before.

    rule, start_s, end_s: as in `ingest`. selector: answer from the frames that the question looks at most; they are
    the evidence then. later: the turns of a conversation after this question. on_token is given each new piece of the
    answer; chunk_size bounds the rows of a prefill step.

    Raises: PromptError for an empty question, a placeholder in it, or a prompt that does not fit the context (the
        message says by how much, and which max_frames would fit); VideoError, BudgetError as ingest does.
    """
    check_question(question)
    budget, ledger = budget or Budget(), ledger or Ledger()
    if isinstance(video, VideoMemory):
        memory = video
    else:
        memory = ingest(
            video, model, budget, rule=rule, start_s=start_s, end_s=end_s, ledger=ledger, on_progress=on_progress
        )
    writing = _Writing(temperature=temperature, seed=seed, chunk_size=chunk_size, on_token=on_token)
    for warning in memory.warnings:
        ledger.note(warning)
    shown, prompt, evidence = memory, "", None
    if selector is not None:
        shown, prompt, evidence = _choose(memory, question, model, budget, selector, later, ledger)
    text, found, reason = _write(
        shown, prompt or _prompt(memory, question, later), model, budget, evidence, writing, ledger
    )
    ledger.close()
    kind = "attention" if evidence is None else "relevance"
    return Answer(text=text, evidence=found, ledger=ledger.to_dict(), finish_reason=reason, evidence_kind=kind)


def _choose(
    memory: VideoMemory,
    question: str,
    model: LoadedModel,
    budget: Budget,
    selector: Selector,
    later: tuple[Turn, ...],
    ledger: Ledger,
) -> tuple[VideoMemory, str, tuple[Span, ...] | None]:
    """Select frames: the memory of them, their prompt and the spans they are; nothing is chosen where all stay."""
    with ledger.stage("select") as cost, memory_errors(memory.num_frames, model):
        chosen = select(memory, question, model, selector, later=later, limit_gb=budget.memory_gb)
        if chosen is None:
            return memory, "", None
        cost.add(tokens=len(memory.tokens))
        shown = subset(memory, chosen.clips)
    for note in (f"{shown.num_frames} of {memory.num_frames} frames were selected", *chosen.warnings):
        ledger.note(note)
    return shown, selected_prompt(memory, chosen, question, later, selector), chosen.spans(memory)


def _prompt(memory: VideoMemory, question: str, later: tuple[Turn, ...]) -> str:
    """Write the prompt of a question about everything that a memory holds."""
    if memory.settings.get("kind") == "image":
        return render_chat([Turn("user", f"{PLACEHOLDER}\n{check_question(question)}"), *later])
    return video_prompt(question, memory.duration_s, memory.num_frames, later)


def check_fits(memory: VideoMemory, num_text: int, context: int) -> None:
    """Refuse a prompt that is longer than the context.

    Raises: PromptError that says by how much, and how many frames would fit.
    """
    total = num_text + len(memory.tokens)
    if total <= context:
        return
    fits = max(0, int((context - num_text) / memory.tokens_per_frame)) // FRAME_GROUP * FRAME_GROUP
    advice = f"pass max_frames {fits} or fewer" if fits else "ask in fewer words, or start a new conversation"
    raise PromptError(
        f"the prompt has {total} tokens ({num_text} of text, {len(memory.tokens)} of video), {total - context} more "
        f"than the context of {context}; expected it to fit; {advice}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Writing:
    """How an answer is written."""

    temperature: float
    seed: int | None
    chunk_size: int | None
    on_token: Callable[[str], None] | None

    def show(self, piece: str) -> None:
        """Hand on a piece of the answer, if there is one and somebody listens."""
        if piece and self.on_token is not None:
            self.on_token(piece)


def _write(
    memory: VideoMemory,
    prompt: str,
    model: LoadedModel,
    budget: Budget,
    evidence: tuple[Span, ...] | None,
    writing: _Writing,
    ledger: Ledger,
) -> tuple[str, tuple[Span, ...], str]:
    """Prefill, take the evidence unless it is known, and write the answer token by token."""
    with ledger.stage("prefill") as cost:
        ids = prompt_ids(model.tokenizer, prompt)
        start = int((ids == PLACEHOLDER_ID).nonzero()[0])
        check_fits(memory, len(ids) - 1, model.config.context_length)
        features = memory.tokens.features.to(device=model.model.input_device, dtype=model.dtype)
        cost.add(tokens=len(ids) - 1 + len(features))
        endings = stop_ids(model.tokenizer)
        steps = model.model.stream(
            ids.unsqueeze(0),
            [features],
            max_new_tokens=budget.max_new_tokens,
            temperature=writing.temperature,
            seed=writing.seed,
            stop_ids=endings,
            chunk_size=writing.chunk_size,
        )
        with memory_errors(memory.num_frames, model):
            step: Step = next(steps)
    with ledger.stage("evidence"):
        if evidence is None:
            mass = token_attention(model, step.walked, start, len(features))
            evidence = spans(memory, frame_mass(memory, mass))
    with ledger.stage("decode_text") as cost, memory_errors(memory.num_frames, model):
        stream, reason = TextStream(model.tokenizer), "length"
        current: Step | None = step
        while current is not None:
            token = current.ids[0]
            if token is not None and token not in endings:
                writing.show(stream.add(token))
            reason = current.finished[0] or reason
            cost.add(tokens=1)
            current = next(steps, None)
        writing.show(stream.rest())
    return stream.text.strip(), evidence, reason


class Chat:
    """A conversation about one video, which is encoded once, before the first question."""

    def __init__(
        self,
        video: Source | Video | VideoMemory,
        model: LoadedModel,
        budget: Budget | None = None,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        selector: Selector | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.model, self.budget, self.selector = model, budget or Budget(), selector
        if isinstance(video, VideoMemory):
            self.memory = video
        else:
            self.memory = ingest(video, model, self.budget, start_s=start_s, end_s=end_s, on_progress=on_progress)
        self.turns: list[Turn] = []

    def ask(self, question: str, *, on_token: Callable[[str], None] | None = None) -> Answer:
        """Ask the next question; earlier ones and their answers are read again, the video is not.

        Raises: PromptError as `longtake.ask`.
        """
        check_question(question)
        turns = [*self.turns, Turn("user", question)]
        answer = ask(
            self.memory,
            turns[0].text,
            self.model,
            self.budget,
            selector=self.selector,
            later=tuple(turns[1:]),
            on_token=on_token,
        )
        self.turns = [*turns, Turn("assistant", answer.text)]
        return answer
