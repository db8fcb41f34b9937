"""A memory within a number of bytes: detail falls off with age, nothing is lost out of turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from longtake.core.errors import BudgetError
from longtake.core.types import VisualTokens
from longtake.memory.demote import demote, levels
from longtake.memory.reader import StoredMemory
from longtake.memory.segment import pack_segment
from longtake.memory.thin import thin
from longtake.memory.writer import MemoryWriter
from tests.memory.conftest import CLIPS, FRAMES, WIDTH, header

TOKENS, NUM_SEGMENTS = 64, 40


def segment(number: int) -> bytes:
    generator = torch.Generator().manual_seed(number)
    tokens = VisualTokens(
        torch.randn(CLIPS * TOKENS, WIDTH * 8, generator=generator),
        torch.ones(CLIPS * TOKENS, FRAMES, dtype=torch.int64),
        torch.arange(CLIPS).repeat_interleave(TOKENS),
    )
    times = np.arange(CLIPS * FRAMES, dtype=np.float64).reshape(CLIPS, FRAMES) + number * CLIPS * FRAMES
    return pack_segment(tokens, times, b"picture", "float32")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("large") / "film.ltm"
    with MemoryWriter(path, header(NUM_SEGMENTS)) as writer:
        for number in range(NUM_SEGMENTS):
            writer.append(segment(number))
    return path.read_bytes()


def counts(path: Path) -> list[int]:
    with StoredMemory(path) as stored:
        return [len(part.tokens) // CLIPS for part in stored.segments()]


@pytest.mark.parametrize("max_bytes", [800_000, 400_000, 200_000, 100_000])
def test_the_older_the_fewer_tokens_and_the_limit_holds(max_bytes: int, tmp_path: Path, large: bytes):
    path = tmp_path / "film.ltm"
    path.write_bytes(large)
    kept = demote(path, max_bytes)
    found = counts(path)
    assert path.stat().st_size <= max_bytes
    assert len(found) == kept
    assert found == sorted(found) and set(found) <= {TOKENS, 16, 4, 1}
    with StoredMemory(path) as stored:
        times = stored.memory().frame_pts_s.ravel()
    assert times[-1] == NUM_SEGMENTS * CLIPS * FRAMES - 1
    assert np.array_equal(np.diff(times), np.ones(len(times) - 1))
    assert list(tmp_path.iterdir()) == [path]


def test_levels_end_at_one_token_a_clip():
    assert levels(4) == (None, 4, 1, 0.25)


def test_tokens_of_each_level_are_those_of_merging_what_was_stored(tmp_path: Path, large: bytes):
    path = tmp_path / "film.ltm"
    path.write_bytes(large)
    with StoredMemory(path) as stored:
        whole = stored.memory()
    demote(path, 300_000)
    with StoredMemory(path) as stored:
        parts = list(stored.segments())
    for offset, part in enumerate(reversed(parts), start=1):
        rows = whole.tokens.clip_index // CLIPS == NUM_SEGMENTS - offset
        per_frame = len(part.tokens) / CLIPS / FRAMES
        expected = thin(whole, per_frame).tokens
        same = expected.clip_index // CLIPS == NUM_SEGMENTS - offset
        assert rows.any() and torch.allclose(part.tokens.features, expected.features[same], atol=1e-5)


def test_demoting_again_and_again_while_it_grows_keeps_the_limit(tmp_path: Path):
    path, limit, sizes = tmp_path / "film.ltm", 250_000, []
    for number in range(NUM_SEGMENTS):
        with MemoryWriter(path, header(NUM_SEGMENTS)) as writer:
            writer.append(segment(number))
        if path.stat().st_size > limit:
            demote(path, limit * 3 // 4)
        sizes.append(path.stat().st_size)
    assert max(sizes) <= limit
    found = counts(path)
    assert found == sorted(found) and len(set(found)) >= 3
    with StoredMemory(path) as stored:
        assert stored.memory().frame_pts_s[-1, -1] == NUM_SEGMENTS * CLIPS * FRAMES - 1


def test_a_limit_below_one_segment_is_refused_and_changes_nothing(tmp_path: Path, large: bytes):
    path = tmp_path / "film.ltm"
    path.write_bytes(large)
    with pytest.raises(BudgetError, match="not even one segment"):
        demote(path, 3000)
    assert path.read_bytes() == large
