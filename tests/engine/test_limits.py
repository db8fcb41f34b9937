"""Advice after memory ran out: as many frames as are predicted to fit, and clearly fewer than failed."""

from __future__ import annotations

import pytest

from longtake.engine.cost import Shapes, memory_phases
from longtake.engine.limits import ASSUMED_TEXT_TOKENS, frames_that_fit, free_bytes
from longtake.models.loaded import LoadedModel


def predicted(loaded: LoadedModel, num_frames: int) -> int:
    shapes = Shapes(config=loaded.config, num_frames=num_frames, num_text=ASSUMED_TEXT_TOKENS, num_new=1, dtype_bytes=4)
    return max(memory_phases(shapes).values())


@pytest.mark.parametrize("fitting", [16, 64, 256, 512])
def test_the_advice_is_the_most_that_fits(fitting: int, loaded: LoadedModel):
    free = predicted(loaded, fitting)
    assert predicted(loaded, fitting + 8) > free
    assert frames_that_fit(loaded, 1024, free) == fitting


@pytest.mark.parametrize("failed, advised", [(1024, 768), (64, 48), (24, 16), (16, 8), (8, 8)])
def test_with_plenty_of_room_the_advice_is_three_quarters(failed: int, advised: int, loaded: LoadedModel):
    assert frames_that_fit(loaded, failed, 10**15) == advised


def test_with_no_room_the_advice_is_one_group(loaded: LoadedModel):
    assert frames_that_fit(loaded, 1024, 0) == 8


def test_free_bytes_are_those_of_this_machine(loaded: LoadedModel):
    assert 1e6 < free_bytes(loaded) < 1e14
