"""The loop that every small lesson shares: a rate for each step, a clipped gradient, a report now and then."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

Report = Callable[[dict[str, float]], None]
StepLesson = Callable[[int], tuple[Float[Tensor, ""], dict[str, float]]]  # of a step: its loss, and what to report


def learning_rate_share(step: int, warmup: int, steps: int) -> float:
    """Return the share of the full learning rate: a line up, then half a cosine down to a fiftieth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def warmed_rates(learning_rate: float, warmup: int, steps: int) -> list[float]:
    """Return the learning rate of each step."""
    return [learning_rate * learning_rate_share(step, warmup, steps) for step in range(steps)]


def small_adamw(parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Build the optimiser of a small language model: matrices decay, norms and biases do not."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1]},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.98))


def take_steps(
    optimizer: Optimizer,
    lesson: StepLesson,
    rates: Sequence[float],
    *,
    clip_norm: float,
    report_every: int,
    report: Report,
) -> None:
    """Take a step for each of the learning rates; report the first step, every so many, and the last.

    A group of the optimiser with a `share` takes that part of the rate.
    """
    parameters: list[nn.Parameter] = [one for group in optimizer.param_groups for one in group["params"]]
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        loss, values = lesson(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        if step % report_every == 0 or step == len(rates) - 1:
            report({"step": step, "loss": float(loss.detach())} | values)
