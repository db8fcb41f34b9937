"""The gate: every way in which a checkpoint can be wrong ends in a typed error that names the tensor and the remedy."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtake.convert.load import from_state_dict, load
from longtake.core.errors import CheckpointError
from longtake.models.gate import check_values
from longtake.models.tiny import build_random, tiny_config

WEIGHTS = "model.safetensors"
QUERY = "model.layers.1.self_attn.q_proj.weight"
State = dict[str, torch.Tensor]


def rename(old: str, new: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        state[new] = state.pop(old)

    return change


def put(name: str, value: torch.Tensor) -> Callable[[State], None]:
    return lambda state: state.__setitem__(name, value)


def only(part: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        for name in [name for name in state if part not in name]:
            del state[name]

    return change


def nan_in(name: str) -> Callable[[State], None]:
    return lambda state: state[name].view(-1)[7].fill_(float("nan"))


DAMAGE = [
    ("missing", lambda state: state.pop(QUERY), [QUERY, "missing", "download"]),
    ("renamed", rename(QUERY, "model.layers.1.self_attn.query.weight"), [QUERY, "query.weight instead", "rename"]),
    ("extra", put("model.image_newline", torch.ones(64)), ["model.image_newline", "nearest known name", "remove"]),
    ("wrong shape", put(QUERY, torch.ones(64, 65)), [QUERY, r"\[64, 65\]", r"\[64, 64\]", "same repository"]),
    ("all zero", put(QUERY, torch.zeros(64, 64)), [QUERY, "zero throughout", "download"]),
    ("NaN", nan_in(QUERY), [QUERY, "NaN", "download"]),
    ("infinite", put("model.norm.weight", torch.full((64,), float("inf"))), [r"model\.norm\.weight", "infinite"]),
    ("one zero bias", put(QUERY.replace("weight", "bias"), torch.zeros(64)), ["q_proj.bias", "zero", "other biases"]),
    ("projector only", only("mm_projector"), ["projector-only", "whole model"]),
    ("tower only", only("vision_tower"), ["vision tower-only", "whole model"]),
    ("another model", lambda state: [rename(n, "transformer." + n[6:])(state) for n in list(state)], ["none of the"]),
]


@pytest.mark.parametrize("change, parts", [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_damaged_tensor_is_named_with_the_remedy(change: Callable[[State], object], parts: list[str], folder: Path):
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    for part in parts:
        assert pytest.raises(CheckpointError, match=part).matches(caught.value), (part, str(caught.value))


@pytest.mark.parametrize("change, parts", [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_state_dicts_pass_the_same_gate(change: Callable[[State], object], parts: list[str], saved: Path):
    state = load_file(saved / WEIGHTS)
    change(state)
    with pytest.raises(CheckpointError, match=parts[0]):
        from_state_dict(state, tiny_config().to_dict())


def test_zero_biases_of_a_fresh_part_are_let_through(folder: Path):
    state = load_file(folder / WEIGHTS)
    for name in state:
        if name.startswith("model.mm_projector") and name.endswith("bias"):
            state[name].zero_()
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    assert not load(folder).model.projector.mlp[0].bias.any()


def test_values_are_checked_in_every_dtype_and_offloaded_ones_are_skipped():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        with pytest.raises(CheckpointError, match="zero throughout"):
            check_values([("model.norm.weight", torch.zeros(3, dtype=dtype))])
    check_values([("model.norm.weight", torch.zeros(3, device="meta"))])


@pytest.mark.parametrize("keep", [0, 5, 200, 20000])
def test_truncated_file_is_refused(keep: int, folder: Path):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        load(folder)


def test_pickle_that_would_run_code_is_refused_and_does_not_run(folder: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match="weights-only"):
        load(folder)
    assert not (tmp_path / "was here").exists()


def test_missing_shard_is_named(saved: Path, tmp_path: Path):
    loaded = load(saved)
    loaded.model.save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    loaded.tokenizer.save_pretrained(tmp_path / "sharded")
    lost = sorted((tmp_path / "sharded").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        load(tmp_path / "sharded")


@pytest.mark.parametrize("text", ["", "{}", '{"weight_map": 3}', "[1]"])
def test_damaged_index_is_refused(text: str, folder: Path):
    (folder / "model.safetensors.index.json").write_text(text, "utf-8")
    with pytest.raises(CheckpointError, match=r"index\.json"):
        load(folder)


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("config.json", None, "holds no config.json"),
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[1, 2]", "JSON object"),
        ("config.json", "\udcff", "not valid JSON"),
        (WEIGHTS, None, "holds no weights"),
        ("tokenizer.json", None, "tokenizer"),
        ("tokenizer.json", "{}", "tokenizer"),
    ],
)
def test_missing_or_broken_file_is_named(name: str, content: str | None, match: str, folder: Path):
    if content is None:
        (folder / name).unlink()
        if name == "tokenizer.json":
            (folder / "tokenizer_config.json").unlink()
    else:
        (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=match):
        load(folder)


def test_wrong_size_in_the_configuration_is_told_as_a_shape(folder: Path):
    values = json.loads((folder / "config.json").read_text("utf-8")) | {"intermediate_size": 256}
    (folder / "config.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(CheckpointError, match=r"shape \[64, 128\]; expected \[64, 256\]"):
        load(folder)


def test_loose_projector_file_is_recognised_as_a_part(folder: Path):
    (folder / WEIGHTS).rename(folder / "mm_projector.bin")
    with pytest.raises(CheckpointError, match=r"mm_projector\.bin.*only a part"):
        load(folder)


@pytest.mark.parametrize("name", ["no/such/folder", "nowhere", "./nowhere", "a//b"])
def test_missing_folder_is_told_and_the_hub_is_not_asked(name: str):
    with pytest.raises(CheckpointError, match="there is no folder"):
        load(name)


def test_file_instead_of_folder_is_told(folder: Path):
    with pytest.raises(CheckpointError, match="is a file"):
        load(folder / WEIGHTS)


def test_hub_out_of_reach_is_told_within_bounded_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"not on this machine.*pass a local folder"):
        load("OpenGVLab/VideoChat-Flash-Qwen2_5-2B_res448")
    assert time.monotonic() - started < 10


def test_unknown_dtype_is_refused(saved: Path):
    with pytest.raises(CheckpointError, match="float31"):
        load(saved, dtype="float31")


def test_random_model_passes_its_own_gate():
    check_values(build_random().named_parameters())
