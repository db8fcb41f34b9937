"""What docs/images.md says to run runs as it stands."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from longtake.cli.main import app
from longtake.media.synthetic import draw_clock, write_clock_video

PAGE = Path(__file__).parents[2] / "docs" / "images.md"


def test_every_command_on_the_page_of_pictures_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = re.findall(r"^longtake (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(commands) == 5
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("photo.png", "a.png", "b.png")):
        Image.fromarray(draw_clock(number, 90, 160)).save(name)
    write_clock_video(tmp_path / "clip.mp4", 8.0, fps=4, size=(48, 64))
    for command in commands:
        monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\n"))
        app(args=[*shlex.split(command), "--json", "--max-new-tokens", "2"], standalone_mode=False)
        answer = json.loads(capsys.readouterr().out)
        assert answer["finish_reason"] in ("stop", "length")
        several = command.count(".png") + command.count(".mp4") > 1
        assert all(("medium" in span) == several for span in answer["evidence"])
