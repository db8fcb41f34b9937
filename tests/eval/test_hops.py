"""The scorer of chains, on a worked example: two chains of two hops, answered by hand."""

from __future__ import annotations

import pytest

from longtake.eval.filmstrip_tasks import FilmstripTask
from longtake.eval.hops import hop_figures
from longtake.eval.result import Record
from longtake.media.filmstrip import ask_film


def answered(chain: str, hop: int, right: bool, kind: str = "NH prefix", decoy: bool = False, start: bool = False):
    told = {"chain": chain, "hop": hop, "kind": kind, "decoy": decoy, "start": start}
    return Record(id=f"{chain} {hop} {kind}", arm="model", group="film", right=right, extra=told)


def test_worked_example() -> None:
    records = [
        answered("x", 1, True),
        answered("x", 2, True),
        answered("x", 2, True, "NH"),
        answered("x", 0, True, "NH pointer"),
        answered("y", 1, True),
        answered("y", 2, False),
        answered("y", 2, False, "NH", decoy=True),
        answered("y", 0, False, "NH pointer"),
        answered("z", 1, False),
        answered("z", 2, True),  # right without the hop before it: a jump, or luck
        answered("z", 2, False, "NH", start=True),
    ]
    assert hop_figures(records) == {
        "chains": 3,
        "hop_accuracy": {"1": pytest.approx(2 / 3), "2": pytest.approx(2 / 3)},
        "given_the_hop_before": {"2": 0.5},  # x and y were right at hop 1, of them x is right at hop 2
        "all_hops_right": pytest.approx(1 / 3),
        "direct_by_hops": {"2": pytest.approx(1 / 3)},
        "decoy_rate": pytest.approx(1 / 3),
        "start_card_rate": pytest.approx(1 / 3),
        "pointer_accuracy": 0.5,
    }


def test_other_questions_have_no_hops() -> None:
    assert hop_figures([Record(id="a", arm="model", group="film", right=True)]) == {}


def test_generator_follows_its_own_plan_by_hand() -> None:
    """Walk the pictures on the cards with a finger and compare with the answers, the decoys and the steps."""
    task = FilmstripTask(name="filmstrip-nh", kind="NH", level="L1", films=2, questions=60, hops=2)
    for number in range(2):
        film = task._film(number)
        by_key = {card.key: card for card in film.cards}
        pointed = {card.points_to for card in film.cards if card.points_to is not None}
        starts = [card for card in film.cards if card.points_to is not None and card.key not in pointed]
        assert len(starts) == 4  # the true chain and three decoys
        walked = {}
        for card in starts:
            second = by_key[card.points_to]  # pyright: ignore[reportArgumentType]
            third = by_key[second.points_to]  # pyright: ignore[reportArgumentType]
            assert third.points_to is None
            walked[str(card.key)] = [card.letter, second.letter, third.letter]
        assert len({len(letters) for letters in walked.values()}) == 1  # equal length, equal grammar
        items = [item for item in task.items() if item.group.startswith(f"film {film.spec.seed} ")]
        direct = [item for item in items if item.extra["kind"] == "NH"]
        assert len(direct) == 4
        for item in direct:
            name = next(key for key in walked if key in item.question)
            letters = walked[name]
            others = sorted({found[2] for key, found in walked.items() if key != name})
            assert item.answer == letters[2]
            assert item.extra["start"] == letters[0]
            assert item.extra["decoys"] == others
            assert sorted(item.choices) == sorted([letters[2], *others])
            assert task.score(letters[2], item).right
            wrong = task.score(others[0], item)
            assert (wrong.right, wrong.extra["decoy"], wrong.extra["start"]) == (False, True, False)
            assert task.score(letters[0], item).extra["start"]
        steps = [item for item in items if item.extra["kind"] == "NH prefix"]
        assert {item.extra["hop"] for item in steps} == {1, 2}
        for item in steps:
            name = next(key for key in walked if key in item.question)
            assert item.answer == walked[name][int(str(item.extra["hop"]))]
        assert [task.counts(item) for item in items].count(True) == 4
        assert len(ask_film(film, more=True)) == len(items)
