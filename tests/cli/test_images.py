"""Pictures on the command line: several before one question, and files that are not what they seem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake.cli.main import main
from longtake.convert.load import save
from longtake.media.synthetic import draw_clock
from longtake.models.tiny import tiny_model
from longtake.models.tiny_pvc import tiny_pvc

QUESTION = "What is it?"
CHECKPOINTS = {"flash": tiny_model, "pvc": tiny_pvc}


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that writes a tiny checkpoint of a family once and returns its folder."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(family: str) -> str:
        if not (root / family).exists():
            save(CHECKPOINTS[family](), root / family)
        return str(root / family)

    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / name) for name in ("a.png", "b.jpg")]
    for number, path in enumerate(paths):
        Image.fromarray(draw_clock(number, 120, 200)).save(path)
    return paths


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    """Return a function that runs `ask` with the answer short, and returns exit code, standard output and error."""

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["ask", *arguments, "--max-new-tokens", "4", "--max-frames", "16"])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def error_of(out: str) -> dict[str, Any]:
    return json.loads(out)["error"]


@pytest.mark.parametrize("family", list(CHECKPOINTS))
@pytest.mark.parametrize("question", [QUESTION, "Is <image> like <image>, and <image>?"])
def test_pictures_and_a_film_before_one_question(
    family: str, question: str, call, checkpoint, pictures: list[str], film: Path
):
    code, out, _ = call(*pictures, str(film), question, "--model", checkpoint(family), "--json")
    answer = json.loads(out)
    assert (code, answer["finish_reason"]) == (0, "length")
    assert {span["medium"] for span in answer["evidence"]} <= {1, 2, 3}


@pytest.mark.parametrize("family", list(CHECKPOINTS))
def test_one_picture_is_answered_without_a_word_on_its_time(family: str, call, checkpoint, pictures: list[str]):
    code, out, _ = call(pictures[0], QUESTION, "--model", checkpoint(family))
    assert code == 0
    assert "of the attention" not in out
    code, out, _ = call(pictures[0], QUESTION, "--model", checkpoint(family), "--json")
    assert code == 0
    assert "medium" not in json.loads(out)["evidence"][0]


def test_people_are_told_the_file_that_an_answer_rests_on(call, checkpoint, pictures: list[str]):
    _, out, _ = call(*pictures, QUESTION, "--model", checkpoint("pvc"))
    assert any(f"  {path}  " in out for path in pictures)


@pytest.mark.parametrize("question", ["Is <image> here?", "<image> <image> <image>?"])
def test_placeholders_and_files_that_differ_in_number_are_both_named(question: str, call, pictures: list[str]):
    code, out, _ = call(*pictures, question, "--json", "--model", "there/is-no-such-model")
    message = error_of(out)["message"]
    assert (code, error_of(out)["type"]) == (5, "PromptError")
    assert f"{question.count('<image>')} placeholders <image> for 2 pictures and videos" in message


def test_tiles_beyond_the_context_say_how_many_fit_and_the_option_to_pass(call, checkpoint, tmp_path: Path):
    folder = Path(checkpoint("pvc"))
    small = tmp_path / "small"
    small.mkdir()
    for file in folder.iterdir():
        (small / file.name).write_bytes(file.read_bytes())
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"tokenizer_model_max_length": 300}))
    picture = tmp_path / "large.png"
    Image.fromarray(np.zeros((300, 200, 3), np.uint8)).save(picture)
    code, out, _ = call(str(picture), QUESTION, "--model", str(small), "--json")
    message = error_of(out)["message"]
    assert code == 5 and "becomes 7 tiles of 16 tokens, and " in message and "pass max_tiles " in message
    limit = message.rsplit(" ", 1)[1]
    assert call(str(picture), QUESTION, "--model", str(small), "--max-tiles", limit)[0] == 0


@pytest.mark.parametrize("family", list(CHECKPOINTS))
@pytest.mark.parametrize(
    ("name", "image", "given"),
    [
        ("pixel.png", Image.new("RGB", (1, 1)), {}),
        ("strip.png", Image.new("RGB", (30_000, 20)), {}),
        ("print.jpg", Image.new("CMYK", (64, 48)), {}),
        ("deep.png", Image.fromarray(np.full((48, 64), 40_000, np.uint16)), {}),
        (
            "moving.webp",
            Image.new("RGB", (64, 48)),
            {"save_all": True, "append_images": [Image.new("RGB", (64, 48), "red")]},
        ),
        ("turned.jpg", Image.new("RGB", (64, 48)), {"exif": turned(6)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_pictures_are_answered(
    family: str, name: str, image: Image.Image, given: dict, call, checkpoint, tmp_path: Path
):
    image.save(tmp_path / name, **given)
    code, out, err = call(str(tmp_path / name), QUESTION, "--model", checkpoint(family), "--json")
    assert code == 0, err
    assert any("holds 2 pictures" in note for note in json.loads(out)["ledger"]["notes"]) == (name == "moving.webp")


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.webp"])
def test_a_picture_cut_short_is_a_video_error(name: str, call, tmp_path: Path):
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, out, _ = call(str(path), QUESTION, "--json")
    assert (code, error_of(out)["type"]) == (3, "VideoError")
    assert name in error_of(out)["message"] and "expected" in error_of(out)["message"]


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_of_no_tiles_is_refused(limit: str, call, pictures: list[str]):
    code, out, _ = call(pictures[0], QUESTION, "--max-tiles", limit, "--json")
    assert (code, error_of(out)["type"]) == (4, "BudgetError")
