"""FILMSTRIP: films follow from their settings, answers are balanced, and the spans prove them."""

from __future__ import annotations

import collections
import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest

from longtake.core.errors import ConfigError, VideoError
from longtake.media.filmstrip import (
    LADDER,
    FilmSpec,
    Layers,
    ask_film,
    build_film,
    film_arrays,
    film_bytes,
    level_spec,
    vocabulary,
    write_film,
)
from longtake.media.filmstrip.attributes import LETTERS, is_held_out, is_held_out_place
from longtake.media.filmstrip.ladder import TASKS
from longtake.media.filmstrip.render import ball_at, card_box
from longtake.media.filmstrip.world import Motion
from longtake.media.video import open_video

TEST_SEED = 20_000_000


def test_equal_settings_give_equal_films_in_another_process() -> None:
    spec = level_spec("L0", 7, ("N1", "CO"))
    ours = film_arrays(build_film(spec), 32).tobytes()
    program = (
        "import sys, hashlib; from longtake.media.filmstrip import *; "
        "film = build_film(level_spec('L0', 7, ('N1', 'CO'))); "
        "print(hashlib.sha256(film_arrays(film, 32).tobytes()).hexdigest())"
    )
    start = f"import sys; sys.path[:] = {sys.path!r}; {program}"
    found = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True).stdout
    assert found.strip() == hashlib.sha256(ours).hexdigest()


@pytest.mark.parametrize("level", list(LADDER))
def test_every_rung_builds_with_every_card_task(level: str) -> None:
    spec = level_spec(level, TEST_SEED + 3, ("N1",))
    film = build_film(spec)
    assert len(film.cards) >= min(spec.num_cards, 2)
    spans = sorted((card.start, card.stop) for card in film.cards)
    assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(spans))
    assert spans[0][0] >= 0 and spans[-1][1] <= spec.num_frames


def test_a_card_is_seen_in_its_span_and_nowhere_else() -> None:
    film = build_film(level_spec("L1", 11))
    with_cards, without = film_arrays(film, 64), film_arrays(film, 64, layers=Layers(cards=False))
    differs = (with_cards != without).any(axis=(1, 2, 3))
    shown = np.array([film.card_at(number) is not None for number in range(film.spec.num_frames)])
    np.testing.assert_array_equal(differs, shown)
    card = film.cards[0]
    left, top, side = (round(v * 64) for v in card_box(film, card))
    changed = (with_cards[card.start] != without[card.start]).any(-1)
    changed[top : top + side, left : left + side] = False
    assert not changed.any()


def test_a_layer_that_is_left_out_changes_no_other() -> None:
    film = build_film(level_spec("L1", 5, ("N1", "CO")))
    happening = film.happenings[0].frame
    quiet = film_arrays(film, 48, layers=Layers(happenings=False))
    loud = film_arrays(film, 48)
    differs = {int(i) for i in np.flatnonzero((quiet != loud).any(axis=(1, 2, 3)))}
    assert happening in differs and differs == {one.frame for one in film.happenings}


def test_a_still_does_not_move_at_all() -> None:
    film = build_film(level_spec("L1", 5, ("DE",)))
    poster = film.posters[0]
    frames = film_arrays(film, 64, range(poster.start, poster.stop))
    assert len(frames) > 1 and (frames == frames[0]).all()


def test_no_single_frame_tells_where_a_ball_goes() -> None:
    motions = [Motion(direction, 0, 0, 7, "red") for direction in range(8)]
    assert {tuple(round(v, 9) for v in ball_at(motion, 3)) for motion in motions} == {(0.5, 0.5)}
    backwards = Motion(4, 0, 0, 7, "red")
    forwards = Motion(0, 0, 0, 7, "red")
    there = [ball_at(forwards, number) for number in range(7)]
    back = [ball_at(backwards, number) for number in range(7)]
    np.testing.assert_allclose(there, back[::-1], atol=1e-12)


def test_no_training_card_shows_a_held_out_pair() -> None:
    cards = [card for seed in range(40) for card in build_film(level_spec("L1", seed)).cards]
    assert not any(is_held_out(card.key) for card in cards)
    assert not any(is_held_out_place(card.letter, card.place) for card in cards)
    tested = [c for seed in range(40) for c in build_film(level_spec("L1", TEST_SEED + seed)).cards]
    assert 0.1 < np.mean([is_held_out(card.key) for card in tested]) < 0.3


