"""docs/results.md and docs/results.html are what docs/results/*.jsonl give; no figure is typed; nothing is fetched."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS, RECIPES = ROOT / "docs", ROOT / "recipes"
PICTURES = sorted((DOCS / "pictures").glob("results_*.png"))


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module("write_results")


def test_the_page_is_what_the_measurements_give(writer: ModuleType) -> None:
    blocks = writer.page(DOCS, is_drawn=False)
    assert (DOCS / "results.md").read_text("utf-8") == writer.to_markdown(blocks, DOCS)
    assert (DOCS / "results.html").read_text("utf-8") == writer.to_html(blocks, writer.TITLE)


def test_the_pictures_are_of_these_measurements(writer: ModuleType) -> None:
    from longtake.eval.result import text_hash

    stamped = importlib.import_module("results_figures").stamped
    sources = {"methods": ["methods"], "needles": ["needles", "needles-pvc", "needles-static"]}
    stamps = {
        name: text_hash("".join((DOCS / "results" / f"{own}.jsonl").read_text("utf-8") for own in files))
        for name, files in sources.items()
    }
    assert len(PICTURES) == 4
    for path in PICTURES:
        assert stamped(path) == stamps["needles" if "needles" in path.stem else "methods"], path.name


def test_a_control_reads_as_many_tokens_as_its_method(writer: ModuleType) -> None:
    for name in ("methods", "needles"):
        part = writer.read_part(DOCS / "results" / f"{name}.jsonl")
        compared = [(frames, arm) for frames, arm in part.cells if writer.ARMS[arm].control is not None]
        assert compared
        for frames, arm in compared:
            cell, control = part.cells[frames, arm], part.cells[frames, writer.ARMS[arm].control]
            assert cell.tokens_per_frame() == control.tokens_per_frame(), (frames, arm)


def test_needles_go_up_to_ten_thousand_frames(writer: ModuleType) -> None:
    parts = [writer.read_part(DOCS / "results" / f"{name}.jsonl") for name in ("needles", "needles-pvc")]
    for part, names in zip(parts, (set(writer.SYSTEMS), {writer.PVC.name}), strict=True):
        assert part.lengths[-1] == 10_000 and names <= set(part.of(10_000))


@pytest.mark.parametrize("name", ["write_results.py", "results_page.py"])
def test_no_figure_is_typed(name: str) -> None:
    """Texts of the page hold no digit: whatever is a figure comes from the measurements."""
    tree = ast.parse((RECIPES / name).read_text("utf-8"))
    left_out: set[int] = set()  # docstrings, how numbers are written, and the style of the HTML file
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            left_out |= {id(part) for part in ast.walk(node.format_spec)}
        if isinstance(node, ast.Expr) or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TEMPLATE"):
            left_out.add(id(node.value))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in left_out]
    words = re.compile(r"\\\d|base64|mp4|utf-8")
    assert [text for text in texts if isinstance(text, str) and re.search(r"\d", words.sub("", text))] == []


def test_the_file_asks_nobody_for_anything() -> None:
    text = (DOCS / "results.html").read_text("utf-8")
    assert not re.findall(r"https?:|url\(|@import|<link|<iframe|fetch\(|XMLHttp", text)
    sources = re.findall(r'\ssrc="([^"]{0,30})', text)
    assert len(sources) == len(PICTURES) and all(source.startswith("data:image/png;base64,") for source in sources)
    assert text.count("<img alt=") == len(sources) and 'lang="en"' in text


def test_other_measurements_give_other_findings(writer: ModuleType, tmp_path: Path) -> None:
    """Swap a method with its control: what was better is worse."""
    text = (DOCS / "results" / "methods.jsonl").read_text("utf-8")
    (tmp_path / "methods.jsonl").write_text(
        text.replace('"arm": "plain resize (1)"', '"arm": "?"')
        .replace('"arm": "random patches (1)"', '"arm": "plain resize (1)"')
        .replace('"arm": "?"', '"arm": "random patches (1)"'),
        "utf-8",
    )
    before = writer.read_part(DOCS / "results" / "methods.jsonl")
    after = writer.read_part(tmp_path / "methods.jsonl")
    shortest = before.lengths[0]
    resized, random = ((shortest, name) for name in ("plain resize (1)", "random patches (1)"))
    lead = [part.cells[resized].against(part.cells[random]).difference for part in (before, after)]
    assert lead[1] == -lead[0] != 0
    assert writer.verdicts(after, shortest) != writer.verdicts(before, shortest)


def test_both_files_have_to_be_of_one_model(writer: ModuleType, tmp_path: Path) -> None:
    from longtake.core.errors import ConfigError

    (tmp_path / "results").mkdir()
    for name in ("methods", "needles", "needles-pvc", "needles-static"):
        lines = (DOCS / "results" / f"{name}.jsonl").read_text("utf-8").splitlines()[:3]
        text = "\n".join(lines).replace('"model": "', f'"model": "{name}')
        (tmp_path / "results" / f"{name}.jsonl").write_text(text + "\n", "utf-8")
    with pytest.raises(ConfigError, match="different models"):
        writer.page(tmp_path, is_drawn=False)
