"""Ask from a file: the same numbers, no picture decoded, no tower run, and nobody else's memory taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.core.budget import Budget
from longtake.core.errors import BudgetError, ConfigError, MemoryFormatError, PromptError, StorageError, VideoError
from longtake.core.types import VisualTokens
from longtake.engine import ingest as ingest_module
from longtake.engine import remember as remember_module
from longtake.engine.ask import Chat, ask
from longtake.engine.ingest import ingest
from longtake.engine.ledger import Ledger
from longtake.engine.remember import Wish, recall, remember
from longtake.media.sampling import SamplingRule
from longtake.media.synthetic import write_clock_video
from longtake.memory.prune import prune
from longtake.memory.reader import StoredMemory
from longtake.memory.thin import thin
from longtake.memory.writer import MemoryWriter
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import tiny_model
from longtake.models.tiny_pvc import tiny_pvc

RULE = SamplingRule(min_frames=8)
WISH = Wish(rule=RULE, clips_per_segment=2, options="--model tiny")
SHORT = Budget(max_new_tokens=3)


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clock_video(tmp_path_factory.mktemp("films") / "film.mp4", 24.0, fps=4, size=(64, 128))


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    return tiny_model()


@pytest.fixture(scope="session")
def stored(film: Path, loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return remember(film, loaded, tmp_path_factory.mktemp("memories"), WISH)


@pytest.fixture
def logits(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Return the list that every step's logits are put on."""
    found: list[torch.Tensor] = []
    real = loaded.model.stream

    def recording(*arguments: Any, **options: Any) -> Iterator[Any]:
        for step in real(*arguments, **options):
            found.append(step.logits.clone())
            yield step

    monkeypatch.setattr(loaded.model, "stream", recording)
    return found


def test_a_question_from_the_file_gets_the_same_logits_as_one_of_the_video(
    film: Path, stored: Path, loaded: LoadedModel, logits: list[torch.Tensor]
):
    cold = ask(film, "What happens?", loaded, SHORT, rule=RULE)
    cold_logits, logits[:] = torch.stack(logits), []
    warm = ask(stored, "What happens?", loaded, SHORT)
    assert torch.equal(torch.stack(logits), cold_logits)
    assert (warm.text, warm.evidence) == (cold.text, cold.evidence)


def test_second_question_decodes_nothing_and_runs_no_tower(
    stored: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    calls: list[str] = []
    for module in (ingest_module, remember_module):
        monkeypatch.setattr(module, "open_video", lambda *_, **__: calls.append("open"))
    hook = loaded.model.vision.register_forward_hook(lambda *_: calls.append("tower"))
    ledger = Ledger()
    answer = ask(stored, "What happens?", loaded, SHORT, ledger=ledger)
    chat = Chat(stored, loaded, SHORT)
    assert [chat.ask("What?").finish_reason, chat.ask("And then?").finish_reason] == [answer.finish_reason] * 2
    hook.remove()
    assert calls == []
    assert not {"open", "sample", "decode", "preprocess", "vision", "compress"} & set(ledger.stages)
    assert ledger.stages["recall"].tokens == 24 * 16


def test_the_file_holds_what_ingest_makes(film: Path, stored: Path, loaded: LoadedModel):
    expected, found = ingest(film, loaded, rule=RULE), recall(stored, loaded)
    assert torch.equal(found.tokens.features, expected.tokens.features)
    assert torch.equal(found.tokens.frame_weight, expected.tokens.frame_weight)
    assert torch.equal(found.tokens.clip_index, expected.tokens.clip_index)
    assert np.array_equal(found.frame_pts_s, expected.frame_pts_s)
    assert (found.duration_s, found.source, found.warnings) == (expected.duration_s, str(film), expected.warnings)
    assert found.settings == expected.settings
    with StoredMemory(stored) as opened:
        opened.verify()
        sizes = {Image.open(__import__("io").BytesIO(part.thumbnail)).size for part in opened.segments()}
    assert sizes == {(144, 72)}


def test_the_same_wish_finds_the_memory_that_is_there(film: Path, stored: Path, loaded: LoadedModel):
    before, ledger = stored.read_bytes(), Ledger()
    assert remember(film, loaded, stored.parent, WISH, ledger=ledger) == stored
    assert "vision" not in ledger.stages and "decode" not in ledger.stages
    assert stored.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"store": "int8"},
        {"start_s": 2.0},
        {"end_s": 20.0},
        {"budget": Budget(max_frames=16)},
        {"rule": SamplingRule(min_frames=16)},
        {"clips_per_segment": 4},
    ],
)
def test_another_wish_makes_another_memory(change: dict[str, Any], film: Path, stored: Path, loaded: LoadedModel):
    other = remember(film, loaded, stored.parent, dataclasses.replace(WISH, **change))
    assert other != stored
    with pytest.raises(MemoryFormatError, match="under another key"):
        remember(film, loaded, stored, dataclasses.replace(WISH, **change))
    assert recall(stored, loaded).num_frames == 24


