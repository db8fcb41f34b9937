"""Marks of one model are held against another's on the same questions alone."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from longtake.core.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "recipes"


def test_two_models_are_compared_question_by_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    module, path = importlib.import_module("measure_tiny"), tmp_path / "other.marks"

    def told(rights: str) -> dict[str, list[object]]:
        marks = enumerate(rights)
        return {"N1": [module.Told(place // 4, "N1", f"{place}?", mark == "1", False, True) for place, mark in marks]}

    module.write_marks(path, told("0010" * 20))
    theirs = module.read_lines(path)
    found = module.leads(told("1110" * 20), theirs)
    assert found["N1"]["lead"] == 0.5 and found["N1"]["verdict"] == "better"
    assert module.leads(told("0010" * 20), theirs)["N1"]["verdict"] == "not different"
    with pytest.raises(ConfigError, match="other questions of kind N1"):
        module.leads(told("0010" * 19), theirs)
    with pytest.raises(ConfigError, match="other questions of kind N1"):
        module.leads(told("0010" * 20), [{**mark, "question": "else?"} for mark in theirs])
