"""The recipe of the tiny PVC for films runs to its end, goes on where it was, refuses what another recipe learned."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import longtake
from longtake.core.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "recipes"
SMALL = [
    "tower_width=16",
    "tower_layers=2",
    "temporal_layers=1",
    "rank=2",
    "films=1",
    "clips_per_film=6",
    "runs=[1]",
    "warmup_steps=1",
]


def arguments(out: Path, steps: int) -> list[str]:
    sets = [f"seeing.{text}" for text in SMALL]
    sets += [f"{part}.steps={steps}" for part in ("seeing", "polish", "language")] + ["language.tokens=400"]
    return ["tiny_pvc_films.py", str(out), "--arms", "pvc", "--films", "1", *(f"--set={text}" for text in sets)]


def test_a_run_ends_goes_on_and_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("tiny_pvc_films")
    trained: list[int] = []
    teach = module.train_seeing
    monkeypatch.setattr(module, "train_seeing", lambda *given: (trained.append(given[1].steps), teach(*given)))

    def run(steps: int, *more: str) -> None:
        monkeypatch.setattr(sys, "argv", [*arguments(tmp_path, steps), *more])
        module.main()

    run(2)
    first = longtake.load(tmp_path / "pvc")
    assert trained == [2] * 4 and first.config.temporal_window == 8
    (tmp_path / "pvc").rename(tmp_path / "before")
    run(2)
    assert trained == [2] * 4 and longtake.load(tmp_path / "pvc").fingerprint == first.fingerprint
    run(3)  # the arm is there
    (tmp_path / "pvc").rename(tmp_path / "again")
    with pytest.raises(ConfigError, match="another recipe"):
        run(3)
    with pytest.raises(ConfigError, match="'polsh'; expected seeing or polish or language"):
        run(2, "--set=polsh.steps=3")
