"""Choices of the user that must never be dropped in silence: device, dtype, methods; and a disk that fills up."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from longtake.cli.main import main
from longtake.cli.models import load_model
from longtake.cli.output import report_error
from longtake.core.budget import Budget
from longtake.core.errors import CheckpointError, ConfigError
from longtake.engine.ask import ask
from longtake.media import filmstrip
from longtake.methods.compress.tome import ToMe


@pytest.mark.parametrize("device", ["nonsense", "cuda:77", "meta"])
def test_a_device_that_is_not_there_is_refused_by_name(device: str):
    with pytest.raises(ConfigError, match=f"'{device}'.*longtake doctor"):
        load_model(None, device=device)


@pytest.mark.parametrize("dtype", ["nonsense", "int8", ""])
def test_a_dtype_that_is_none_is_refused(dtype: str):
    with pytest.raises(ConfigError, match="expected auto, float32"):
        load_model(None, dtype=dtype)


def test_device_and_dtype_reach_the_random_model_and_the_ledger(film: Path):
    plain, half = load_model(None), load_model(None, dtype="bfloat16", device="cpu")
    assert (plain.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert plain.fingerprint != half.fingerprint
    assert plain.fingerprint == load_model(None, device="cpu").fingerprint
    answer = ask(film, "What?", half, Budget(max_new_tokens=2))
    assert "device cpu, bfloat16" in answer.ledger["notes"]  # pyright: ignore[reportOperatorIssue]


def test_a_compressor_is_chosen_by_name_with_its_settings():
    loaded = load_model(None, compress="tome", settings=["compress.tokens_per_frame=8"])
    assert loaded.model.compressor == ToMe(tokens_per_frame=8)
    with pytest.raises(ConfigError, match="tome"):
        load_model(None, compress="tomme")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_full_disk_is_a_storage_error(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: object, **__: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filmstrip, "write_film", full)
    with pytest.raises(SystemExit) as ended:
        main(["demo", *(["--json"] if as_json else [])])
    assert ended.value.code == 9
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].startswith("error: the disk is full")
    assert not as_json or json.loads(shown.out)["error"]["type"] == "StorageError"


def test_other_failures_of_the_system_are_not_taken_for_a_full_disk(monkeypatch: pytest.MonkeyPatch):
    def denied(*_: object, **__: object) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filmstrip, "write_film", denied)
    with pytest.raises(PermissionError):
        main(["demo"])


def test_an_error_of_several_lines_is_shown_as_one(capsys: pytest.CaptureFixture[str]):
    report_error(CheckpointError("the weights are\n  damaged [red]here[/red]"), as_json=True)
    shown = capsys.readouterr()
    assert shown.err == "error: the weights are damaged [red]here[/red]\n"
    assert json.loads(shown.out)["error"]["message"] == "the weights are damaged [red]here[/red]"


@pytest.mark.parametrize("name", ["videochat_flash_7b", "OpenGVLab/VideoChat-Flash-Qwen2-7B_res448"])
def test_plan_knows_a_released_model_by_both_of_its_names(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--duration", "100", "--model", name, "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["weight_bytes"] > 15e9
