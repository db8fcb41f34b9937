"""The file: nothing that was committed is lost, nothing that was changed is believed."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.core.errors import MemoryFormatError, StorageError
from longtake.memory.format import BLOCK_BYTES, FORMAT_VERSION, MAGIC, pack_block
from longtake.memory.reader import StoredMemory, is_memory_file
from longtake.memory.writer import MemoryWriter
from tests.memory.conftest import CLIPS, TOKENS, header, segment, tokens_of, write


def test_a_memory_comes_back_as_it_was_written(tmp_path: Path):
    with StoredMemory(write(tmp_path / "film.ltm")) as stored:
        memory, found = stored.memory(), list(stored.segments())
        stored.verify()
    expected = [tokens_of(number) for number in range(3)]
    assert torch.equal(memory.tokens.features, torch.cat([tokens.features for tokens, _ in expected]))
    assert torch.equal(memory.tokens.frame_weight, torch.cat([tokens.frame_weight for tokens, _ in expected]))
    assert torch.equal(memory.tokens.clip_index, torch.cat([tokens.clip_index for tokens, _ in expected]))
    assert np.array_equal(memory.frame_pts_s, np.concatenate([times for _, times in expected]))
    assert (memory.source, memory.duration_s, memory.warnings) == ("film.mp4", 3.0, ("a packet was lost",))
    assert memory.settings == {"kind": "video"}
    assert [part.thumbnail for part in found] == [b"picture"] * 3
    assert [part.relative_error for part in found] == [0.0] * 3


def test_a_memory_can_be_read_while_it_is_written(tmp_path: Path):
    path = tmp_path / "film.ltm"
    with MemoryWriter(path, header()) as writer:
        writer.append(segment(0))
        with StoredMemory(path) as reader:
            assert (reader.num_segments, reader.is_complete) == (1, False)
            first = reader.memory()
            writer.append(segment(1))
            assert reader.num_segments == 1
            assert reader.refresh() == 2
            assert torch.equal(reader.memory().tokens.features[: CLIPS * TOKENS], first.tokens.features)
            assert "unfinished: 8 of 24 frames" in first.warnings[0]
            assert first.duration_s == 8.0
            writer.finish(16.0)
            reader.refresh()
            assert reader.is_complete
            writer.append(segment(2))
            assert (reader.refresh(), reader.is_complete) == (3, False)


def committed_ends(path: Path) -> list[int]:
    """Return the length of the file behind each committed segment."""
    path.unlink(missing_ok=True)
    ends = []
    with MemoryWriter(path, header()) as writer:
        for number in range(3):
            writer.append(segment(number))
            ends.append(path.stat().st_size)
    return ends


def test_after_a_kill_at_any_byte_all_that_was_committed_is_there_and_writing_goes_on(tmp_path: Path, whole: bytes):
    """A file that only grows is, after a kill, some beginning of itself: every beginning is tried around each block."""
    path, ends = tmp_path / "film.ltm", committed_ends(tmp_path / "other.ltm")
    edges = {block * BLOCK_BYTES + step for block in range(len(whole) // BLOCK_BYTES) for step in (-1, 0, 1, 30)}
    for cut in sorted(edge for edge in edges if 0 <= edge <= len(whole)):
        path.write_bytes(whole[:cut])
        expected = sum(end <= cut for end in ends)
        try:
            with StoredMemory(path) as stored:
                assert stored.num_segments == expected
                assert stored.is_complete == (cut == len(whole))
                assert len(list(stored.segments())) == expected
        except MemoryFormatError as error:
            assert expected == 0 and "holds nothing" in str(error)
        if cut % 7 == 0:
            write(path)
            assert path.read_bytes() == whole


def test_zeros_where_a_block_was_never_filled_count_as_torn(tmp_path: Path, whole: bytes):
    path, ends = tmp_path / "film.ltm", committed_ends(tmp_path / "other.ltm")
    path.write_bytes(whole[: ends[1]] + bytes(1000))
    with StoredMemory(path) as stored:
        assert (stored.num_segments, stored.num_torn_bytes) == (2, 1000)
        with pytest.raises(MemoryFormatError, match="has no end.*2 segments are whole, 1000 bytes"):
            stored.verify()


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_flipped_bit_is_found(data: st.DataObject, whole: bytes, tmp_path_factory: pytest.TempPathFactory):
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    broken = bytearray(whole)
    broken[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("flip") / "film.ltm"
    path.write_bytes(broken)
    with pytest.raises(MemoryFormatError), StoredMemory(path) as stored:
        stored.verify()
    with pytest.raises(MemoryFormatError):
        write(path)
    assert path.read_bytes() == broken


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_whatever_is_done_to_a_file_no_wrong_segment_comes_out(
    data: st.DataObject, whole: bytes, tmp_path_factory: pytest.TempPathFactory
):
    """A piece is cut out and another put in: what is read is refused, or it is the beginning of what was written."""
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    source = data.draw(st.integers(0, len(whole)))
    piece = data.draw(st.one_of(st.binary(max_size=200), st.just(whole[source : source + end - start]), st.just(b"")))
    path = tmp_path_factory.mktemp("splice") / "film.ltm"
    path.write_bytes(whole[:start] + piece + whole[end:])
    try:
        with StoredMemory(path) as stored:
            for number, found in enumerate(stored.segments()):
                assert torch.equal(found.tokens.features, tokens_of(number)[0].features)
            assert not stored.is_complete or path.read_bytes().startswith(whole)
    except MemoryFormatError:
        assert path.read_bytes() != whole


@pytest.mark.parametrize("cut", [64, 1000, 3000])
def test_a_cut_file_is_never_taken_for_a_whole_one(cut: int, tmp_path: Path, whole: bytes):
    path = tmp_path / "film.ltm"
    path.write_bytes(whole[:-cut])
    with StoredMemory(path) as stored, pytest.raises(MemoryFormatError, match="has no end"):
        stored.verify()


def test_a_missing_piece_in_the_middle_is_found(tmp_path: Path, whole: bytes):
    path, ends = tmp_path / "film.ltm", committed_ends(tmp_path / "other.ltm")
    path.write_bytes(whole[: ends[0]] + whole[ends[1] :])
    with pytest.raises(MemoryFormatError, match="record 2 is missing or misplaced"):
        StoredMemory(path)
    path.write_bytes(whole[: ends[0]] + bytes(ends[1] - ends[0]) + whole[ends[1] :])
    with pytest.raises(MemoryFormatError, match="does not match its checksum"):
        StoredMemory(path)


def test_a_segment_from_another_memory_does_not_fit_in(tmp_path: Path, whole: bytes):
    """The commits are chained: a record that is whole in itself is refused where another one stood."""
    with MemoryWriter(tmp_path / "other.ltm", header(content="d" * 64)) as writer:
        writer.append(segment(0))
    other, path, ends = (tmp_path / "other.ltm").read_bytes(), tmp_path / "film.ltm", committed_ends(tmp_path / "x.ltm")
    assert len(other) == ends[0]
    start = ends[0] - (ends[1] - ends[0])
    path.write_bytes(whole[:start] + other[start:] + whole[ends[0] :])
    with pytest.raises(MemoryFormatError, match="belongs to another record"):
        StoredMemory(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a film, not a memory" * 10, "is no memory"),
        (b"short", "is no memory"),
        (b"", "holds nothing"),
        (MAGIC, "holds nothing"),
        (MAGIC + (FORMAT_VERSION + 1).to_bytes(4, "little") + bytes(52), "format version 2; this longtake reads"),
    ],
)
def test_what_is_no_memory_of_this_version_is_refused(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "film.ltm"
    path.write_bytes(content)
    with pytest.raises(MemoryFormatError, match=message):
        StoredMemory(path)


def test_a_file_that_is_no_memory_is_not_overwritten(tmp_path: Path):
    path = tmp_path / "film.ltm"
    path.write_bytes(b"somebody's notes")
    with pytest.raises(MemoryFormatError, match="is no memory"):
        write(path)
    assert path.read_bytes() == b"somebody's notes"


def test_a_missing_file_is_an_error_of_its_own(tmp_path: Path):
    with pytest.raises(MemoryFormatError, match="No such file"):
        StoredMemory(tmp_path / "film.ltm")


def test_a_length_beyond_the_file_is_torn_and_costs_no_memory(tmp_path: Path, whole: bytes):
    path = tmp_path / "film.ltm"
    path.write_bytes(whole + pack_block(b"SEGM", 5, 2**62, bytes(32)))
    with StoredMemory(path) as stored:
        assert (stored.num_segments, stored.num_torn_bytes) == (3, BLOCK_BYTES)


def test_of_two_writers_one_wins_and_the_other_is_told(tmp_path: Path):
    path = tmp_path / "film.ltm"
    with MemoryWriter(path, header()) as first:
        first.append(segment(0))
        with pytest.raises(StorageError, match="being written by another process; expected one writer at a time"):
            MemoryWriter(path, header())
        first.append(segment(1))
    with MemoryWriter(path, header()) as second:
        assert second.num_segments == 2


def test_another_video_does_not_go_on_with_this_memory(tmp_path: Path, whole: bytes):
    path = tmp_path / "film.ltm"
    path.write_bytes(whole)
    with pytest.raises(MemoryFormatError, match="under another key"):
        MemoryWriter(path, header(content="d" * 64))
    assert path.read_bytes() == whole


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bytes):
    """A disk that fills up in the middle of a segment: a short write, then no room."""
    path, real, room = tmp_path / "film.ltm", os.pwrite, [2500]

    def limited(handle: int, data: bytes | memoryview, at: int) -> int:
        taken = min(len(data), max(room[0] - at, 0))
        if taken == 0:
            raise OSError(28, "No space left on device")
        return real(handle, data[:taken], at)

    monkeypatch.setattr(os, "pwrite", limited)
    with MemoryWriter(path, header()) as writer:
        writer.append(segment(0))
        before = path.read_bytes()
        with pytest.raises(StorageError, match="No space left on device.*goes on where it stopped"):
            writer.append(segment(1))
        assert path.read_bytes() == before
        room[0] = 10**6
        writer.append(segment(1))
    monkeypatch.undo()
    write(path)
    assert path.read_bytes() == whole


def test_where_the_operating_system_stops_the_file_it_is_as_it_was(tmp_path: Path, whole: bytes):
    """No stand-in: the system itself refuses all bytes but the first hundred of the second segment."""
    path, before = tmp_path / "film.ltm", resource.getrlimit(resource.RLIMIT_FSIZE)
    with MemoryWriter(path, header()) as writer:
        writer.append(segment(0))
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
        try:
            with pytest.raises(StorageError, match="File too large"):
                writer.append(segment(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.stat().st_size == size
    write(path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("place", ["/proc/film.ltm", "missing/film.ltm"])
def test_a_folder_that_cannot_be_written_is_an_error_of_storage(place: str, tmp_path: Path):
    with pytest.raises(StorageError, match="cannot be written"):
        MemoryWriter(tmp_path / place, header())


def test_memories_are_known_by_their_name():
    assert is_memory_file("a/film.ltm") and is_memory_file(Path("film.ltm"))
    assert not is_memory_file("film.mp4") and not is_memory_file(b"film.ltm")
