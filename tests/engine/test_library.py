"""Ask a folder of memories: what is found, what is read, and that the index follows the folder."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.memory.conftest import CLIPS, FRAMES
from tests.memory.conftest import header as any_header
from tests.memory.conftest import key as any_key

from longtake.core.budget import Budget
from longtake.core.errors import BudgetError, ConfigError, MemoryFormatError, MissingExtraError, PromptError
from longtake.core.types import VisualTokens
from longtake.engine import library as library_module
from longtake.engine.ask import ask
from longtake.engine.library import Library
from longtake.engine.remember import recall
from longtake.engine.select import selector_of
from longtake.memory.key import MemoryHeader
from longtake.memory.reader import StoredMemory
from longtake.memory.segment import pack_segment
from longtake.memory.writer import MemoryWriter
from longtake.models.loaded import LoadedModel
from longtake.models.naming import question_vector, token_vectors
from longtake.models.tiny import tiny_model

TOKENS, SEGMENTS = 8, 4
QUESTION = "Where is the red circle?"
SHORT = Budget(max_new_tokens=3)


def header(loaded: LoadedModel, content: str, source: str, **changes: object) -> MemoryHeader:
    key = any_key(**{"content": content, "model": loaded.fingerprint} | changes)
    return dataclasses.replace(any_header(0), key=key.to_dict(), source=source, width=64, made_with="--model tiny")


def write(
    folder: Path,
    loaded: LoadedModel,
    name: str,
    seed: int,
    needle: tuple[str, int] | None = None,
    source: str = "film.mp4",
    **changes: object,
) -> Path:
    """Write a memory of noise; its needle is a question, and the clip that names its words."""
    path, generator = folder / f"{name}.ltm", torch.Generator().manual_seed(seed)
    path.unlink(missing_ok=True)
    with MemoryWriter(path, header(loaded, f"{seed}", source, **changes)) as writer:
        for number in range(SEGMENTS):
            clips = torch.arange(CLIPS).repeat_interleave(TOKENS) + number * CLIPS
            features = torch.randn(len(clips), 64, generator=generator)
            if needle is not None:
                weight = loaded.model.language.norm.weight.detach()
                features[clips == needle[1]] = question_vector(loaded, needle[0]) / weight
            times = np.arange(CLIPS * FRAMES, dtype=np.float64).reshape(CLIPS, FRAMES) + number * CLIPS * FRAMES
            tokens = VisualTokens(features, torch.ones(len(clips), FRAMES, dtype=torch.int64), clips)
            writer.append(pack_segment(tokens, times, b"", "float32", number * CLIPS * FRAMES))
        writer.finish(float(SEGMENTS * CLIPS * FRAMES))
    return path


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tiny_model()


@pytest.fixture
def folder(tmp_path: Path, loaded: LoadedModel) -> Path:
    """Return a folder of four memories, the third of which names the question in its fifth clip."""
    for seed, name in enumerate("abcd"):
        write(tmp_path, loaded, name, seed, (QUESTION, 5) if name == "c" else None)
    return tmp_path


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that says how many memories were taken into an index."""
    calls: list[int] = []

    def counted(*arguments: object) -> object:
        calls.append(1)
        return token_vectors(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(library_module, "token_vectors", counted)
    return lambda: len(calls)


def test_the_product_of_both_sides_is_the_logit_of_the_questions_words(loaded: LoadedModel):
    """By hand, from the head: mean logit of the words less that of all words, up to the two lengths."""
    features = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    ids = loaded.tokenizer(f" {QUESTION}", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        normed = loaded.model.language.norm(features)
        logits = loaded.model.lm_head(normed)
    expected = logits[:, ids].mean(1) - logits.mean(1)
    likeness = token_vectors(loaded, features) @ question_vector(loaded, QUESTION) * normed.norm(dim=1)
    assert torch.allclose(likeness / likeness[0], expected / expected[0], rtol=1e-4)


def test_the_segment_that_names_the_question_is_found_and_cited(folder: Path, loaded: LoadedModel):
    library = Library(folder, loaded)
    found = library.rank(QUESTION, 3)
    assert (found[0].path.name, found[0].segment) == ("c.ltm", 2)
    assert (found[0].span.start_s, found[0].span.end_s) == (16.0, 24.0)
    assert found[0].span.score == pytest.approx(1, abs=2e-3) and (found[1].span.score or 0) < 0.7
    assert len({(one.path, one.segment) for one in found}) == 3
    answer = library.ask(QUESTION, SHORT)
    assert answer.read == (folder / "c.ltm",)
    assert answer.answer.evidence and {span.medium for span in answer.answer.evidence} == {1}


def test_a_video_that_fits_is_answered_as_when_it_is_asked_alone(folder: Path, loaded: LoadedModel):
    alone = ask(folder / "c.ltm", QUESTION, loaded, SHORT)
    found = Library(folder, loaded).ask(QUESTION, SHORT).answer
    assert found.text == alone.text
    assert [dataclasses.replace(span, medium=None) for span in found.evidence] == list(alone.evidence)
    assert {"find", "recall"} <= set(found.ledger["stages"])  # pyright: ignore[reportArgumentType]


def test_of_a_longer_one_the_best_segments_are_read(folder: Path, loaded: LoadedModel):
    library = Library(folder, loaded)
    with StoredMemory(folder / "c.ltm") as stored:
        part = stored.part([2])
        both = stored.part([3, 1])
    found = library.ask(QUESTION, dataclasses.replace(SHORT, max_frames=8)).answer
    alone = ask(part, QUESTION, loaded, SHORT)
    assert found.text == alone.text
    assert [dataclasses.replace(span, medium=None) for span in found.evidence] == list(alone.evidence)
    assert all(span.start_s >= 16 and span.end_s <= 24 for span in found.evidence)
    two = library.ask(QUESTION, dataclasses.replace(SHORT, max_frames=20)).answer
    assert two.ledger["stages"]["recall"]["tokens"] == 2 * CLIPS * TOKENS  # pyright: ignore[reportIndexIssue]
    assert both.frame_pts_s.ravel().tolist() == [*range(24, 32), *range(8, 16)]
    assert both.tokens.clip_index.tolist() == [clip for clip in range(4) for _ in range(TOKENS)]
    with pytest.raises(BudgetError, match="pass max_frames 8"):
        library.ask(QUESTION, Budget(max_frames=4))


def test_several_videos_are_read_and_each_span_says_whose_it_is(folder: Path, loaded: LoadedModel):
    write(folder, loaded, "b", 1, (QUESTION, 0))
    found = Library(folder, loaded).ask(QUESTION, SHORT, videos=2)
    assert {path.name for path in found.read} == {"b.ltm", "c.ltm"}
    alone = ask([recall(path, loaded) for path in found.read], QUESTION, loaded, SHORT)
    assert (found.answer.text, found.answer.evidence) == (alone.text, alone.evidence)


def test_a_selector_chooses_within_what_is_read(folder: Path, loaded: LoadedModel):
    selector = selector_of(loaded, 8)
    found = Library(folder, loaded).ask(QUESTION, SHORT, selector=selector).answer
    alone = ask(folder / "c.ltm", QUESTION, loaded, SHORT, selector=selector)
    assert (found.evidence_kind, found.text) == ("relevance", alone.text)


def test_a_lost_or_damaged_index_is_made_again(folder: Path, loaded: LoadedModel, count: Callable[[], int]):
    library = Library(folder, loaded)
    expected = library.rank(QUESTION)
    assert count() == 4 and not library.notes
    whole = library.path.read_bytes()
    again = Library(folder, loaded)
    assert again.rank(QUESTION) == expected and count() == 4 and again.refresh() == 0
    for number, data in enumerate([None, whole[: len(whole) // 2], whole[:-9] + b"?" + whole[-8:]], start=2):
        library.path.unlink()
        if data is not None:
            library.path.write_bytes(data)
        again = Library(folder, loaded)
        assert bool(again.notes) == (data is not None)
        assert again.rank(QUESTION) == expected and count() == 4 * number
        assert library.path.read_bytes()[:8] == whole[:8]


def test_memories_that_came_changed_or_went_are_noticed(folder: Path, loaded: LoadedModel, count: Callable[[], int]):
    library = Library(folder, loaded)
    assert library.refresh() == 4
    write(folder, loaded, "e", 5, ("What else?", 0))
    assert library.rank("What else?")[0].path.name == "e.ltm" and count() == 5
    (folder / "c.ltm").unlink()
    assert "c.ltm" not in {one.path.name for one in library.rank(QUESTION)} and count() == 5
    write(folder, loaded, "a", 6, (QUESTION, 3))
    assert library.rank(QUESTION)[0].path.name == "a.ltm" and count() == 6
    (folder / "b.ltm").touch()
    assert library.refresh() == 0 and count() == 6
    assert Library(folder, loaded).rank(QUESTION) == library.rank(QUESTION) and count() == 6


def test_a_memory_that_changes_between_finding_and_reading_is_looked_at_again(
    folder: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    library = Library(folder, loaded)
    library.refresh()
    write(folder, loaded, "c", 9)
    write(folder, loaded, "d", 3, (QUESTION, 1))
    refresh, calls = library.refresh, []
    monkeypatch.setattr(library, "refresh", lambda: calls.append(1) or (refresh() if len(calls) > 1 else 0))
    assert library.ask(QUESTION, SHORT).read == (folder / "d.ltm",)
    assert len(calls) == 2


def test_a_memory_that_is_being_written_can_be_found(folder: Path, loaded: LoadedModel):
    whole = (folder / "c.ltm").read_bytes()
    (folder / "c.ltm").write_bytes(whole[: len(whole) - 192])  # without its end
    found = Library(folder, loaded).ask(QUESTION, Budget(max_new_tokens=3, max_frames=8))
    assert found.read == (folder / "c.ltm",)
    assert "still being written: 32 frames" in str(found.answer.ledger["notes"])


def test_memories_of_another_model_are_left_out_by_name(folder: Path, loaded: LoadedModel):
    write(folder, loaded, "c", 2, (QUESTION, 5), model="0" * 64)
    (folder / "d.ltm").write_bytes(b"no memory" * 20)
    library = Library(folder, loaded)
    found = library.ask(QUESTION, SHORT)
    assert [one.name for one in found.skipped] == ["c.ltm", "d.ltm"]
    assert "was made by model 000000000000" in found.skipped[0].reason
    assert "no memory" in found.skipped[1].reason
    assert "c.ltm was left out" in str(found.answer.ledger["notes"])
    for name in ("a", "b"):
        write(folder, loaded, name, 2, model="0" * 64)
    with pytest.raises(MemoryFormatError, match=r"no memory that can be asked \(a.ltm: .* was made by model"):
        library.ask(QUESTION, SHORT)


def test_each_model_has_its_own_index(folder: Path, loaded: LoadedModel):
    Library(folder, loaded).refresh()
    other = dataclasses.replace(loaded, fingerprint="f" * 64)
    assert Library(folder, other).path != Library(folder, loaded).path
    Library(folder, loaded).path.rename(Library(folder, other).path)
    assert "of another model or version" in Library(folder, other).notes[0]


def test_a_folder_without_memories_says_how_to_make_some(tmp_path: Path, loaded: LoadedModel):
    with pytest.raises(MemoryFormatError, match="there is none.*longtake ingest"):
        Library(tmp_path, loaded).ask(QUESTION)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="is no folder"):
        Library(tmp_path / "nowhere", loaded)


def test_two_videos_of_one_name_are_told_apart(tmp_path: Path, loaded: LoadedModel):
    write(tmp_path, loaded, "film-1", 1, ("First?", 0), source="a/film.mp4")
    write(tmp_path, loaded, "film-2", 2, ("Second?", 7), source="b/film.mp4")
    library = Library(tmp_path, loaded)
    assert [library.ask(text, SHORT).read[0].name for text in ("First?", "Second?")] == ["film-1.ltm", "film-2.ltm"]


def test_an_index_that_cannot_be_written_is_said_and_not_needed(folder: Path, loaded: LoadedModel):
    library = Library(folder, loaded)
    library.path.mkdir()
    (library.path / "something").touch()
    found = library.ask(QUESTION, SHORT)
    assert found.read[0].name == "c.ltm" and "cannot be written" in str(found.answer.ledger["notes"])


def test_bad_wishes_are_refused(folder: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    library = Library(folder, loaded)
    with pytest.raises(PromptError, match="empty"):
        library.ask(" ")
    with pytest.raises(ConfigError, match="videos is 0"):
        library.ask(QUESTION, videos=0)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(MissingExtraError, match=r"longtake\[library\]"):
        Library(folder, dataclasses.replace(loaded, fingerprint="e" * 64))
