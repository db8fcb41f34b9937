"""FILMSTRIP's questions: every answer follows from the film, its spans prove it, and training sees no held-out pair."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from longtake.core.errors import ConfigError
from longtake.media.filmstrip import LADDER, Film, ask_film, build_film, level_spec, proof_frames
from longtake.media.filmstrip.attributes import ALL_KEYS, DIRECTIONS, TRAINING_KEYS
from longtake.media.filmstrip.ladder import HAPPENING_FRAMES, MOTION_FRAMES, TASKS
from longtake.media.filmstrip.phrases import MORE_PHRASES, PHRASES, wide_vocabulary
from tests.filmstrip.checker import PAIR, truth

TEST_SEED, VALIDATION_SEED = 20_000_000, 10_000_000
HELD_OUT = {str(key) for key in set(ALL_KEYS) - set(TRAINING_KEYS)}
# Settings that the ladder does not use, with the tasks that they are for.
VARIANTS = {
    "codes": (("NH",), {"pointers": "codes"}),
    "rich": (("N1", "OR", "TG", "AB"), {"style": "rich"}),
    "tiles": (("DE",), {"poster": "tiles"}),
    "fine poster": (("DE",), {"poster_side": 6}),
    "every motion": (("MO",), {"motion_kinds": tuple(MOTION_FRAMES), "num_motions": 4}),
    "every happening": (("CO",), {"happening_kinds": tuple(HAPPENING_FRAMES)}),
    "all tasks": (TASKS, {}),
}


def film_of(level: str, seed: int, *tasks: str, **overrides: object) -> Film:
    return build_film(level_spec(level, seed, tasks, **overrides))


def assert_follows(film: Film, more: bool) -> set[str]:
    """Hold every question of a film against the checker; return the kinds that were asked."""
    asked = ask_film(film, more=more)
    for one in asked:
        answer, spans = truth(film, one)
        assert (one.answer, sorted(one.spans_s)) == (answer, sorted(spans)), one
        assert one.choices == () or one.choices.count(answer) == 1
        assert len(set(one.choices)) == len(one.choices) != 1
        assert all(0 <= start < stop <= film.spec.duration_s for start, stop in one.spans_s)
        proof = proof_frames(film, one)
        near = {number + step for number in proof for step in (-1, 0, 1)}
        assert proof == sorted(n for n in near if any(start <= n / film.spec.fps < stop for start, stop in spans))
        assert len(proof) == round(sum(stop - start for start, stop in spans) * film.spec.fps)
    return {one.kind for one in asked}


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("level", LADDER)
def test_every_answer_of_every_rung_follows_from_the_film(level: str, task: str, more: bool) -> None:
    kinds: set[str] = set()
    for seed in (0, VALIDATION_SEED, TEST_SEED, TEST_SEED + 1):
        kinds |= assert_follows(film_of(level, seed, task), more)
    assert kinds & {{"AB": "N1"}.get(task, task)}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_answer_of_a_variant_follows_from_the_film(name: str) -> None:
    tasks, overrides = VARIANTS[name]
    kinds = set().union(*(assert_follows(film_of("L2", TEST_SEED + i, *tasks, **overrides), True) for i in range(12)))
    if name == "every motion":
        assert kinds == {"MO", "MO turn", "MO bounce", "MO speed", "MO path"}
    if name == "tiles":
        assert kinds == {"DE tile"}
    if name == "all tasks":
        assert kinds == {*PHRASES, "NH prefix", "OR three"}


def test_chains_are_as_long_as_the_rung_says_and_four_hops_are_for_tests_alone() -> None:
    for level, rung in LADDER.items():
        low, high = rung.hops
        tested = {level_spec(level, TEST_SEED + i).hops for i in range(12)}
        trained = {level_spec(level, i).hops for i in range(12)}
        assert tested == set(range(low, high + 1))
        assert trained == set(range(low, min(high, 3) + 1))
    with pytest.raises(ConfigError, match="test split"):
        level_spec("L5", 0, ("NH",), hops=4)


def test_decoy_chains_are_as_long_as_the_true_one_and_share_no_card_and_no_last_letter() -> None:
    film = film_of("L3", TEST_SEED + 2, "NH", hops=3)
    assert [len(chain) for chain in film.chains] == [4, 4, 4, 4]
    assert len({number for chain in film.chains for number in chain}) == 16
    ends = {film.cards[chain[-1]].letter for chain in film.chains}
    for one in ask_film(film):
        if one.kind == "NH":
            assert set(one.choices) == ends and len(ends) == 4


@pytest.mark.parametrize("first_seed", [0, VALIDATION_SEED, TEST_SEED])
def test_held_out_wording_and_pairs_are_for_the_test_split(first_seed: int) -> None:
    tasks = tuple(task for task in TASKS if task != "AB")
    asked = [one for i in range(12) for one in ask_film(film_of("L2", first_seed + i, *tasks), more=True)]
    last_wordings = {text[3].split("{")[0] for text in (PHRASES | MORE_PHRASES).values()} - {"", "First or last: "}
    uses_last = any(one.text.startswith(words) for one in asked for words in last_wordings if len(words) > 12)
    names = {name for one in asked for text in (one.text, one.answer, *one.choices) for name in PAIR.findall(text)}
    assert uses_last == (first_seed == TEST_SEED)
    assert bool(names & HELD_OUT) == (first_seed != 0)


def test_what_a_training_film_does_not_show_is_a_training_pair_too_when_more_is_asked() -> None:
    asked = [one for i in range(20) for one in ask_film(film_of("L1", i, *TASKS, num_frames=160), more=True)]
    assert sum(one.answer == "not shown" for one in asked) > 20
    assert not any(set(PAIR.findall(one.text)) & HELD_OUT for one in asked)
    assert not any(one.is_held_out for one in asked)


def test_questions_say_whether_they_rest_on_a_held_out_pair() -> None:
    film = film_of("L2", TEST_SEED + 4, "N1", "NH", "OR", "TG", "CO", "AB")
    unseen = {film.span_s(card) for card in film.cards if str(card.key) in HELD_OUT}
    assert 0 < len(unseen) < len(film.cards)
    counted = 0
    for one in ask_film(film, more=True):
        rests = bool(unseen & set(one.spans_s)) or bool(set(PAIR.findall(one.text)) & HELD_OUT)
        assert one.is_held_out == rests, one
        counted += one.kind.startswith(("NH", "OR")) and rests
    assert counted > 0


def test_a_salt_gives_another_film_and_equal_settings_equal_questions() -> None:
    film = film_of("L1", TEST_SEED, "N1")
    salted = film_of("L1", TEST_SEED, "N1", salt="for a hidden test")
    assert ask_film(film) == ask_film(film_of("L1", TEST_SEED, "N1"))
    assert {card.key for card in film.cards} != {card.key for card in salted.cards}
    assert {one.text for one in ask_film(film)} != {one.text for one in ask_film(salted)}


def test_a_layer_of_tasks_changes_no_other_tasks_draws() -> None:
    alone = film_of("L2", TEST_SEED, "CO").happenings
    together = film_of("L2", TEST_SEED, "CO", "DE", "MO").happenings
    assert sorted(one.kind for one in alone) == sorted(one.kind for one in together)


def test_each_wording_can_be_asked_for() -> None:
    film = film_of("L1", 0, "N1")
    texts = [ask_film(film, paraphrase=number)[0].text for number in range(4)]
    assert len({PAIR.sub("", text) for text in texts}) == 4
    for number in (4, -1):
        with pytest.raises(ConfigError, match="expected 0 to 3"):
            ask_film(film, paraphrase=number)


def test_every_word_of_every_variant_is_in_the_wide_vocabulary() -> None:
    def words(text: str) -> set[str]:
        return {word.strip("?,.:") for word in text.replace("{", " ").replace("}", " ").split()}

    known = set().union(*map(words, wide_vocabulary()))
    for tasks, overrides in VARIANTS.values():
        for one in ask_film(film_of("L2", TEST_SEED + 1, *(set(tasks) - {"TG"}), **overrides), more=True):
            assert words(f"{one.text} {one.answer}") <= known


def test_directions_are_balanced_over_eight_seeds() -> None:
    starts = [film_of("L1", TEST_SEED + i, "MO").motions[0].direction for i in range(8)]
    assert sorted(starts) == list(range(len(DIRECTIONS)))


def test_films_that_models_were_trained_on_stay_as_they_are() -> None:
    """A change of this digest makes the bundled model's figures and its training run those of another world."""
    digest = hashlib.sha256()
    for level in ("L0", "L1", "L2", "L3"):
        for seed in (0, 777, VALIDATION_SEED + 3, TEST_SEED, TEST_SEED + 11):
            for task in TASKS:
                film = film_of(level, seed, task)
                shown = (film.cards, film.chains, film.happenings, film.motions, film.posters)
                digest.update(repr([[one if isinstance(one, tuple) else dataclasses.astuple(one) for one in part]
                                    for part in shown]).encode())  # fmt: skip
                for one in ask_film(film):
                    digest.update(repr((one.task, one.text, one.answer, one.choices, one.spans_s)).encode())
    assert digest.hexdigest() == "6658d3ab498e10a8126e2a0819eda3d2175a3da66afa8a03915497e5a986d34f"
