"""What docs/training.md says to run runs as it stands, one after the other."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import longtake
from longtake.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_every_command_of_one_process_on_the_training_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^longtake (train \w+ --set model=(?!FOLDER).*)$", text, re.MULTILINE)
    assert (len(blocks), len(commands)) == (1, 3)
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], str(PAGE), "exec"), {})
    for command in commands:
        app(args=[*shlex.split(command), "--json"], standalone_mode=False)
        result = json.loads(capsys.readouterr().out)
        assert result["broken"] == {} and result["last_loss"] > 0
        assert longtake.load(result["model"]).fingerprint
