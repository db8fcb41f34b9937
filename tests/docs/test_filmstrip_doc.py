"""What docs/filmstrip.md shows: its code runs, its examples are asked, its ladder is the ladder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longtake.media.filmstrip import CONTROLS, LADDER, Film, Question
from longtake.media.video import open_video

PAGE = Path(__file__).parents[2] / "docs" / "filmstrip.md"
TEXT = PAGE.read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, without its two first lines."""
    part = TEXT.split(f"## {heading}\n")[1]
    lines = re.findall(r"^\|.*\|$", part.split("\n## ")[0], re.MULTILINE)
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_code_runs_and_every_example_is_a_question_of_its_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, str(PAGE), "exec"), names)
    film: Film = names["film"]
    asked: list[Question] = names["questions"]
    found = {(one.kind, one.text, one.answer, len(one.choices)) for one in asked}
    for _, kind, text, answer, choices in rows("What is asked"):
        count = 0 if choices == "open" else int(choices[0])
        assert (kind, text, answer, count) in found, text
    for name in ("film.mp4", "shuffled.mp4"):
        with open_video(tmp_path / name) as video:
            assert video.info.num_frames == film.spec.num_frames
    assert names["one"].text in capsys.readouterr().out and names["other"].answer != names["one"].answer


def test_the_ladder_on_the_page_is_the_ladder() -> None:
    shown = {}
    for level, *cells in rows("The ladder"):
        low, _, high = cells[6].partition("–")
        numbers = [float(re.findall(r"[\d.]+", cell)[0]) for cell in (*cells[:6], cells[7])]
        shown[level] = (*numbers, (int(low), int(high or low)))
    assert shown == {
        name: (
            one.num_frames,
            one.fps,
            one.needle_s,
            round(100 * one.needle_size),
            one.num_extras,
            one.num_cards,
            one.detail_px,
            one.hops,
        )
        for name, one in LADDER.items()
    }


def test_every_control_is_on_the_page() -> None:
    part = TEXT.split("## What figures are held against")[1]
    assert all(f"`{control}`" in part for control in CONTROLS)
