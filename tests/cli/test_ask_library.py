"""`longtake ask FOLDER`: as it is typed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from longtake.cli.main import main


def test_a_folder_of_memories_is_a_library(call, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy, folder = tmp_path / "again" / film.name, str(tmp_path / "memories")
    copy.parent.mkdir()
    shutil.copy(film, copy)
    for path, frames in ((film, "16"), (copy, "8")):
        assert call("ingest", str(path), "-o", folder, "--max-frames", frames)[1] == 0
    found, code = call("ask", folder, "What happens?", "--max-new-tokens", "3")
    assert code == 0
    assert len(found["read"]) == 1 and found["read"][0].startswith(folder)
    alone, _ = call("ask", found["read"][0], "What happens?", "--max-new-tokens", "3")
    assert found["answer"] == alone["answer"]
    assert [span | {"medium": 1} for span in alone["evidence"]] == found["evidence"]
    assert found["found"][0]["memory"] == found["read"][0]
    assert {"find", "recall"} <= set(found["ledger"]["stages"])
    both, _ = call("ask", folder, "What happens?", "--max-new-tokens", "3", "--videos", "2")
    assert len(both["read"]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["ask", folder, "What happens?", "--max-new-tokens", "3"])
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert found["read"][0] in said.out and "likeness" in said.err


@pytest.mark.parametrize("wish", [["--verify"], ["--pictures", "here"], ["--start", "2"]])
def test_wishes_about_one_video_are_refused(call, film: Path, tmp_path: Path, wish: list[str]):
    call("ingest", str(film), "-o", str(tmp_path), "--max-frames", "8")
    found, code = call("ask", str(tmp_path), "What happens?", *wish)
    assert code == 2 and "folder of memories" in found["error"]["message"]
