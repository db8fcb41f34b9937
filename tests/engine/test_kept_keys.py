"""Keys on disk: a new process scores its first question without reading the video; wrong keys are never used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from longtake.core.budget import Budget
from longtake.core.errors import ConfigError, MemoryFormatError
from longtake.core.types import VideoMemory
from longtake.engine.ask import ask
from longtake.engine.ledger import Ledger
from longtake.engine.remember import Wish, recall, remember, within
from longtake.engine.select import ScoredVideo, Selector, keep_keys, question_rows, relevance, select
from longtake.engine.show import prompt_of, shown
from longtake.memory.keys import keys_path
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.select.qc_comp import QcComp
from longtake.models.loaded import LoadedModel

SMALL = QcComp(window=2, stride=1, chunk_frames=8, clip_frames=4)
SELECTOR = Selector(method=SMALL, frames_kept=8)
QUESTIONS = ("What time does the clock show?", "And then?")


@pytest.fixture(scope="session")
def stored(film: Path, shared_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the memory of the film on disk, 24 frames in three chunks."""
    wish = Wish(budget=Budget(max_frames=24))
    return remember(film, shared_model, tmp_path_factory.mktemp("kept") / "film.ltm", wish)


@pytest.fixture
def path(stored: Path, tmp_path: Path) -> Path:
    """Return a copy of it, that a test may write beside."""
    copy = tmp_path / "film.ltm"
    copy.write_bytes(stored.read_bytes())
    return copy


@contextmanager
def counted_rows(loaded: LoadedModel) -> Iterator[list[int]]:
    """Count the rows that enter each layer of the language model."""
    rows: list[int] = []
    hooks = [
        layer.mlp.register_forward_hook(lambda module, given, out: rows.append(out.shape[-2]))
        for layer in loaded.model.language.layers
    ]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("reduces", [False, True])
def test_a_new_process_scores_its_first_question_without_reading_the_video(
    path: Path, loaded: LoadedModel, reduces: bool
):
    loaded.model.reducer = LpComp() if reduces else None
    expected = [relevance(recall(path, loaded), question, loaded, SMALL) for question in QUESTIONS]
    keep_keys(recall(path, loaded), loaded, SMALL)
    anew = recall(path, loaded)
    for question, scores in zip(QUESTIONS, expected, strict=True):
        with counted_rows(loaded) as rows:
            found = relevance(anew, question, loaded, SMALL)
        _, num_text = question_rows(loaded, prompt_of([shown(anew, loaded)], loaded, question), question, SMALL)
        num_layers = SMALL.layers(len(loaded.model.language.layers)).stop - 1  # the last one is looked at, not run
        assert rows == [num_text] * num_layers * 3  # a question's own tokens in each chunk, and not one of the video
        torch.testing.assert_close(found, scores, rtol=0, atol=1e-5)
        assert torch.equal(found, scores)


def test_chunks_that_do_not_fit_the_limit_come_from_the_disk_each_time(path: Path, loaded: LoadedModel):
    expected = relevance(recall(path, loaded), QUESTIONS[0], loaded, SMALL)
    keep_keys(recall(path, loaded), loaded, SMALL)
    anew, one_chunk_gb = recall(path, loaded), keys_path(path).stat().st_size / 3e9
    for _ in range(2):
        with counted_rows(loaded) as rows:
            assert torch.equal(relevance(anew, QUESTIONS[0], loaded, SMALL, limit_gb=one_chunk_gb), expected)
        assert len(set(rows)) == 1 and rows[0] < 300
    state = anew.kept["select"]
    assert isinstance(state, ScoredVideo) and 0 < state.kept_bytes < 3e9 * one_chunk_gb  # one of three, with its text


def test_keys_of_anything_else_are_not_used_and_this_is_said(path: Path, loaded: LoadedModel):
    keep_keys(recall(path, loaded), loaded, SMALL)
    other_model = dataclasses.replace(loaded, fingerprint="f" * 64)
    wider = dataclasses.replace(SMALL, window=1)
    asked: list[tuple[str, VideoMemory, LoadedModel, QcComp]] = [
        ("selector", recall(path, loaded), loaded, wider),
        ("model", recall(path, loaded), other_model, SMALL),
        ("tokens_per_frame", within(recall(path, loaded), Budget(tokens_per_frame=4)), loaded, SMALL),
    ]
    for field, memory, model, method in asked:
        chosen = select(memory, QUESTIONS[0], model, dataclasses.replace(SELECTOR, method=method))
        assert chosen is not None and field in chosen.warnings[0] and "read anew" in chosen.warnings[0]
        place = memory.kept.pop("stored_at")
        memory.kept.pop("select")
        assert torch.equal(chosen.relevance, relevance(memory, QUESTIONS[0], model, method)), place
    loaded.model.reducer = LpComp()
    chosen = select(recall(path, loaded), QUESTIONS[0], loaded, SELECTOR)
    assert chosen is not None and "reducer" in chosen.warnings[0]


def test_keys_of_another_memory_in_their_place_are_refused(path: Path, film: Path, loaded: LoadedModel):
    other = remember(film, loaded, path.with_name("other.ltm"), Wish(budget=Budget(max_frames=16)))
    keep_keys(recall(other, loaded), loaded, SMALL)
    expected = relevance(recall(path, loaded), QUESTIONS[0], loaded, SMALL)
    keys_path(other).replace(keys_path(path))
    chosen = select(recall(path, loaded), QUESTIONS[0], loaded, SELECTOR)
    assert chosen is not None and "memory" in chosen.warnings[0]
    assert torch.equal(chosen.relevance, expected)


def test_a_damaged_chunk_is_found_said_and_read_anew_and_kept_again(path: Path, loaded: LoadedModel):
    expected = relevance(recall(path, loaded), QUESTIONS[0], loaded, SMALL)
    keys = keep_keys(recall(path, loaded), loaded, SMALL)
    whole = keys.read_bytes()
    keys.write_bytes(whole[:-2000] + bytes([whole[-2000] ^ 4]) + whole[-1999:])
    ledger = Ledger()
    ask(recall(path, loaded), QUESTIONS[0], loaded, Budget(max_new_tokens=1), selector=SELECTOR, ledger=ledger)
    assert any("is damaged at byte" in note for note in ledger.notes)
    assert torch.equal(relevance(recall(path, loaded), QUESTIONS[0], loaded, SMALL), expected)
    keep_keys(recall(path, loaded), loaded, SMALL)
    assert keys.read_bytes() == whole
    before = keys.stat().st_mtime_ns
    keep_keys(recall(path, loaded), loaded, SMALL)
    assert keys.stat().st_mtime_ns == before


def test_keys_are_kept_of_a_finished_video_on_disk_only(path: Path, memory: VideoMemory, loaded: LoadedModel):
    with pytest.raises(ConfigError, match="of this process alone"):
        keep_keys(dataclasses.replace(memory), loaded, SMALL)
    picture = dataclasses.replace(memory, settings=dict(memory.settings) | {"kind": "image"})
    with pytest.raises(ConfigError, match="is no video"):
        keep_keys(picture, loaded, SMALL)
    growing = recall(path, loaded)
    growing.kept["stored_at"] = dataclasses.replace(growing.kept["stored_at"], is_complete=False)  # pyright: ignore
    with pytest.raises(MemoryFormatError, match="unfinished"):
        keep_keys(growing, loaded, SMALL)
