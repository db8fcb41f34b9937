"""Write answers: prefill once, then one token at a time, greedy or sampled, for a batch of prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longtake.core.budget import Budget
from longtake.core.errors import BudgetError, CheckpointError
from longtake.core.reduction import Reduction
from longtake.models.prefix import PrefixStore
from longtake.models.splice import Visual
from longtake.nn.language.walk import WalkOutput, decode_step

if TYPE_CHECKING:
    from longtake.models.base import VisualLanguageModel

FinishReason = Literal["stop", "length"]


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One round of decoding.

    ids: the new token of each prompt, none where the answer had ended. logits: [B, V] that it was chosen from.
    finished: per prompt, why it ended, as soon as it has. walked: what the prefill returned. num_read: tokens that it
    had to read, padding not counted; fewer than the prompt's if the video had been read before.
    """

    index: int
    ids: list[int | None]
    logits: Tensor
    finished: list[FinishReason | None]
    reductions: list[dict[int, Reduction]]
    num_prompt_tokens: list[int]
    cache_lengths: Callable[[], list[list[int]]]
    walked: WalkOutput
    num_read: int


@dataclasses.dataclass(frozen=True, eq=False)
class Generation:
    """Finished answers.

    ids: new tokens of each prompt, the stop token not included. logits: [B, steps, V] if they were asked for.
    reductions: per prompt, by stage, what the reducer kept during prefill. num_prompt_tokens: with visual tokens.
    """

    ids: list[list[int]]
    finish_reasons: list[FinishReason]
    reductions: list[dict[int, Reduction]]
    num_prompt_tokens: list[int]
    logits: Tensor | None
    cache_lengths: list[list[int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Choose the next token: the best one at temperature 0, else drawn from the smallest set of mass top_p.

    Raises: BudgetError if a value is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.temperature == float("inf"):
            raise BudgetError(f"temperature is {self.temperature}; expected a finite number of at least 0; change it")
        if not 0 < self.top_p <= 1:
            raise BudgetError(f"top_p is {self.top_p}; expected more than 0 and at most 1; change it")

    def generator(self) -> torch.Generator:
        """Start the random numbers of one call; on the CPU, so that a seed means the same on every device."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator

    def choose(self, logits: Float[Tensor, "B V"], generator: torch.Generator) -> Int64[Tensor, "B"]:
        """Choose one token a row."""
        if self.temperature == 0:
            return logits.argmax(-1)
        chances = (logits.float().cpu() / self.temperature).softmax(-1)
        ordered, order = chances.sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= self.top_p, 0.0)
        drawn = torch.multinomial(ordered, 1, generator=generator)
        return order.gather(-1, drawn).squeeze(-1).to(logits.device)


@torch.no_grad()
def stream(
    model: VisualLanguageModel,
    input_ids: Int64[Tensor, "B L"],
    visuals: Sequence[Visual | Tensor] = (),
    *,
    attention_mask: Tensor | None = None,
    max_new_tokens: int | None = None,
    budget: Budget | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop_ids: Sequence[int] = (),
    chunk_size: int | None = None,
    prefixes: PrefixStore | None = None,
    num_said: int = 0,
) -> Iterator[Step]:
    """Yield each round of new tokens as soon as it is chosen; close the iterator to stop early.

    The count of new tokens is `max_new_tokens`, else the budget's. All prompts decode together; one that has ended
    is carried along and its tokens are not reported. prefixes: where the video of a lone prompt may have been read
    already, as tokens, or is kept for the next one; num_said: how many tokens behind it are kept with it.

    Raises: PromptError if a prompt does not fit the context; BudgetError on an option out of range; CheckpointError
        if the logits overflow.
    """
    limit = (budget or Budget()).max_new_tokens if max_new_tokens is None else max_new_tokens
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise BudgetError(f"max_new_tokens is {limit!r}; expected a whole number of at least 1; raise it")
    sampler = Sampler(temperature=temperature, top_p=top_p, seed=seed)
    generator = sampler.generator()
    input_ids = input_ids.to(model.input_device)
    shared = None if prefixes is None else prefixes.walk(model, input_ids, visuals, chunk_size, num_said)
    if shared is not None:
        walked, lengths, num_read = shared.walked, [shared.num_tokens], shared.num_read
    else:
        spliced = model.splice_inputs(input_ids, visuals, attention_mask)
        walked = model.prefill(spliced, use_cache=True, chunk_size=chunk_size)
        lengths, num_read = spliced.lengths, sum(spliced.lengths)
    cache = walked.cache
    if cache is None:
        raise RuntimeError("prefill with use_cache returned no cache")
    last = walked.mask.sum(1) - 1
    hidden = walked.hidden[torch.arange(len(lengths), device=last.device), last].unsqueeze(1)  # [B, 1, D]
    finished: list[FinishReason | None] = [None] * len(lengths)
    for index in range(limit):
        logits = model.lm_head(hidden).squeeze(1)
        if not logits.isfinite().all():
            raise CheckpointError(
                f"the model's logits are not finite in {logits.dtype} at step {index}; expected finite numbers; load "
                "the model in bfloat16 or float32"
            )
        chosen = sampler.choose(logits, generator)
        ids: list[int | None] = [None if done else int(i) for i, done in zip(chosen, finished, strict=True)]
        for row, new_id in enumerate(ids):
            if new_id in stop_ids:
                finished[row] = "stop"
            elif new_id is not None and index + 1 == limit:
                finished[row] = "length"
        # The last step's cache_lengths are read when no more token follows: it is a call, not a list.
        yield Step(index, ids, logits, list(finished), walked.reductions, lengths, cache.lengths, walked, num_read)
        if all(finished):
            return
        hidden = decode_step(model.language, model.embed_text(chosen.unsqueeze(1)), cache)


def generate(
    model: VisualLanguageModel,
    input_ids: Int64[Tensor, "B L"],
    visuals: Sequence[Visual | Tensor] = (),
    *,
    attention_mask: Tensor | None = None,
    max_new_tokens: int | None = None,
    budget: Budget | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop_ids: Sequence[int] = (),
    chunk_size: int | None = None,
    keep_logits: bool = False,
    on_token: Callable[[Step], None] | None = None,
) -> Generation:
    """Write whole answers; `on_token` is called after each round.

    Raises: PromptError if a prompt does not fit the context; BudgetError on an option out of range; CheckpointError
        if the logits overflow.
    """
    steps = stream(
        model,
        input_ids,
        visuals,
        attention_mask=attention_mask,
        max_new_tokens=max_new_tokens,
        budget=budget,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop_ids=stop_ids,
        chunk_size=chunk_size,
    )
    ids: list[list[int]] = [[] for _ in range(input_ids.shape[0])]
    logits: list[Tensor] = []
    step: Step | None = None
    for step in steps:
        for row, new_id in zip(ids, step.ids, strict=True):
            if new_id is not None and new_id not in stop_ids:
                row.append(new_id)
        if keep_logits:
            logits.append(step.logits)
        if on_token is not None:
            on_token(step)
    if step is None:
        raise RuntimeError("decoding ended before its first step")
    return Generation(
        ids,
        [reason or "length" for reason in step.finished],
        step.reductions,
        step.num_prompt_tokens,
        torch.stack(logits, 1) if keep_logits else None,
        step.cache_lengths(),
    )
