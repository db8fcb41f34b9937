"""What docs/serving.md says to run runs as it stands, and the limits it names are those there are."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from longtake.serve.settings import Limits
from tests.serve.conftest import Live, wait_ready

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")


def test_the_code_on_the_page_runs(
    live: Live, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(films[0], tmp_path / "film.mp4")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/serving.md", "exec"), {"address": live.url})
    assert "evidence {" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_on_the_page_answer(live: Live, films: list[Path], tmp_path: Path) -> None:
    shutil.copy(films[0], tmp_path / "film.mp4")
    commands = re.findall(r"^curl (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 5
    video = ""
    for command in commands:
        here = command.replace("http://127.0.0.1:8000", live.url).replace("VIDEO", video)
        done = subprocess.run(
            ["curl", "--noproxy", "*", *shlex.split(here)], cwd=tmp_path, capture_output=True, check=True
        )
        if "film.mp4" in here:
            video = json.loads(done.stdout)["id"]
            with live.http() as http:
                assert wait_ready(http, video)["status"] == "ready"
        if "/ask" in here:
            assert json.loads(done.stdout)["evidence"]
    assert (tmp_path / "frame.jpg").read_bytes().startswith(b"\xff\xd8")


def test_the_limits_on_the_page_are_those_there_are() -> None:
    named = dict(re.findall(r"`([a-z_]+)` (\d+(?:\.\d+)?)", PAGE.partition("## Limits")[2].partition("##")[0]))
    assert {name: float(value) for name, value in named.items()} == dataclasses.asdict(Limits())
