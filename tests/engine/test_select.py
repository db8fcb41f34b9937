"""Selection: the best clips of a memory by a question, evidence, reuse for the next question, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.engine.conftest import RULE

from longtake.core.budget import Budget
from longtake.core.chat import Turn
from longtake.core.errors import BudgetError, ConfigError, PromptError, VideoError
from longtake.core.types import VideoMemory, VisualTokens
from longtake.engine import select as select_module
from longtake.engine.ask import Chat, ask
from longtake.engine.ledger import Ledger
from longtake.engine.select import (
    Selector,
    best_clips,
    question_rows,
    released_vision_batches,
    relevance,
    scored_video,
    select,
    selected_prompt,
    selector_of,
    subset,
)
from longtake.methods.reduce.lp_comp import LpComp
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.methods.select.qc_comp import XCOMP_2B_RELEASED, XCOMP_CLEAN, QcComp, chunks
from longtake.models.loaded import LoadedModel
from longtake.models.prompt import video_prompt

QUESTION = "What time does the clock show?"
SMALL = QcComp(window=2, stride=1, chunk_frames=32)
SHORT = Budget(max_new_tokens=6)


def film_of(clips: int, seed: int = 0, gap_s: float = 1.0) -> VideoMemory:
    """A memory of random tokens: `clips` vision clips of 4 frames and 64 tokens, a frame every `gap_s` seconds."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(clips * 64, 64, generator=generator)
    weight = torch.randint(1, 5, (clips * 64, 4), generator=generator)
    times = (np.arange(clips * 4) * gap_s).reshape(clips, 4)
    index = torch.arange(clips).repeat_interleave(64)
    return VideoMemory(VisualTokens(features, weight, index), times, clips * 4 * gap_s, "random", {"kind": "video"})


@pytest.fixture
def long_film() -> VideoMemory:
    return film_of(20)


def test_a_subset_keeps_features_weights_and_times_of_its_clips(long_film: VideoMemory):
    part = subset(long_film, [3, 4, 17])
    assert part.frame_pts_s.tolist() == long_film.frame_pts_s[[3, 4, 17]].tolist()
    for place, clip in enumerate([3, 4, 17]):
        own, old = part.tokens.clip_index == place, long_film.tokens.clip_index == clip
        assert torch.equal(part.tokens.features[own], long_film.tokens.features[old])
        assert torch.equal(part.tokens.frame_weight[own], long_film.tokens.frame_weight[old])
    assert part.tokens_per_frame == long_film.tokens_per_frame
    assert part.kept is not long_film.kept


def test_the_answer_is_written_from_the_selected_frames_and_they_are_its_evidence(
    loaded: LoadedModel, long_film: VideoMemory
):
    selector, ledger = Selector(method=SMALL, frames_kept=16), Ledger()
    answer = ask(long_film, QUESTION, loaded, SHORT, selector=selector, ledger=ledger)
    chosen = select(long_film, QUESTION, loaded, selector)
    assert chosen is not None and len(chosen.clips) == 4 and chosen.clips == sorted(chosen.clips)
    prompt = selected_prompt(long_film, chosen, QUESTION, (), selector, loaded)
    assert "16 of the 80 frames" in prompt
    assert ledger.stages["prefill"].tokens < 4 * 64 + len(prompt) + 1
    assert answer.evidence_kind == "relevance"
    assert answer.evidence == chosen.spans(long_film)
    covered = {t for span in answer.evidence for t in np.arange(span.start_s, span.end_s).tolist()}
    assert covered == {float(t) for t in long_film.frame_pts_s[chosen.clips].ravel()}
    scores = [span.score for span in answer.evidence]
    assert scores == sorted(scores, reverse=True) and scores[0] >= 1.0
    assert f"16 of {long_film.num_frames} frames were selected" in answer.ledger["notes"]


def test_the_selected_clips_are_those_of_highest_relevance(loaded: LoadedModel, long_film: VideoMemory):
    scores = relevance(long_film, QUESTION, loaded, SMALL)
    per_clip = scores.view(-1, 4).mean(1)
    chosen = best_clips(scores, long_film, 16).clips
    assert min(per_clip[chosen]) >= max(per_clip[i] for i in range(20) if i not in chosen)


