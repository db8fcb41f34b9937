"""The index of a folder: what is near a vector, kept in a file that tells when it was damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.core.errors import MemoryFormatError, StorageError
from longtake.memory.library_index import FileState, LibraryIndex, Segments

WIDTH = 8
IDENTITY = {"model": "m"}
STATE = FileState(1, 2, 3)


def unit(seed: int, count: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def segments(num_clips: int, each: int) -> Segments:
    first = np.arange(0, num_clips, each)
    bounds = np.stack([first * 4.0, (first + each) * 4.0], 1)
    return Segments(first, np.full(len(first), 4 * each), bounds)


def filled(names: str = "abc", num_clips: int = 6) -> LibraryIndex:
    """Return an index of small memories of two vectors a clip and two clips a segment."""
    index = LibraryIndex(WIDTH, IDENTITY)
    for seed, name in enumerate(names):
        clips = np.arange(num_clips).repeat(2)
        index.add(name, STATE, f"digest of {name}", segments(num_clips, 2), unit(seed, 2 * num_clips), clips)
    return index


def told(index: LibraryIndex, vector: np.ndarray, count: int = 5) -> list[tuple[str, int, float]]:
    return [(match.entry.name, match.clip, round(match.score, 2)) for match in index.search(vector, count)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_a_small_index_finds_what_comparing_with_every_vector_finds(seed: int, count: int):
    index, vector = filled(), unit(seed, 1)[0]
    every = [
        (name, clip, float(row @ vector))
        for number, name in enumerate("abc")
        for clip, row in zip(np.arange(6).repeat(2), unit(number, 12), strict=True)
    ]
    best = sorted(every, key=lambda found: -found[2])[:count]
    matches = index.search(vector, count)
    assert [(match.entry.name, match.clip) for match in matches] == [found[:2] for found in best]
    assert np.allclose([match.score for match in matches], [found[2] for found in best], atol=2e-3)  # float16


def test_the_scores_of_a_memory_are_the_best_of_each_segment():
    index, vector = filled(), unit(9, 1)[0]
    expected = (unit(1, 12) @ vector).reshape(3, 4).max(1)
    assert np.allclose(index.scores(index.entries["b"], vector), expected, atol=2e-3)


def test_a_clip_lies_in_its_segment():
    found = segments(6, 2)
    assert [found.of(clip) for clip in range(6)] == [0, 0, 1, 1, 2, 2]


def test_what_was_removed_or_replaced_is_not_found():
    index, vector = filled(), unit(0, 12)[3]  # clip 1 of a
    assert told(index, vector, 1) == [("a", 1, 1.0)]
    index.remove("a")
    index.remove("a")
    assert {name for name, _, _ in told(index, vector, 24)} == {"b", "c"}
    index.add("b", STATE, "another", segments(2, 2), unit(0, 4), np.array([0, 0, 1, 1]))
    assert told(index, vector, 1) == [("b", 1, 1.0)]
    assert len(index) == 16


def test_an_index_comes_back_from_its_file_and_goes_on(tmp_path: Path):
    index, vector = filled(), unit(7, 1)[0]
    assert not index.is_saved
    index.save(tmp_path / "index")
    assert index.is_saved and [path.name for path in tmp_path.iterdir()] == ["index"]
    again = LibraryIndex.read(tmp_path / "index", WIDTH, IDENTITY)
    assert again.is_saved and told(again, vector) == told(index, vector)
    for one in (index, again):
        one.remove("c")
        one.add("d", STATE, "digest", segments(2, 2), unit(5, 4), np.array([0, 0, 1, 1]))
    assert not again.is_saved and told(again, vector) == told(index, vector)
    assert again.entries["d"].number == 3
    assert again.entries["b"].digest == "digest of b" and again.entries["b"].state == STATE


def test_any_change_of_the_file_is_noticed(tmp_path: Path):
    path = tmp_path / "index"
    filled().save(path)
    whole = path.read_bytes()
    places = np.random.default_rng(0).integers(len(whole), size=60)
    broken = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in [0, 8, 40, *places]]
    for data in [*broken, *(whole[:at] for at in places), b"", whole + b"\0"]:
        path.write_bytes(data)
        with pytest.raises(MemoryFormatError, match="cannot be used"):
            LibraryIndex.read(path, WIDTH, IDENTITY)


@pytest.mark.parametrize("width, identity", [(WIDTH + 1, IDENTITY), (WIDTH, {"model": "n"})])
def test_an_index_of_another_model_is_refused(tmp_path: Path, width: int, identity: dict[str, object]):
    filled().save(tmp_path / "index")
    with pytest.raises(MemoryFormatError, match="of another model or version"):
        LibraryIndex.read(tmp_path / "index", width, identity)


def test_an_index_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "something").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        filled().save(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
