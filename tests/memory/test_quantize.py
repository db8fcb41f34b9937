"""Tokens in few bytes: what is lost is bounded, measured and told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.core.errors import ConfigError, MemoryFormatError
from longtake.memory.quantize import STORES, Store, find_store, pack_tokens, relative_error, to_int8, unpack_tokens
from longtake.memory.segment import pack_segment, thumbnail, unpack_segment
from tests.memory.conftest import tokens_of

LARGEST_ERROR = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8, "int8": 0.02}


@pytest.mark.parametrize("store", STORES)
def test_the_loss_is_bounded_and_is_the_one_that_is_written_down(store: Store):
    features = torch.randn(200, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, 200)[:, None]
    packed = pack_tokens(features, store)
    back = unpack_tokens(packed, torch.float32)
    error = float((back - features).norm() / features.norm())
    assert error <= LARGEST_ERROR[store]
    assert relative_error(features, packed) == pytest.approx(error)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(1e-20, 1e20))
def test_int8_is_off_by_at_most_half_a_step_of_each_token(seed: int, size: float):
    features = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)) * size
    values, scale = to_int8(features)
    back = values.float() * scale.unsqueeze(1)
    assert ((back - features).abs() <= scale.unsqueeze(1) * 0.5001).all()
    assert torch.equal(values.abs().amax(1), torch.full((5,), 127, dtype=torch.int8))


def test_a_token_of_zeros_stays_one():
    packed = pack_tokens(torch.zeros(3, 4), "int8")
    assert torch.equal(unpack_tokens(packed, torch.float32), torch.zeros(3, 4))


@pytest.mark.parametrize("value, store", [(1e6, "float16"), (float("nan"), "int8"), (float("inf"), "float32")])
def test_what_cannot_be_stored_as_a_finite_number_is_refused(value: float, store: Store):
    features = torch.ones(2, 2)
    features[1, 1] = value
    with pytest.raises(MemoryFormatError, match="cannot be stored as"):
        pack_tokens(features, store)


def test_auto_loses_nothing():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert find_store("auto", dtype) == str(dtype).removeprefix("torch.")
    assert find_store("int8", torch.float32) == "int8"
    with pytest.raises(ConfigError, match="did you mean 'int8'"):
        find_store("int4", torch.float32)


def test_a_segment_counts_clips_from_where_it_stands():
    tokens, times = tokens_of(3)
    found = unpack_segment(pack_segment(tokens, times, b"", "bfloat16"), 6, torch.bfloat16, "film.ltm")
    assert torch.equal(found.tokens.features, tokens.features.bfloat16())
    assert torch.equal(found.tokens.clip_index, tokens.clip_index)
    assert np.array_equal(found.frame_pts_s, times)
    assert found.thumbnail == b""
    assert 0 < found.relative_error < 2.0**-8


def test_weights_of_many_patches_are_kept():
    tokens, times = tokens_of(0)
    tokens.frame_weight[0, 0] = 70_000
    found = unpack_segment(pack_segment(tokens, times, b"", "float32"), 0, torch.float32, "film.ltm")
    assert torch.equal(found.tokens.frame_weight, tokens.frame_weight)


def test_what_is_no_segment_is_refused():
    with pytest.raises(MemoryFormatError, match="cannot be read"):
        unpack_segment(b"\x80\x04N.", 0, torch.float32, "film.ltm")


def test_a_thumbnail_is_a_small_picture_of_the_right_shape():
    import io

    from PIL import Image

    data = thumbnail(np.full((448, 448, 3), (200, 30, 30), dtype=np.uint8), 16 / 9)
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.size) == ("JPEG", (128, 72))
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 30)).max() < 8
    assert len(data) < 4000
