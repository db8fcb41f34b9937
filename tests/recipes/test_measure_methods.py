"""Arms and their controls, films seen once, runs that go on; sums of cells by hand."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from longtake.core.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch):
    """Return a function that imports a script of the folder `recipes`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def classes(methods: Any) -> set[str]:
    return {type(method).__name__ for method in methods if method is not None}


def test_every_registered_method_has_an_arm(recipe) -> None:
    from longtake.core.registry import Kind, methods

    arms = recipe("measured_arms")
    used: dict[Kind, set[str]] = {
        "compress": classes(arm.compress(0) for arm in arms.ARMS.values()),
        "reduce": classes(arm.reduce for arm in arms.ARMS.values()),
        "select": classes(arms.SELECTORS[arm.select] for arm in arms.ARMS.values() if arm.select in arms.SELECTORS),
    }
    for kind, names in used.items():
        ours = {cls.__name__ for cls in methods(kind).values() if cls.__module__.startswith("longtake.")}
        assert ours <= names, kind


def test_every_method_has_a_control_wherever_it_is_measured(recipe) -> None:
    arms = recipe("measured_arms")
    own = {arm.control for arm in arms.OWN_ARMS.values()}
    assert own - {None} == {arms.STATIC.name, arms.PVC_RANDOM.name} and not set(arms.ARMS) & set(arms.OWN_ARMS)
    without = {name for name, arm in arms.ARMS.items() if arm.control is None and not name.startswith("random ")}
    assert without == {"all patches (64)", "black film"}
    for names in (arms.ARMS, arms.LONG, arms.NEEDLE_ARMS):
        assert {arms.ARMS[name].control for name in names} - {None} <= set(names)
        assert len(set(names)) == len(names)


def film_of(recipe, frames: int = 16):
    return recipe("filmstrip_films").drawn_film("L0", 20_000_000, ("N1", "NH"), frames)


@pytest.mark.parametrize("name", ["ToMe (4)", "pool (1)", "random patches (4)"])
def test_a_film_seen_once_is_remembered_as_ingest_would(recipe, tmp_path: Path, name: str) -> None:
    import longtake
    from longtake.eval.reader import methods_set
    from longtake.media.filmstrip import write_film
    from longtake.media.sampling import SamplingRule
    from longtake.media.video import open_video
    from longtake.models.tiny import tiny_model

    model, film, method = tiny_model(), film_of(recipe), recipe("measured_arms").ARMS[name].compress
    path, rule = (
        write_film(film, tmp_path / "film.mp4"),
        SamplingRule(fps=film.spec.fps, frame_multiple=4, min_frames=4),
    )
    with methods_set(model, compressor=method(3)):
        expected = longtake.ingest(path, model, longtake.Budget(max_frames=16), rule=rule)
    with open_video(path) as video:
        patches = recipe("film_patches").FilmPatches(video, model, 16, film.spec.fps)
        found, seconds = patches.memory(method(3))
    assert torch.equal(found.tokens.features, expected.tokens.features)
    assert torch.equal(found.tokens.frame_weight, expected.tokens.frame_weight)
    assert torch.equal(found.tokens.clip_index, expected.tokens.clip_index)
    assert found.settings == expected.settings and seconds > 0 and patches.encode_s > 0


NAMES = ("ToMe (1)", "LP-Comp cosine", "QC-Comp local", "random frames, 1 token", "plain resize (1)", "black film")


def test_a_run_goes_on_where_it_was(recipe, tmp_path: Path) -> None:
    import longtake
    from longtake.models.tiny import bundled_tiny, tiny_model

    module, model, out = recipe("measure_methods"), longtake.load(bundled_tiny()), tmp_path / "methods.jsonl"
    cell = module.Cell(part="methods", level="L1", frames=64, films=1, questions=2, kept=16, arms=NAMES)
    module.measure(model, [cell], out, "as typed", tmp_path)
    first = out.read_text("utf-8")
    head, *rows = map(json.loads, first.splitlines())
    assert head["model"] == model.fingerprint and head["command"] == "as typed"
    assert [row["arm"] for row in rows] == list(NAMES)
    by_arm = {row["arm"]: row for row in rows}
    assert by_arm["ToMe (1)"]["tokens"] == [64] * 4
    assert by_arm["LP-Comp cosine"]["tokens"] == [256, 192, 64, 64]
    assert by_arm["QC-Comp local"]["tokens"] == [16] * 4 == by_arm["random frames, 1 token"]["tokens"]
    assert all(set(row["right"]) == {"N1", "NH pointer"} and len(row["right"]["N1"]) == 2 for row in rows)
    assert all(min(row["seconds"].values()) >= 0 and row["seconds"]["first"] > 0 for row in rows)

    lines = first.splitlines(keepends=True)
    out.write_text("".join(lines[:-1]) + lines[-1][:40], "utf-8")  # killed in the middle of a line
    module.measure(model, [cell], out, "as typed", tmp_path)
    again = [json.loads(text) for text in out.read_text("utf-8").splitlines()[1:]]
    assert [{**row, "seconds": 0, "load": 0} for row in again] == [{**row, "seconds": 0, "load": 0} for row in rows]
    assert out.read_text("utf-8").startswith("".join(lines[:-1]))
    with pytest.raises(ConfigError, match="another model"):
        module.measure(tiny_model(), [cell], out, "as typed")


