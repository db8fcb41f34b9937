from __future__ import annotations

import pytest

from longtake.core.errors import ConfigError
from longtake.eval.filmstrip_tasks import FilmstripTask, probe_tasks
from longtake.eval.task import Task, build

KINDS = ("N1", "NH", "OR", "CO", "MO", "DE", "TG", "AB")


def task_of(kind: str, **more: object) -> Task:
    return build(f"filmstrip-{kind.lower()}", {"level": "L0", "films": 3, "size": 64, **more})


@pytest.mark.parametrize("kind", KINDS)
def test_an_oracle_is_right_a_mute_one_wrong(kind: str) -> None:
    task = task_of(kind)
    assert task.items()
    for item in task.items():
        assert task.score(item.answer, item).right
        silent = task.score("", item)
        assert not silent.right and silent.parsed is None
        assert 0 <= task.chance(item) <= 0.5


@pytest.mark.parametrize("kind", ["N1", "NH", "OR", "CO", "MO", "DE", "AB"])
def test_with_choices_the_letter_is_what_counts(kind: str) -> None:
    task = task_of(kind, form="choices")
    for item in task.items():
        letter = "ABCDEFGH"[item.choices.index(item.answer)]
        assert f"({letter}) {item.answer}" in task.prompt(item)
        assert task.score(f"({letter})", item).right
        other = "ABCDEFGH"[(item.choices.index(item.answer) + 1) % len(item.choices)]
        assert not task.score(other, item).right
        assert task.chance(item) == pytest.approx(1 / len(item.choices))


def test_a_time_is_right_from_an_overlap_of_a_half_on() -> None:
    task = task_of("TG")
    item = next(item for item in task.items() if item.spans_s[0][1] - item.spans_s[0][0] >= 2)
    start, stop = item.spans_s[0]
    half = task.score(f"{start} to {(start + stop) / 2} seconds", item)
    assert half.right and half.score == pytest.approx(0.5)
    less = task.score(f"{start} to {start + 0.4 * (stop - start)}", item)
    assert not less.right and less.score == pytest.approx(0.4)


def test_items_are_the_same_every_time_and_differ_with_the_settings() -> None:
    assert task_of("N1").dataset_hash() == task_of("N1").dataset_hash()
    assert task_of("N1").dataset_hash() != task_of("N1", size=96).dataset_hash()
    ids = [item.id for item in task_of("OR").items()]
    assert len(set(ids)) == len(ids)


def test_a_constant_answer_scores_what_the_answers_say() -> None:
    """Letters are balanced over a block of 26 films: the best constant letter is hardly better than chance."""
    task = FilmstripTask(name="filmstrip-n1", kind="N1", level="L0", films=26, questions=3)
    answers = [item.answer for item in task.items()]
    assert max(map(answers.count, set(answers))) / len(answers) < 0.1


@pytest.mark.parametrize(
    "name, values, words",
    [
        ("filmstrip-n2", {}, "no task is called"),
        ("filmstrip-n1", {"levle": "L0"}, "level"),
        ("filmstrip-n1", {"form": "letters"}, "open or choices"),
        ("filmstrip-n1", {"level": "L9"}, "level 'L9'"),
        ("filmstrip-n1", {"films": 0}, "at least 1"),
    ],
)
def test_mistakes_are_named(name: str, values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(name, values).items()


def test_probes_ask_what_a_score_could_hide() -> None:
    probes = probe_tasks(1, "choices")
    assert list(probes) == ["counting", "order", "negation", "small text", "identity"]
    assert all(task.items() for task in probes.values())
