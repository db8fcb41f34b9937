"""Two runs compared: planted differences are found, named and counted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from longtake.cli.main import main
from longtake.core.errors import ConfigError
from longtake.eval.compare import UNKNOWN_CAUSE, causes, compare, differences
from longtake.eval.result import Manifest, Record, write_run

pytest.importorskip("scipy", reason="intervals need the extra eval")

MANIFEST = Manifest(
    task="mlvu",
    settings={"parser": "letter", "data": "/one"},
    model="aaaa",
    model_name="tiny",
    dtype="float32",
    device="cpu",
    rule={"kind": "middle"},
    budget={"max_frames": 64},
    compress=None,
    reduce=None,
    select=None,
    template="vcf",
    parser="letter",
    dataset_hash="dddd",
    num_items=20,
    limit=None,
    seed=0,
    baselines=("blind",),
    frame_grid_hash="ffff",
    versions={"torch": "1"},
)


def record(number: int, right: bool, **more: Any) -> Record:
    values = {
        "id": f"q{number:02d}",
        "arm": "model",
        "group": f"film {number}",
        "text": "A" if right else "B",
        "parsed": "A" if right else "B",
        "right": right,
        "score": float(right),
        "answer": "A",
        "prompt_hash": "p",
        "frame_hash": "f",
        "tokens": 16,
    }
    return Record(**(values | more))


def written(folder: Path, records: Sequence[Record], **manifest: Any) -> Path:
    folder.mkdir()
    write_run(folder, dataclasses.replace(MANIFEST, **manifest), records)
    return folder


def test_equal_runs_are_equal(tmp_path: Path) -> None:
    records = [record(number, number % 2 == 0) for number in range(10)]
    found = compare(written(tmp_path / "a", records), written(tmp_path / "b", records))
    assert found.differences == () and found.flips == () and found.causes == {}
    assert found.shared.difference == 0 and found.shared.p == 1.0
    assert found.verdict == "on the same items the runs are not different"


def test_every_setting_that_differs_is_named_with_its_subject() -> None:
    other = dataclasses.replace(
        MANIFEST,
        settings={"parser": "mmmu-last", "data": "/two"},
        model="bbbb",
        rule={"kind": "middle", "fps": 2.0},
        frame_grid_hash="gggg",
        template="upstream",
        parser="mmmu-last",
        dataset_hash="eeee",
        versions={"torch": "2"},
        reduce={"class": "LpComp"},
    )
    found = {one.field: (one.subject, one.first, one.second) for one in differences(MANIFEST, other)}
    assert found["model"] == ("model", "aaaa", "bbbb")
    assert found["rule.fps"] == ("frames", None, 2.0)
    assert found["frame_grid_hash"][0] == "frames"
    assert found["template"][0] == "prompt"
    assert found["parser"] == ("parser", "letter", "mmmu-last")
    assert found["dataset_hash"][0] == "items"
    assert found["versions.torch"] == ("software", "1", "2")
    assert found["reduce.class"] == ("methods", None, "LpComp")
    assert found["settings.data"][0] == "other"
    assert [one.subject for one in differences(MANIFEST, other)][-1] == "other"
    assert differences(MANIFEST, MANIFEST) == []


@pytest.mark.parametrize(
    "more, expected",
    [
        ({}, (UNKNOWN_CAUSE,)),
        ({"prompt_hash": "q"}, ("prompt",)),
        ({"frame_hash": "g", "tokens": 8}, ("frames", "tokens")),
        ({"text": "A", "parsed": None}, ("parser",)),
        ({"answer": "B"}, ("answer",)),
    ],
)
def test_causes_by_hand(more: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert causes(record(0, True), record(0, False, **more)) == expected


def test_a_planted_difference_is_found_and_accounted_for(tmp_path: Path) -> None:
    """20 shared items: the first is right in 16, the second in 4 of those; McNemar 12 to 0 is p = 2 / 4096."""
    first = [record(number, number < 16) for number in range(21)]
    second = [record(number, number < 4, frame_hash="g") for number in range(20)]
    second.append(record(30, True))
    found = compare(written(tmp_path / "a", first), written(tmp_path / "b", second, frame_grid_hash="gggg"))
    assert found.only_first == ("q20",) and found.only_second == ("q30",)
    assert found.shared_scores == (0.8, 0.2)
    assert found.shared.difference == pytest.approx(0.6)
    assert (found.shared.only_first, found.shared.only_second) == (12, 0)
    assert found.shared.p == pytest.approx(2 / 4096)
    assert found.shared.interval.low > 0
    assert found.verdict == "on the same items the first is better than the second"
    assert [flip.id for flip in found.flips] == [f"q{number:02d}" for number in range(4, 16)]
    assert found.causes == {"frames": 12}
    assert found.first.accuracy == pytest.approx(16 / 21) and found.first.num_items == 21


def test_failed_items_and_steps_are_left_out_and_counted(tmp_path: Path) -> None:
    first = [record(number, True) for number in range(4)]
    first.append(dataclasses.replace(record(4, False), error="VideoError: gone"))
    first.append(dataclasses.replace(record(5, False), counts=False))
    second = [record(number, True) for number in range(6)]
    found = compare(written(tmp_path / "a", first), written(tmp_path / "b", second))
    assert (found.first.num_items, found.first.num_failed) == (4, 1)
    assert found.shared.num_items == 4
    assert found.only_second == ("q04", "q05")


def test_another_arm_and_unknown_ones(tmp_path: Path) -> None:
    records = [record(0, True), record(0, False, arm="blind"), record(1, True, arm="blind")]
    folder = written(tmp_path / "a", records)
    assert compare(folder, folder, arm="blind").first.num_items == 2
    with pytest.raises(ConfigError, match=r"expected one of \['blind', 'model'\]"):
        compare(folder, folder, arm="random")


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    folders = written(tmp_path / "a", [record(0, True)]), written(tmp_path / "b", [record(1, True)])
    with pytest.raises(ConfigError, match="none of them in common"):
        compare(*folders)
    with pytest.raises(ConfigError, match="manifest"):
        compare(folders[0], tmp_path)


def test_the_command_prints_both_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = [record(number, number < 3, score=0.6 if number < 3 else 0.1) for number in range(4)]
    second = [record(number, number < 2, prompt_hash="q") for number in range(4)]
    folders = [str(written(tmp_path / "a", first)), str(written(tmp_path / "b", second, template="upstream"))]
    with pytest.raises(SystemExit, match="0"):
        main(["compare", *folders, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["shared"]["num_items"] == 4
    assert told["causes"] == {"prompt": 1}
    assert told["flips"][0]["id"] == "q02"
    assert [one["field"] for one in told["differences"]] == ["template"]
    with pytest.raises(SystemExit, match="0"):
        main(["compare", *folders])
    text = capsys.readouterr().out
    assert "settings that differ" in text and "template" in text
    assert "q02: right in the first (prompt)" in text
    assert "McNemar" in text and "not different" in text
