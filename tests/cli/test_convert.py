"""`longtake convert`: writes a checkpoint anew, explains names that nobody has published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from longtake.cli.convert import run
from longtake.convert.load import load, save
from longtake.core.errors import ConfigError
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import build_random, byte_tokenizer
from longtake.models.tiny_pvc import tiny_pvc

STRANGE = "mlp1.strange.0.weight"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a tiny PVC in which one of the compressor's five alike matrices has a name of its own."""
    folder = save(tiny_pvc(), tmp_path / "foreign")
    state = load_file(folder / "model.safetensors")
    for last in ("weight", "bias"):
        state[f"mlp1.strange.0.{last}"] = state.pop(f"mlp1.adaln.w3.{last}")
        state[f"mlp1.strange.2.{last}"] = state.pop(f"mlp1.adaln.w4.{last}")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_open_names_are_listed_with_shape_and_candidates(foreign: Path, capsys: pytest.CaptureFixture[str]):
    run(str(foreign), None, True, None, None, True)
    (name,) = (row for row in json.loads(capsys.readouterr().out)["open"] if row["name"] == STRANGE)
    assert name["shape"] == [128, 128]
    assert name["candidates"] == ["mlp1.adaln.w3.weight", "mlp1.adaln.w4.weight"]
    run(str(foreign), None, True, None, None, False)
    text = capsys.readouterr().out
    assert "4 names are open" in text and "pvc_names.json" in text


def test_a_filled_in_table_explains_every_name_and_converts(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"mlp1.strange.0": "mlp1.adaln.w3", "mlp1.strange.2": "mlp1.adaln.w4"}), "utf-8")
    run(str(foreign), None, True, str(table), None, False)
    assert "every name is explained" in capsys.readouterr().out
    run(str(foreign), str(tmp_path / "ours"), False, str(table), None, True)
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "ours")}
    assert not [name for name in load_file(tmp_path / "ours" / "model.safetensors") if "strange" in name]
    assert load(tmp_path / "ours").config.time_scale == 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_target_and_explain_exclude_each_other_and_one_is_needed(foreign: Path):
    for target, explain in ((None, False), ("x", True)):
        with pytest.raises(ConfigError, match="--explain"):
            run(str(foreign), target, explain, None, None, False)


def test_a_checkpoint_of_another_kind_has_nothing_to_explain(tmp_path: Path):
    model = build_random()
    folder = save(LoadedModel(model, byte_tokenizer(), model.config, ""), tmp_path / "flash")
    with pytest.raises(ConfigError, match="videochat_flash_qwen"):
        run(str(folder), None, True, None, None, False)
