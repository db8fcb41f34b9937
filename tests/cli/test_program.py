"""The program as a person runs it: what it prints where, how fast, and with which exit code."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from longtake.cli.models import TINY_NOTICE
from longtake.media.video import open_video

QUESTION = "What time is it?"
STAGES = {"load", "open", "sample", "decode", "preprocess", "vision", "compress", "prefill", "evidence", "decode_text"}


def seconds(*arguments: str) -> float:
    """Return what a child costs of the processor, whatever else the machine is doing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_answers_at_once_without_torch(run: Run):
    assert min(seconds("-m", "longtake.cli.main", "--help") for _ in range(3)) < 0.5
    code = "import sys, longtake.cli.main as m; m.app(['--help'], standalone_mode=False); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("False\n")


def test_import_answers_at_once_without_torch():
    assert min(seconds("-c", "import longtake") for _ in range(3)) < 0.3
    code = "import sys, longtake; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"


def test_ask_writes_one_json_object_and_the_ledger_adds_up(run: Run, film: Path):
    done = run("ask", str(film), QUESTION, "--json", "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"answer", "evidence", "finish_reason", "ledger"}
    ledger = answer["ledger"]
    assert set(ledger["stages"]) == STAGES
    staged = sum(stage["seconds"] for stage in ledger["stages"].values())
    assert staged == pytest.approx(ledger["total_s"], rel=0.02)
    assert all(0 <= span["start_s"] <= span["end_s"] <= 24.3 for span in answer["evidence"])
    assert done.stderr.strip() == TINY_NOTICE


def test_ask_for_people_prints_the_answer_first_and_the_cost_beside_it(run: Run, film: Path):
    done = run("ask", str(film), QUESTION, "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert "of the attention" in done.stdout
    assert done.stderr.splitlines()[0] == TINY_NOTICE
    assert all(stage in done.stderr for stage in STAGES)
    assert "decode_text" not in done.stdout


def test_demo_answers_at_least_four_of_its_five_questions(run: Run):
    done = run("demo", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["answers"]) == 5 and sum(one["correct"] for one in told["answers"]) >= 4
    for one in told["answers"]:
        assert one["correct"] == (one["answer"] == one["truth"])
        assert all(set(span) == {"start_s", "end_s", "score"} for span in one["evidence"])
    assert set(told["ledger"]["stages"]) >= {"render", "load", "vision", "ask"}
    assert told["ledger"]["total_s"] > 0


def test_demo_shows_the_truth_beside_each_answer(run: Run):
    done = run("demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == TINY_NOTICE
    assert done.stdout.count("the film shows") == 5
    assert "of 5 right" in done.stdout and "vision" in done.stdout


def test_demo_only_writes_its_film_if_asked(run: Run, tmp_path: Path):
    done = run("demo", "--video-only", "film.mp4")
    assert done.returncode == 0, done.stderr
    with open_video(tmp_path / "film.mp4") as video:
        assert video.clock.duration_s == pytest.approx(600, abs=1)


def test_demo_of_another_video_knows_no_truth(run: Run, film: Path):
    told = json.loads(run("demo", str(film), "--json").stdout)
    assert [one["correct"] for one in told["answers"]] == [None] * 5


def test_chat_answers_each_line_and_survives_a_bad_question(run: Run, film: Path):
    done = run("chat", str(film), "--json", "--max-new-tokens", "4", text="What?\nwhat is <image>?\nAnd then?\n")
    assert done.returncode == 0, done.stderr
    one, refused, two = (json.loads(line) for line in done.stdout.splitlines())
    assert refused["error"]["type"] == "PromptError"
    assert set(one["ledger"]["stages"]) == set(two["ledger"]["stages"]) == {"prefill", "evidence", "decode_text"}


def test_an_error_is_one_line_and_an_exit_code(run: Run, film: Path):
    done = run("ask", str(film), QUESTION, "--model", "no/such-model", "--json")
    assert done.returncode == 6
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "CheckpointError"
    assert done.stderr == f"error: {error['message']}\n"


def test_a_mistake_of_ours_is_not_swallowed(run: Run, tmp_path: Path, film: Path):
    (tmp_path / "broken.py").write_text("def model():\n    return 1 / 0\n")
    done = run("ask", str(film), QUESTION, "--recipe", "broken:model")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_recipe_of_the_working_directory_builds_the_model(run: Run, tmp_path: Path, film: Path):
    code = "from longtake.models.tiny import tiny_model\ndef model():\n    return tiny_model(seed=5)\n"
    (tmp_path / "mine.py").write_text(code)
    done = run("ask", str(film), QUESTION, "--recipe", "mine:model", "--max-new-tokens", "4", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_ctrl_c_exits_with_130():
    code = (
        "import longtake.cli.main as m\n"
        "def interrupted(name): raise KeyboardInterrupt\n"
        "m._command = interrupted\n"
        "m.main(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
