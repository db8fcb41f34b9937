"""Reductions, configurations, types, errors: the ground floor."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.core import errors
from longtake.core.budget import Budget
from longtake.core.config import StrictConfig
from longtake.core.errors import BudgetError, ConfigError, LongtakeError, VideoError
from longtake.core.reduction import DROPPED, Reduction
from longtake.core.types import Frames


@st.composite
def reductions(draw: st.DrawFn, num_tokens: int | None = None) -> Reduction:
    count = draw(st.integers(1, 12)) if num_tokens is None else num_tokens
    num_targets = draw(st.integers(1, count))
    sources = list(draw(st.permutations(range(count))))
    target = [DROPPED] * count
    for new, old in enumerate(sources[:num_targets]):
        target[old] = new
    for old in sources[num_targets:]:
        target[old] = draw(st.integers(-1, num_targets - 1))
    return Reduction(torch.tensor(target), num_targets)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_composing_equals_applying_one_after_the_other(data: st.DataObject) -> None:
    first = data.draw(reductions())
    second = data.draw(reductions(first.num_targets))
    third = data.draw(reductions(second.num_targets))
    values = torch.randn(first.target.numel(), 3, dtype=torch.float64)
    torch.testing.assert_close(first.then(second).sum(values), second.sum(first.sum(values)))
    left, right = first.then(second).then(third), first.then(second.then(third))
    assert torch.equal(left.target, right.target) and left.num_targets == right.num_targets


@given(reductions())
@settings(max_examples=40, deadline=None)
def test_mean_weighs_every_source_once(reduction: Reduction) -> None:
    values = torch.randn(reduction.target.numel(), 2, dtype=torch.float64)
    weight = torch.rand(reduction.target.numel(), dtype=torch.float64) + 0.1
    got = reduction.mean(values, weight)
    for new in range(reduction.num_targets):
        own = reduction.target == new
        expected = (values[own] * weight[own, None]).sum(0) / weight[own].sum()
        torch.testing.assert_close(got[new], expected)


def test_keep_tells_what_was_kept() -> None:
    kept = torch.tensor([1, 3, 4])
    reduction = Reduction.keep(kept, 6)
    assert torch.equal(reduction.kept, kept)
    assert reduction.target.tolist() == [-1, 0, -1, 1, 2, -1]
    assert torch.equal(Reduction.identity(6).then(reduction).kept, kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(StrictConfig):
    size: int = 1
    names: tuple[str, ...] = ()


def test_a_configuration_refuses_unknown_keys_and_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'size'"):
        Example.from_dict({"sise": 2})


@pytest.mark.parametrize("change", [{"size": 2}, {"names": ("a",)}])
def test_every_field_changes_the_fingerprint(change: dict) -> None:
    assert Example().fingerprint() != Example(**change).fingerprint()
    assert len(Example().fingerprint()) == 64
    assert Example.from_dict({"names": ["a"]}) == Example(names=("a",))


@pytest.mark.parametrize("values", [{"max_frames": 0}, {"max_frames": -8}, {"max_new_tokens": 0}, {"memory_gb": 0.0}])
def test_a_budget_of_nothing_is_refused(values: dict) -> None:
    with pytest.raises(BudgetError):
        Budget(**values)


@pytest.mark.parametrize(
    ("pixels", "times"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([1.0, 0.0])),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0.0, np.nan])),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2)),
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2)),
    ],
)
def test_frames_refuse_what_does_not_fit(pixels: np.ndarray, times: np.ndarray) -> None:
    with pytest.raises(VideoError):
        Frames(pixels, times)


def test_every_error_has_its_own_exit_code() -> None:
    tree = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, LongtakeError)]
    direct = [e for e in tree if e.__base__ is LongtakeError]
    codes = [e.exit_code for e in direct]
    assert len(set(codes)) == len(codes) and all(2 <= code < 126 for code in codes)
    assert errors.DecodeTimeoutError.exit_code == VideoError.exit_code
