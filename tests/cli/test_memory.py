"""`longtake ingest`, `longtake memory`, and `longtake ask` of a file: as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from longtake.cli.main import main
from longtake.cli.models import model_options

MANY = ("--compress", "tome", "--set", "compress.tokens_per_frame=16")  # the bundled model's own is one a frame


@pytest.fixture
def stored(call, film: Path, tmp_path: Path) -> Path:
    found, code = call("ingest", str(film), "-o", str(tmp_path), "--max-frames", "16", *MANY)
    assert code == 0
    return Path(found["memories"][0]["path"])


def test_ask_answers_from_a_file_without_the_film(call, film: Path, stored: Path):
    cold, _ = call("ask", str(film), "What happens?", "--max-frames", "16", "--max-new-tokens", "3", *MANY)
    warm, code = call("ask", str(stored), "What happens?", "--max-new-tokens", "3", *MANY)
    assert code == 0
    assert (warm["answer"], warm["evidence"]) == (cold["answer"], cold["evidence"])
    assert {"decode", "vision"} <= set(cold["ledger"]["stages"])
    assert {"load", "recall", "prefill", "evidence", "decode_text"} == set(warm["ledger"]["stages"])


def test_tokens_per_frame_reach_the_language_model(call, stored: Path):
    read = []
    for wanted in ("16", "4", "1", "0.25"):
        answer, _ = call("ask", str(stored), "What?", "--max-new-tokens", "1", "--tokens-per-frame", wanted, *MANY)
        read.append(answer["ledger"]["stages"]["prefill"]["tokens"])
    assert [read[0] - tokens for tokens in read] == [0, 12 * 16, 15 * 16, 252]


def test_verify_asks_again_without_the_evidence(call, film: Path, tmp_path: Path):
    found, _ = call("ingest", str(film), "-o", str(tmp_path), "--max-frames", "64")
    answer, code = call("ask", found["memories"][0]["path"], "What?", "--max-new-tokens", "2", "--verify")
    assert code == 0
    check = answer["verify"]
    assert check["answer"] == answer["answer"]
    assert check["holds"] == (check["changes_without_cited"] and not check["changes_without_others"])
    strongest, removed = answer["evidence"][0], check["removed_cited"]
    assert any(span["start_s"] <= strongest["start_s"] <= span["end_s"] for span in removed)


def test_pictures_of_the_evidence_come_from_the_memory(call, stored: Path, film: Path, tmp_path: Path):
    pictures = str(tmp_path / "pictures")
    answer, code = call("ask", str(stored), "What?", "--max-new-tokens", "1", "--pictures", pictures, *MANY)
    assert code == 0
    assert len(answer["pictures"]) == len(answer["evidence"])
    for name, span in zip(answer["pictures"], answer["evidence"], strict=True):
        assert Path(name).name == f"{span['start_s']:.1f}-{span['end_s']:.1f}.jpg"
        assert Path(name).read_bytes().startswith(b"\xff\xd8")
    assert call("ask", str(film), "What?", "--pictures", str(tmp_path))[1] == 2
    assert call("ask", str(stored), str(film), "What?", "--verify")[1] == 2


def test_info_says_what_is_there_and_verify_that_it_is_whole(call, stored: Path, film: Path):
    found, code = call("memory", "info", str(stored.parent))
    row = found["memories"][0]
    assert code == 0
    assert (row["source"], row["num_frames"], row["tokens"], row["store"]) == (str(film), 16, 256, "float32")
    assert row["is_complete"] and row["bytes"] == stored.stat().st_size and row["relative_error"] == 0
    assert row["key"][:12] in stored.name
    assert call("memory", "verify", str(stored))[1] == 0


def test_watch_remembers_a_film_until_it_does_not_grow_any_more(call, film: Path, tmp_path: Path):
    found, code = call("watch", str(film), "-o", str(tmp_path / "live.ltm"), "--quiet", "0.1", "--fps", "2")
    row = found["memories"][0]
    assert (code, row["num_frames"], row["is_complete"]) == (0, 48, True)
    assert call("watch", str(film), "-o", str(tmp_path / "live.txt"))[1] == 2


QC = ("--select", "qc-comp", "--frames-kept", "8", "--set", "select.window=2", "--set", "select.stride=1")


def test_keys_are_kept_beside_a_memory_told_verified_and_removed(call, stored: Path):
    keys = stored.with_name(f"{stored.stem}.keys.ltk")
    plain, _ = call("ask", str(stored), "What?", "--max-new-tokens", "2", *MANY, *QC)
    kept, code = call("ask", str(stored), "What?", "--max-new-tokens", "2", "--keep-keys", *MANY, *QC)
    assert code == 0 and keys.exists()
    found, _ = call("ask", str(stored), "What?", "--max-new-tokens", "2", *MANY, *QC)
    for answer in (kept, found):
        assert (answer["answer"], answer["evidence"]) == (plain["answer"], plain["evidence"])
    row = call("memory", "info", str(stored))[0]["memories"][0]["keys"]
    assert (row["path"], row["bytes"], row["is_current"]) == (str(keys), keys.stat().st_size, True)
    whole = keys.read_bytes()
    keys.write_bytes(whole[: len(whole) // 2] + b"x" + whole[len(whole) // 2 + 1 :])
    assert call("memory", "verify", str(stored))[1] == 7
    assert call("memory", "prune", str(stored), "--keys", "none")[1] == 0
    assert not keys.exists() and stored.exists() and call("memory", "verify", str(stored))[1] == 0


def test_ingest_keeps_keys_where_it_is_asked_to_and_prune_takes_them_away(call, film: Path, tmp_path: Path):
    found, code = call("ingest", str(film), "-o", str(tmp_path), "--max-frames", "16", "--keys")
    path = Path(found["memories"][0]["path"])
    assert code == 0 and path.with_name(f"{path.stem}.keys.ltk").exists()
    answer, _ = call("ask", str(path), "What?", "--max-new-tokens", "1", "--select", "qc-comp", "--frames-kept", "8")
    assert not any("read anew" in note for note in answer["ledger"]["notes"])
    assert call("memory", "prune", str(path), "--store", "int8")[1] == 0
    assert not list(tmp_path.glob("*.ltk"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["ask", "film.ltm", "What?", "--keep-keys"], "and no --select"),
        (["ask", "film.mp4", "What?", "--keep-keys", *QC], "expected one memory"),
        (["memory", "info", "x.ltm", "--keys", "none"], "use prune"),
        (["memory", "prune", "x.ltm", "--keys", "all"], "expected none"),
        (["ingest", "a.mp4", "--keys", "--ray"], "--keys arrived with --ray"),
    ],
)
def test_wishes_for_keys_that_make_no_sense_are_refused(call, arguments: list[str], message: str):
    found, code = call(*arguments)
    assert code == 2 and message in found["error"]["message"]


def test_a_camera_that_is_not_there_is_said_to_be(call, tmp_path: Path):
    found, code = call("watch", "camera:/dev/video987", "-o", str(tmp_path / "live.ltm"))
    assert code == 3 and "camera:/dev/video987 cannot be recorded" in found["error"]["message"]


def test_a_damaged_memory_ends_with_its_own_code(call, stored: Path):
    broken = bytearray(stored.read_bytes())
    broken[len(broken) // 2] ^= 1
    stored.write_bytes(broken)
    for arguments in (["memory", "verify", str(stored)], ["ask", str(stored), "What?"]):
        found, code = call(*arguments)
        assert (found["error"]["type"], code) == ("MemoryFormatError", 7)


def test_prune_makes_it_smaller(call, stored: Path):
    found, code = call("memory", "prune", str(stored), "--tokens-per-frame", "1", "--store", "int8")
    row = found["memories"][0]
    assert (code, row["tokens_per_frame"], row["store"]) == (0, 1.0, "int8")
    assert not stored.exists() and Path(row["path"]).exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["memory", "inf", "x.ltm"], "did you mean 'info'"),
        (["memory", "info", "x.ltm", "--store", "int8"], "use prune"),
        (["ingest", "a.mp4", "b.mp4", "-o", "film.ltm"], "2 videos arrived for one file"),
        (["ingest", "a.mp4", "--store", "int3"], "did you mean 'int8'"),
    ],
)
def test_wrong_wishes_are_refused_before_any_work(call, arguments: list[str], message: str):
    found, code = call(*arguments)
    assert code == 2
    assert message in found["error"]["message"]


def test_an_empty_folder_is_said_to_hold_no_memory(call, tmp_path: Path):
    found, code = call("memory", "info", str(tmp_path))
    assert code == 7 and "holds no memory" in found["error"]["message"]


def test_a_broken_video_does_not_keep_the_others_from_being_remembered(call, film: Path, tmp_path: Path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film")
    found, code = call("ingest", str(broken), str(film), "-o", str(tmp_path / "out"), "--max-frames", "16")
    assert code == 3
    assert [row["source"] for row in found["memories"]] == [str(film)]
    assert [row["type"] for row in found["failed"]] == ["VideoError"]


def test_for_people_the_commands_say_where_and_how_much(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments in (
        ["ingest", str(film), "-o", str(tmp_path), "--max-frames", "16"],
        ["memory", "info", str(tmp_path)],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
    shown = capsys.readouterr().out
    assert "16 frames, 16 tokens, 0.0" in shown
    assert "16 of width 192, 1 a frame, 16 frames" in shown


def test_the_options_that_chose_a_model_are_written_as_typed():
    model = {
        "name": "my models/2b",
        "recipe": None,
        "preset": None,
        "compress": "tome",
        "dtype": "bfloat16",
        "settings": ["compress.tokens_per_frame=4", "reduce.kind=uniform"],
        "untuned": True,
    }
    assert model_options(model) == (
        "--model 'my models/2b' --compress tome --dtype bfloat16 --set compress.tokens_per_frame=4 --untuned"
    )
