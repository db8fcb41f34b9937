"""Loading and saving: released names on disk, equal weights after, the Auto classes, odd but legal checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import longtake.auto
from longtake.convert import load as load_module
from longtake.convert.load import from_state_dict, load, save
from longtake.core.errors import CheckpointError, StorageError
from longtake.models.splice import Visual
from longtake.models.tiny import build_random, tiny_config
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration

WEIGHTS = "model.safetensors"


def same_weights(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def test_saved_names_are_the_released_ones(saved: Path):
    names = set(load_file(saved / WEIGHTS))
    assert "model.vision_tower.vision_tower.encoder.blocks.0.attn.q_bias" in names
    assert "model.mm_projector.mlp.2.weight" in names
    assert "model.layers.3.self_attn.q_proj.bias" in names
    assert {name.split(".")[0] for name in names} == {"model", "lm_head"}


def test_internvideo2_names_survive_a_round_trip_too(tmp_path: Path):
    vision = {"kind": "internvideo2", "image_size": 126, "patch_size": 14, "width": 64, "depth": 3, "heads": 2}
    model = build_random(tiny_config(vision=vision))
    folder = save(model, tmp_path / "iv2")
    assert "model.vision_tower.vision_tower.blocks.1.ls1.weight" in load_file(folder / WEIGHTS)
    assert same_weights(model, VideoChatFlashForConditionalGeneration.from_pretrained(folder))


def test_reload_is_equal_and_saves_equal_files_again(saved: Path, tmp_path: Path):
    loaded = load(saved)
    assert same_weights(loaded.model, build_random(seed=3))
    again = save(loaded, tmp_path / "again")
    assert load(again).fingerprint == loaded.fingerprint
    assert (again / WEIGHTS).read_bytes() == (saved / WEIGHTS).read_bytes()


def test_fingerprint_changes_with_a_weight_the_configuration_and_the_dtype(folder: Path):
    seen = {load(folder).fingerprint, load(folder, dtype="bfloat16").fingerprint}
    change_config(folder, mm_llm_compress=True)
    seen.add(load(folder).fingerprint)
    state = load_file(folder / WEIGHTS)
    state["lm_head.weight"][5, 5] += 1
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    seen.add(load(folder).fingerprint)
    assert len(seen) == 4


@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText"])
def test_auto_classes_load_the_model_without_remote_code(auto: str, folder: Path):
    change_config(folder, auto_map={"AutoModel": "modeling_videochat_flash.VideoChatFlashQwenForCausalLM"})
    assert longtake.auto.register() is None
    model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=False)
    assert isinstance(model, VideoChatFlashForConditionalGeneration)
    assert same_weights(model, build_random(seed=3))


def test_auto_classes_refuse_incomplete_weights_too(folder: Path):
    from transformers import AutoModelForImageTextToText

    state = load_file(folder / WEIGHTS)
    del state["model.layers.2.mlp.down_proj.weight"]
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.layers\.2\.mlp\.down_proj\.weight"):
        AutoModelForImageTextToText.from_pretrained(folder)
    state["model.layers.2.mlp.down_proj.weight"] = torch.ones(3, 3)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"\[3, 3\]"):
        AutoModelForImageTextToText.from_pretrained(folder)


@pytest.mark.parametrize("model_type", ["llava_qwen", "llava_qwen_flash", "qwen2"])
def test_wrong_model_types_of_released_files_load(model_type: str, folder: Path):
    change_config(folder, model_type=model_type)
    assert same_weights(load(folder).model, build_random(seed=3))


@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.parametrize("head, tied", [("own", False), ("equal", True), ("absent", True)])
def test_head_is_tied_as_the_files_say_whatever_the_configuration_claims(
    claimed: bool, head: str, tied: bool, folder: Path
):
    state = load_file(folder / WEIGHTS)
    if head == "equal":
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    if head == "absent":
        del state["lm_head.weight"]
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    change_config(folder, tie_word_embeddings=claimed)
    model = load(folder).model
    assert (model.lm_head.weight is model.language.embed_tokens.weight) is tied
    if not tied:
        assert torch.equal(model.lm_head.weight, state["lm_head.weight"])


def test_bin_files_load_with_weights_only(folder: Path):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert same_weights(load(folder).model, build_random(seed=3))


def test_sharded_checkpoints_load(saved: Path, tmp_path: Path):
    loaded = load(saved)
    loaded.model.save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    loaded.tokenizer.save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert same_weights(load(tmp_path / "sharded").model, loaded.model)


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"dtype": torch.bfloat16, "device": "cpu"}])
def test_dtype_and_device_reach_the_weights(options: dict, saved: Path):
    assert {p.dtype for p in load(saved, **options).model.parameters()} == {torch.bfloat16}


def test_placement_and_quantization_reach_transformers_as_they_are(saved: Path, monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, object] = {}
    real = transformers.PreTrainedModel.from_pretrained.__func__

    def watch(cls: type, *args: object, **kwargs: object) -> object:
        seen.update(kwargs)
        return real(cls, *args, **(kwargs | {"quantization_config": None}))

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(watch))
    load(saved, device_map={"": "cpu"}, quantization_config="any")
    assert (seen["device_map"], seen["quantization_config"]) == ({"": "cpu"}, "any")


def test_layers_offloaded_to_disk_give_the_same_answer(saved: Path, tmp_path: Path):
    ids, visuals = torch.tensor([[5, -200, 7, 8]]), [Visual(pixel_values=torch.ones(4, 3, 96, 96))]
    expected = load(saved).model.generate(ids, visuals, max_new_tokens=4).ids
    places = dict.fromkeys(("umt", "projector", "lm_head", "language.embed_tokens", "language.norm"), "cpu")
    places |= {"language.rotary_emb": "cpu", **{f"language.layers.{i}": "cpu" for i in range(3)}}
    model = VideoChatFlashForConditionalGeneration.from_pretrained(
        saved, device_map=places | {"language.layers.3": "disk"}, offload_folder=tmp_path / "offload"
    )
    assert model.language.layers[3].mlp.up_proj.weight.device.type == "meta"
    assert model.generate(ids, visuals, max_new_tokens=4).ids == expected


def test_fused_tower_on_disk_is_refused_instead_of_read_as_noise(saved: Path, tmp_path: Path):
    places = {"umt": "disk", "projector": "cpu", "lm_head": "cpu", "language": "cpu"}
    with pytest.raises(CheckpointError, match="'umt' on disk"):
        VideoChatFlashForConditionalGeneration.from_pretrained(saved, device_map=places, offload_folder=tmp_path)


def test_device_and_device_map_together_are_refused(saved: Path):
    with pytest.raises(CheckpointError, match="device_map"):
        load(saved, device="cpu", device_map="auto")


def test_loaded_tokenizer_is_the_one_in_the_folder(saved: Path):
    assert load(saved).tokenizer("\n<|im_end|>")["input_ids"] == [198, 258]


def test_state_dict_may_be_tied_and_half_precision():
    state = {name: value.half() for name, value in released_state().items() if name != "lm_head.weight"}
    model = from_state_dict(state, tiny_config().to_dict())
    assert model.lm_head.weight is model.language.embed_tokens.weight
    assert model.dtype == torch.float32


def released_state() -> dict[str, torch.Tensor]:
    from longtake.convert.key_map import rename_to_released

    model = build_random()
    return rename_to_released(model.state_dict(), model.config)


def test_save_leaves_nothing_behind_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    model = build_random()
    monkeypatch.setattr(type(model), "save_pretrained", full)
    with pytest.raises(StorageError, match="No space left"):
        save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_save_flushes_every_file_before_the_folder_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed: list[tuple[str, bool]] = []
    flush = load_module.flush

    def watch(path: Path) -> None:
        flushed.append((path.name, (tmp_path / "model").exists()))
        flush(path)

    monkeypatch.setattr(load_module, "flush", watch)
    save(build_random(), tmp_path / "model")
    assert {name for name, there in flushed if not there} >= {"config.json", WEIGHTS}
    assert flushed[-1] == (tmp_path.name, True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_save_never_overwrites(saved: Path):
    with pytest.raises(StorageError, match="already"):
        save(build_random(), saved)


def test_preset_takes_the_place_of_config_json(folder: Path):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="tensors missing"):
        load(folder, preset="videochat_flash_2b")


def test_half_precision_model_answers(saved: Path):
    model = load(saved, dtype="bfloat16").model
    visual = Visual(pixel_values=torch.ones(4, 3, 96, 96))
    answer = model.generate(torch.tensor([[1, -200, 2]]), [visual], max_new_tokens=3, keep_logits=True)
    assert answer.logits.dtype == torch.bfloat16
    assert len(answer.ids[0]) == 3


def test_yarn_set_by_hand_reaches_the_language_model(folder: Path):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    change_config(folder, rope_parameters=scaling | {"rope_theta": 1e6}, max_position_embeddings=131072)
    model = load(folder).model
    assert model.language.config.rope_parameters["rope_type"] == "yarn"
    assert not torch.equal(model.language.rotary_emb.inv_freq, build_random().language.rotary_emb.inv_freq)


def test_rotary_table_is_made_again_after_loading(saved: Path):
    assert torch.equal(load(saved).model.language.rotary_emb.inv_freq, build_random().language.rotary_emb.inv_freq)
