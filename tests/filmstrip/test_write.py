"""FILMSTRIP's files: real containers with the film's times and pictures, whole or not there at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.core.errors import ConfigError, StorageError, VideoError
from longtake.media.filmstrip import (
    Film,
    FilmSpec,
    Layers,
    build_film,
    control_frames,
    film_arrays,
    film_bytes,
    level_spec,
    write_film,
)
from longtake.media.video import open_video

# Mean difference of a pixel's value that the codecs at their settings stay below, on films of moving grain.
CLOSE = 8.0


def film_of(**overrides: Any) -> Film:
    return build_film(level_spec("L0", 3, **overrides))


def read(source: Path | bytes) -> tuple[np.ndarray, np.ndarray]:
    with open_video(source) as video:
        times = np.array(video.clock.pts_s)
        return times, np.concatenate([part.pixels for part in video.frames_at(times)])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("fps", [0.5, 4.0, 29.97])
def test_a_film_in_memory_has_its_times_and_pictures(suffix: str, fps: float) -> None:
    film = film_of(fps=fps)
    times, frames = read(film_bytes(film, suffix))
    np.testing.assert_allclose(times, np.arange(16) / fps, atol=2e-3)
    assert np.abs(frames.astype(int) - film_arrays(film)).mean() < CLOSE


def test_a_file_holds_what_the_bytes_hold_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    path.write_bytes(b"something else")
    film = film_of()
    assert write_film(film, path) == path
    from_file, from_memory = read(path), read(film_bytes(film, ".mkv"))
    for ours, theirs in zip(from_file, from_memory, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [one.name for one in tmp_path.iterdir()] == ["film.mkv"]


def test_a_control_can_be_written_too(tmp_path: Path) -> None:
    film = film_of()
    _, black = read(write_film(film, tmp_path / "black.mp4", control="black"))
    assert len(black) == 16 and black.max() < 8
    _, mixed = read(film_bytes(film, control="shuffled"))
    wanted = np.stack(list(control_frames(film, "shuffled")))
    assert np.abs(mixed.astype(int) - wanted).mean() < CLOSE


def test_a_film_of_another_size_and_without_cards_is_written_as_it_is_drawn() -> None:
    film = film_of()
    _, frames = read(film_bytes(film, size=96, layers=Layers(cards=False)))
    assert frames.shape == (16, 96, 96, 3)
    assert np.abs(frames.astype(int) - film_arrays(film, 96, layers=Layers(cards=False))).mean() < CLOSE


def test_a_still_stays_still_in_the_file() -> None:
    """PVC's claim is about copies of a picture; what a codec adds between two of them is small."""
    film = build_film(level_spec("L1", 5, ("DE",)))
    poster = film.posters[0]
    _, frames = read(film_bytes(film))
    still = frames[poster.start : poster.stop].astype(int)
    assert np.abs(still - still[0]).mean() < 1.0


def test_a_film_of_one_frame_is_a_video() -> None:
    times, frames = read(film_bytes(build_film(FilmSpec(seed=0, tasks=(), num_frames=1))))
    assert times.tolist() == [0.0] and len(frames) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "error", "part"),
    [
        ("film.avi", {}, VideoError, "avi"),
        ("film", {}, VideoError, "expected one of .mp4, .mkv, .webm"),
        ("film.mp4", {"size": 127}, VideoError, "choose 128"),
        ("film.mp4", {"size": 0}, VideoError, "8 to 4096"),
        ("film.mp4", {"control": "blak"}, ConfigError, "did you mean 'black'"),
        ("film.mp4", {"control": "black", "layers": Layers()}, ConfigError, "one of them"),
        ("no folder/film.mp4", {}, StorageError, "make the folder"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    name: str, arguments: dict, error: type[Exception], part: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=part):
        write_film(film_of(), tmp_path / name, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_whole_when_drawing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_film(film_of(), tmp_path / "film.mp4")
    before = path.read_bytes()

    def full_disk(*_: object, **__: object):
        yield from film_arrays(film_of())[:3]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longtake.media.filmstrip.write.film_frames", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        write_film(film_of(), path)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"tasks": ("N1", "N1")}, "different names"),
        ({"tasks": ("N2",)}, "tasks has 'N2'; did you mean"),
        ({"motion_kinds": ()}, "1 of them or more"),
        ({"happening_kinds": ("flash", "flush")}, "did you mean 'flash'"),
        ({"poster": "tile"}, "did you mean 'tiles'"),
        ({"seed": -1}, "seed is -1"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"seed": True}, "whole number"),
        ({"needle_s": float("nan")}, "needle_s is nan"),
        ({"poster": "tiles", "poster_side": 4}, "poster_side is 4"),
        ({"sets": "voronoi"}, "held out"),
        ({"hops": 4}, "test split"),
        ({"colour": "red"}, "no field 'colour'"),
    ],
)
def test_settings_that_make_no_film_are_refused_by_name(values: dict, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        FilmSpec.from_dict({"seed": 0} | values)


def test_settings_of_the_wrong_type_are_refused_by_name_where_no_checker_watches() -> None:
    program = """
from longtake.core.errors import ConfigError
from longtake.media.filmstrip import FilmSpec
for values in ({"tasks": "N1"}, {"motion_kinds": "turn"}, {"num_cards": 2.5}, {"fps": "1"}, {"seed": "0"}):
    try:
        FilmSpec(**{"seed": 0} | values)
    except ConfigError as error:
        print(error)
"""
    start = f"import sys; sys.path[:] = {sys.path!r}\n{program}"
    told = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True).stdout
    wanted = ["tasks is 'N1'", "motion_kinds is 'turn'", "num_cards is 2.5", "fps is '1'", "seed is '0'"]
    assert [line.split(";")[0] for line in told.splitlines()] == wanted
