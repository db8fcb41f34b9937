"""Methods that belong to weights: attached from a preset or config.json, and refused where they do not belong."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtake.convert import load as load_module
from longtake.convert.load import load, save
from longtake.core.errors import CheckpointError
from longtake.engine.select import selector_of
from longtake.methods.compress.tome import ToMe
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.methods.select.qc_comp import XCOMP_2B_RELEASED, XCOMP_CLEAN
from longtake.models import presets
from longtake.models.presets import Preset
from longtake.models.tiny import tiny_config

HEAD = "lm_head.weight"
XCOMP = ("xcomp_2b_released", "xcomp_clean")


@pytest.fixture
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the presets the shapes of the tiny model; their methods and everything else stay."""
    small = dict(tiny_config().to_dict())
    for key in ("methods", "tie_word_embeddings", "tokenizer_model_max_length", "mm_local_num_frames", "model_type"):
        small.pop(key, None)
    found = {name: Preset(repository=p.repository, values={**p.values, **small}) for name, p in presets.PRESETS.items()}
    monkeypatch.setattr(presets, "PRESETS", MappingProxyType(found))
    monkeypatch.setattr(load_module, "PRESETS", MappingProxyType(found))


def release(folder: Path, **values: object) -> None:
    """Make a folder as XComp's archive is: no word of its methods, the training configuration, no head."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config.pop("methods", None)
    training = {"model_type": "qwen2", "mm_patch_merge_type": "flat", "mm_newline_position": "one_token"}
    path.write_text(json.dumps(config | training | values), "utf-8")
    weights = load_file(folder / "model.safetensors")
    weights.pop(HEAD, None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", XCOMP)
def test_a_released_archive_loads_by_its_preset_with_its_methods(name: str, folder: Path, tiny_presets: None):
    release(folder)
    loaded = load(folder, preset=name)
    assert loaded.model.reducer == LpComp()
    assert loaded.model.compressor == ToMe(tokens_per_image=16)
    selector = selector_of(loaded)
    wanted = (XCOMP_2B_RELEASED, False) if name == "xcomp_2b_released" else (XCOMP_CLEAN, True)
    assert (selector.method, selector.state_times) == wanted
    assert loaded.config.mm_local_num_frames == (4 if name == "xcomp_2b_released" else 8)
    assert loaded.model.lm_head.weight is loaded.model.language.embed_tokens.weight


def test_the_inference_configuration_and_none_are_accepted_too(folder: Path, tiny_presets: None):
    release(folder, model_type="videochat_flash_qwen", tokenizer_model_max_length=131072)
    load(folder, preset="xcomp_clean")
    (folder / "config.json").unlink()
    load(folder, preset="xcomp_clean")


def test_methods_survive_saving_without_a_preset(folder: Path, tmp_path: Path, tiny_presets: None):
    release(folder)
    first = load(folder, preset="xcomp_2b_released")
    again = load(save(first, tmp_path / "again"))
    assert again.model.reducer == LpComp() and selector_of(again) == selector_of(first)
    assert again.model.compressor == first.model.compressor
    load(tmp_path / "again", preset="xcomp_2b_released")


def test_videochat_flash_weights_are_refused_by_the_preset_unless_told(folder: Path, tiny_presets: None):
    # Saved by us: config.json says that the weights were tuned for no reducer.
    with pytest.raises(CheckpointError, match=r"VideoChat-Flash.*lp_comp.*--untuned"):
        load(folder, preset="xcomp_clean")
    assert load(folder, preset="xcomp_clean", untuned=True).model.reducer == LpComp()
    release(folder, model_type="videochat_flash_qwen", tokenizer_model_max_length=32768)
    with pytest.raises(CheckpointError, match="VideoChat-Flash"):
        load(folder, preset="xcomp_2b_released")


def test_xcomp_weights_are_refused_by_another_preset(folder: Path, tmp_path: Path, tiny_presets: None):
    release(folder)
    xcomp = save(load(folder, preset="xcomp_clean"), tmp_path / "xcomp")
    with pytest.raises(CheckpointError, match=r"videochat_flash_2b arrived.*were tuned for .*lp_comp"):
        load(xcomp, preset="videochat_flash_2b")


def test_a_preset_of_another_size_names_the_tensor(folder: Path):
    release(folder)
    with pytest.raises(CheckpointError, match=r"missing|shape"):
        load(folder, preset="xcomp_2b_released")


def test_a_reducer_that_needs_tuning_is_refused_for_other_weights(folder: Path):
    with pytest.raises(CheckpointError, match=r"tuned for no such method.*untuned=True"):
        load(folder, reducer=LpComp())
    assert load(folder, reducer=LpComp(), untuned=True).model.reducer == LpComp()
    assert load(folder, reducer=LpComp(schedule_kind="none")).model.reducer == LpComp(schedule_kind="none")
    assert load(folder, reducer=ProgressiveDrop()).model.reducer == ProgressiveDrop()


@pytest.mark.parametrize("other", [LpComp(survivors="uniform"), LpComp(rounding="ceiling"), ProgressiveDrop()])
def test_another_method_or_setting_than_the_tuned_one_is_refused(
    folder: Path, tmp_path: Path, tiny_presets: None, other: LpComp | ProgressiveDrop
):
    release(folder)
    xcomp = save(load(folder, preset="xcomp_clean"), tmp_path / "xcomp")
    assert load(xcomp, reducer=LpComp()).model.reducer == LpComp()
    with pytest.raises(CheckpointError, match=r"weights that were tuned for LpComp"):
        load(xcomp, reducer=other)


@pytest.mark.parametrize("described", [{"name": "lp_compp"}, {"name": "lp_comp", "speed": 3}, {}, "lp_comp"])
def test_methods_that_cannot_be_built_are_refused(folder: Path, described: object):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"methods": {"reduce": described}}), "utf-8")
    with pytest.raises(CheckpointError, match="`methods` in config.json"):
        load(folder)


@pytest.mark.parametrize("name", XCOMP)
def test_the_archive_is_on_no_hub(name: str):
    with pytest.raises(CheckpointError, match="released as an archive"):
        load(name)


def test_images_are_dropped_to_one_token_a_tile_too(folder: Path, tiny_presets: None):
    release(folder)
    loaded = load(folder, preset="xcomp_2b_released")
    with torch.no_grad():
        tokens = loaded.model.connect(torch.randn(3, 1, 3, 96, 96))[0]
    assert tokens.shape[:2] == (3, 16)
    assert LpComp().schedule(4, 48)[3] == 3
