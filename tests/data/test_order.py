"""The order of samples: a pure function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.core.errors import ConfigError
from longtake.data.order import SampleOrder


def order(num_text: int, num_visual: int, parts: int, size: int, seed: int = 0, grouped: bool = True) -> SampleOrder:
    modality = np.array([0] * num_text + [2] * num_visual, dtype=np.int8)
    words = np.random.default_rng(1).integers(1, 100, len(modality))
    return SampleOrder(modality, words, num_parts=parts, part_size=size, seed=seed, grouped=grouped)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_shows_each_record_once_and_never_mixes_text_with_visuals(
    num_text: int, num_visual: int, parts: int, size: int, epoch: int
) -> None:
    batch = parts * size
    if num_text // batch + num_visual // batch == 0:
        with pytest.raises(ConfigError, match="one global batch"):
            order(num_text, num_visual, parts, size)
        return
    made = order(num_text, num_visual, parts, size)
    shown = [made(epoch * made.num_batches + step) for step in range(made.num_batches)]
    assert all(found.shape == (parts, size) for found in shown)
    assert all(len({index < num_text for index in found.ravel().tolist()}) == 1 for found in shown)
    every = np.concatenate(shown, axis=None).tolist()
    assert len(set(every)) == len(every) == num_text // batch * batch + num_visual // batch * batch


def test_a_step_can_be_asked_for_without_those_before_it() -> None:
    whole = [order(30, 30, 2, 3)(step).tolist() for step in range(40)]
    walked = order(30, 30, 2, 3)
    assert [walked(step).tolist() for step in range(40)] == whole
    assert [order(30, 30, 2, 3, seed=1)(step).tolist() for step in range(40)] != whole
    assert whole[:10] != whole[10:20]  # another order every epoch


def test_parts_of_a_batch_are_of_like_length() -> None:
    made = order(0, 400, 4, 8)
    spreads = [np.ptp(made.words[made(step)].sum(1)) for step in range(made.num_batches)]
    unsorted = np.random.default_rng(0).choice(made.words, (50, 4, 8)).sum(2)
    assert np.mean(spreads) < np.mean(np.ptp(unsorted, axis=1)) / 2