def questions(task: str, films: int, **overrides: object) -> list:
    specs = [level_spec("L2", TEST_SEED + seed, (task,), **overrides) for seed in range(films)]
    return [one for spec in specs for one in ask_film(build_film(spec)) if one.choices]


@pytest.mark.parametrize("task", ["N1", "NH", "OR", "CO", "MO", "DE", "AB"])
def test_who_sees_no_film_scores_chance(task: str) -> None:
    asked = questions(task, 104)
    chance = np.mean([1 / len(one.choices) for one in asked])
    error = 2 * np.sqrt(chance * (1 - chance) / len(asked))
    most_frequent = collections.Counter(one.answer for one in asked).most_common(1)[0][0]
    blind = {
        "the first choice": np.mean([one.choices[0] == one.answer for one in asked]),
        "the last choice": np.mean([one.choices[-1] == one.answer for one in asked]),
        "the first in the alphabet": np.mean([min(one.choices) == one.answer for one in asked]),
    }
    if task != "AB":  # there "not shown" is right in 15 % of the cases, as the task says
        blind["the most frequent answer"] = np.mean(
            [most_frequent == one.answer if most_frequent in one.choices else chance for one in asked]
        )
    for guesser, accuracy in blind.items():
        assert abs(accuracy - chance) <= 1.5 * error + 0.02, (guesser, accuracy, chance, len(asked))


def test_the_letter_of_the_first_card_is_exactly_balanced_over_seeds() -> None:
    letters = [build_film(level_spec("L0", 26 * 5 + seed)).cards[0].letter for seed in range(26)]
    assert sorted(letters) == list(LETTERS)


def test_spans_prove_the_answers_of_a_chain() -> None:
    film = build_film(level_spec("L2", TEST_SEED + 1, ("NH",), hops=3))
    whole = [one for one in ask_film(film, paraphrase=0) if one.task == "NH" and len(one.spans_s) == 4]
    by_start = {film.span_s(card): card for card in film.cards}
    assert len(whole) == 8  # four chains, asked directly and as a trace
    for one in whole:
        cards = [by_start[span] for span in one.spans_s]
        assert [card.points_to for card in cards[:-1]] == [card.key for card in cards[1:]]
        assert one.answer.endswith(cards[-1].letter) and str(cards[0].key) in one.text


def test_every_word_of_questions_and_answers_is_in_the_vocabulary() -> None:
    words = {word.strip("?,.:") for text in vocabulary() for word in text.replace("{a}", "").split()}
    film = build_film(level_spec("L2", TEST_SEED + 9, tuple(task for task in TASKS if task != "TG")))
    for one in ask_film(film):
        for word in f"{one.text} {one.answer}".split():
            assert word.strip("?,.:") in words, word


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_written_film_reads_back_with_its_times_and_pictures(suffix: str, tmp_path) -> None:
    film = build_film(level_spec("L0", 3, fps=2.0))
    path = write_film(film, tmp_path / f"film{suffix}")
    with open_video(path) as video:
        np.testing.assert_allclose(video.clock.pts_s, np.arange(16) / 2, atol=2e-3)
        frames = np.concatenate([part.pixels for part in video.frames_at(video.clock.pts_s)])
    drawn = film_arrays(film)
    assert np.abs(frames.astype(int) - drawn).mean() < 8


def test_a_film_in_memory_is_a_video(tmp_path) -> None:
    with open_video(film_bytes(build_film(level_spec("L0", 3)))) as video:
        assert video.info.num_frames == 16


@pytest.mark.parametrize(
    ("make", "error", "part"),
    [
        (lambda path: level_spec("L9", 0), ConfigError, "L9"),
        (lambda path: level_spec("L0", 0, ("XX",)), ConfigError, "XX"),
        (lambda path: level_spec("L0", 0, num_frame=3), ConfigError, "num_frames"),
        (lambda path: FilmSpec(seed=0, num_cards=1), ConfigError, "num_cards"),
        (lambda path: build_film(FilmSpec(seed=0, num_frames=8, num_cards=20)), ConfigError, "do not fit"),
        (lambda path: write_film(build_film(level_spec("L0", 0)), path / "film.avi"), VideoError, "avi"),
    ],
)
def test_what_cannot_be_filmed_is_refused_by_name(make, error, part, tmp_path) -> None:
    with pytest.raises(error, match=part):
        make(tmp_path)
