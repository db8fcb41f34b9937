"""Recall and precision of cited seconds, by hand; the scripts themselves run on the random tiny model."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch):
    """Return a function that imports a script of the folder `recipes`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize(
    "cited, proof, recall, precision, found",
    [
        ([(0, 4)], [(0, 4)], 1.0, 1.0, 1.0),
        ([(2, 6)], [(0, 4)], 0.5, 0.5, 1.0),
        ([(0, 4), (8, 12)], [(0, 4)], 1.0, 0.5, 1.0),
        ([(0, 4), (2, 6)], [(0, 12)], 0.5, 1.0, 1.0),  # an overlap counts once
        ([(4, 8)], [(0, 4), (8, 12)], 0.0, 0.0, 0.0),
        ([], [(0, 4)], 0.0, 0.0, 0.0),
    ],
)
def test_recall_and_precision_of_seconds(recipe, cited, proof, recall, precision, found):
    expected = {"recall": recall, "precision": precision, "found": found}
    assert recipe("measure_evidence").compared(cited, proof) == expected


def run(module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    module.main()
    return json.loads(capsys.readouterr().out)


def test_evidence_is_measured(recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    arguments = ("random", "--films", "2", "--questions", "1", "--verify")
    said = run(recipe("measure_evidence"), monkeypatch, capsys, *arguments)
    assert said["n"] == 2 and set(said["all"]) == {"recall", "precision", "found"}
    recall = said["all"]["recall"]
    assert recall["interval_95"][0] <= recall["mean"] <= recall["interval_95"][1]
    checked = said["verify"]["all"]["holds"]
    assert said["verify"]["could_not"] + (checked["n"] if checked else 0) == 2


def test_a_threshold_is_calibrated_and_written(
    recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    from longtake.models.evidence_threshold import read_threshold
    from longtake.models.tiny import tiny_model

    module = recipe("calibrate")
    monkeypatch.setattr(module, "load_model", lambda _: tiny_model())
    arguments = (str(tmp_path), "--films", "4", "--level", "L0", "--rate", "0.2", "--write")
    said = run(module, monkeypatch, capsys, *arguments)
    limit = read_threshold(tmp_path)
    assert limit is not None and limit.model == tiny_model().fingerprint
    assert limit.threshold == said[said["best"]]["threshold"] and limit.score == said["best"]
    assert said["attention"]["num_with"] > 4 and said["attention"]["num_without"] >= 1
