"""`longtake eval`: what it prints, and that what docs/evaluation.md shows are commands that it takes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import longtake.cli.eval
from longtake.cli.eval import find_task, parse_shard, without_output
from longtake.cli.main import app
from longtake.core.errors import ConfigError
from longtake.eval.task import tasks

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
SMALL = ["--set", "task.needles=1", "--set", "task.size=64", "--set", "task.depths=[0.0, 1.0]", "--max-new-tokens", "2"]


def test_a_figure_never_comes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "run", tmp_path / "grid.png"
    command = ["eval", "niah", "--frames", "16", *SMALL, "--probes", "0", "--without", "low-resolution"]
    command += ["--out", str(out), "--heat-map", str(picture)]
    app(args=[*command, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert {"accuracy", "n", "interval", "chance", "blind", "ledger", "findings", "manifest"} <= set(found)
    assert found["n"] == 2 and len(found["interval"]) == 2 and found["blind"]["n"] == 2
    assert set(found["baselines"]) == {"blind", "single-frame", "random-drop"}
    assert found["ledger"]["total_s"] == pytest.approx(found["ledger"]["wall_s"], rel=0.02)
    assert picture.stat().st_size > 5000
    assert json.loads((out / "summary.json").read_text())["n"] == 2
    app(args=command, standalone_mode=False)  # goes on with what is there: nothing is asked again
    text = capsys.readouterr().out
    assert "niah: accuracy in %" in text and "chance" in text and "random-drop" in text
    assert "so few items" in text and "best constant" in text and "peak memory" in text


def test_every_command_of_the_page_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = []

    def take(task: str, budget: dict[str, Any], model: dict[str, Any], options: dict[str, Any], _: bool) -> None:
        taken.append((task, budget, model, options))

    monkeypatch.setattr(longtake.cli.eval, "run", take)
    text = PAGE.read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"^longtake (eval .*)$", text, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        app(args=shlex.split(command), standalone_mode=False)
    for task, budget, model, options in taken:
        if task.startswith(("niah-coco", "niah-published")):  # the files that the page names are not here
            with pytest.raises(ConfigError, match=r"(single|multihop)\.json cannot be read"):
                find_task(task, model, options, budget)
            continue
        found, limits = find_task(task, model, options, budget)
        assert (found.name == task and limits.max_frames >= 512) or task.startswith("niah")
    named = set(re.findall(r"`((?:niah|filmstrip)[a-z0-9-]*)`", text))
    assert named <= set(tasks())


def test_wrong_wishes_are_refused() -> None:
    assert parse_shard("1/4") == (1, 4) and parse_shard(None) is None
    with pytest.raises(ConfigError, match="N/COUNT"):
        parse_shard("4/4")
    with pytest.raises(ConfigError, match="needs --out|without --out"):
        app(args=["eval", "niah", "--shard", "0/2"], standalone_mode=False)
    with pytest.raises(ConfigError, match="whole numbers"):
        app(args=["eval", "niah", "--frames", "many"], standalone_mode=False)
    assert without_output(["eval", "niah", "--out", "a", "--json", "--processes=2", "--limit", "4"]) == [
        "eval",
        "niah",
        "--limit",
        "4",
    ]
