"""Commands in this process: what they find, and what options do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from longtake import __version__
from longtake.cli.main import main
from longtake.cli.models import load_model, parse_settings
from longtake.cli.output import seconds_text
from longtake.cli.reference import exit_codes, reference
from longtake.core.errors import ConfigError
from longtake.engine import doctor
from longtake.methods.compress.tome import ToMe
from longtake.methods.reduce.progressive_drop import ProgressiveDrop


def test_the_reference_page_is_what_the_commands_say():
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert page.read_text() == reference(), "write it anew: python -m longtake.cli.reference > docs/cli.md"


def test_every_error_has_an_exit_code_of_its_own():
    of_a_kind = ("`DecodeTimeoutError`", "`MemoryBusyError`")  # these end as what they are a kind of
    codes = [code for code, name, _ in exit_codes() if name and name not in of_a_kind]
    assert len(codes) == len(set(codes)) == 10
    assert {0, 1, 130}.isdisjoint(codes)


def test_probe_says_what_is_there_and_what_would_be_read(call, film: Path):
    found, code = call("probe", str(film), "--max-frames", "32", "--start", "4", "--end", "20")
    assert code == 0
    assert (found["width"], found["height"], found["num_frames"]) == (128, 64, 96)
    assert found["codec"] == "h264"
    times = found["sampled"]["times_s"]
    assert found["sampled"]["num_frames"] == len(times) == 32
    assert times == sorted(times) and times[0] >= 4 and times[-1] <= 20


def test_probe_for_people_names_frames_and_decoder(film: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["probe", str(film)])
    text = capsys.readouterr().out
    assert "128 x 64" in text and "pyav" in text and "would be sampled" in text


def test_plan_predicts_without_weights(call, film: Path):
    found, code = call("plan", str(film), "--model", "videochat_flash_2b", "--max-frames", "64")
    assert code == 0
    assert (found["num_frames"], found["num_visual_tokens"]) == (64, 1024)
    assert found["peak_bytes"] > found["weight_bytes"] > 3e9
    assert set(found["flops"]) == {"vision", "compress", "prefill", "decode_text"}


def test_doctor_reports(call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "hub_reachable", lambda: True)
    found, code = call("doctor")
    assert (code, found["hub"]) == (0, "reachable")


@pytest.mark.parametrize(
    "arguments, code, kind",
    [
        (["ask", "{film}", ""], 5, "PromptError"),
        (["ask", "{film}", "what is <image>?"], 5, "PromptError"),
        (["ask", "nothing.mp4", "What?"], 3, "VideoError"),
        (["ask", "{film}", "What?", "--max-frames", "0"], 4, "BudgetError"),
        (["ask", "{film}", "What?", "--max-frames", "12"], 4, "BudgetError"),
        (["ask", "{film}", "What?", "--start", "99"], 3, "VideoError"),
        (["ask", "{film}", "What?", "--set", "nonsense"], 2, "ConfigError"),
        (["probe", "nothing.mp4"], 3, "VideoError"),
        (["probe", "."], 3, "VideoError"),
        (["plan", "--duration", "-1"], 3, "VideoError"),
        (["plan", "--duration", "10", "--dtype", "int7"], 2, "ConfigError"),
        (["plan"], 2, "ConfigError"),
    ],
)
def test_an_error_is_one_line_a_json_object_and_an_exit_code(
    arguments: list[str], code: int, kind: str, film: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main([*(text.format(film=film) for text in arguments), "--json"])
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert (ended.value.code, error["type"]) == (code, kind)
    assert printed.err.splitlines()[-1] == f"error: {error['message']}"


@pytest.mark.parametrize("arguments", [["describe"], ["ask"], ["ask", "film.mp4", "What?", "--nonsense"]])
def test_a_command_line_that_cannot_be_read_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err


def test_version_is_said(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"longtake {__version__}\n")


@pytest.mark.parametrize("recipe", ["mine", "nowhere:model", "json:no_such_name", "os:getcwd"])
def test_a_recipe_that_is_none_is_refused(recipe: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(ConfigError, match="recipe"):
        load_model(None, recipe=recipe)


def test_recipes_are_shown_their_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "needs_more.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="a_module_that_is_not_there"):
        load_model(None, recipe="needs_more:model")


@pytest.mark.parametrize(
    "settings, expected",
    [
        ([], {}),
        (["reduce.kind=uniform"], {"reduce": {"kind": "uniform"}}),
        (
            ["reduce.layers=[1, 2]", "reduce.ratios=[1, 0.5, 0.25]"],
            {"reduce": {"layers": [1, 2], "ratios": [1, 0.5, 0.25]}},
        ),
        (["compress.tokens_per_frame=4"], {"compress": {"tokens_per_frame": 4}}),
        (["reduce.name=a=b"], {"reduce": {"name": "a=b"}}),
    ],
)
def test_settings_are_read_as_json_or_text(settings: list[str], expected: dict[str, dict[str, object]]):
    assert parse_settings(settings) == expected


def test_settings_reach_the_methods():
    settings = ["reduce.kind=uniform", "reduce.layers=[1]", "reduce.ratios=[1.0, 0.5]", "compress.tokens_per_frame=4"]
    loaded = load_model(None, reduce="progressive_drop", settings=settings)
    assert loaded.model.reducer == ProgressiveDrop(kind="uniform", layers=(1,), ratios=(1.0, 0.5))
    assert loaded.model.compressor == ToMe(tokens_per_frame=4)


@pytest.mark.parametrize(
    "reduce, settings, message",
    [
        (None, ["kind=uniform"], "part.field=value"),
        (None, ["reduce.kind=uniform"], "--reduce"),
        ("progressive_dorp", [], "progressive_drop"),
        ("progressive_drop", ["reduce.knid=uniform"], "kind"),
        (None, ["compress.tokens_per_frame=many"], "tome cannot take"),
    ],
)
def test_bad_settings_are_refused(reduce: str | None, settings: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_model(None, reduce=reduce, settings=settings)


def test_a_model_and_a_recipe_are_refused():
    with pytest.raises(ConfigError, match="one of the two"):
        load_model("some/model", recipe="json:loads")


@pytest.mark.parametrize(
    "seconds, text", [(0.0, "0:00:00.0"), (61.25, "0:01:01.2"), (3723.96, "1:02:04.0"), (-1.0, "0:00:00.0")]
)
def test_times_are_written_for_people(seconds: float, text: str):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize("seconds, text", [(59.97, "0:01:00.0"), (3599.99, "1:00:00.0")])
def test_times_never_show_sixty_seconds(seconds: float, text: str):
    assert seconds_text(seconds) == text


def test_an_evaluation_asks_for_its_extra_before_it_asks_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.cli import eval as command
    from longtake.core.errors import MissingExtraError

    asked: list[object] = []
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setattr(command, "find_task", lambda *given: asked.append(given))
    with pytest.raises(MissingExtraError, match="intervals need scipy"):
        command.run("niah", {}, {}, {"shard": None, "out": None, "ends_with_parent": False, "without": ()}, True)
    assert not asked
