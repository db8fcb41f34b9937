"""Training runs: what is trained, what a run leaves behind, what stops it, and that stopping it changes nothing."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.train.runs import losses, small_recipe, turns

import longtake
from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.errors import ConfigError, StorageError, TrainingError
from longtake.data.samples import TrainingSample
from longtake.methods.compress.tome import ToMe
from longtake.methods.reduce.lp_comp import LpComp
from longtake.models.tiny import build_random, tiny_model
from longtake.train import checkpoints
from longtake.train.budgets import Budgets
from longtake.train.checkpoints import Checkpoints, Snapshot
from longtake.train.loop import build, train
from longtake.train.objective import Objective
from longtake.train.parts import build_optimizer, choose_parts, part_of, rate_factor, set_rates
from longtake.train.recipe import CompressionSettings, OptimSettings, Rates, Recipe

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
# Runs a recipe and kills its own process, as kill -9 does, after so many steps or calls of fsync.
SUICIDE = """
import json, os, signal, sys
from longtake.train import checkpoints
from longtake.train.loop import train
from longtake.train.recipe import recipe_from_dict
steps, flushes = int(sys.argv[2]), int(sys.argv[3])
real = checkpoints.flush
def flush(path):
    global flushes
    flushes -= 1
    if not flushes:
        os.kill(os.getpid(), signal.SIGKILL)
    real(path)
def progress(stage, done, total):
    if done == steps:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.flush = flush
