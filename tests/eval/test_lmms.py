"""The bridge to lmms-eval: its requests are answered as our runner answers; with it installed, it runs end to end."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from longtake.core.budget import Budget
from longtake.core.errors import ConfigError
from longtake.eval.lmms import (
    RANDOM_TINY,
    Answerer,
    Request,
    doc_to_text,
    doc_to_visual,
    export_task,
    load_model,
    mean_of_right,
    process_results,
    writing,
)
from longtake.eval.reader import Reader
from longtake.eval.task import Task, build
from longtake.media.synthetic import write_clock_video
from longtake.models.loaded import LoadedModel

ROOT = Path(__file__).parents[2]
FRAMES = 16
ROWS = [
    ("a.mp4", "What is shown first?", "(A) A square", 0.0, 4.0),
    ("b.mp4", "What moves?", "(B) A ring", None, None),
    ("a.mp4", "What is shown last?", "(C) A cross", 0.0, 4.0),
]
NEEDS_LMMS = pytest.mark.skipif(
    importlib.util.find_spec("lmms_eval") is None,
    reason="lmms-eval is not installed; docs/benchmarks.md says how",
)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(RANDOM_TINY, device="cpu")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A slice of MVBench's schema over two videos that are there."""
    folder = tmp_path_factory.mktemp("mvbench")
    (folder / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_clock_video(folder / "videos" / name, 6.0, fps=4, size=(64, 96))
    candidates = ["A square", "A ring", "A cross"]
    rows = []
    for video, question, answer, start, end in ROWS:
        part = {} if start is None else {"start": start, "end": end}
        rows.append({"video": video, "question": question, "candidates": candidates, "answer": answer[4:], **part})
    (folder / "action_sequence.json").write_text(json.dumps(rows))
    return build("mvbench", {"data": str(folder)})


def our_replies(task: Task, model: LoadedModel) -> list[str]:
    """Return what our runner's reader says."""
    reader = Reader(model, Budget(max_frames=FRAMES))
    replies = []
    for item in task.items():
        assert isinstance(item.media, Path)
        memory = reader.see(item.media, item.start_s, item.end_s)
        replies.append(reader.ask(memory, item, task).text)
    return replies


def requests_of(task: Task, folder: Path) -> list[Request]:
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    settings = {"max_new_tokens": task.max_new_tokens, "temperature": 0, "do_sample": False, "until": []}
    return [Request(doc_to_text(row), doc_to_visual(row), settings, "t", number) for number, row in enumerate(rows)]


def test_exported_items_have_the_same_replies_and_scores(task: Task, model: LoadedModel, tmp_path: Path) -> None:
    folder = export_task(task, tmp_path / "out")
    log = tmp_path / "evidence.jsonl"
    replies = Answerer(model, max_frames=FRAMES, log=log).answer_all(requests_of(task, folder))
    expected = our_replies(task, model)
    assert replies == [reply.strip() for reply in expected]
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    scores = [process_results(row, [reply])["accuracy"] for row, reply in zip(rows, replies, strict=True)]
    ours = [float(task.score(reply, item).right) for reply, item in zip(expected, task.items(), strict=True)]
    assert scores == ours
    right = [process_results(row, [f"({row['answer']})"])["accuracy"] for row in rows]
    assert mean_of_right(right) == 1.0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == [0, 2, 1]  # a video's questions one after the other
    assert all(line["evidence"] for line in lines)


def test_a_video_is_decoded_once_for_all_its_questions(
    task: Task, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import longtake.engine.ingest as ingesting

    calls: list[object] = []
    original = ingesting.ingest
    monkeypatch.setattr(
        ingesting, "ingest", lambda *given, **named: calls.append(given[0]) or original(*given, **named)
    )
    requests = requests_of(task, export_task(task, tmp_path))
    Answerer(model, max_frames=FRAMES).answer_all(requests)
    assert len(requests) == 3 and len(calls) == 2


def test_a_picture_is_answered_as_its_file_is(model: LoadedModel) -> None:
    from longtake.engine.ask import ask

    picture = Image.effect_mandelbrot((96, 64), (-2, -1, 1, 1), 20).convert("RGB")
    file = io.BytesIO()
    picture.save(file, format="PNG")
    request = Request("What is it?", [picture], {"max_new_tokens": 8, "temperature": 0}, "t", 0)
    expected = ask(file.getvalue(), "What is it?", model, Budget(max_frames=FRAMES, max_new_tokens=8)).text
    assert Answerer(model, max_frames=FRAMES).answer(request) == expected.strip()


def test_what_cannot_be_shown_is_refused(model: LoadedModel) -> None:
    answerer = Answerer(model)
    with pytest.raises(ConfigError, match="shows nothing"):
        answerer.answer(Request("Why?", [], {}, "t", 7))
    with pytest.raises(ConfigError, match="one video alone"):
        answerer.answer(Request("Why?", ["a.mp4", "b.mp4"], {}, "t", 7))


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, (1024, 0.0, None)),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}, (16, 0.0, None)),
        ({"temperature": 0.7}, (1024, 0.7, 0)),
        ({"temperature": 0.7, "do_sample": False, "top_p": 0.5}, (1024, 0.0, None)),
    ],
)
def test_generation_settings(settings: dict[str, object], expected: tuple[int, float, int | None]) -> None:
    how = writing(settings)
    assert (how.max_new_tokens, how.temperature, how.seed) == expected