def test_an_interrupted_memory_is_gone_on_with(
    film: Path, stored: Path, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The disk is full after two segments; then there is room again, and only the last one is decoded."""
    path, real, room = tmp_path / "film.ltm", MemoryWriter.append, [2]

    def limited(self: MemoryWriter, segment: bytes) -> None:
        if self.num_segments == room[0]:
            raise StorageError("full")
        real(self, segment)

    monkeypatch.setattr(MemoryWriter, "append", limited)
    with pytest.raises(StorageError):
        remember(film, loaded, path, WISH)
    unfinished = recall(path, loaded)
    assert unfinished.num_frames == 16 and unfinished.duration_s == 16.0
    assert "unfinished: 16 of 24 frames" in unfinished.warnings[-1]
    room[0], ledger = 100, Ledger()
    assert remember(film, loaded, path, WISH, ledger=ledger) == path
    assert ledger.stages["vision"].tokens == 8 * 36
    assert torch.equal(recall(path, loaded).tokens.features, recall(stored, loaded).tokens.features)


def test_a_model_whose_clips_look_back_in_time_is_remembered_and_gone_on_with(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """PVC's tower reads frames in the light of those before: what is missing is encoded from the beginning on."""
    model, wish = tiny_pvc(), Wish(budget=Budget(max_frames=16), clips_per_segment=4)
    expected = ingest(film, model, wish.budget)
    path, real, room = tmp_path / "film.ltm", MemoryWriter.append, [2]

    def limited(self: MemoryWriter, segment: bytes) -> None:
        if self.num_segments == room[0]:
            raise StorageError("full")
        real(self, segment)

    monkeypatch.setattr(MemoryWriter, "append", limited)
    with pytest.raises(StorageError):
        remember(film, model, path, wish)
    room[0] = 100
    remember(film, model, path, wish)
    found = recall(path, model)
    assert torch.equal(found.tokens.features, expected.tokens.features)
    assert ask(path, "What?", model, SHORT).evidence == ask(film, "What?", model, wish_budget(wish)).evidence


def wish_budget(wish: Wish) -> Budget:
    return dataclasses.replace(wish.budget, max_new_tokens=SHORT.max_new_tokens)


def test_a_memory_of_another_model_is_refused_with_the_command_that_makes_it_again(
    stored: Path, film: Path, loaded: LoadedModel
):
    other = dataclasses.replace(loaded, fingerprint="f" * 64)
    with pytest.raises(MemoryFormatError) as refused:
        recall(stored, other, options="--model other")
    assert f"made by model {loaded.fingerprint[:12]} (--model tiny); this is model ffffffffffff" in str(refused.value)
    assert f"run: longtake ingest {film} -o FOLDER --model other" in str(refused.value)


def test_a_memory_of_another_version_is_refused(stored: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remember_module, "PIPELINE_VERSION", 2)
    with pytest.raises(MemoryFormatError, match=r"made by version 1 of the pipeline .*run: longtake ingest"):
        ask(stored, "What happens?", loaded)


def test_a_video_that_changes_under_the_reader_leaves_no_memory(film: Path, loaded: LoadedModel, tmp_path: Path):
    copy = tmp_path / "film.mp4"
    copy.write_bytes(film.read_bytes())
    with pytest.raises(VideoError, match="changed while it was read"):
        remember(copy, loaded, tmp_path / "out", WISH, on_progress=lambda *_: copy.touch())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error_of_storage(film: Path, loaded: LoadedModel):
    with pytest.raises(StorageError, match="cannot be made"):
        remember(film, loaded, film / "memories", WISH)


def test_a_memory_that_is_too_long_says_at_how_many_tokens_a_frame_it_fits(
    stored: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loaded.config, "tokenizer_model_max_length", 300)
    with pytest.raises(PromptError) as refused:
        ask(stored, "What happens?", loaded, SHORT)
    advised = float(str(refused.value).split("tokens_per_frame ")[1])
    ask(stored, "What happens?", loaded, dataclasses.replace(SHORT, tokens_per_frame=advised))
    with pytest.raises(PromptError):
        ask(stored, "What happens?", loaded, dataclasses.replace(SHORT, tokens_per_frame=advised + 0.25))


def test_a_picture_is_remembered_too(loaded: LoadedModel, tmp_path: Path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 200, 3), dtype=np.uint8)).save(path)
    memory = recall(remember(path, loaded, tmp_path, WISH), loaded)
    expected = ingest(path, loaded)
    assert torch.equal(memory.tokens.features, expected.tokens.features)
    assert memory.settings == expected.settings
    answer = ask(memory, "What is it?", loaded, dataclasses.replace(SHORT, tokens_per_frame=1))
    assert answer.text == ask(path, "What is it?", loaded, SHORT).text


