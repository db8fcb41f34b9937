"""A tiny start checkpoint and a tiny data set, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.train.runs import write_data, write_start


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_start(tmp_path_factory.mktemp("start") / "tiny")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))
