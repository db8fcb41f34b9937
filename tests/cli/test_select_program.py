"""The program with a selector: ask and chat from selected frames, explain and bias, and what they refuse."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from longtake.cli.main import main
from longtake.media.synthetic import write_clock_video

QUESTION = "What time is it?"
RANDOM = ("--recipe", "longtake.models.tiny:tiny_model")
SMALL = ("--set", "select.window=2", "--set", "select.stride=1", "--set", "select.chunk_frames=16")
SELECT = ("--select", "qc-comp", "--frames-kept", "8", *RANDOM, *SMALL)


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict]:
    """Run a command in this process; return what it wrote, a JSON object a line."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    shown = capsys.readouterr()
    assert ended.value.code in (0, None), shown.err
    return [json.loads(line) for line in shown.out.splitlines()]


def test_ask_answers_from_selected_frames(film: Path, capsys: pytest.CaptureFixture[str]):
    (answer,) = lines_of(capsys, "ask", film, QUESTION, *SELECT, "--reduce", "lp-comp", "--max-new-tokens", 4)
    assert answer["evidence_kind"] == "relevance"
    assert "select" in answer["ledger"]["stages"]
    assert any(note.startswith("8 of 64 frames were selected") for note in answer["ledger"]["notes"])
    scores = [span["score"] for span in answer["evidence"]]
    assert scores and scores == sorted(scores, reverse=True)


def test_ask_shows_relevance_to_people(film: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["ask", str(film), QUESTION, *SELECT, "--max-new-tokens", "4"])
    assert "times the mean relevance" in capsys.readouterr().out


def test_chat_selects_for_every_question(
    film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\nAnd then?\n"))
    answers = lines_of(capsys, "chat", film, *SELECT, "--max-new-tokens", 4)
    assert [answer["evidence_kind"] for answer in answers] == ["relevance"] * 2


def test_explain_draws_a_picture(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    target = tmp_path / "heat.png"
    (shown,) = lines_of(capsys, "explain", film, QUESTION, "--out", target, "--frames-kept", 8, *RANDOM, *SMALL)
    assert len(shown["relevance"]) == len(shown["times_s"]) == 64 and sum(shown["kept"]) == 8
    with Image.open(target) as picture:
        assert picture.width > 1000


def test_bias_measures_and_draws(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    long_film = write_clock_video(tmp_path / "long.mp4", 96.0, fps=1, size=(64, 128))
    target = tmp_path / "bias.svg"
    options = ("--out", target, "--rounds", 2, "--needle", film, *RANDOM, *SMALL)
    (shown,) = lines_of(capsys, "bias", long_film, QUESTION, *options)
    assert {"global", "segment-local", "position-corrected"} < set(shown)
    assert len(shown["global"]["needle_rank"]) == 2
    assert "one clip repeated" in target.read_text("utf-8") or target.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--select", "qc-compp"), 2, "did you mean 'qc_comp'"),
        (("--select", "qc-comp", "--frames-kept", "10", *SMALL), 2, "multiple of the vision clip of 4"),
        (("--select", "qc-comp", "--frames-kept", "0"), 2, "frames_kept is 0"),
        (("--select", "qc-comp", "--set", "select.windw=2"), 2, "did you mean 'window'"),
        (("--select", "qc-comp", "--set", "select.window=wide"), 2, "cannot take"),
        (("--set", "select.window=2"), 2, "--select"),
        (("--preset", "xcomp_clean"), 2, "pass --model"),
        (("--model", "xcomp_clean"), 6, "released as an archive"),
    ],
)
def test_choices_that_cannot_be_kept_exit_with_their_code(
    film: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
):
    with pytest.raises(SystemExit) as ended:
        main(["ask", str(film), QUESTION, "--max-new-tokens", "2", *arguments, *(() if code == 6 else RANDOM)])
    assert ended.value.code == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("command", ["explain", "bias"])
@pytest.mark.parametrize(("name", "code", "words"), [("nowhere/x.png", 9, "make it first"), ("x.mp4", 2, ".png")])
def test_a_figure_without_a_place_is_refused_before_any_work(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, name: str, code: int, words: str
):
    with pytest.raises(SystemExit) as ended:
        main([command, str(film), QUESTION, "--out", str(tmp_path / name)])
    assert ended.value.code == code
    assert words in capsys.readouterr().err
