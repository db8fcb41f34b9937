"""PVC's pixel values against the released preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longtake.media.tiles import Tiling, tile_values
from longtake.media.transforms import normalize_frames

GOLDEN = Path(__file__).parents[1] / "golden" / "pvc"


def cases() -> list[tuple[str, int, dict, int]]:
    found = []
    for name in ("b_pixels", "b_pixels_448"):
        facts = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
        found += [(name, index, item, facts.get("row_step", 1)) for index, item in enumerate(facts["items"])]
    return found


@pytest.mark.parametrize(("name", "index", "item", "row_step"), cases(), ids=lambda value: str(value)[:12])
def test_tiles_of_a_picture_equal_the_released_ones(name: str, index: int, item: dict, row_step: int) -> None:
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    picture, expected = tensors[f"{index}.image_u8"].numpy(), tensors[f"{index}.pixel_values"]
    values = tile_values(picture, Tiling(tile=item["image_size"], max_tiles=item["max_num"]))
    assert len(values) == item["tiles"]
    torch.testing.assert_close(values[:, :, ::row_step], expected, atol=1e-6, rtol=0)  # of the large one every 8th row


def test_a_frame_of_a_video_is_a_picture_of_one_tile() -> None:
    tensors = load_file(GOLDEN / "b_pixels.safetensors")
    values = normalize_frames(tensors["4.image_u8"].numpy()[None], 56)
    torch.testing.assert_close(values, tensors["4.pixel_values"], atol=1e-6, rtol=0)
