"""Both vision towers against the released code, and their position tables."""

from __future__ import annotations

import pytest
import torch

from longtake.nn.vision.internvideo2 import InternVideo2Config, InternVideo2Tower, initial_positions
from longtake.nn.vision.umt import UmtConfig, UmtTower, position_table
from tests.parity.vcf_goldens import cases, load


def tower_of(case: str) -> tuple[UmtTower | InternVideo2Tower, dict[str, torch.Tensor]]:
    facts, tensors = load(case)
    c = facts["config"]
    shared = {
        "image_size": c["image_size"],
        "patch_size": c["patch_size"],
        "width": c["width"],
        "depth": c["depth"],
        "num_heads": c["heads"],
        "frames_per_clip": c["frames"],
        "select_layer": c["select_layer"],
    }
    if case.startswith("b_umt"):
        tower, prefix = UmtTower(UmtConfig(**shared)), "state.vision_tower.encoder."
    else:
        tower = InternVideo2Tower(InternVideo2Config(**shared, mlp_hidden=c["mlp_hidden"]))
        prefix = "state.vision_tower."
    tower.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return tower, tensors


TOWERS = [case for case in cases("b_") if case != "b_umt_pos_tables"]


@pytest.mark.parametrize("case", TOWERS)
@pytest.mark.parametrize("kind", ["video", "image"])
@torch.no_grad()
def test_tower_output_equals_the_released_code(case: str, kind: str) -> None:
    tower, tensors = tower_of(case)
    pixels = tensors[f"input.{kind}"]
    pixels = pixels if pixels.ndim == 5 else pixels.unsqueeze(1)
    torch.testing.assert_close(tower(pixels), tensors[f"output.{kind}"], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("case", TOWERS)
@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours(case: str) -> None:
    tower, tensors = tower_of(case)
    clip = tensors["input.video"][:1]
    many = torch.cat([clip, torch.randn_like(clip), torch.randn_like(clip)])
    assert torch.equal(tower(many)[:1], tower(clip))


def test_real_size_position_tables_equal_the_released_ones() -> None:
    _, tensors = load("b_umt_pos_tables")
    for size in (224, 448):
        for kind, frames in (("video", 4), ("image", 1)):
            table = position_table(UmtConfig(image_size=size), frames, size // 16, size // 16)
            rows = tensors[f"rows.{kind}_{size}"]
            torch.testing.assert_close(table[rows], tensors[f"output.{kind}_{size}"], atol=2e-5, rtol=0)
            torch.testing.assert_close(table.sum(0), tensors[f"sum.{kind}_{size}"], atol=0.02, rtol=0)


def test_learned_positions_start_as_the_released_ones() -> None:
    facts, tensors = load("b_iv2_112_t4")
    side = facts["config"]["image_size"] // facts["config"]["patch_size"]
    for name, frames in (("video", 4), ("image", 1)):
        table = initial_positions(facts["config"]["width"], frames, side)
        expected = tensors[f"aux.pos_embed_init_{name}"].reshape(table.shape)
        torch.testing.assert_close(table, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("tower", "tensors", "parameters"),
    [
        (lambda: UmtTower(UmtConfig()), 303, 290_479_104),
        (lambda: InternVideo2Tower(InternVideo2Config()), 512, 987_337_728),
    ],
)
def test_released_shapes_have_the_released_counts(tower, tensors: int, parameters: int) -> None:
    with torch.device("meta"):
        state = tower().state_dict()
    assert len(state) == tensors
    assert sum(value.numel() for value in state.values()) == parameters
