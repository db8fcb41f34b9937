from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from longtake.convert.load import save
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import build_random, byte_tokenizer


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a whole tiny checkpoint that tests must not change."""
    model = build_random(seed=3)
    loaded = LoadedModel(model, byte_tokenizer(), model.config, "")
    return save(loaded, tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny checkpoint that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))
