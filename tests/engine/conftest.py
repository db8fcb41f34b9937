from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from longtake.core.types import VideoMemory
from longtake.engine.ingest import ingest
from longtake.media.sampling import SamplingRule
from longtake.media.synthetic import write_clock_video
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import tiny_model

RULE = SamplingRule(min_frames=8)


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a film of 24 seconds, 4 frames a second, whose frames show their own time."""
    return write_clock_video(tmp_path_factory.mktemp("films") / "film.mp4", 24.0, fps=4, size=(64, 128))


@pytest.fixture(scope="session")
def shared_model() -> LoadedModel:
    return tiny_model()


@pytest.fixture
def loaded(shared_model: LoadedModel) -> Iterator[LoadedModel]:
    """Return the tiny model; what a test sets on it is taken back."""
    yield shared_model
    shared_model.model.reducer = None
    shared_model.config.tokenizer_model_max_length = 32768


@pytest.fixture(scope="session")
def memory(film: Path, shared_model: LoadedModel) -> VideoMemory:
    """Return the film as 24 frames."""
    return ingest(film, shared_model, rule=RULE)