def test_half_the_bytes_cost_a_measured_loss(film: Path, loaded: LoadedModel, stored: Path, tmp_path: Path):
    path = remember(film, loaded, tmp_path, dataclasses.replace(WISH, store="int8"))
    exact, rounded = recall(stored, loaded).tokens.features, recall(path, loaded).tokens.features
    error = float((rounded - exact).norm() / exact.norm())
    with StoredMemory(path) as opened:
        told = [part.relative_error for part in opened.segments()]
    assert min(told) <= error <= max(told) < 0.02


def test_a_part_of_a_memory_cannot_be_asked_for(stored: Path, loaded: LoadedModel):
    with pytest.raises(ConfigError, match="leave out start and end"):
        ask(stored, "What happens?", loaded, start_s=3.0)


@pytest.mark.parametrize("tokens_per_frame, expected", [(64, 384), (16, 384), (4, 96), (1, 24), (0.5, 12), (0.25, 6)])
def test_one_file_is_asked_at_any_budget(
    tokens_per_frame: float, expected: int, stored: Path, loaded: LoadedModel, logits: list[torch.Tensor]
):
    whole = recall(stored, loaded)
    memory = thin(whole, tokens_per_frame)
    assert len(memory.tokens) == expected
    per_frame = memory.tokens.frame_weight.view(6, -1, 4).sum(1)
    assert torch.equal(per_frame, whole.tokens.frame_weight.view(6, -1, 4).sum(1))

    def sums(of: Any) -> torch.Tensor:
        return (of.tokens.features * of.tokens.frame_weight.sum(1, keepdim=True)).view(6, -1, 64).sum(1)

    assert torch.allclose(sums(memory), sums(whole), atol=1e-3)
    ledger = Ledger()
    ask(stored, "What?", loaded, dataclasses.replace(SHORT, tokens_per_frame=tokens_per_frame), ledger=ledger)
    from_file = logits[0]
    logits.clear()
    ask(memory, "What?", loaded, SHORT)
    assert torch.equal(logits[0], from_file)


@pytest.mark.parametrize("tokens_per_frame, near", [(0.1, "0.25"), (1.1, "1 or 1.25")])
def test_a_budget_that_no_clip_can_have_names_one_that_it_can(tokens_per_frame: float, near: str, stored: Path, loaded):
    with pytest.raises(BudgetError, match=f"pass {near}"):
        thin(recall(stored, loaded), tokens_per_frame)


def test_prune_makes_a_smaller_memory_under_another_key(film: Path, loaded: LoadedModel, tmp_path: Path):
    path = remember(film, loaded, tmp_path, WISH)
    whole, size = recall(path, loaded), path.stat().st_size
    pruned = prune(path, tokens_per_frame=4, store="int8")
    assert list(tmp_path.iterdir()) == [pruned]
    assert pruned.name != path.name and pruned.stat().st_size < size / 4
    found, expected = recall(pruned, loaded), thin(whole, 4)
    assert torch.equal(found.tokens.frame_weight, expected.tokens.frame_weight)
    assert torch.allclose(found.tokens.features, expected.tokens.features, atol=0.02)
    with StoredMemory(pruned) as opened:
        opened.verify()
        assert opened.header.identity.changes == ("tokens_per_frame=4", "store=int8")
    assert remember(film, loaded, tmp_path, WISH) == path


def test_a_prune_that_fails_leaves_the_memory_and_nothing_beside_it(
    film: Path, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = remember(film, loaded, tmp_path, WISH)
    before = path.read_bytes()
    monkeypatch.setattr(MemoryWriter, "finish", lambda *_: (_ for _ in ()).throw(StorageError("full")))
    with pytest.raises(StorageError, match="full"):
        prune(path, tokens_per_frame=1)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_clips_of_different_counts_are_thinned_each_to_its_own(stored: Path, loaded: LoadedModel):
    whole = recall(stored, loaded)
    rows = (whole.tokens.clip_index != 2) | (torch.arange(len(whole.tokens)) % 64 < 3)
    tokens = VisualTokens(whole.tokens.features[rows], whole.tokens.frame_weight[rows], whole.tokens.clip_index[rows])
    found = thin(dataclasses.replace(whole, tokens=tokens), 1).tokens
    assert found.clip_index.bincount().tolist() == [4, 4, 3, 4, 4, 4]
    expected = thin(whole, 1).tokens
    same = found.clip_index != 2
    assert torch.allclose(found.features[same], expected.features[expected.clip_index != 2], atol=1e-5)
    assert torch.equal(found.features[~same], tokens.features[tokens.clip_index == 2])


def test_prune_of_an_unfinished_memory_is_refused(film: Path, loaded: LoadedModel, stored: Path, tmp_path: Path):
    path = tmp_path / "film.ltm"
    path.write_bytes(stored.read_bytes()[:-500])
    with pytest.raises(MemoryFormatError, match="unfinished"):
        prune(path, tokens_per_frame=1)
    with pytest.raises(ConfigError, match="without a wish"):
        prune(stored)
