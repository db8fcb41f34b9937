"""LP-Comp against numbers from the released code: schedules, survivors, logits, decode positions, gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen2Model

from longtake.core.protocols import DropPoint
from longtake.core.reduction import Reduction
from longtake.methods.reduce.lp_comp import LpComp
from longtake.nn.language.walk import WalkInput, decode_step, prefill
from tests.parity.xcomp_goldens import language_model, load

SCHEDULES = load("a_schedule")[0]["rows"]
STEP = LpComp(schedule_kind="step", step_layers=(10, 20), step_strides=(4, 4))
STEP_6 = LpComp(schedule_kind="step", step_layers=(2, 4), step_strides=(2, 8))
RUNS = [
    ("b_lp28_run_suffix", LpComp()),
    ("b_lp28_run_uniform", LpComp(survivors="uniform")),
    ("b_lp28_run_step_10_20_stride4", STEP),
    ("b_lp28_run_off", LpComp(schedule_kind="none")),
    ("b_lp10_run_suffix", LpComp()),
]


def model_of(facts: dict, tensors: dict[str, torch.Tensor]) -> Qwen2Model:
    own = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
    num_layers = facts.get("num_layers", facts.get("config", {}).get("num_hidden_layers", 28))
    return language_model(own or load("b_lp28_state")[1], num_layers)


def splice(model: Qwen2Model, ids: torch.Tensor, visual: torch.Tensor) -> tuple[torch.Tensor, int]:
    start = int((ids == -200).nonzero())
    parts = [model.embed_tokens(ids[:start]), visual.flatten(0, 1), model.embed_tokens(ids[start + 1 :])]
    return torch.cat(parts), start


def whole(embeds: torch.Tensor, start: int, num_visual: int) -> WalkInput:
    return WalkInput(embeds[None], torch.ones(1, len(embeds), dtype=torch.bool), [start], [num_visual])


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: f"{row['num_layers']}-{row['mode']}")
def test_schedule_and_survivors_equal_the_released_ones(row: dict) -> None:
    method = LpComp(survivors=row["mode"])
    assert method.counts(row["num_layers"]) == row["counts_index_0_to_L"]
    schedule = method.schedule(row["num_layers"], 16)
    assert list(schedule) == row["drop_after_layer_1based"]
    alive = list(range(16))
    for stage, (layer, keep) in enumerate(schedule.items()):
        point = DropPoint(stage, layer, row["num_layers"], 16, len(alive), keep)
        alive = [alive[i] for i in method(point, lambda: torch.empty(0)).kept.tolist()]
        assert alive == row["kept_token_positions_0based_after_each_drop"][stage]


def test_preset_of_28_layers_is_the_table_of_the_paper() -> None:
    entering = [16, 16, 16, 15, 15, 14, 14, 13, 12, 12, 11, 10, 9, 9, 8, 7, 6, 5, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1]
    assert LpComp().counts(28)[1:] == entering
    ceiling = [16, 16, 16, 16, 15, 15, 14, 14, 13, 12, 11, 11, 10, 9, 8, 7, 7, 6, 5, 4, 4, 3, 3, 2, 2, 2, 2, 1]
    assert LpComp(rounding="ceiling").counts(28)[1:] == ceiling


@pytest.mark.parametrize("chunk_size", [None, 50])
@pytest.mark.parametrize(("case", "method"), RUNS, ids=[case for case, _ in RUNS])
@torch.no_grad()
def test_prefill_and_greedy_decode_equal_the_released_code(case: str, method: LpComp, chunk_size: int | None) -> None:
    facts, expected = load(case)
    inputs = load("b_lp28_inputs")[1]
    model = model_of(facts, expected)
    embeds, start = splice(model, inputs["input_ids"], inputs["visual_embeds"])
    out = prefill(model, whole(embeds, start, 192), reducer=method, chunk_size=chunk_size)
    head = model.embed_tokens.weight
    logits = out.hidden @ head.T
    torch.testing.assert_close(logits[0], expected["output.prefill_logits"], atol=2e-3, rtol=1e-3)

    total = Reduction.identity(192)
    for stage in range(len(out.reductions[0])):
        total = total.then(out.reductions[0][stage])
        assert torch.equal(total.kept, expected[f"output.kept_after_stage{stage}"])

    assert out.cache is not None
    lengths = [layer[0] for layer in out.cache.lengths()]
    assert lengths == expected["output.prefill_seq_len_entering_layer"].tolist()
    step = logits[:, -1]
    for index, token in enumerate(expected["output.generated_ids"].tolist()):
        torch.testing.assert_close(step[0], expected["output.step_logits"][index], atol=2e-3, rtol=1e-3)
        assert int(step.argmax()) == token
        if index < len(expected["output.decode_position_per_step_and_layer"]):
            positions = [int(out.cache.next_positions(layer, 1, embeds.device)) for layer in range(len(lengths))]
            assert positions == expected["output.decode_position_per_step_and_layer"][index].tolist()
        step = (decode_step(model, model.embed_tokens(torch.tensor([[token]])), out.cache) @ head.T)[:, -1]


@pytest.mark.parametrize(
    ("case", "method"), [("d_train_b1", LpComp()), ("d_train_b2_padded", LpComp()), ("d_train_step6", STEP_6)]
)
def test_training_loss_and_gradients_equal_the_released_code(case: str, method: LpComp) -> None:
    facts, expected = load(case)
    model = model_of(facts, expected)
    table = expected["input.visual_table"].clone().requires_grad_()
    rows, labels, starts, counts = [], [], [], []
    for sample, frames in enumerate(facts["frames_per_sample"]):
        valid = expected["input.attention_mask"][sample].bool()
        ids, own = expected["input.input_ids"][sample][valid], expected["input.labels"][sample][valid]
        embeds, start = splice(model, ids, table[frames])
        rows.append(embeds)
        starts.append(start)
        counts.append(16 * len(frames))
        labels.append(torch.cat([own[:start], torch.full((counts[-1],), -100), own[start + 1 :]]))
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
    inputs = WalkInput(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask, starts, counts)
    out = prefill(model, inputs, reducer=method, use_cache=False)
    logits = out.hidden @ model.embed_tokens.weight.T
    moved = out.move_labels(torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100))
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), moved[:, 1:].flatten())
    torch.testing.assert_close(loss, expected["output.loss"], rtol=1e-4, atol=0)
    torch.testing.assert_close(logits[out.mask], expected["output.logits"][out.mask], atol=2e-3, rtol=1e-3)

    loss.backward()
    parameters = {f"model.{name}": value for name, value in model.named_parameters()}
    for name, norm in facts["grad_norms"].items():
        gradient = parameters[name].grad
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(norm, rel=2e-3)
    for name, wanted in expected.items():
        if name.startswith("output.grad."):
            gradient = parameters[name.removeprefix("output.grad.")].grad
            assert float((gradient - wanted).norm()) <= 2e-3 * float(wanted.norm())
    wanted = expected["output.grad_visual_table"]
    assert float((table.grad - wanted).norm()) <= 2e-3 * float(wanted.norm())


@pytest.mark.parametrize("num_layers", [2, 4, 8])
@torch.no_grad()
def test_few_layers_drop_before_the_first_one(num_layers: int) -> None:
    model = language_model(
        {
            name: value
            for name, value in load("b_lp28_state")[1].items()
            if ".layers." not in name or int(name.split(".")[2]) < num_layers
        },
        num_layers,
    )
    inputs = load("b_lp28_inputs")[1]
    embeds, start = splice(model, inputs["input_ids"], inputs["visual_embeds"])
    out = prefill(model, whole(embeds, start, 192), reducer=LpComp())
    assert out.cache is not None
    text = len(embeds) - 192
    assert [length[0] for length in out.cache.lengths()] == [text + 12 * n for n in LpComp().counts(num_layers)[1:]]
