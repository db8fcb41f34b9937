"""Pixels and tiles against the released preprocessing."""

from __future__ import annotations

import pytest
import torch

from longtake.media.transforms import anyres_grid, normalize_frames
from tests.parity.vcf_goldens import cases, load


@pytest.mark.parametrize("case", cases("f_preprocess_"))
def test_pixel_values_equal_the_released_ones(case: str) -> None:
    facts, tensors = load(case)
    pixels = normalize_frames(tensors["input.frames_uint8"].numpy(), facts["size"])
    torch.testing.assert_close(pixels, tensors["output.pixel_values"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("row", load("e_anyres_grid")[0]["data"], ids=lambda row: f"{row['image_wh']}-{row['tile']}")
def test_tile_grids_equal_the_released_ones(row: dict) -> None:
    columns, rows = anyres_grid(tuple(row["image_wh"]), row["tile"])
    assert [columns, rows] == row["grid_wh"]
    assert 1 + columns * rows == row["num_tiles"]
