"""PVC's compressor: the pixel shuffle against public code, its forms against each other."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.core.errors import ConfigError
from longtake.core.protocols import Grid
from longtake.nn.compressor import CompressorConfig, ProgressiveCompressor
from longtake.ops.pixel_shuffle import pixel_shuffle, shuffle_targets
from tests.parity.pvc_goldens import golden

_, SHUFFLED = golden("d_pixel_shuffle")
GRID = Grid(num_frames=1, rows=4, columns=4, num_heads=2)


@pytest.mark.parametrize("name", sorted(name for name in SHUFFLED if not name.endswith(".x")))
def test_pixel_shuffle_equals_the_public_code(name: str) -> None:
    number, version, scale = re.fullmatch(r"(\d)\.(v\d)\.(.*)", name).groups()
    got = pixel_shuffle(SHUFFLED[f"{number}.x"], round(1 / float(scale)), version)
    assert torch.equal(got, SHUFFLED[name])


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 4), columns=st.integers(1, 4), factor=st.integers(1, 3), version=st.sampled_from(["v1", "v2"])
)
def test_every_patch_lands_in_the_vector_that_the_reduction_names(rows: int, columns: int, factor: int, version: str):
    high, wide = rows * factor, columns * factor
    numbers = torch.arange(high * wide).reshape(1, high, wide, 1)
    vectors = pixel_shuffle(numbers, factor, version).flatten(1, 2)[0]
    targets = shuffle_targets(high, wide, factor, version)
    assert all(target == place for place, vector in enumerate(vectors) for target in targets[vector].tolist())


def test_a_grid_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="5 x 4"):
        pixel_shuffle(torch.zeros(1, 5, 4, 2), 2)


def compressor(conditioning: str) -> ProgressiveCompressor:
    torch.manual_seed(0)
    return ProgressiveCompressor(8, CompressorConfig(factor=2, conditioning=conditioning, rank=4))


@pytest.mark.parametrize("conditioning", ["full", "low_rank"])
@torch.no_grad()
def test_a_neutral_start_is_a_plain_norm_whatever_the_time(conditioning: str) -> None:
    conditioned, plain = compressor(conditioning), compressor("none")
    conditioned.neutral_start()
    patches, times = torch.randn(3, 16, 8), torch.tensor([0.0, 0.3, 0.9])
    expected = plain(patches, times, GRID)
    got = conditioned(patches, times, GRID)
    torch.testing.assert_close(got.features, expected.features, atol=1e-6, rtol=1e-6)
    assert torch.equal(got.reduction.target, expected.reduction.target)
    assert got.features.shape[1] == conditioned.out_tokens(GRID) == 4


@torch.no_grad()
def test_only_conditioned_forms_look_at_the_time() -> None:
    patches = torch.randn(1, 16, 8).expand(2, -1, -1)
    for conditioning, differ in (("full", True), ("low_rank", True), ("none", False)):
        one, two = compressor(conditioning)(patches, torch.tensor([0.0, 0.5]), GRID).features
        assert torch.equal(one, two) is not differ


def test_low_rank_has_fewer_numbers() -> None:
    sizes = [sum(p.numel() for p in compressor(kind).parameters()) for kind in ("full", "low_rank", "none")]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("field", [{"conditioning": "half"}, {"version": "v3"}, {"factor": 0}, {"rank": 0}])
def test_settings_out_of_range_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        CompressorConfig.from_dict(field)