def test_an_answer_ends_where_it_should() -> None:
    assert writing({"until": ["\n\n", "."]}).cut(" B\n\nC. D") == "B"
    assert writing({"until": "."}).cut("B. C") == "B"


@pytest.mark.parametrize("settings", [{"num_beams": 5}, {"temperature": 1.0, "top_p": 0.9}])
def test_beams_and_nuclei_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--gen_kwargs"):
        writing(settings)


def test_drawn_videos_are_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longtake eval"):
        export_task(build("filmstrip-n1", {"films": 1}), tmp_path, limit=1)


def test_the_entry_point_is_light_and_names_a_class_that_is_there() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    assert table == {"longtake": "longtake.eval.lmms:manifests"}
    code = "import sys, longtake.eval.lmms; assert not {'torch', 'transformers', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    source = (ROOT / "src" / "longtake" / "eval" / "lmms_model.py").read_text()
    assert "class Longtake(lmms)" in source


@NEEDS_LMMS
@pytest.mark.timeout(900)
def test_lmms_eval_runs_our_model_to_the_same_score(task: Task, model: LoadedModel, tmp_path: Path) -> None:
    """`python -m lmms_eval --model longtake` finds the model by the entry point and scores as our runner does."""
    folder = export_task(task, tmp_path / "tasks")
    known = tmp_path / "site" / "longtake_entry-0.dist-info"  # what installing the package would leave
    known.mkdir(parents=True)
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: longtake-entry\nVersion: 0\n")
    (known / "entry_points.txt").write_text("[lmms_eval.models]\nlongtake = longtake.eval.lmms:manifests\n")
    arguments = [
        *("--model", "longtake", "--model_args", f"pretrained={RANDOM_TINY},max_frames={FRAMES}"),
        *("--tasks", "longtake_mvbench", "--include_path", str(folder), "--batch_size", "1", "--device", "cpu"),
        *("--log_samples", "--output_path", str(tmp_path / "results")),
    ]
    paths = os.pathsep.join([str(ROOT / "src"), str(known.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    told = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "lmms_eval", *arguments], env=os.environ | told, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (samples,) = (tmp_path / "results").rglob("*_samples_longtake_mvbench.jsonl")
    lines = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda line: line["doc_id"])
    expected = our_replies(task, model)
    assert [line["accuracy"] for line in lines] == [
        float(task.score(reply, item).right) for reply, item in zip(expected, task.items(), strict=True)
    ]
    replies = [line["filtered_resps"] for line in lines]  # lmms-eval writes the only reply of a list by itself
    assert [str(reply if isinstance(reply, str) else reply[0]).strip() for reply in replies] == [
        reply.strip() for reply in expected
    ]
    assert importlib.metadata.version("lmms_eval").startswith("0.7")
