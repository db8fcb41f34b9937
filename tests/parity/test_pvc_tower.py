"""PVC's vision tower: the static part against public code, the temporal part against the reconstructed equations."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from longtake.core.errors import ConfigError
from longtake.nn.vision.internvit import InternVitConfig, ProgressiveTower, TemporalStream
from longtake.nn.vision.progressive import time_code

GOLDEN = Path(__file__).parents[1] / "golden" / "pvc"
LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.*)")
PARTS = {
    "attn.proj": "attention.projection_layer",
    "attn.": "attention.",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
}
TOP = {
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "embeddings.patch_embedding.weight": "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embedding.bias": "embeddings.patch_embeddings.projection.bias",
}
SEQUENCES = sorted(p.stem for p in GOLDEN.glob("r_[ab]_*.json") if not p.stem.endswith("state"))


def load(case: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tensors = load_file(GOLDEN / f"{case}.safetensors")
    facts = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    return facts, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def our_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reference names of the tower to ours: the table of the specification, qkv split in three."""
    ours = {}
    for name, value in state.items():
        found = LAYER.fullmatch(name)
        if found is None:
            ours[TOP[name]] = value
            continue
        number, rest = found.groups()
        if rest.startswith("temporal."):
            ours[f"layer.{number}.{rest}"] = value
        elif rest.startswith("attn.qkv."):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                ours[f"layer.{number}.attention.{letter}_proj.{rest.removeprefix('attn.qkv.')}"] = part
        else:
            old = next((part for part in PARTS if rest.startswith(part)), "")
            ours[f"layer.{number}.{PARTS.get(old, '')}{rest.removeprefix(old)}"] = value
    return ours


def tower(shape: dict[str, Any], state: dict[str, torch.Tensor], **own: Any) -> ProgressiveTower:
    config = InternVitConfig(
        image_size=shape["image_size"],
        patch_size=shape["patch_size"],
        width=shape["hidden_size"],
        depth=shape["num_hidden_layers"],
        num_heads=shape["num_attention_heads"],
        mlp_hidden=shape["intermediate_size"],
        qk_norm=shape["qk_normalization"],
        norm=shape["norm_type"],
        norm_eps=shape["layer_norm_eps"],
        **own,
    )
    built = ProgressiveTower(config)
    built.load_state_dict(our_names(state))
    return built


def progressive(case: str) -> tuple[ProgressiveTower, dict[str, Any], dict[str, torch.Tensor]]:
    facts, tensors = load(case)
    prefix = "vision_model."
    state = load(facts["state"].removesuffix(".safetensors"))[1]
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    layers = tuple(facts["temporal_layers"])
    return tower(facts["vision_config"], own, temporal_layers=layers, time_scale=facts["time_scale"]), facts, tensors