@pytest.mark.parametrize("reducer", [None, LpComp()], ids=["whole", "lp_comp"])
@pytest.mark.parametrize("method", [SMALL, dataclasses.replace(SMALL, mask="none", window=0)], ids=["local", "global"])
def test_a_second_question_scores_as_if_it_were_the_first(
    loaded: LoadedModel, long_film: VideoMemory, method: QcComp, reducer: LpComp | None
):
    loaded.model.reducer = reducer
    relevance(long_film, "Who walks there?", loaded, method)
    warm = relevance(long_film, QUESTION, loaded, method)
    torch.testing.assert_close(warm, relevance(film_of(20), QUESTION, loaded, method), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(warm, relevance(long_film, "Who walks there?", loaded, method), rtol=1e-3)


def test_a_second_question_reads_no_video(loaded: LoadedModel, long_film: VideoMemory, monkeypatch: pytest.MonkeyPatch):
    relevance(long_film, QUESTION, loaded, SMALL)
    monkeypatch.setattr(select_module.ClipScorer, "read", lambda *_: pytest.fail("the video was read again"))
    relevance(long_film, "And now?", loaded, SMALL)
    relevance(long_film, QUESTION, loaded, SMALL, later=(Turn("assistant", "Ten."), Turn("user", "Sure?")))


def test_what_is_kept_stays_within_the_limit_and_does_not_change_scores(loaded: LoadedModel, long_film: VideoMemory):
    whole = relevance(long_film, QUESTION, loaded, SMALL)
    state = scored_video(long_film, loaded, SMALL, None)
    one = state.kept_bytes / len(state.frames)
    tight = film_of(20)
    scores = relevance(tight, QUESTION, loaded, SMALL, limit_gb=1.5 * one / 1e9)
    assert 0 < scored_video(tight, loaded, SMALL, 1.5 * one / 1e9).kept_bytes <= 1.5 * one
    torch.testing.assert_close(scores, whole)


@pytest.mark.parametrize("reducer", [None, LpComp()], ids=["whole", "lp_comp"])
def test_the_predicted_size_of_a_chunk_is_its_size(loaded: LoadedModel, reducer: LpComp | None):
    loaded.model.reducer = reducer
    state = scored_video(film_of(8), loaded, SMALL, None)
    chunk = state.scorer.read(torch.zeros(0, 64), torch.randn(512, 64), 4)
    assert chunk.num_bytes() == state.scorer.num_bytes(512)


def test_another_method_or_reducer_starts_anew(loaded: LoadedModel, long_film: VideoMemory):
    first = scored_video(long_film, loaded, SMALL, None)
    assert scored_video(long_film, loaded, SMALL, None) is first
    assert scored_video(long_film, loaded, dataclasses.replace(SMALL, mask="none"), None) is not first
    loaded.model.reducer = LpComp()
    assert scored_video(long_film, loaded, dataclasses.replace(SMALL, mask="none"), None) is not first


def test_a_reducer_that_looks_at_the_question_is_left_out_of_scoring(loaded: LoadedModel, long_film: VideoMemory):
    plain = relevance(long_film, QUESTION, loaded, SMALL)
    loaded.model.reducer = ProgressiveDrop(kind="attention", layers=(1, 2), ratios=(1.0, 0.5, 0.25))
    torch.testing.assert_close(relevance(long_film, QUESTION, loaded, SMALL), plain)


@pytest.mark.parametrize(
    ("frames", "selector", "kept"),
    [(24, Selector(frames_kept=24), None), (24, Selector(frames_kept=512), None), (32, Selector(frames_kept=8), 2)],
)
def test_everything_stays_when_it_is_no_more_than_asked_for(
    loaded: LoadedModel, frames: int, selector: Selector, kept: int | None
):
    chosen = select(film_of(frames // 4), QUESTION, loaded, selector)
    assert (chosen and len(chosen.clips)) == kept


def test_the_released_preset_keeps_everything_below_its_gate(loaded: LoadedModel, long_film: VideoMemory):
    assert select(long_film, QUESTION, loaded, Selector(method=XCOMP_2B_RELEASED, frames_kept=8)) is None


def test_the_question_is_found_in_the_prompt(loaded: LoadedModel):
    for question in ("What?", "s", "<|im_end|"):
        prompt = video_prompt(question, 24.0, 24)
        rows, header = question_rows(loaded, prompt, question, XCOMP_CLEAN)
        text = prompt.split("<image>")[1]
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert loaded.tokenizer.decode(ids[rows]) == question
        assert loaded.tokenizer.decode(ids[header:]) == "<|im_start|>assistant\n"


def test_the_released_span_skips_tokens_whatever_they_are(loaded: LoadedModel):
    rows, header = question_rows(loaded, video_prompt("What?", 24.0, 24), "What?", XCOMP_2B_RELEASED)
    assert (rows.start, rows.stop) == (27, header)


def test_a_later_question_of_a_conversation_selects_anew(loaded: LoadedModel, long_film: VideoMemory):
    chat = Chat(long_film, loaded, SHORT, selector=Selector(method=SMALL, frames_kept=8))
    first, second = chat.ask("Who walks there?"), chat.ask(QUESTION)
    assert first.evidence_kind == second.evidence_kind == "relevance"
    turns = (Turn("assistant", first.text), Turn("user", QUESTION))
    scores = relevance(film_of(20), "Who walks there?", loaded, SMALL, later=turns)
    assert second.evidence == best_clips(scores, long_film, 8).spans(long_film)


def test_a_film_of_any_length_gives_every_clip_a_score(loaded: LoadedModel):
    for clips in (2, 4, 10, 14):
        scores = relevance(film_of(clips), QUESTION, loaded, SMALL)
        assert scores.isfinite().all() and len(scores) == clips * 4


@pytest.mark.parametrize("frames", [8, 24, 32, 40, 72, 1000, 1032])
def test_clean_chunks_cover_the_film_with_equal_lengths(frames: int):
    found = chunks(frames, SMALL)
    assert set(np.concatenate(found).tolist()) == set(range(frames))
    assert len({len(chunk) for chunk in found}) == 1


@pytest.mark.parametrize(
    ("clips", "selector", "error", "words"),
    [
        (20, Selector(method=SMALL, frames_kept=10), ConfigError, "multiple of the vision clip of 4; pass 8"),
        (19, Selector(method=SMALL, frames_kept=8), VideoError, "76 frames.*multiple of the scored clip of 8"),
        (
            4,
            Selector(method=dataclasses.replace(SMALL, window=8, last_window=False), frames_kept=8),
            VideoError,
            "2 clips.*window of 8",
        ),
        (
            258,
            Selector(method=dataclasses.replace(XCOMP_2B_RELEASED, repeats=8, first_layer=0, last_layer=3)),
            ConfigError,
            "whole vision clips of 4",
        ),
        (
            20,
            Selector(method=dataclasses.replace(SMALL, first_layer=9), frames_kept=8),
            ConfigError,
            "the model has 4",
        ),
    ],
)
def test_what_cannot_be_selected_is_refused(
    loaded: LoadedModel, clips: int, selector: Selector, error: type[Exception], words: str
):
    with pytest.raises(error, match=words):
        select(film_of(clips), QUESTION, loaded, selector)


def test_a_budget_below_one_window_is_refused_and_the_named_one_fits(loaded: LoadedModel, long_film: VideoMemory):
    selector = Selector(method=SMALL, frames_kept=8)
    with pytest.raises(BudgetError, match=r"one window of 16 frames.*memory_gb") as caught:
        select(long_film, QUESTION, loaded, selector, limit_gb=1e-5)
    enough = float(str(caught.value).split("memory_gb ")[1].split()[0])
    assert select(long_film, QUESTION, loaded, selector, limit_gb=enough * 1.01) is not None


def test_a_question_that_the_skipped_tokens_swallow_is_refused(loaded: LoadedModel, long_film: VideoMemory):
    method = dataclasses.replace(SMALL, skipped_tokens=500)
    with pytest.raises(PromptError, match="no token of the question is left"):
        select(long_film, QUESTION, loaded, Selector(method=method, frames_kept=8))


@pytest.mark.parametrize("rows", [slice(3, 3), slice(0, 99), slice(40, None)])
def test_a_question_span_outside_the_prompt_is_refused(loaded: LoadedModel, long_film: VideoMemory, rows: slice):
    state = scored_video(long_film, loaded, SMALL, None)
    ids = torch.tensor([1, 2, -200, *range(10, 30)])
    with pytest.raises(PromptError, match="of the 20 after the video"):
        state.frame_scores(ids, rows, 20)


def test_clips_without_a_finite_score_are_left_out_and_counted(loaded: LoadedModel, long_film: VideoMemory):
    long_film.tokens.features[:128] = torch.nan
    method = dataclasses.replace(SMALL, window=1, stride=1, chunk_frames=8)
    chosen = select(long_film, QUESTION, loaded, Selector(method=method, frames_kept=76))
    assert chosen is not None and chosen.clips == list(range(2, 20))
    assert chosen.warnings == ("2 of 20 clips have no finite score and were left out; first: 0",)
    assert all(np.isfinite(span.score) for span in chosen.spans(long_film))
    answer = ask(long_film, QUESTION, loaded, SHORT, selector=Selector(method=method, frames_kept=76))
    assert chosen.warnings[0] in answer.ledger["notes"]


def test_scores_that_are_all_nan_are_refused(loaded: LoadedModel, long_film: VideoMemory):
    with pytest.raises(ConfigError, match="none of 20 clips has a score"):
        best_clips(torch.full((80,), -torch.inf), long_film, 8)


def test_the_selector_of_a_model_is_its_presets_or_the_clean_one(loaded: LoadedModel):
    assert selector_of(loaded, 64) == Selector(frames_kept=64)
    assert selector_of(loaded, 64, {"mask": "none"}).method.mask == "none"
    with pytest.raises(ConfigError, match="did you mean 'mask'"):
        selector_of(loaded, 64, {"mast": "none"})


def test_a_picture_is_never_selected_from(loaded: LoadedModel, long_film: VideoMemory):
    picture = dataclasses.replace(long_film, settings={"kind": "image"})
    assert select(picture, QUESTION, loaded, Selector(method=SMALL, frames_kept=8)) is None


@pytest.mark.parametrize("num_frames", [8, 512, 520, 1016, 1024, 1032, 4096])
def test_released_vision_batches_are_whole_clips_and_cover_the_film(num_frames: int):
    batches = released_vision_batches(num_frames)
    assert [frame for batch in batches for frame in batch] == list(range(num_frames))
    assert all(batch.start % 8 == 0 for batch in batches)


def test_selection_works_on_a_decoded_film(loaded: LoadedModel, film: object):
    selector = Selector(method=SMALL, frames_kept=8)
    answer = ask(film, QUESTION, loaded, SHORT, rule=RULE, selector=selector)  # pyright: ignore[reportArgumentType]
    assert answer.evidence_kind == "relevance"
    assert sum(span.end_s - span.start_s for span in answer.evidence) == pytest.approx(8.0, abs=1.1)
