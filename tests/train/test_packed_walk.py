"""The packed walk against the padded one: the same losses and gradients, with and without drops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.protocols import LayerCompressor
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.tiny import build_random, tiny_config
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.train.objective import Objective
from longtake.train.packed_walk import PackedRow

LENGTHS = (11, 23, 7)
FRAMES = (3, 0, 5)
REDUCERS = [
    None,
    LpComp(tokens_per_frame=4),
    LpComp(tokens_per_frame=4, schedule_kind="linear", survivors="uniform"),
    ProgressiveDrop(kind="uniform", layers=(1, 2, 3)),
    ProgressiveDrop(kind="attention", layers=(1, 2, 3)),
]


def model_of(reducer: LayerCompressor | None) -> VideoChatFlashForConditionalGeneration:
    model = build_random(tiny_config())
    model.reducer = reducer
    return model


def samples() -> list[tuple[Tensor, Tensor, list[Tensor]]]:
    """Ids, labels (an answer of four tokens at the end, and one of two inside) and visual tokens of each sample."""
    generator, made = torch.Generator().manual_seed(3), []
    for length, frames in zip(LENGTHS, FRAMES, strict=True):
        ids = torch.randint(0, 256, (length,), generator=generator)
        labels = torch.full_like(ids, -100)
        labels[-4:], labels[2:4] = ids[-4:], ids[2:4]
        visuals = []
        if frames:
            ids[1] = PLACEHOLDER_ID
            visuals = [torch.randn(4 * frames, 64, generator=generator)]
        made.append((ids, labels, visuals))
    return made


def gradients(model: VideoChatFlashForConditionalGeneration, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def one_by_one(model: VideoChatFlashForConditionalGeneration) -> tuple[Tensor, int]:
    """The sum over labelled tokens, from the model's own forward pass over one sample at a time."""
    total, count = torch.zeros(()), 0
    for ids, labels, visuals in samples():
        number = int((labels[1:] != -100).sum())
        out = model(input_ids=ids[None], labels=labels[None], visuals=visuals)
        total, count = total + out.loss * number, count + number
    return total, count


def packed(model: VideoChatFlashForConditionalGeneration, checkpointing: bool) -> tuple[Tensor, int]:
    spliced = [model.splice_inputs(ids[None], visuals, labels=labels[None]) for ids, labels, visuals in samples()]
    return Objective(model, checkpointing=checkpointing).of_row(PackedRow.of(spliced))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
def test_packed_samples_have_the_loss_and_gradients_of_separate_ones(
    reducer: LayerCompressor | None, checkpointing: bool
) -> None:
    model = model_of(reducer)
    expected, count = one_by_one(model)
    separate = gradients(model, expected / count)
    loss, packed_count = packed(model, checkpointing)
    assert packed_count == count
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    together = gradients(model, loss / count)
    assert together.keys() == separate.keys()
    for name, value in separate.items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_no_sample_sees_its_neighbours() -> None:
    model = model_of(None)
    spliced = [model.splice_inputs(ids[None], visuals, labels=labels[None]) for ids, labels, visuals in samples()]
    first, changed = PackedRow.of(spliced), PackedRow.of(spliced)
    changed.hidden = torch.cat([torch.randn_like(first.hidden[: first.lengths[0]]), first.hidden[first.lengths[0] :]])
    losses = [Objective(model).of_row(PackedRow.of(spliced[1:]))[0]]
    for row in (first, changed):
        row.labels[: row.lengths[0]] = -100
        losses.append(Objective(model).of_row(row)[0])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-6, atol=1e-5)