train(recipe_from_dict(json.loads(sys.argv[1])), on_progress=progress)
"""


@pytest.fixture(scope="module")
def whole_run(start: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train(small_recipe(start, data, out))
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return longtake.load(folder, dtype="float32").model.state_dict()


def test_a_run_learns_and_leaves_a_model_a_curve_and_a_report(start: Path, data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(start, data, tmp_path / "run", saving={"tensorboard": True, "picture": True})
    seen: list[tuple[str, int, int]] = []
    result = train(recipe, on_progress=lambda *args: seen.append(args))
    found = losses(tmp_path / "run")
    assert len(found) == 6 and found[-1] < found[0] - 1
    assert seen == [("train", step, 6) for step in range(1, 7)]
    assert longtake.load(result.model).model.config.hidden_size == 64
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "run" / "tensorboard").glob("events.*"))) == 1
    assert json.loads((tmp_path / "run" / "report.json").read_text())["last_loss"] == found[-1] == result.last_loss
    assert [path.name for path in Checkpoints(tmp_path / "run" / "checkpoints", 2).all()] == [
        "step_000000004",
        "step_000000006",
    ]


@pytest.mark.parametrize(
    ("steps", "flushes"),
    [
        (3, 0),  # between two checkpoints
        (0, 6),  # inside the second checkpoint, before it is renamed
    ],
)
def test_a_killed_run_goes_on_to_the_same_losses_and_weights(
    start: Path, data: Path, whole_run: Path, tmp_path: Path, steps: int, flushes: int
) -> None:
    recipe = small_recipe(start, data, tmp_path / "run")
    text = json.dumps(recipe.to_dict())
    killed = subprocess.run(
        [sys.executable, "-c", SUICIDE, text, str(steps), str(flushes)], env=os.environ | ENVIRONMENT, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert 0 < len(losses(tmp_path / "run")) < 6
    assert not (tmp_path / "run" / "model").exists()
    train(recipe)
    assert losses(tmp_path / "run") == losses(whole_run)
    expected = weights(whole_run / "model")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "run" / "model").items())
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_leaves_the_checkpoint_before_it_whole(
    start: Path, data: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(start, data, tmp_path / "run")
    calls, real = [0], checkpoints.flush

    def full_after_the_first_checkpoint(path: Path) -> None:
        calls[0] += 1
        if calls[0] > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    monkeypatch.setattr(checkpoints, "flush", full_after_the_first_checkpoint)
    with pytest.raises(StorageError, match="No space left"):
        train(recipe)
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step_000000002"]
    snapshot = Checkpoints(folder, 2).newest()
    assert snapshot is not None and snapshot.progress["step"] == 2
    monkeypatch.setattr(checkpoints, "flush", real)
    train(recipe)
    assert losses(tmp_path / "run") == losses(whole_run)


@pytest.mark.parametrize("too_large", ["weights", "optimizer"])
def test_a_file_that_cannot_grow_leaves_nothing_half(tmp_path: Path, too_large: str) -> None:
    """The operating system refuses the write, as it does on a full disk."""
    saved = Checkpoints(tmp_path, 2)
    saved.save(Snapshot({"w": torch.ones(2)}, {"state": {}}, {"step": 1}))
    large = {"w": torch.ones(1 << 18)}
    weights = large if too_large == "weights" else {"w": torch.ones(2)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, before[1]))
    try:
        with pytest.raises(StorageError, match="could not be saved.*checkpoint before it is whole"):
            saved.save(Snapshot(weights, {"state": large if too_large == "optimizer" else {}}, {"step": 2}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000001"]
    found = saved.newest()
    assert found is not None and torch.equal(found.weights["w"], torch.ones(2))


def test_broken_samples_are_counted_once_and_reported(start: Path, data: Path, tmp_path: Path) -> None:
    good = [json.loads(line) for line in (data.parent / "visual.jsonl").read_text().splitlines()]
    empty = {"conversations": turns("What is 1 + 1?", " ")}
    two = good[0] | {"video": ["film0.mp4", "film1.mp4"]}
    missing = good[0] | {"video": "nowhere.mp4"}
    lines = [json.dumps(record) for record in (*good, missing, two, empty, empty)]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text("\n".join([*lines, "{broken"]))
    (folder / "list.yaml").write_text(f"datasets:\n- json_path: a.jsonl\n  data_root: {data.parent}\n")
    recipe = small_recipe(start, folder / "list.yaml", tmp_path / "run", optim={"max_steps": 15})
    result = train(recipe)
    expected = {"bad_json": 1, "empty_answer": 2, "missing_media": 1, "several_visuals": 1}
    assert result.broken == json.loads((tmp_path / "run" / "report.json").read_text())["broken"] == expected
    rows = [json.loads(line) for line in (tmp_path / "run" / "loss.jsonl").read_text().splitlines()]
    assert [row["loss"] is None for row in rows] == [row["samples"] == 0 for row in rows]
    assert {row["samples"] for row in rows} == {0, 1, 2} and rows[-1]["broken"] == 5
    with pytest.raises(TrainingError, match=r"5 samples are broken.*raise data.max_failures"):
        train(
            dataclasses.replace(recipe, out=str(tmp_path / "b"), data=dataclasses.replace(recipe.data, max_failures=4))
        )


def test_a_loss_that_is_not_finite_stops_the_run_with_its_batch_saved(
    start: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Objective.forward

    def forward(self: Objective, samples: list) -> torch.Tensor:
        loss = real(self, samples)
        return loss * math.nan if any(sample.pixels is not None for sample in samples) else loss

    monkeypatch.setattr(Objective, "forward", forward)
    with pytest.raises(TrainingError, match=r"loss nan.*bad_batch_step_\d") as caught:
        train(small_recipe(start, data, tmp_path / "run"))
    (saved,) = (tmp_path / "run").glob("bad_batch_*.pt")
    batch = torch.load(saved, weights_only=True)
    assert saved.name in str(caught.value)
    assert len(batch) == 2 and {"ids", "labels", "pixels", "name"} <= set(batch[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 7}, "other seed"),
        ({"rates": {"tower": 1e-3}}, "other rates"),
        ({"optim": {"batch": 1}}, "other optim"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(
    start: Path, data: Path, whole_run: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(whole_run / "checkpoints")
    with pytest.raises(ConfigError, match=message):
        train(small_recipe(start, data, tmp_path / "run", **changes))


def test_a_finished_run_is_not_overwritten(start: Path, data: Path, whole_run: Path) -> None:
    with pytest.raises(ConfigError, match="finished run"):
        train(small_recipe(start, data, whole_run))


@pytest.mark.parametrize("field", ["model", "out"])
def test_an_empty_path_is_named(start: Path, data: Path, tmp_path: Path, field: str) -> None:
    recipe = dataclasses.replace(small_recipe(start, data, tmp_path / "run"), **{field: ""})
    with pytest.raises(ConfigError, match=f"{field} is empty"):
        train(recipe)


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": {"batch": 1, "accumulation": 2}},
        {"optim": {"pack_tokens": 4096}},
        {"gradient_checkpointing": True},
    ],
    ids=["accumulation", "packing", "checkpointing"],
)
def test_how_a_step_is_cut_does_not_change_the_curve(
    start: Path, data: Path, whole_run: Path, tmp_path: Path, changes: dict
) -> None:
    train(small_recipe(start, data, tmp_path / "run", **changes))
    assert losses(tmp_path / "run") == pytest.approx(losses(whole_run), abs=1e-4)


def test_half_precision_stays_near(start: Path, data: Path, whole_run: Path, tmp_path: Path) -> None:
    train(small_recipe(start, data, tmp_path / "run", precision="bfloat16", optim={"max_steps": 2, "warmup": 0.5}))
    found = losses(tmp_path / "run")
    assert found[0] == pytest.approx(losses(whole_run)[0], abs=0.05) and found[0] != losses(whole_run)[0]


@pytest.mark.parametrize("parts", [("language",), ("language", "connector")], ids="+".join)
def test_merged_adapters_are_a_plain_checkpoint(start: Path, data: Path, tmp_path: Path, parts: tuple) -> None:
    recipe = small_recipe(
        start,
        data,
        tmp_path / "run",
        rates={"tower": 0.0, "connector": 1e-2, "language": 1e-2},
        lora={"rank": 4, "parts": parts},
    )
    train(recipe)
    found = losses(tmp_path / "run")
    assert found[-1] < found[0]
    before, after = tiny_model().model.state_dict(), weights(tmp_path / "run" / "model")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in changed if name.startswith("language")} == {
        name for name in before if name.startswith("language.layers") and name.endswith("proj.weight")
    }
    adapted = {"projector.mlp.0.weight", "projector.mlp.2.weight"}
    whole = adapted | {"projector.mlp.0.bias", "projector.mlp.2.bias"}
    assert {name for name in changed if name.startswith("projector")} == (adapted if len(parts) == 2 else whole)
    assert not any(name.startswith("umt") for name in changed)


def test_merging_gives_the_loss_that_the_adapters_had(start: Path, data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(start, data, tmp_path / "run", lora={"rank": 4})
    _, model, adapters = build(recipe)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.02)
    ids = torch.arange(40)[None]
    expected = model(input_ids=ids).logits
    assert adapters is not None
    adapters.merge()
    torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert (expected - tiny_model().model(input_ids=ids).logits).abs().max() > 0.1


def test_only_parts_with_a_rate_are_trained_each_at_its_own() -> None:
    model = build_random()
    choose_parts(model, Rates(tower=2e-6, connector=1e-5))
    assert {part_of(n) for n, value in model.named_parameters() if value.requires_grad} == {"tower", "connector"}
    optimizer = build_optimizer(model, Rates(tower=2e-6, connector=1e-5), OptimSettings(weight_decay=0.1))
    assert set_rates(optimizer, 0.5) == {"tower": 1e-6, "connector": 5e-6}
    for group in optimizer.param_groups:
        assert all((value.ndim > 1) == (group["weight_decay"] > 0) for value in group["params"])


@pytest.mark.parametrize(
    ("step", "steps", "expected"),
    [
        (1, 2247, 1 / 68),  # XComp's log: the first rate is 1.47e-7 of 1e-5
        (68, 2247, 1.0),
        (69, 2247, 1.0),
        (69 + 1090, 2247, 0.5 * (1 + math.cos(math.pi * 1090 / 2179))),
    ],
)
def test_the_rate_rises_and_falls_along_a_cosine(step: int, steps: int, expected: float) -> None:
    assert rate_factor(step, steps, OptimSettings(warmup=0.03)) == pytest.approx(expected)


def test_budgets_are_drawn_anew_and_depend_on_the_step_alone() -> None:
    settings = CompressionSettings(method="lp_comp", budgets=(16, 9, 4))
    first, same, other = (Budgets(settings, seed) for seed in (1, 1, 2))
    drawn = [first.at(step) for step in range(300)]
    assert drawn == [same.at(step) for step in reversed(range(300))][::-1]
    assert all(80 < drawn.count(budget) < 120 for budget in (16, 9, 4))
    assert drawn != [other.at(step) for step in range(300)]


def compressing(start: Path, data: Path, out: Path) -> Recipe:
    return small_recipe(
        start,
        data,
        out,
        rates={"tower": 0.0, "connector": 1e-3, "language": 1e-3},
        compression={"method": "lp_comp", "budgets": (9, 4), "no_grad_frames": 512},
    )


def test_compression_tuning_runs_with_drops_and_says_so_in_the_checkpoint(
    start: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    active: list[tuple[object, object]] = []
    real = Objective.of_row

    def of_row(self: Objective, row):
        active.append((self.model.compressor, self.model.reducer))
        return real(self, row)

    monkeypatch.setattr(Objective, "of_row", of_row)
    result = train(compressing(start, data, tmp_path / "run"))
    methods = {
        budget: (ToMe(tokens_per_frame=budget, tokens_per_image=budget), LpComp(tokens_per_frame=budget))
        for budget in (9, 4)
    }
    rows = [json.loads(line) for line in (tmp_path / "run" / "loss.jsonl").read_text().splitlines()]
    assert active == [methods[row["tokens_per_frame"]] for row in rows]
    assert {row["tokens_per_frame"] for row in rows} == {9, 4}
    loaded = longtake.load(result.model)
    assert (loaded.model.compressor, loaded.model.reducer) == methods[9]
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]


def test_long_videos_pass_tower_and_connector_without_a_gradient() -> None:
    model = build_random()
    pixels = torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([5, PLACEHOLDER_ID, 7, 8, 9])
    sample = TrainingSample("a", ids, torch.tensor([-100, -100, -100, 8, 9]), 132, pixels)
    for limit, has_gradient in ((9, True), (8, False), (0, True)):
        model.zero_grad()
        Objective(model, no_grad_frames=limit)([sample]).backward()
        assert bool(model.projector.mlp[0].weight.grad.any()) == has_gradient
        assert bool(next(model.vision.parameters()).grad.any()) == has_gradient
        assert model.lm_head.weight.grad.any()
