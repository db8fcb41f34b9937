from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longtake.cli.main import main
from longtake.media.synthetic import write_clock_video

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONWARNINGS": "error"}


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clock_video(tmp_path_factory.mktemp("films") / "film.mp4", 24.0, fps=4, size=(64, 128))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the real program in a process of its own, in an empty folder."""
    sources = str(Path(__file__).parents[2] / "src")

    def call(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "longtake.cli.main", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": sources},
        )

    return call


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    """Return a function that runs a command and returns its JSON and exit code."""

    def run(*arguments: str) -> tuple[Any, int]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json"])
        code = ended.value.code
        assert isinstance(code, int)
        return json.loads(capsys.readouterr().out), code

    return run
