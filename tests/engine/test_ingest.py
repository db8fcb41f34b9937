"""Ingest: a video becomes a memory in bounded chunks, whatever their size, and every token knows its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.engine.conftest import RULE

from longtake.core.budget import Budget
from longtake.core.errors import BudgetError, VideoError
from longtake.core.reduction import Reduction
from longtake.core.types import Frames, VideoMemory
from longtake.engine.ingest import default_rule, frame_weights, ingest, ingest_segments
from longtake.engine.ledger import Ledger
from longtake.media.sampling import RELEASED, Sampled, SamplingRule
from longtake.media.synthetic import draw_clock, read_clock
from longtake.media.transforms import normalize_frames
from longtake.media.video import Video, open_video
from longtake.models.loaded import LoadedModel


@pytest.mark.parametrize("chunk_clips", [1, 2, 5, 8, 64])
def test_tokens_do_not_depend_on_the_chunk_size(chunk_clips: int, film: Path, loaded: LoadedModel, memory: VideoMemory):
    other = ingest(film, loaded, rule=RULE, chunk_clips=chunk_clips)
    assert torch.equal(other.tokens.features, memory.tokens.features)
    assert torch.equal(other.tokens.frame_weight, memory.tokens.frame_weight)
    assert torch.equal(other.tokens.clip_index, memory.tokens.clip_index)
    assert np.array_equal(other.frame_pts_s, memory.frame_pts_s)


def test_memory_equals_the_plain_path_over_whole_tensors(film: Path, loaded: LoadedModel, memory: VideoMemory):
    side = loaded.config.vision_config.image_size
    with open_video(film) as video:
        pixels = np.concatenate([f.pixels for f in video.frames_at(memory.frame_pts_s.ravel())])
    frames = normalize_frames(pixels, side)
    with torch.no_grad():
        tokens, reduction = loaded.model.connect(loaded.model.split_clips(frames))
    assert torch.allclose(memory.tokens.features, tokens.flatten(0, 1), atol=1e-6)
    assert torch.equal(memory.tokens.frame_weight, frame_weights(reduction, 4).flatten(0, 1))


def test_frame_times_are_those_that_the_frames_show(film: Path, memory: VideoMemory):
    assert memory.frame_pts_s.shape == (6, 4)
    with open_video(film) as video:
        frames = next(video.frames_at(memory.frame_pts_s.ravel()))
    shown = [read_clock(pixels) for pixels in frames.pixels]
    assert shown == pytest.approx(memory.frame_pts_s.ravel().tolist(), abs=0.006)


def test_every_patch_is_counted_once_in_the_frame_that_it_came_from(memory: VideoMemory):
    per_clip = memory.tokens.frame_weight.view(6, -1, 4).sum(1)
    assert per_clip.tolist() == [[36] * 4] * 6
    assert memory.tokens.frame_weight.sum(1).min() >= 1
    assert memory.tokens.clip_index.tolist() == sorted(memory.tokens.clip_index.tolist())


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_frame_weights_equal_a_plain_count(data: st.DataObject):
    clips, frames, per_frame, targets = (data.draw(st.integers(1, 3)) for _ in range(4))
    patches = frames * per_frame
    target = torch.tensor(
        [[data.draw(st.integers(-1, targets - 1)) for _ in range(patches)] for _ in range(clips)], dtype=torch.int64
    )
    expected = torch.zeros(clips, targets, frames, dtype=torch.int64)
    for clip in range(clips):
        for patch in range(patches):
            if target[clip, patch] >= 0:
                expected[clip, target[clip, patch], patch // per_frame] += 1
    assert torch.equal(frame_weights(Reduction(target, targets), frames), expected)


@pytest.mark.parametrize(
    "start_s, end_s, first, last",
    [
        (None, None, 0.0, 24.0),
        (8.0, None, 8.0, 24.0),
        (None, 10.0, 0.0, 10.0),
        (5.0, 21.0, 5.0, 21.0),
    ],
)
def test_only_the_part_that_was_asked_for_is_read(
    start_s: float | None, end_s: float | None, first: float, last: float, film: Path, loaded: LoadedModel
):
    part = ingest(film, loaded, rule=RULE, start_s=start_s, end_s=end_s)
    assert part.frame_pts_s.min() >= first
    assert part.frame_pts_s.max() <= last
    assert part.duration_s == pytest.approx(last - first)


@pytest.mark.parametrize("start_s, end_s", [(25.0, None), (9.0, 3.0), (float("nan"), None)])
def test_an_empty_part_is_refused(start_s: float, end_s: float | None, film: Path, loaded: LoadedModel):
    with pytest.raises(VideoError):
        ingest(film, loaded, rule=RULE, start_s=start_s, end_s=end_s)


def test_the_budget_limits_the_frames_and_the_released_rule_may_be_chosen(film: Path, loaded: LoadedModel):
    assert ingest(film, loaded, Budget(max_frames=16)).num_frames == 16
    assert ingest(film, loaded, Budget(max_frames=16), rule=RELEASED).num_frames == 64


@pytest.mark.parametrize("max_frames", [7, 12, 511])
def test_a_limit_that_is_no_multiple_of_the_rule_is_refused(max_frames: int, film: Path, loaded: LoadedModel):
    with pytest.raises(BudgetError, match="multiple of 8"):
        ingest(film, loaded, Budget(max_frames=max_frames))


def test_the_default_rule_is_the_clean_one_in_whole_clips(loaded: LoadedModel):
    rule = default_rule(loaded)
    assert rule == SamplingRule(frame_multiple=8, min_frames=64, min_wins=False)


def test_frames_that_do_not_fill_their_clips_are_refused(film: Path, loaded: LoadedModel):
    with open_video(film) as video, pytest.raises(VideoError, match="6 frames.*clip length 4"):
        next(ingest_segments(video, loaded, Sampled(np.arange(6.0), 6.0)))


def test_segments_stream_no_more_than_a_chunk_at_a_time(film: Path, loaded: LoadedModel):
    with open_video(film) as video:
        segments = ingest_segments(video, loaded, Sampled(np.arange(24.0), 24.0), chunk_clips=2)
        shapes = [(segment.frame_pts_s.shape, len(segment.tokens)) for segment in segments]
    assert shapes == [((2, 4), 128)] * 3


def test_a_picture_is_read_whole_and_in_tiles(tmp_path: Path, loaded: LoadedModel):
    picture = tmp_path / "picture.png"
    Image.fromarray(draw_clock(1.0, 96, 192)).save(picture)
    memory = ingest(picture, loaded)
    assert memory.settings["kind"] == "image"
    assert (memory.num_frames, memory.duration_s) == (1, 0.0)
    # 36 patches a tile are fewer than the 64 to which it would be merged; the whole picture and 2 x 1 tiles.
    assert len(memory.tokens) == 36 * 3


def test_arrays_in_memory_are_a_video(loaded: LoadedModel):
    pixels = np.stack([draw_clock(t, 64, 96) for t in np.arange(16.0)])
    memory = ingest(Frames(pixels, np.arange(16.0)), loaded, rule=RULE)
    assert memory.frame_pts_s.ravel().tolist() == list(range(16))


def test_what_is_lost_is_said(film: Path, tmp_path: Path, loaded: LoadedModel):
    broken, data = tmp_path / "broken.mp4", bytearray(film.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    broken.write_bytes(data)
    memory = ingest(broken, loaded, rule=RULE)
    assert memory.num_frames == 24
    assert any("damaged" in warning for warning in memory.warnings)


def test_progress_counts_frames_to_the_end(film: Path, loaded: LoadedModel):
    seen = []
    ingest(film, loaded, rule=RULE, chunk_clips=2, on_progress=lambda *step: seen.append(step))
    assert seen == [(stage, n, 24) for n in (8, 16, 24) for stage in ("decode", "encode")]


def test_the_ledger_counts_patches_tokens_and_choices(film: Path, loaded: LoadedModel):
    ledger = Ledger()
    ingest(film, loaded, rule=RULE, ledger=ledger)
    assert {"open", "decode", "preprocess", "vision", "compress"} <= set(ledger.stages)
    assert ledger.stages["vision"].tokens == 24 * 36
    assert ledger.stages["compress"].tokens == 24 * 16
    assert ledger.stages["decode"].bytes == 24 * 96 * 96 * 3
    assert any(note.startswith("decoder ") for note in ledger.notes)
    assert "device cpu, float32" in ledger.notes


@pytest.mark.parametrize("failure", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), None])
def test_out_of_memory_names_frames_that_would_fit(
    failure: Exception | None, film: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    def fail(pixels: torch.Tensor) -> torch.Tensor:
        if failure is None:
            return torch.empty(2**58)  # the allocator itself refuses
        raise failure

    monkeypatch.setattr(loaded.model, "encode_clips", fail)
    with pytest.raises(BudgetError, match=r"max_frames (\d+)") as caught:
        ingest(film, loaded, rule=RULE)
    advised = int(str(caught.value).split("max_frames ")[1].split(",")[0])
    assert 0 < advised < 24
    assert advised % 8 == 0


def test_other_failures_are_not_taken_for_memory(film: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    def fail(pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loaded.model, "encode_clips", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        ingest(film, loaded, rule=RULE)


def test_an_open_video_is_used_and_left_open(film: Path, loaded: LoadedModel, memory: VideoMemory):
    with open_video(film) as video:
        assert isinstance(video, Video)
        first = ingest(video, loaded, rule=RULE)
        second = ingest(video, loaded, rule=RULE)
    assert torch.equal(first.tokens.features, memory.tokens.features)
    assert torch.equal(second.tokens.features, memory.tokens.features)
