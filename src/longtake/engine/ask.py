"""Ask a question of videos, pictures or memories: the answer, what it rests on, and what each stage cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from longtake.core.budget import Budget
from longtake.core.chat import PLACEHOLDER_ID, Turn
from longtake.core.errors import ConfigError
from longtake.core.types import Answer, Span, VideoMemory
from longtake.engine.evidence import OTHER_MODEL, attention_at, frame_mass, passes, spans, spans_of_all, token_attention
from longtake.engine.ingest import Progress
from longtake.engine.ledger import Ledger
from longtake.engine.limits import memory_errors
from longtake.engine.select import Selector, select, selected_prompt, subset
from longtake.engine.show import Medium, Showing, check_fits, gather, prompt_of, show, shown
from longtake.media.sampling import SamplingRule
from longtake.models.generation import Step
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore
from longtake.models.prompt import stop_ids
from longtake.nn.language.walk import WalkOutput

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
    media: Medium | Sequence[Medium],
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
    prefixes: PrefixStore | None = None,
    on_token: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
    on_read: Callable[[Showing, WalkOutput], None] | None = None,
    ledger: Ledger | None = None,
) -> Answer:
    """Answer a question about a video, a picture, or a memory made before, in this process or in a `*.ltm` file.

    media: one of these or several, in order; a question about several may hold a placeholder `<image>` where each
    belongs, else they stand in front of it. rule, start_s, end_s: as in `ingest`, of each video. selector: answer from
    the frames that the question looks at most; they are the evidence then. later: the turns of a conversation after
    this question. on_token is given each new piece of the answer, on_read what was shown and how it was read, once,
    before the first piece; chunk_size bounds the rows of a prefill step.
    prefixes: pass the same store with every question about a memory, and its video is read once; a new store gives the
    same numbers to the last bit, none gives them up to rounding.

    Raises: PromptError for an empty question, placeholders that do not match what is shown, or a prompt that does not
        fit the context (the message says by how much, and which max_frames or max_tiles would fit); VideoError,
        BudgetError as ingest does; ConfigError for a selector where there is not just one video.
    """
    budget, ledger = budget or Budget(), ledger or Ledger()
    memories = gather(
        media,
        model,
        budget,
        question,
        later=later,
        rule=rule,
        start_s=start_s,
        end_s=end_s,
        ledger=ledger,
        on_progress=on_progress,
    )
    writing = _Writing(
        temperature=temperature,
        seed=seed,
        chunk_size=chunk_size,
        prefixes=prefixes,
        on_token=on_token,
        on_read=on_read,
    )
    for number, memory in enumerate(memories, start=1):
        for warning in memory.warnings:
            ledger.note(warning if len(memories) == 1 else f"{number}: {warning}")
    prompt, evidence = "", None
    if selector is not None:
        memories[0], prompt, evidence = _choose(memories, question, model, budget, selector, later, ledger)
    prompt = prompt or prompt_of([shown(memory, model) for memory in memories], model, question, later)
    text, found, reason = _write(show(memories, prompt, model), model, budget, evidence, writing, ledger)
    asked = next((turn.text for turn in reversed(later) if turn.role == "user"), question)
    is_found = passes(found, memories[0], asked, model) if evidence is None and len(memories) == 1 else None
    if model.evidence is not None and model.evidence.model != model.fingerprint:
        ledger.note(OTHER_MODEL)
    ledger.close()
    return Answer(
        text=text,
        evidence=() if is_found is False else found,
        ledger=ledger.to_dict(),
        finish_reason=reason,
        evidence_kind="attention" if evidence is None else "relevance",
        evidence_found=is_found,
    )


def _choose(
    memories: list[VideoMemory],
    question: str,
    model: LoadedModel,
    budget: Budget,
    selector: Selector,
    later: tuple[Turn, ...],
    ledger: Ledger,
) -> tuple[VideoMemory, str, tuple[Span, ...] | None]:
    """Select frames: the memory of them, their prompt and the spans they are; nothing is chosen where all stay."""
    memory = memories[0]
    if len(memories) > 1:
        raise ConfigError(
            f"a selector arrived with {len(memories)} pictures and videos; expected one video, whose frames it "
            "chooses; leave it out, or ask about one video"
        )
    with ledger.stage("select") as cost, memory_errors(memory.num_frames, model):
        chosen = select(memory, question, model, selector, later=later, limit_gb=budget.memory_gb)
        if chosen is None:
            return memory, "", None
        cost.add(tokens=len(memory.tokens))
        kept = subset(memory, chosen.clips)
    for note in (f"{kept.num_frames} of {memory.num_frames} frames were selected", *chosen.warnings):
        ledger.note(note)
    return kept, selected_prompt(memory, chosen, question, later, selector, model), chosen.spans(memory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Writing:
    """How an answer is written."""

    temperature: float
    seed: int | None
    chunk_size: int | None
    prefixes: PrefixStore | None
    on_token: Callable[[str], None] | None
    on_read: Callable[[Showing, WalkOutput], None] | None

    def show(self, piece: str) -> None:
        """Hand on a piece of the answer, if there is one and somebody listens."""
        if piece and self.on_token is not None:
            self.on_token(piece)


def _write(
    showing: Showing,
    model: LoadedModel,
    budget: Budget,
    evidence: tuple[Span, ...] | None,
    writing: _Writing,
    ledger: Ledger,
) -> tuple[str, tuple[Span, ...], str]:
    """Prefill, take the evidence unless it is known, and write the answer token by token."""
    num_frames = sum(memory.num_frames for memory in showing.memories)
    with ledger.stage("prefill") as cost:
        check_fits(showing, model.config.context_length, 2 * model.config.mm_local_num_frames)
        endings = stop_ids(model.tokenizer)
        steps = model.model.stream(
            showing.ids.unsqueeze(0),
            showing.blocks,
            max_new_tokens=budget.max_new_tokens,
            temperature=writing.temperature,
            seed=writing.seed,
            stop_ids=endings,
            chunk_size=writing.chunk_size,
            prefixes=writing.prefixes,
            num_said=showing.num_said,
        )
        with memory_errors(num_frames, model):
            step: Step = next(steps)
        cost.add(tokens=step.num_read)
    with ledger.stage("evidence"):
        if writing.on_read is not None:
            writing.on_read(showing, step.walked)
        if evidence is None:
            evidence = _evidence(showing, model, step.walked)
    with ledger.stage("decode_text") as cost, memory_errors(num_frames, model):
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


def _evidence(showing: Showing, model: LoadedModel, walked: WalkOutput) -> tuple[Span, ...]:
    """Return the spans of what is shown that hold half of the attention to it."""
    if len(showing.blocks) == 1:
        start = int((showing.ids == PLACEHOLDER_ID).nonzero()[0])
        mass = token_attention(model, walked, start, len(showing.blocks[0]))
    else:
        mass = attention_at(model, walked, showing.places)
    first, *others = showing.memories
    return spans_of_all(showing.memories, mass) if others else spans(first, frame_mass(first, mass))


class Chat:
    """A conversation about videos and pictures, which are encoded once, before the first question."""

    def __init__(
        self,
        media: Medium | Sequence[Medium],
        model: LoadedModel,
        budget: Budget | None = None,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        selector: Selector | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.model, self.budget, self.selector = model, budget or Budget(), selector
        self.memories = gather(media, model, self.budget, start_s=start_s, end_s=end_s, on_progress=on_progress)
        self.turns: list[Turn] = []
        self._prefixes = PrefixStore()

    @property
    def memory(self) -> VideoMemory:
        """Return the first of what is shown."""
        return self.memories[0]

    def ask(self, question: str, *, on_token: Callable[[str], None] | None = None) -> Answer:
        """Ask the next question; earlier ones and their answers are read again, the video is not.

        Raises: PromptError as `longtake.ask`.
        """
        turns = [*self.turns, Turn("user", question)]
        answer = ask(
            self.memories,
            turns[0].text,
            self.model,
            self.budget,
            selector=self.selector,
            later=tuple(turns[1:]),
            prefixes=self._prefixes,
            on_token=on_token,
        )
        self.turns = [*turns, Turn("assistant", answer.text)]
        return answer
