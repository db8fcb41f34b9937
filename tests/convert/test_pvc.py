"""Loading PVC: the gate, names that nobody has published, what only the tensors say, the released size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import longtake.auto
from longtake.convert.config_reader import read_config
from longtake.convert.integrity import explain_folder
from longtake.convert.key_map import released_shapes
from longtake.convert.load import load, save
from longtake.convert.pvc_roles import NAMES_FILE, match_names
from longtake.core.errors import CheckpointError, ConfigError
from longtake.models.loaded import LoadedModel
from longtake.models.presets import preset
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.pvc_names import RULES, to_released
from longtake.models.splice import Visual
from longtake.models.tiny_pvc import pvc_byte_tokenizer, random_pvc, tiny_pvc, tiny_pvc_config

WEIGHTS = "model.safetensors"
LAYER = "vision_model.encoder.layers.#."
# What a stranger might have called the parts; the first rows are left with one choice by their shapes.
BY_SHAPE = {
    LAYER + "t_attn.qkv": LAYER + "temporal.attn.qkv",
    LAYER + "t_mlp.0": LAYER + "temporal.time.w1",
    LAYER + "alpha": LAYER + "temporal.gate",
    "mlp1.0.t_mlp.0": "mlp1.time.w1",
    "mlp1.1": "mlp1.fc1",
    "mlp1.3": "mlp1.fc2",
}
BY_TABLE = {
    LAYER + "t_attn.out": LAYER + "temporal.attn.proj",
    LAYER + "t_mlp.2": LAYER + "temporal.time.w2",
    LAYER + "ada.scale.0": LAYER + "temporal.adaln.w3",
    LAYER + "ada.scale.2": LAYER + "temporal.adaln.w4",
    LAYER + "ada.shift.0": LAYER + "temporal.adaln.w5",
    LAYER + "ada.shift.2": LAYER + "temporal.adaln.w6",
    "mlp1.0.t_mlp.2": "mlp1.time.w2",
    "mlp1.0.scale.0": "mlp1.adaln.w3",
    "mlp1.0.scale.2": "mlp1.adaln.w4",
    "mlp1.0.shift.0": "mlp1.adaln.w5",
    "mlp1.0.shift.2": "mlp1.adaln.w6",
}
INVENTED = {ours: theirs for theirs, ours in (BY_SHAPE | BY_TABLE).items()}


@pytest.fixture(scope="session")
def saved_pvc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_pvc(3), tmp_path_factory.mktemp("pvc") / "tiny")


@pytest.fixture
def folder(saved_pvc: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_pvc, tmp_path / "copy"))


@pytest.fixture
def foreign(folder: Path) -> Path:
    """Return the checkpoint under invented names, with a config.json that says no more than a released one."""
    state = load_file(folder / WEIGHTS)
    save_file({invent(name): value for name, value in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    path = folder / "config.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({key: value for key, value in values.items() if key not in OWN_KEYS}), "utf-8")
    return folder


OWN_KEYS = ("temporal_layers", "share_time_mlp", "gate", "conditioning", "cls_in_time", "tile_order", "frame_labels")


def invent(name: str) -> str:
    for number in range(4):
        for ours, theirs in INVENTED.items():
            prefix = ours.replace("#", str(number))
            if name == prefix or name.startswith(prefix + "."):
                return theirs.replace("#", str(number)) + name.removeprefix(prefix)
    return name


def write_table(folder: Path, table: Mapping[str, object]) -> None:
    (folder / NAMES_FILE).write_text(json.dumps(table), "utf-8")


def same_weights(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_saved_model_has_the_public_names_and_loads_as_it_was(saved_pvc: Path, tmp_path: Path):
    names = set(load_file(saved_pvc / WEIGHTS))
    assert "language_model.model.layers.3.attention.wqkv.weight" in names
    assert "vision_model.encoder.layers.0.attn.qkv.bias" in names
    assert not any("q_proj" in name or name.startswith(("vision.", "language.")) for name in names)
    loaded = load(saved_pvc)
    assert same_weights(loaded.model, random_pvc(seed=3))
    again = save(loaded, tmp_path / "again")
    assert (again / WEIGHTS).read_bytes() == (saved_pvc / WEIGHTS).read_bytes()
    assert load(again).fingerprint == loaded.fingerprint


def test_auto_classes_and_bfloat16_work_too(saved_pvc: Path):
    from transformers import AutoModelForImageTextToText

    assert longtake.auto.register() is None
    model = AutoModelForImageTextToText.from_pretrained(saved_pvc)
    assert isinstance(model, PvcForConditionalGeneration) and same_weights(model, random_pvc(seed=3))
    half = load(saved_pvc, dtype="bfloat16").model
    rows = half.visual_tokens(Visual(pixel_values=torch.randn(2, 3, 56, 56), modality="image"))
    assert rows.dtype == torch.bfloat16 and bool(rows.isfinite().all())


def test_invented_names_are_matched_where_shapes_decide_and_asked_for_where_they_do_not(foreign: Path):
    config = read_config(foreign)
    match = explain_folder(foreign, config)
    assert config.temporal_layers == (2, 3)
    assert match.renamed == with_tensors(BY_SHAPE)
    assert {name.name for name in match.open} == set(with_tensors(BY_TABLE))
    opened = {name.name: name for name in match.open}
    scale = opened[LAYER + "ada.scale.0.weight"]
    assert scale.shape == (32, 32) and scale.layers == (2, 3)
    alike = ("adaln.w3", "adaln.w4", "adaln.w5", "adaln.w6", "attn.proj", "time.w2")
    assert scale.candidates == tuple(f"{LAYER}temporal.{part}.weight" for part in alike)
    assert match.absent == ()
    with pytest.raises(CheckpointError, match=r"22 names .* first: mlp1\.0\.scale\.0\.bias .*--explain"):
        load(foreign)


def with_tensors(modules: dict[str, str]) -> dict[str, str]:
    """Write out weight and bias of each module; a gate is a tensor itself."""
    found: dict[str, str] = {}
    for theirs, ours in modules.items():
        suffixes = ("",) if theirs.endswith("alpha") else (".weight", ".bias")
        found |= {theirs + suffix: ours + suffix for suffix in suffixes}
    return found


def test_a_filled_in_table_loads_them_and_they_are_saved_under_our_names(
    foreign: Path, saved_pvc: Path, tmp_path: Path
):
    write_table(foreign, BY_TABLE)
    loaded = load(foreign)
    assert same_weights(loaded.model, random_pvc(seed=3))
    again = save(loaded, tmp_path / "ours")
    assert (again / WEIGHTS).read_bytes() == (saved_pvc / WEIGHTS).read_bytes()
    assert same_weights(load(again).model, loaded.model)


def test_the_table_may_lie_elsewhere(foreign: Path, tmp_path: Path):
    write_table(tmp_path, BY_TABLE)
    assert same_weights(load(foreign, names=tmp_path / NAMES_FILE).model, random_pvc(seed=3))


BAD_TABLES = [
    (BY_TABLE | {"mlp1.9": "mlp1.adaln.w3"}, r"mlp1\.9"),
    (BY_TABLE | {"mlp1.0.scale.0": "mlp1.adaln.w9"}, r"mlp1\.adaln\.w9"),
    (BY_TABLE | {"mlp1.0.scale.0": "mlp1.adaln.w4"}, "more than one"),
    (BY_TABLE | {"mlp1.0.scale.0": ["mlp1.adaln.w3"]}, "something else than names"),
]


@pytest.mark.parametrize("table, message", BAD_TABLES)
def test_a_table_that_does_not_fit_is_refused(table: dict[str, object], message: str, foreign: Path):
    write_table(foreign, table)
    with pytest.raises(CheckpointError, match=message):
        load(foreign)


def test_a_table_needs_no_row_for_the_last_name_of_its_shape(foreign: Path):
    write_table(foreign, {key: value for key, value in BY_TABLE.items() if key != "mlp1.0.scale.0"})
    assert same_weights(load(foreign).model, random_pvc(seed=3))


@pytest.mark.parametrize("name", [LAYER.replace("#", "2") + "extra.weight", "mlp1.7.weight", "other.weight"])
def test_nothing_loads_with_a_tensor_left_over(name: str, foreign: Path):
    write_table(foreign, BY_TABLE)
    state = load_file(foreign / WEIGHTS)
    save_file(state | {name: torch.ones(7, 7)}, foreign / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="extra|mlp1.7|other"):
        load(foreign)


@pytest.mark.parametrize(
    "name", ["mlp1.1.bias", LAYER.replace("#", "3") + "alpha", LAYER.replace("#", "3") + "t_mlp.0.bias"]
)
def test_nothing_loads_with_a_tensor_missing(name: str, foreign: Path):
    write_table(foreign, BY_TABLE)
    state = load_file(foreign / WEIGHTS)
    del state[name]
    save_file(state, foreign / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError):
        load(foreign)


def test_a_tokenizer_that_only_remote_code_reads_is_asked_for_in_another_form(folder: Path):
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json.*convert_slow_tokenizer"):
        load(folder)


def test_an_unknown_time_scale_is_asked_for(folder: Path):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"time_scale": None}), "utf-8")
    with pytest.raises(ConfigError, match="time_scale"):
        load(folder)


OWN_FORMS = [
    {"gate": "scalar"},
    {"share_time_mlp": True},
    {"conditioning": "none"},
    {"temporal_layers": (1, 3)},
    {"temporal_layers": (), "conditioning": "none", "time_scale": None},
]


@pytest.mark.parametrize("form", OWN_FORMS, ids=str)
def test_what_the_configuration_does_not_say_is_read_from_the_tensors(form: dict[str, object], tmp_path: Path):
    model = random_pvc(tiny_pvc_config(**form))
    target = save(LoadedModel(model, pvc_byte_tokenizer(), model.config, ""), tmp_path / "own")
    path = target / "config.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({key: value for key, value in values.items() if key not in OWN_KEYS}), "utf-8")
    assert same_weights(load(target).model, model)


def test_a_low_rank_compressor_of_ours_survives_a_round_trip(tmp_path: Path):
    model = random_pvc(tiny_pvc_config(conditioning="low_rank", conditioning_rank=4))
    target = save(LoadedModel(model, pvc_byte_tokenizer(), model.config, ""), tmp_path / "low")
    assert same_weights(load(target).model, model)


@pytest.mark.parametrize("name", sorted(released_shapes(tiny_pvc_config())))
def test_every_name_is_explained_by_itself(name: str):
    shapes = released_shapes(tiny_pvc_config())
    match = match_names(shapes, shapes)
    assert match.to_ours(name) == name and not match.open and not match.absent


def test_no_rule_is_the_beginning_of_another():
    for side in range(2):
        names = [rule[side] for rule in RULES]
        assert not any(a != b and b.startswith(a) for a in names for b in names)


def test_names_of_parts_that_are_fused_in_the_file_are_named_by_the_whole():
    assert to_released("language.layers.3.self_attn.k_proj.weight").endswith("layers.3.attention.wqkv.weight")
    assert to_released("vision.layer.1.attention.v_proj.bias") == "vision_model.encoder.layers.1.attn.qkv.bias"


def packed_shards(sizes: list[int], limit: int = 5 * 10**9) -> list[int]:
    """Pack tensors in order into files of at most `limit` bytes."""
    shards = [0]
    for size in sizes:
        if shards[-1] + size > limit:
            shards.append(0)
        shards[-1] += size
    return shards


@pytest.fixture(scope="module")
def released() -> dict[str, tuple[int, ...]]:
    return released_shapes(preset("pvc_8b").config())


def count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def test_the_preset_has_the_published_count_of_parameters(released: dict[str, tuple[int, ...]]):
    assert count(released) == 9_549_843_456
    parts = {
        part: count({name: shape for name, shape in released.items() if name.startswith(part)})
        for part in ("vision_model.", "language_model.", "mlp1.time", "mlp1.adaln", "mlp1.fc")
    }
    assert parts["vision_model."] == 304_012_288 + 77_684_736
    assert parts["language_model."] == 7_737_782_272
    assert parts["mlp1.time"] + parts["mlp1.adaln"] == 1_346_469_888
    assert parts["mlp1.fc"] == 83_894_272
    temporal = {name: shape for name, shape in released.items() if ".layers.16.temporal." in name}
    assert (len(temporal), count(temporal)) == (17, 9_710_592)
    assert not any(".layers.15.temporal." in name for name in released)


def test_the_files_would_have_the_published_sizes(released: dict[str, tuple[int, ...]]):
    # Module order of the released family: vision, language, compressor; bfloat16; the default limit of 5 GB.
    order = ("vision_model.", "language_model.", "mlp1.")
    names = [name for part in order for name in released if name.startswith(part)]
    assert len(names) == len(released)
    shards = packed_shards([2 * torch.Size(released[name]).numel() for name in names])
    assert [round(size / 1e9, 2) for size in shards] == [4.89, 5.00, 4.92, 4.29]
