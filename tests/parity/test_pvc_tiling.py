"""PVC's grids of tiles against the released preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.core.errors import ConfigError
from longtake.media.tiles import Tiling, candidate_grids, closest_grid, dynamic_tiles, num_tiles, tile_boxes

GOLDEN = Path(__file__).parents[1] / "golden" / "pvc" / "a_tiling.json"
ROWS = json.loads(GOLDEN.read_text("utf-8"))["rows"]


def tiling_of(row: dict) -> Tiling:
    return Tiling(
        tile=row["image_size"], min_tiles=row["min_num"], max_tiles=row["max_num"], thumbnail=row["use_thumbnail"]
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['width']}x{row['height']}-{row['max_num']}")
def test_grids_boxes_and_counts_equal_the_released_ones(row: dict) -> None:
    size, tiling = (row["width"], row["height"]), tiling_of(row)
    grid = closest_grid(size, tiling)
    assert grid == (row["grid_cols"], row["grid_rows"])
    assert [grid.columns * tiling.tile, grid.rows * tiling.tile] == row["resized_to"]
    assert num_tiles(size, tiling) == row["tiles_total"]
    assert num_tiles(size, tiling) - grid.columns * grid.rows == row["has_thumbnail"]
    if row["boxes"] is not None:
        assert [list(box) for box in tile_boxes(grid, tiling.tile)] == row["boxes"]


@pytest.mark.parametrize(("max_tiles", "count"), [(1, 1), (6, 14), (12, 35), (18, 58), (24, 84)])
def test_there_are_as_many_grids_as_the_specification_counts(max_tiles: int, count: int) -> None:
    assert len(candidate_grids(1, max_tiles)) == count


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    limits=st.tuples(st.integers(1, 24), st.integers(1, 24)).map(sorted),
)
def test_a_grid_keeps_to_its_limits_and_no_other_is_closer(width: int, height: int, limits: list[int]) -> None:
    tiling = Tiling(min_tiles=limits[0], max_tiles=limits[1])
    grid = closest_grid((width, height), tiling)
    assert limits[0] <= grid.columns * grid.rows <= limits[1]
    closest = min(abs(width / height - columns / rows) for columns, rows in candidate_grids(*limits))
    assert abs(width / height - grid.columns / grid.rows) == closest


@pytest.mark.parametrize("size", [(1, 1), (30_000, 20), (20, 30_000), (3, 1)])
def test_pictures_of_any_shape_become_whole_tiles(size: tuple[int, int]) -> None:
    tiling = Tiling(tile=8)
    tiles = dynamic_tiles(np.full((size[1], size[0], 3), 7, np.uint8), tiling)
    assert tiles.shape == (num_tiles(size, tiling), 8, 8, 3)
    assert (tiles == 7).all()


@pytest.mark.parametrize("given", [{"tile": 0}, {"min_tiles": 0}, {"max_tiles": 0}, {"min_tiles": 7, "max_tiles": 6}])
def test_impossible_limits_are_refused(given: dict) -> None:
    with pytest.raises(ConfigError, match="expected at least 1 pixel"):
        Tiling(**given)