def test_needles_stand_at_every_depth(recipe) -> None:
    module = recipe("measure_methods")
    cell = next(one for one in module.CELLS if one.part == "needles" and one.frames == 64)
    _, asked = module.film_and_questions(cell, 0)
    assert [one.row for one in asked] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    starts = [one.question.spans_s[0][0] for one in asked]
    assert starts == sorted(starts) and starts[0] == 0
    longest = max((one for one in module.CELLS if one.part == "needles"), key=lambda one: one.frames)
    assert longest.frames == 10_000


def test_a_checkpoint_of_its_own_is_asked_as_it_is(recipe, tmp_path: Path) -> None:
    import longtake
    from longtake.media.sampling import SamplingRule
    from longtake.models.tiny_pvc import random_pvc, tiny_pvc, tiny_pvc_config

    module, arms = recipe("measure_methods"), recipe("measured_arms")
    config = tiny_pvc_config(frame_labels=False)
    model = dataclasses.replace(tiny_pvc(), model=random_pvc(config), config=config)
    cell = next(one for one in module.CELLS if one.part == "pvc" and one.frames == 64)
    cell = dataclasses.replace(cell, films=1, questions=2, kept=16)
    out = tmp_path / "pvc.jsonl"
    module.measure(model, [cell], out, "as typed", tmp_path)
    _, *rows = map(json.loads, out.read_text("utf-8").splitlines())
    assert [row["arm"] for row in rows] == [arms.PVC.name, arms.PVC_CHOSEN.name, arms.PVC_RANDOM.name]
    assert [row["tokens"] for row in rows] == [[256] * 4, [64] * 4, [64] * 4]  # four tokens a frame
    film = next(tmp_path.glob("*.mp4"))
    with longtake.open_video(film) as video:
        memory, seconds = recipe("film_patches").own_memory(video, model, 64, 1.0)
    rule = SamplingRule(fps=1.0, frame_multiple=1, min_frames=1)
    expected = longtake.ingest(film, model, longtake.Budget(max_frames=64), rule=rule)
    assert torch.equal(memory.tokens.features, expected.tokens.features) and seconds > 0


def row(arm: str, film: int, letters: str, pictures: str, tokens: list[int], first: float = 1.0) -> dict[str, Any]:
    seconds = {"encode": 2.0, "compress": 0.5, "first": first, "later": 0.25}
    right = {"N1": letters, "NH pointer": pictures}
    return {"frames": 64, "film": film, "arm": arm, "right": right, "alive": right, "tokens": tokens,
            "seconds": seconds, "load": 1.0 + film}  # fmt: skip


def test_cells_are_put_together(recipe, tmp_path: Path) -> None:
    cells = recipe("measured_cells")
    rows = [
        row("a", 1, "11", "1", [64, 32]), row("b", 1, "10", "0", [64, 64], 3.0),
        row("a", 2, "10", "0", [64, 32]), row("b", 2, "00", "0", [64, 64], 5.0),
        row("a", 3, "11", "1", [64, 32]),  # b has not seen it: a run under way
    ]  # fmt: skip
    path = tmp_path / "methods.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [{"model": "m"}, *rows]), "utf-8")
    part = cells.read_part(path)
    a, b = part.of(64).values()
    letters = a.share("N1")
    assert (letters.right, letters.n, letters.films) == (0.75, 4, 2) and a.share().right == 4 / 6
    assert letters.interval.low < 0.75 < letters.interval.high
    test = a.against(b)
    assert test.difference == pytest.approx(4 / 6 - 1 / 6) and (test.only_first, test.only_second) == (3, 0)
    assert a.tokens_per_frame() == [1.0, 0.5] and a.seconds() == (3.5, 0.25) and b.seconds() == (6.5, 0.25)
    assert part.load == (2.0, 3.0) and part.lengths == [64]


def test_arms_of_other_films_are_not_compared(recipe) -> None:
    cells = recipe("measured_cells")
    a = cells.Measured(64, "a", [row("a", 1, "1", "1", [64])])
    b = cells.Measured(64, "b", [row("b", 2, "1", "1", [64])])
    with pytest.raises(ConfigError, match="other films"):
        a.against(b)


def test_checkpoints_of_their_own_are_put_beside_the_others(recipe, tmp_path: Path) -> None:
    cells = recipe("measured_cells")
    parts = []
    for number, (arm, letters) in enumerate((("PVC", "11"), ("static frames", "01"))):
        path = tmp_path / f"{number}.jsonl"
        lines = [{"model": str(number)}, row(arm, 1, letters, "", [64]), row(arm, 2, letters, "", [64])]
        path.write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")
        parts.append(cells.read_part(path))
    whole = cells.joined(parts)
    assert whole.head == {"model": "0"} and whole.lengths == parts[0].lengths
    (ours, theirs) = (whole.cells[whole.lengths[0], arm] for arm in ("PVC", "static frames"))
    assert ours.against(theirs).difference == 0.5
