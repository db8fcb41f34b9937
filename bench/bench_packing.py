"""A training step over samples behind one another, without padding, against one over a padded batch.

Samples are conversations about videos of 1 to 16 clips and text alone, as a mixture of short and long data has them.
Both sides make the same forward and backward pass with gradients for the language model; the tokens counted are those
of the samples, padding not among them. A batch whose samples were sorted by length first wastes less.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.pairs import paired, row
from longtake.core.chat import IGNORE_LABEL, PLACEHOLDER_ID
from longtake.models.tiny import build_random, tiny_config
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.train.objective import Objective
from longtake.train.packed_walk import PackedRow

WIDTH, DEPTH, BATCH = 256, 4, 8
Sample = tuple[Tensor, Tensor, list[Tensor]]


def make_samples(count: int) -> list[Sample]:
    """Ids, labels of the last eight tokens, and visual tokens: none for a quarter, else log-uniform clips of 64."""
    random, generator, made = np.random.default_rng(0), torch.Generator().manual_seed(0), []
    for number in range(count):
        ids = torch.randint(0, 256, (int(random.integers(24, 96)),), generator=generator)
        visuals = []
        if number % 4:
            ids[4] = PLACEHOLDER_ID
            visuals = [torch.randn(64 * round(2 ** random.uniform(0, 4)), WIDTH, generator=generator)]
        labels = torch.full_like(ids, IGNORE_LABEL)
        labels[-8:] = ids[-8:]
        made.append((ids, labels, visuals))
    return [made[i] for i in random.permutation(count)]


def length(sample: Sample) -> int:
    return len(sample[0]) + sum(len(visual) - 1 for visual in sample[2])


def padded(model: VideoChatFlashForConditionalGeneration, samples: list[Sample]) -> None:
    longest = max(len(ids) for ids, _, _ in samples)

    def stacked(values: list[Tensor], fill: int) -> Tensor:
        return torch.stack([torch.nn.functional.pad(value, (0, longest - len(value)), value=fill) for value in values])

    mask = stacked([torch.ones_like(ids) for ids, _, _ in samples], 0)
    out = model(
        input_ids=stacked([ids for ids, _, _ in samples], 0),
        attention_mask=mask,
        labels=stacked([labels for _, labels, _ in samples], IGNORE_LABEL),
        visuals=[visual for _, _, visuals in samples for visual in visuals],
    )
    out.loss.backward()


def packed(model: VideoChatFlashForConditionalGeneration, samples: list[Sample]) -> None:
    spliced = [model.splice_inputs(ids[None], visuals, labels=labels[None]) for ids, labels, visuals in samples]
    loss, count = Objective(model).of_row(PackedRow.of(spliced))
    (loss / count).backward()


def run(quick: bool) -> list[dict]:
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": DEPTH}
    model, rows = build_random(tiny_config(**shape)), []
    samples = make_samples(16 if quick else 32)
    for what, ordered, target in (
        ("in the order of the data", samples, 1.3),
        ("sorted by length", sorted(samples, key=length), 1.0),
    ):
        batches = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
        sides = [lambda side=side, b=batches: [side(model, batch) for batch in b] for side in (padded, packed)]
        slow, fast, ratios = paired(*sides, 2 if quick else 5)
        tokens = sum(length(sample) for sample in samples)
        places = sum(len(batch) * max(length(sample) for sample in batch) for batch in batches)
        claim = f"training without padding, batches of {BATCH} {what} ({1 - tokens / places:.0%} padding)"
        rows.append(row(claim, tokens / slow, tokens / fast, ratios, target, "tokens/s"))
    return rows
