"""What every registered method must keep to, whoever wrote it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from longtake.core.errors import ConfigError
from longtake.core.protocols import ClipCompressor, DropPoint, Grid, LayerCompressor
from longtake.core.registry import find, methods

GRIDS = [Grid(num_frames=4, rows=6, columns=6, num_heads=2), Grid(num_frames=1, rows=10, columns=10, num_heads=4)]
COMPRESSORS = sorted(methods("compress").items())
REDUCERS = sorted(methods("reduce").items())


def test_both_kinds_are_there() -> None:
    assert {"tome"} <= set(methods("compress"))
    assert {"progressive_drop", "lp_comp"} <= set(methods("reduce"))
    assert {"qc_comp"} <= set(methods("select"))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="tome"):
        find("compress", "tomme")
    assert find("reduce", "lp-comp") is find("reduce", "lp_comp")


@pytest.mark.parametrize("kind", ["compress", "reduce", "select"])
def test_configurations_round_trip(kind) -> None:
    for cls in methods(kind).values():
        method = cls()
        assert cls.from_dict(method.to_dict()) == method
        assert cls.from_dict(method.to_dict()).fingerprint() == method.fingerprint()
        with pytest.raises(ConfigError, match="no field"):
            cls.from_dict({"no_such_field": 1})


@pytest.mark.parametrize("grid", GRIDS, ids=["clip", "tile"])
@pytest.mark.parametrize(("name", "cls"), COMPRESSORS)
def test_compressor_contract(name: str, cls, grid: Grid) -> None:
    method = cls()
    assert isinstance(method, ClipCompressor)
    torch.manual_seed(0)
    x = torch.randn(3, grid.num_patches, 16)
    done = method(x, grid)
    count = method.out_tokens(grid)
    assert done.features.shape == (3, count, 16)
    assert done.reduction.target.shape == x.shape[:2] and done.reduction.num_targets == count
    for clip in done.reduction.target:
        assert set(clip.tolist()) - {-1} == set(range(count)), "a new token has no source"
    assert torch.equal(method(x, grid).features, done.features), "not deterministic"
    for index in range(3):
        assert torch.equal(method(x[index : index + 1], grid).features[0], done.features[index]), "depends on the batch"
    assert torch.equal(method(x.flip(0), grid).features.flip(0), done.features)
    x.requires_grad_()
    method(x, grid).features.square().sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


@pytest.mark.parametrize("num_layers", [2, 8, 28])
@pytest.mark.parametrize(("name", "cls"), REDUCERS)
def test_reducer_contract(name: str, cls, num_layers: int) -> None:
    method = cls()
    assert isinstance(method, LayerCompressor)
    torch.manual_seed(0)
    num_tokens = 16 * 12
    try:
        schedule = dict(method.schedule(num_layers, num_tokens))
    except ConfigError:
        assert num_layers < 28, "the default must fit a real model"
        return
    kept = [num_tokens, *schedule.values()]
    assert all(after <= before for before, after in pairwise(kept)) and kept[-1] >= 1
    assert list(schedule) == sorted(schedule)
    alive = num_tokens
    for stage, (layer, keep) in enumerate(schedule.items()):
        scores = torch.rand(alive)
        asked = []
        point = DropPoint(stage, layer, num_layers, num_tokens, alive, keep)
        reduction = method(point, lambda scores=scores, asked=asked: asked.append(1) or scores)
        assert bool(asked) == method.needs_attention(stage), "attention is computed only where it is needed"
        assert reduction.num_targets == keep and reduction.target.shape == (alive,)
        chosen = reduction.kept
        assert torch.equal(chosen, chosen.sort().values) and len(set(chosen.tolist())) == keep, "order of time is lost"
        assert torch.equal(method(point, lambda scores=scores: scores).kept, chosen), "not deterministic"
        alive = keep
