from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from longtake.eval.runner import Run, merge, run_shard
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import tiny_model
from tests.eval.small import BASELINES, small_run


@pytest.fixture(scope="session")
def shared_model() -> LoadedModel:
    return tiny_model()


@pytest.fixture
def loaded(shared_model: LoadedModel) -> Iterator[LoadedModel]:
    """Return the tiny model; what a test sets on it is taken back."""
    compressor = shared_model.model.compressor
    yield shared_model
    shared_model.model.reducer = None
    shared_model.model.compressor = compressor


@pytest.fixture(scope="session")
def finished(shared_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """Return a run of four questions about two films, with all baselines, complete in its folder."""
    run, folder = small_run(shared_model, baselines=BASELINES), tmp_path_factory.mktemp("runs") / "whole"
    run_shard(run, folder)
    merge(run, folder)
    return run, folder
