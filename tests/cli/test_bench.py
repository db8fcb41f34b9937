"""The runner of the benches: it runs what was named, and fails when a claim does not hold."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from bench import __main__ as runner


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs stand-ins for the benches: (exit code, names that ran, rows, standard error)."""

    def run(*arguments: str, ok: bool = True) -> tuple[Any, list[str], Any, str]:
        ran: list[str] = []

        def import_module(name: str) -> SimpleNamespace:
            return SimpleNamespace(run=lambda quick: ran.append(name) or [{"claim": name, "ok": ok, "n": int(quick)}])

        monkeypatch.setattr(runner, "importlib", SimpleNamespace(import_module=import_module))
        code = 0
        try:
            runner.main([*arguments, "--json"])
        except SystemExit as ended:
            code = ended.code
        shown = capsys.readouterr()
        return code, ran, json.loads(shown.out or "null"), shown.err

    return run


def test_every_bench_file_is_run_unless_some_are_named(call):
    _, everything, _, _ = call()
    assert {"bench.bench_plan", "bench.bench_ingest_memory", "bench.bench_tome", "bench.bench_decode"} <= set(
        everything
    )
    assert call("plan", "bench_tome")[1] == ["bench.bench_plan", "bench.bench_tome"]


@pytest.mark.parametrize(
    "arguments, ok, code", [((), True, 0), ((), False, 1), (("--quick",), True, 0), (("--quick",), False, 0)]
)
def test_a_missed_target_exits_with_1_when_sizes_are_real(call, arguments: tuple[str, ...], ok: bool, code: int):
    assert call("plan", *arguments, ok=ok)[0] == code


def test_a_name_that_is_none_runs_nothing_and_exits_with_2(call):
    code, ran, rows, error = call("plan", "palm")
    assert (code, ran, rows) == (2, [], None)
    assert "no bench palm" in error and "plan" in error


def test_quick_reaches_the_benches(call):
    assert [row["n"] for row in call("plan", "--quick")[2]] == [1]
