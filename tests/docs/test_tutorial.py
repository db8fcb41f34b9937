"""The tutorial is run as it stands, and the documentation builds as a site without a broken link."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from longtake.cli.main import main

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"^longtake (.*)$", (ROOT / "docs" / "tutorial.md").read_text("utf-8"), re.MULTILINE)


def test_every_command_of_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) >= 8
    said: dict[str, str] = {}
    for command in COMMANDS:
        arguments = [str(path) for part in shlex.split(command) for path in expanded(part, tmp_path)]
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capsys.readouterr()
        assert ended.value.code == 0, (command, shown.err)
        said[command] = shown.out
    asked = next(text for command, text in said.items() if command.startswith("ask") and command.endswith('drop?"'))
    assert asked.splitlines()[0].strip() == "H"
    assert (tmp_path / "heat.png").stat().st_size > 5000


def expanded(part: str, folder: Path) -> list[str]:
    """Expand a star as a shell does."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob(part)) if "*" in part else [part]


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert not re.findall(r'(?:src|href)="https?://(?!squidfunk)[^"]*\.(?:js|css|woff2?)"', page)
