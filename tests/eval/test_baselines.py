"""Baselines have the token budget of the model, and a method that is none is called so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from longtake.core.errors import ConfigError
from longtake.core.protocols import ClipCompressor, DropPoint, Grid, LayerCompressor
from longtake.core.types import Frames
from longtake.engine.select import Selector
from longtake.eval.baselines import BASELINES as KNOWN
from longtake.eval.baselines import Arms, EvenPool, LowResolution, RandomDrop, RandomReduce, chosen_baselines
from longtake.eval.reader import Reader, still
from longtake.eval.result import Record
from longtake.eval.runner import Merged, Run, check_arms, merge, run_shard
from longtake.eval.summary import summarize
from longtake.media.video import open_video
from longtake.methods.compress.tome import ToMe
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.loaded import LoadedModel
from longtake.models.tiny_pvc import tiny_pvc
from tests.eval.small import small_run, small_task

GRID = Grid(num_frames=4, rows=6, columns=6, num_heads=2)


def test_random_drop_keeps_as_many_whole_patches_whatever_the_batch() -> None:
    patches = torch.randn(3, 144, 8, generator=torch.Generator().manual_seed(1))
    method, again = (RandomDrop(like=ToMe(tokens_per_frame=16)) for _ in range(2))
    assert isinstance(method, ClipCompressor)
    found = method(patches, GRID)
    assert found.features.shape == (3, 64, 8) and found.reduction.num_targets == 64
    for clip in range(3):
        kept = (found.reduction.target[clip] >= 0).nonzero().flatten()
        assert torch.equal(found.features[clip], patches[clip, kept])
        assert torch.equal(again(patches[clip : clip + 1], GRID).features[0], found.features[clip])
    assert not torch.equal(found.reduction.target[0], found.reduction.target[1])
    assert not torch.equal(RandomDrop(like=ToMe(), seed=1)(patches, GRID).features, found.features)


def test_random_reduce_drops_as_many() -> None:
    like = ProgressiveDrop(kind="attention", layers=(1, 2), ratios=(1.0, 0.5, 0.25))
    method = RandomReduce(like=like)
    assert isinstance(method, LayerCompressor)
    assert dict(method.schedule(4, 64)) == dict(like.schedule(4, 64))
    assert not method.needs_attention(0)
    point = DropPoint(0, 1, 4, 64, 64, 32)
    found = method(point, lambda: torch.zeros(64))
    assert found.num_targets == 32 and len(found.kept) == 32


@pytest.mark.parametrize("count, blocks", [(64, (4, 4, 4)), (4, (4, 1, 1)), (1, (1, 1, 1)), (8, (4, 1, 2))])
def test_even_pool_averages_blocks_of_any_count(count: int, blocks: tuple[int, int, int]) -> None:
    pool = EvenPool(like=_Fixed(count))
    assert pool.blocks(GRID) == blocks
    x = torch.arange(144.0).view(1, 144, 1)
    found = pool(x, GRID)
    assert found.features.shape == (1, count, 1)
    assert found.reduction.target.min() == 0 and found.reduction.target.max() == count - 1
    sizes = torch.bincount(found.reduction.target[0], minlength=count)
    assert torch.allclose((found.features[0, :, 0] * sizes).sum(), x.sum())


@dataclasses.dataclass(frozen=True)
class _Fixed:
    count: int

    def out_tokens(self, grid: Grid) -> int:
        return self.count


def test_even_pool_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="as many for each frame"):
        EvenPool(like=_Fixed(63)).blocks(GRID)


def test_a_still_is_what_ingesting_it_gives(loaded: LoadedModel) -> None:
    """One clip stands for all: the tokens are those of the whole film of black frames, to the last bit."""
    run = small_run(loaded)
    reader = Reader(loaded, run.budget, run.rule_in_force)
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    whole = reader.encode(Frames(np.repeat(picture[None], 16, 0), np.arange(16.0)))
    short = still(picture, whole, reader)
    assert torch.equal(short.tokens.features, whole.tokens.features)
    assert torch.equal(short.tokens.frame_weight, whole.tokens.frame_weight)
    assert torch.equal(short.tokens.clip_index, whole.tokens.clip_index)


def test_low_resolution_carries_no_more_pixels() -> None:
    fine = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    with open_video(Frames(fine, np.arange(2.0))) as video:
        shrunk = next(LowResolution(video, (8, 8)).frames_at(np.arange(2.0), size=(96, 96)))
        again = next(LowResolution(video, (8, 8)).frames_at(np.arange(2.0)))
    assert shrunk.pixels.shape == again.pixels.shape == fine.shape
    spectrum = np.abs(np.fft.rfft2(shrunk.pixels[0].mean(-1)))
    assert spectrum[20:40, 20:].max() < 0.02 * spectrum.max()  # nothing fine is left


def test_each_baseline_can_be_turned_off_by_name() -> None:
    assert chosen_baselines([]) == tuple(KNOWN)
    assert chosen_baselines(["blind", "low-resolution"]) == ("single-frame", "random-drop")
    assert chosen_baselines(["all"]) == ()
    with pytest.raises(ConfigError, match="random-drop"):
        chosen_baselines(["random_drop"])


def test_random_drop_replaces_what_is_tested(loaded: LoadedModel, tmp_path: Path) -> None:
    """A selector alone is under test: the film is not encoded again, and as many clips are drawn."""
    run = small_run(loaded, selector=Selector(frames_kept=8), tested=("select",))
    reader = Reader(loaded, run.budget, run.rule_in_force, run.selector)
    item = run.task.items()[0]
    path = item.media.write(tmp_path / "film.mp4")  # pyright: ignore[reportAttributeAccessIssue]
    with open_video(path) as video:
        memory = reader.see(video)
        seen = Arms(reader, ("select",)).see("random-drop", video, item, memory)
        assert seen.selector is None and seen.memory.num_frames == 8
        rows = {tuple(row) for row in memory.tokens.features[:, :4].tolist()}
        assert {tuple(row) for row in seen.memory.tokens.features[:, :4].tolist()} <= rows
        loaded.model.reducer = ProgressiveDrop(kind="attention", layers=(1,), ratios=(1.0, 0.5))
        seen = Arms(reader, ("reduce",)).see("random-drop", video, item, memory)
        assert seen.memory is memory and isinstance(seen.reducer, RandomReduce)


def test_pvc_says_which_baselines_it_cannot_have() -> None:
    pvc = tiny_pvc()
    run = Run(task=small_task(), model=pvc, baselines=tuple(KNOWN))
    assert set(check_arms(run)) == {"random-drop"}


def test_a_planted_fake_method_is_called_no_better_than_random_drop(loaded: LoadedModel, tmp_path: Path) -> None:
    """Random drop under another name, through the whole path: its replies may differ, its score does not."""
    loaded.model.use_compressor(_Fancy(like=ToMe(), seed=7))
    run = small_run(loaded, tested=("compress",), baselines=("random-drop",))
    run_shard(run, tmp_path)
    found = summarize(merge(run, tmp_path), run.task, {})
    assert found["baselines"]["random-drop"]["model_is"] == "not different"
    assert any("not better than random drop" in text for text in found["findings"])


class _Fancy(RandomDrop):
    """Random drop under another name."""


def records_of(name: str, rights: np.ndarray, text: str = "") -> list[Record]:
    films, questions = rights.shape
    return [
        Record(
            id=f"{film}-{number}",
            arm=name,
            group=f"film {film}",
            text=text or f"{name} {film} {number} {rights[film, number]}",
            parsed="K",
            right=bool(rights[film, number]),
            score=float(rights[film, number]),
            chance=0.25,
            answer="ABCD"[number % 4],
            tokens=64,
        )
        for film in range(films)
        for number in range(questions)
    ]


def summary_of(finished: tuple[Run, Path], **arms: np.ndarray) -> dict[str, object]:
    run = finished[0]
    records = [one for name, rights in arms.items() for one in records_of(name.replace("_", "-"), rights)]
    return summarize(Merged(manifest=run.manifest(), records=records, stages={}, peaks={}), run.task, {})


def test_findings_tell_fakes_blind_models_and_good_ones_apart(finished: tuple[Run, Path]) -> None:
    """The same findings on scores with known truth: a fake of random drop, a blind model, and a real method."""
    random = np.random.default_rng(5)
    skill = random.beta(6, 4, (40, 1))
    good, poor = random.random((40, 8)) < np.minimum(skill + 0.25, 1), random.random((40, 8)) < skill
    poor_too, guess = random.random((40, 8)) < skill, random.random((40, 8)) < 0.25
    fake = summary_of(finished, model=poor, random_drop=poor_too, blind=guess)
    assert any("not better than random drop" in text for text in fake["findings"])  # pyright: ignore[reportGeneralTypeIssues]
    assert not any("blind" in text for text in fake["findings"])  # pyright: ignore[reportGeneralTypeIssues]
    real = summary_of(finished, model=good, random_drop=poor, blind=guess)
    assert real["findings"] == []
    blind = summary_of(finished, model=poor, random_drop=guess, blind=poor_too)
    assert any("the model is blind" in text for text in blind["findings"])  # pyright: ignore[reportGeneralTypeIssues]
    assert any("the questions leak" in text for text in blind["findings"])  # pyright: ignore[reportGeneralTypeIssues]
    chance = summary_of(finished, model=guess, blind=random.random((40, 8)) < 0.25)
    assert any("no evidence of skill" in text for text in chance["findings"])  # pyright: ignore[reportGeneralTypeIssues]
    assert fake["baselines"]["random-drop"]["mcnemar_p"] > 0.05  # pyright: ignore[reportIndexIssue, reportOperatorIssue]


def test_no_accuracy_comes_without_its_n_and_interval(finished: tuple[Run, Path]) -> None:
    run, folder = finished
    found = summarize(merge(run, folder), run.task, {"oracle": "no such thing"})
    for name in ("accuracy", "n", "interval", "chance", "blind", "ledger"):
        assert found[name] is not None
    assert found["baselines"]["oracle"] == {"not_run": "no such thing"}

    def walk(value: object) -> None:
        if isinstance(value, dict):
            assert "accuracy" not in value or {"n"} <= set(value)
            assert "accuracy" not in value or "interval" in value or "covered" in value
            for inner in value.values():
                walk(inner)

    walk(found)