@pytest.mark.parametrize("case", ["c_vit_w128", "c_vit_qknorm"])
@torch.no_grad()
def test_static_tower_equals_the_public_code(case: str) -> None:
    facts, tensors = load(f"{case}_run")
    static = tower(facts["config"], load(f"{case}_state")[1], temporal_layers=())
    for prefix in ("", "small."):
        if f"{prefix}pixel_values" in tensors:
            pixels = tensors[f"{prefix}pixel_values"]
            out = static(pixels, [1] * len(pixels))
            torch.testing.assert_close(out, tensors[f"{prefix}last_hidden_state"], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("case", SEQUENCES)
@torch.no_grad()
def test_progressive_tower_equals_the_reconstruction(case: str) -> None:
    model, facts, tensors = progressive(case)
    out = model(tensors["pixel_values"], tensors["sequence_lengths"].tolist(), facts["repeat"])
    torch.testing.assert_close(out, tensors["last_hidden_state"], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("case", SEQUENCES)
@torch.no_grad()
def test_every_step_of_a_temporal_layer_equals_the_reconstruction(case: str) -> None:
    model, facts, tensors = progressive(case)
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, out: seen.__setitem__(name, out[0] if isinstance(out, tuple) else out)

    for index, branch in model.branches.items():
        branch.time.register_forward_hook(keep(f"layer{index}.te"))
        branch.adaln.register_forward_hook(keep(f"layer{index}.adaln_out"))
        branch.attn.register_forward_hook(keep(f"layer{index}.temporal_attn_out"))
        branch.register_forward_pre_hook(lambda _, args, i=index: seen.__setitem__(f"layer{i}.after_spatial", args[0]))
    for index, layer in enumerate(model.layer[1:]):  # what a block puts out is what the next one normalises
        layer.layernorm_before.register_forward_pre_hook(
            lambda _, args, i=index: seen.__setitem__(f"block{i}.out", args[0])
        )
    model.embeddings.register_forward_hook(keep("embeddings"))
    model(tensors["pixel_values"], tensors["sequence_lengths"].tolist(), facts["repeat"])
    assert len(seen) == len(model.layer) + 4 * len(model.branches)
    for name, value in seen.items():
        expected = tensors[name]
        shared = value.repeat_interleave(len(expected) // len(value), 0)  # copies are made as late as they can be
        torch.testing.assert_close(shared, expected, atol=2e-5, rtol=1e-4)


def test_time_codes_are_cosines_then_sines() -> None:
    _, tensors = load("r_time_codes")
    got, wanted = time_code(tensors["t"]), tensors["code"]
    # The exponential of the frequencies differs by one unit in the last place between processors; an angle of t radians
    # carries that times t. The stated 1e-6 holds where t does not magnify it.
    allowed = 1e-6 + tensors["t"] * 2.0**-24
    assert bool(((got - wanted).abs() <= allowed.unsqueeze(1)).all())


@torch.no_grad()
def test_sharing_the_copies_of_an_image_changes_nothing() -> None:
    model, facts, tensors = progressive("r_a_tiles")
    lengths = tensors["sequence_lengths"].tolist()
    naive = model(tensors["pixel_values"].repeat_interleave(facts["repeat"], 0), lengths)
    torch.testing.assert_close(model(tensors["pixel_values"], lengths, facts["repeat"]), naive, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_later_frame_does_not_touch_an_earlier_one() -> None:
    model, _, tensors = progressive("r_a_video5")
    pixels = tensors["pixel_values"].clone()
    before = model(pixels, [5])
    pixels[3] = torch.randn_like(pixels[3])
    after = model(pixels, [5])
    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3:], after[3:])


@torch.no_grad()
def test_shut_gates_give_the_static_tower() -> None:
    model, _, tensors = progressive("r_a_video5")
    for branch in model.branches.values():
        branch.gate.zero_()
    static = ProgressiveTower(dataclasses.replace(model.config, temporal_layers=()))
    static.load_state_dict({name: value for name, value in model.state_dict().items() if ".temporal." not in name})
    assert torch.equal(model(tensors["pixel_values"], [5]), static(tensors["pixel_values"], [1] * 5))


@torch.no_grad()
def test_attention_over_one_frame_is_its_value_alone() -> None:
    model, _, _ = progressive("r_a_video1")
    attention = next(iter(model.branches.values())).attn
    x = torch.randn(1, 5, model.width)
    value = attention.qkv(x).chunk(3, dim=-1)[2]
    torch.testing.assert_close(attention(x, [1])[0], attention.proj(value), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_features_depend_on_the_length_of_the_sequence_except_those_of_the_first_frame() -> None:
    model, _, tensors = progressive("r_a_video5")
    whole, shorter = model(tensors["pixel_values"], [5])[:4], model(tensors["pixel_values"][:4], [4])
    torch.testing.assert_close(whole[0], shorter[0], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(whole[1], shorter[1], atol=1e-4)


OWN_FORMS = [{"share_time_mlp": True}, {"gate": "scalar"}, {"cls_in_time": False}, {"temporal_heads": 4}]


@pytest.mark.parametrize("form", OWN_FORMS, ids=str)
@torch.no_grad()
def test_every_inferred_choice_is_a_field_that_streams_and_shares_like_the_assumed_one(form: dict[str, Any]) -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"image_size": 56, "width": 16, "depth": 3, "num_heads": 2, "mlp_hidden": 32}
    model = ProgressiveTower(InternVitConfig(**shape, temporal_layers=(1, 2), **form))
    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    pixels = torch.randn(3, 3, 56, 56)
    state = TemporalStream(nominal_frames=3)
    whole = model(pixels, [3])
    torch.testing.assert_close(
        torch.cat([model.stream(p, state) for p in pixels.split(2)]), whole, atol=1e-4, rtol=1e-4
    )
    naive = model(pixels.repeat_interleave(2, 0), [2] * 3)
    torch.testing.assert_close(model(pixels, [2] * 3, 2), naive, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(pixels, [1] * 3)[2], whole[2], atol=1e-3)


@pytest.mark.parametrize("field", [{"gate": "matrix"}, {"temporal_layers": (24,)}])
def test_a_tower_of_unknown_form_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        InternVitConfig(**field)


def test_a_stream_needs_a_window_of_a_frame() -> None:
    with pytest.raises(ConfigError, match="window is 0"):
        TemporalStream(nominal_frames=4, window=0)


@torch.no_grad()
def test_only_the_time_code_tells_the_copies_of_an_image_apart() -> None:
    model, _, tensors = progressive("r_a_image4")
    copies = model(tensors["pixel_values"], [4], 4)
    assert not torch.allclose(copies[0], copies[3], atol=1e-3)
    for branch in model.branches.values():
        branch.time.w2.weight.zero_()
    same = model(tensors["pixel_values"], [4], 4)
    torch.testing.assert_close(same, same[:1].expand_as(same), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sequences_do_not_mix() -> None:
    model, _, tensors = progressive("r_a_video5")
    pixels = tensors["pixel_values"]
    both = model(pixels, [2, 3])
    torch.testing.assert_close(both[:2], model(pixels[:2], [2]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(both[2:], model(pixels[2:], [3]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("case", ["r_a_video5", "r_b_video7"])
@pytest.mark.parametrize("cut", [1, 2, 3])
@torch.no_grad()
def test_a_stream_equals_the_whole_while_the_window_covers_it(case: str, cut: int) -> None:
    model, _, tensors = progressive(case)
    pixels = tensors["pixel_values"]
    state = TemporalStream(nominal_frames=len(pixels), window=len(pixels))
    streamed = torch.cat([model.stream(part, state) for part in pixels.split(cut)])
    torch.testing.assert_close(streamed, tensors["last_hidden_state"], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_a_narrow_window_bounds_memory_and_ignores_the_cut() -> None:
    model, _, tensors = progressive("r_a_video5")
    pixels = torch.cat([tensors["pixel_values"]] * 4)
    states = [TemporalStream(nominal_frames=20, window=3) for _ in range(2)]
    one, two = (
        torch.cat([model.stream(part, state) for part in pixels.split(cut)])
        for cut, state in zip((1, 7), states, strict=True)
    )
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert all(key.shape[2] == 2 for state in states for key, _ in state.past.values())


def test_lengths_that_do_not_add_up_are_refused() -> None:
    model, _, tensors = progressive("r_a_video5")
    with pytest.raises(ConfigError, match="add up to 5"):
        model(tensors["pixel_values"], [2, 2])
