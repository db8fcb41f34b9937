"""Every registered reducer, alone and inside a walk: counts as announced, order kept, the same answer every time."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.nn.tiny_language import DEPTH, drop, language, prompts
from torch import Tensor

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import DropPoint, LayerCompressor
from longtake.core.registry import find, methods
from longtake.nn.language.walk import prefill

KINDS = ("uniform", "attention", "uniform0_attention", "uniform1_attention")
# Each method with its defaults, and ours with every rule they know.
VARIANTS: dict[str, Any] = {name: cls() for name, cls in sorted(methods("reduce").items())}
VARIANTS |= {f"progressive_drop-{kind}": find("reduce", "progressive_drop").from_dict({"kind": kind}) for kind in KINDS}
VARIANTS |= {
    f"lp_comp-{kind}-{survivors}": find("reduce", "lp_comp").from_dict({"schedule_kind": kind, "survivors": survivors})
    for kind in ("cosine", "linear", "none")
    for survivors in ("suffix", "uniform")
}
VARIANTS["lp_comp-step"] = find("reduce", "lp_comp").from_dict({"schedule_kind": "step"})
SHALLOW: dict[str, Any] = {f"progressive_drop-{kind}": drop(kind) for kind in KINDS}
SHALLOW |= {name: method for name, method in VARIANTS.items() if name.startswith("lp_comp") and "step" not in name}

each = pytest.mark.parametrize("name", VARIANTS)
few = settings(deadline=None, max_examples=15, derandomize=True)
depths = st.integers(24, 48)
tokens = st.integers(1, 40).map(lambda frames: 16 * frames)


def plan(method: Any, num_layers: int, num_tokens: int) -> dict[int, int]:
    try:
        return dict(method.schedule(num_layers, num_tokens))
    except ConfigError:
        assume(False)
        raise


def drops(method: Any, num_layers: int, num_tokens: int, scores: Tensor) -> list[Tensor]:
    """Return what each stage keeps; the score of a token goes with it."""
    kept, alive, schedule = [], torch.arange(num_tokens), plan(method, num_layers, num_tokens)
    for stage, layer in enumerate(sorted(schedule)):
        point = DropPoint(stage, layer, num_layers, num_tokens, len(alive), schedule[layer])
        alive = alive[method(point, lambda alive=alive: scores[alive]).kept]
        kept.append(alive)
    return kept


def test_every_registered_reducer_is_swept() -> None:
    assert set(methods("reduce")) <= set(VARIANTS)
    assert {"progressive_drop", "lp_comp"} <= set(methods("reduce"))


@each
def test_reducer_is_a_frozen_configuration_with_a_schedule(name: str) -> None:
    method = VARIANTS[name]
    assert isinstance(method, LayerCompressor)
    assert isinstance(method, StrictConfig)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(method, dataclasses.fields(method)[0].name, None)


@each
def test_configuration_survives_json(name: str) -> None:
    method = VARIANTS[name]
    again = type(method).from_dict(json.loads(json.dumps(method.to_dict())))
    assert again == method
    assert again.fingerprint() == method.fingerprint()


def test_fingerprints_of_different_settings_differ() -> None:
    unique = set(VARIANTS.values())
    assert len({method.fingerprint() for method in unique}) == len(unique)


@each
@few
@given(num_layers=depths, num_tokens=tokens)
def test_schedule_never_rises_and_stays_within_the_model(name: str, num_layers: int, num_tokens: int) -> None:
    schedule = plan(VARIANTS[name], num_layers, num_tokens)
    assert list(schedule) == sorted(schedule)
    assert all(0 <= layer <= num_layers for layer in schedule)
    counts = [num_tokens, *schedule.values()]
    assert all(before >= after >= 1 for before, after in pairwise(counts))


@each
@few
@given(num_layers=depths, num_tokens=tokens, seed=st.integers(0, 9))
def test_each_stage_keeps_what_it_announced_in_order(name: str, num_layers: int, num_tokens: int, seed: int) -> None:
    scores = torch.rand(num_tokens, generator=torch.Generator().manual_seed(seed))
    kept = drops(VARIANTS[name], num_layers, num_tokens, scores)
    assert [len(alive) for alive in kept] == list(plan(VARIANTS[name], num_layers, num_tokens).values())
    for before, after in pairwise([torch.arange(num_tokens), *kept]):
        assert bool((after.diff() > 0).all()), "the order of time is lost"
        assert bool(torch.isin(after, before).all()), "a dropped token came back"
    again = drops(VARIANTS[name], num_layers, num_tokens, scores)
    assert all(torch.equal(one, two) for one, two in zip(kept, again, strict=True)), "not deterministic"


@each
def test_attention_is_read_exactly_where_it_is_announced(name: str) -> None:
    method, alive = VARIANTS[name], 160
    schedule = dict(method.schedule(28, alive))
    for stage, layer in enumerate(schedule):
        asked: list[int] = []

        def look(alive: int = alive, asked: list[int] = asked) -> Tensor:
            asked.append(1)
            return torch.rand(alive)

        reduction = method(DropPoint(stage, layer, 28, 160, alive, schedule[layer]), look)
        assert bool(asked) == method.needs_attention(stage)
        alive = reduction.num_targets


@pytest.mark.parametrize("name", [name for name in VARIANTS if "attention" in name])
def test_ranking_stage_keeps_the_most_attended(name: str) -> None:
    method = VARIANTS[name]
    stage = next(stage for stage in range(3) if method.needs_attention(stage))
    scores = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.7])
    assert method(DropPoint(stage, 8, 28, 6, 6, 3), lambda: scores).kept.tolist() == [1, 3, 5]


@pytest.mark.parametrize("name", SHALLOW)
@torch.no_grad()
def test_walk_holds_exactly_the_announced_tokens_in_every_layer(name: str) -> None:
    method, counts = SHALLOW[name], (64, 16, 0)
    out = prefill(language(), prompts([(3, count, 5) for count in counts]), reducer=method)
    assert out.cache is not None
    for sample, count in enumerate(counts):
        schedule = dict(method.schedule(DEPTH, count)) if count else {}
        alive, expected = count, []
        for layer in range(DEPTH):
            alive = schedule.get(layer, alive)
            expected.append(8 + alive)
        assert [lengths[sample] for lengths in out.cache.lengths()] == expected
        assert int(out.mask[sample].sum()) == 8 + schedule.get(DEPTH, alive)
        # Text is never dropped.
        text = [row for row in out.kept[sample].tolist() if not 3 <= row < 3 + count]
        assert text == [0, 1, 2, *range(3 + count, 8 + count)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": [8, 16]}, "4 ratios arrived for 2 layers"),
        ({"ratios": [0.9, 0.5, 0.25, 0.125]}, "the first being 1"),
        ({"layers": [16, 8, 24]}, "ascending"),
        ({"layers": [8, 8, 24]}, "ascending"),
        ({"layers": [0, 8, 24]}, "from 1"),
        ({"ratios": [1.0, 0.5, 0.75, 0.125]}, "falling"),
        ({"ratios": [1.0, 0.5, 0.25, 0.0]}, "falling"),
        ({"ratios": [1.0, 0.5, 0.25, float("nan")]}, "falling"),
        ({"layer": [8]}, "did you mean 'layers'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find("reduce", "progressive_drop").from_dict(values)


@pytest.mark.parametrize(
    ("num_tokens", "kept"),
    [
        (256, [128, 64, 32]),
        (100, [50, 25, 12]),  # truncated, always from the original count
        (7, [3, 1, 1]),  # never fewer than one
        (1, [1, 1, 1]),
    ],
)
def test_progressive_drop_counts(num_tokens: int, kept: list[int]) -> None:
    method = find("reduce", "progressive_drop")()
    assert list(method.schedule(28, num_tokens).items()) == list(zip((8, 16, 24), kept, strict=True))


def test_progressive_drop_behind_the_last_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="after layer 24 was asked for; there are 20"):
        find("reduce", "progressive_drop")().schedule(20, 64)
