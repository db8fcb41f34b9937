"""Lists of records: strategies, two formats, and lines that are no record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longtake.core.errors import ConfigError, TrainingError
from longtake.data.annotations import MODALITIES, DataSet, chosen_rows, read_annotations
from longtake.data.failures import Failures


def record(number: int, **media: object) -> dict:
    turns = [{"from": "human", "value": f"question {number}"}, {"from": "gpt", "value": "one two"}]
    return {**media, "conversations": turns}


@pytest.mark.parametrize(
    ("strategy", "count", "expected"),
    [
        ("all", 4, [0, 1, 2, 3]),
        ("first:2", 5, [0, 1]),
        ("end:2", 5, [3, 4]),
        ("first:25%", 10, [0, 1, 2]),  # 2.5 rounded up
        ("first:10%", 10, [0]),
        ("end:50%", 5, [2, 3, 4]),
        ("first2:2", 5, [2, 3]),
        ("first3:2", 5, [4]),
        ("first2:10%", 30, [3, 4, 5]),
        ("first2:2.5%", 100, [3, 4, 5]),
        ("first4:2", 5, []),
        ("first:9", 3, [0, 1, 2]),
        ("end:9", 3, [0, 1, 2]),
    ],
)
def test_a_strategy_takes_these_rows(strategy: str, count: int, expected: list[int]) -> None:
    assert chosen_rows(strategy, count, seed=0) == expected


def test_a_random_choice_depends_on_the_seed_alone() -> None:
    found = chosen_rows("random:10", 100, seed=1)
    assert found == chosen_rows("random:10", 100, seed=1) != chosen_rows("random:10", 100, seed=2)
    assert len(set(found)) == 10 and found == sorted(found)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [("frist:3", "'first'"), ("first", "NAME:n"), ("first:-3", "NAME:n"), ("first5:2", "first"), ("last:2", "known")],
)
def test_an_unknown_strategy_is_refused(strategy: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataSet(json_path="a.json", sampling_strategy=strategy)


def test_a_yaml_joins_lists_of_both_formats(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.mp4").touch()
    (tmp_path / "a.json").write_text(json.dumps([record(n, video="a.mp4") for n in range(4)]))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(record(n)) for n in range(3)))
    (tmp_path / "list.yaml").write_text(
        "datasets:\n- json_path: a.json\n  data_root: media\n  sampling_strategy: end:50%\n- json_path: b.jsonl\n"
    )
    found = read_annotations(tmp_path / "list.yaml", Failures(0))
    names = ["a.json:3", "a.json:4", "b.jsonl:1", "b.jsonl:2", "b.jsonl:3"]
    assert [found.name(i) for i in range(len(found))] == [f"{tmp_path}/{name}" for name in names]
    assert [MODALITIES[kind] for kind in found.modality] == ["video"] * 2 + ["text"] * 3
    assert found.words.tolist() == [4] * 5
    content, root, modality = found.record(1)
    assert (content, root, modality) == (record(3, video="a.mp4"), tmp_path / "media", "video")
    assert found.record(4)[0] == record(2)


def test_broken_lines_are_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [json.dumps(record(0)).encode(), b"{broken", b"", b"[1, 2]", b'{"conversations": 3}', b"\xff\xfe", b"{"]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*lines, json.dumps(record(1)).encode()]))
    failures = Failures(5)
    found = read_annotations(tmp_path / "a.jsonl", failures)
    assert [found.name(i) for i in range(len(found))] == [f"{tmp_path}/a.jsonl:{line}" for line in (1, 8)]
    assert found.record(1)[0] == record(1)
    assert failures.counts() == {"bad_json": 3, "bad_record": 2}
    assert [text.split(" is left out")[0] for text in caplog.messages] == [
        f"{tmp_path}/a.jsonl:{line}" for line in (2, 4)
    ]
    with pytest.raises(TrainingError, match=r"5 samples are broken.*bad_json 3.*max_failures"):
        read_annotations(tmp_path / "a.jsonl", Failures(4))


def test_each_set_is_shuffled_then_sliced_then_thinned(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([record(n) for n in range(400)]))
    (tmp_path / "list.yaml").write_text("datasets:\n- json_path: a.json\n  sampling_strategy: first2:10%\n")
    given = {"set_seed": 12345, "keep_share": 0.25}
    found, again = (read_annotations(tmp_path / "list.yaml", Failures(0), **given) for _ in range(2))
    assert len(found) == 10 and found.fingerprint == again.fingerprint
    whole = read_annotations(tmp_path / "list.yaml", Failures(0), set_seed=12345)
    assert set(found.row_of.tolist()) < set(whole.row_of.tolist())
    assert sorted(whole.row_of.tolist()) != list(range(40, 80)) and len(whole) == 40
    assert whole.fingerprint != found.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: 3", "list `datasets`"),
        ("datasets:\n- jsn_path: a", "json_path"),
        ("datasets:\n- json_path: a.json\n  data_rot: b", "'data_root'"),
        ("datasets:\n- json_path: nowhere.json", "nowhere.json cannot be read"),
        ("datasets:\n- json_path: a.json\n  media_type: vidoe", "'video'"),
        ("datasets:\n- json_path: a.json\n  sampling_strategy: first:0", "no record"),
        ("datasets:\n- json_path: lost.json", "none of the first 3 media files"),
        ("datasets: [", "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps([record(0)]))
    (tmp_path / "lost.json").write_text(json.dumps([record(n, video=f"{n}.mp4") for n in range(4)]))
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_annotations(tmp_path / "list.yaml", Failures(0))


def test_a_broken_sample_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(2)
    for _ in range(5):
        failures.add("a:1", "missing_media", "a.mp4 is not there")
    assert failures.counts() == {"missing_media": 1} and len(caplog.messages) == 1
    later = Failures(2)
    later.restore(failures.to_dict())
    later.add("a:1", "missing_media", "a.mp4 is not there")
    later.add("a:2", "too_long", "9 tokens")
    assert later.counts() == {"missing_media": 1, "too_long": 1}
    with pytest.raises(TrainingError, match="3 samples are broken"):
        later.add("a:3", "too_long", "9 tokens")
