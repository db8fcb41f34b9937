"""Needles: released annotations and their chains, real files, composed tokens, the grid and its picture."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.core.errors import ConfigError
from longtake.core.types import VideoMemory, VisualTokens
from longtake.eval.encode import yuv420
from longtake.eval.needles.coco import NeedlesInTokens, composed, cut, doubled, pair_figures, released_letter
from longtake.eval.needles.drawn import Multihop, SingleNeedle
from longtake.eval.needles.grid import cells_of, heat_map, nearest_depth
from longtake.eval.needles.planted import Needle, Planted, letterbox, needle_spans
from longtake.eval.needles.released import chain_of, placements, read_chains, read_single, words_overlap
from longtake.eval.reader import covered
from longtake.eval.result import Record
from longtake.eval.runner import Run, check_arms, merge, run_shard
from longtake.eval.summary import summarize
from longtake.eval.task import build
from longtake.media.clock import Clock
from longtake.media.filmstrip import Renderer
from longtake.media.sampling import SamplingRule, sample_times
from longtake.media.video import open_video
from longtake.models.loaded import LoadedModel
from tests.eval.small import small_run

SHARED = Path(__file__).parents[3] / "shared" / "data" / "niah"
OPTIONS = "\nOptions: (A) one\n(B) two\n(C) three\n(D) four\nOnly give the best option. Best option: ("
IMAGES = ["m/niah_9_3_COCO_c.jpg", "m/niah_9_1_COCO_a.jpg", "m/COCO_t.jpg", "m/niah_9_5_COCO_e.jpg",
          "m/niah_9_4_COCO_d.jpg"]  # fmt: skip


def write_annotations(folder: Path) -> dict[str, Any]:
    """Write invented records of the released schema with pictures of flat colours; return the fields of a task."""
    folder.mkdir(exist_ok=True)
    single = [
        {
            "id": n,
            "image": f"single/{n}.png",
            "answer": "AB"[n],
            "question": f"Find the frame of thing {n}. what{OPTIONS}",
        }
        for n in range(2)
    ]
    (folder / "single.json").write_text(json.dumps(single), encoding="utf-8")
    captions = (
        "\nOptions: (A) a dog\n(B) some red buses\n(C) a cat\n(D) a fish\nOnly give the best option. Best option: ("
    )
    chain = {
        "images": IMAGES,
        "question1": f"Find the frame of a cow. Locate the final frame: {captions}",
        "answer1": "B",
        "question2": "Find the frame of a cow. Answer based on the final frame: what is the color of the bus" + OPTIONS,
        "answer2": "C",
    }
    (folder / "chains.json").write_text(json.dumps([chain]), encoding="utf-8")
    for place, name in enumerate([*IMAGES, "single/0.png", "single/1.png"]):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 20), (80 * place % 256, 255 - 80 * place % 256, 90)).save(folder / name)
    return {"media": str(folder)}


def test_a_chain_is_recovered_from_names_by_hand() -> None:
    links, target, decoys = chain_of(IMAGES)
    assert (links, target, decoys) == ((1,), 2, (0, 4, 3))
    seven = [f"niah_1_{step}_COCO_x.jpg" for step in (7, 2, 1, 6, 5, 3)] + ["COCO_x.jpg"]
    assert chain_of(seven) == ((2, 1, 5), 6, (4, 3, 0))
    with pytest.raises(ConfigError, match="steps"):
        chain_of(["niah_1_1_COCO_x.jpg", *IMAGES])


def test_placements_by_hand() -> None:
    assert placements(5, 1000) == [0, 250, 500, 750, 1000]
    assert placements(7, 1000) == [0, 166, 333, 500, 666, 833, 1000]
    assert placements(1, 1000) == [0]
    # Two frames each: the second needle moves behind the first, the third behind both.
    assert needle_spans([0, 4, 8], 2, 1.0) == ((0.0, 2.0), (6.0, 8.0), (12.0, 14.0))
    assert needle_spans([8, 0], 1, 2.0) == ((4.5, 5.0), (0.0, 0.5))


@pytest.mark.parametrize(
    "token, letter",
    [(" B", "b"), ("(A", "a"), ("(", ""), ("C)", "c"), ("The", "the")],
)
def test_the_released_scorer_takes_one_token(token: str, letter: str) -> None:
    assert released_letter(token) == letter


def test_invented_records_parse_and_mistakes_are_named(tmp_path: Path) -> None:
    write_annotations(tmp_path)
    assert [record.asked.answer for record in read_single(tmp_path / "single.json")] == ["A", "B"]
    record = read_chains(tmp_path / "chains.json")[0]
    assert record.caption.options == ("a dog", "some red buses", "a cat", "a fish")
    assert words_overlap(record) == "B"  # "bus" points to the caption without a look
    with pytest.raises(ConfigError, match="record 0"):
        read_chains(tmp_path / "single.json")
    (tmp_path / "bad.json").write_text('[{"id": 0, "image": "a", "answer": "E", "question": "x"}]', encoding="utf-8")
    with pytest.raises(ConfigError, match="four options and a letter"):
        read_single(tmp_path / "bad.json")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the released annotations are not beside the checkout")
def test_released_files_parse_and_every_chain_is_recovered() -> None:
    single = read_single(SHARED / "niah-coco-singlehop_20.json")
    assert [[one.asked.answer for one in single].count(letter) for letter in "ABCD"] == [4, 5, 6, 5]
    chains = read_chains(SHARED / "niah-coco-multihop-100.json")
    assert [sum(len(one.links) == count for one in chains) for count in (1, 2, 3)] == [31, 28, 41]
    assert all(len(one.decoys) == 3 for one in chains)
    assert [[one.caption.answer for one in chains].count(letter) for letter in "ABCD"] == [22, 33, 24, 21]
    assert [[one.about.answer for one in chains].count(letter) for letter in "ABCD"] == [27, 26, 20, 27]
    jumps = sum(words_overlap(one) == one.caption.answer for one in chains)
    assert jumps == 86  # the second question gives the first one's answer away


def test_a_planted_file_shows_needles_where_it_says(tmp_path: Path) -> None:
    write_annotations(tmp_path)
    haystack = SingleNeedle(name="niah", frames=(24,), needles=1, depths=(0.0, 0.5), size=64).items()[0].media
    needles = tuple(Needle(image=tmp_path / IMAGES[n], before=before) for n, before in ((0, 12), (1, 0), (2, 24)))
    planted = Planted(haystack=haystack, needles=needles, frames=24, hold=2, height=64)
    path = planted.write(tmp_path / "planted.mp4")
    assert planted.spans_s == ((14.0, 16.0), (0.0, 2.0), (28.0, 30.0))
    assert not list(tmp_path.glob("haystack*"))
    with open_video(path) as video:
        assert len(video.clock) == 30
        pixels = np.concatenate([frames.pixels for frames in video.frames_at(video.clock.pts_s)])
    for needle, (start, stop) in zip(needles, planted.spans_s, strict=True):
        wanted = letterbox(np.asarray(Image.open(needle.image).convert("RGB")), (64, 64)).astype(float)
        for frame in range(30):
            is_shown = np.abs(pixels[frame].astype(float) - wanted).mean() < 12
            assert is_shown == (start <= frame < stop)
    with pytest.raises(ConfigError, match="24 different frames at 1 a second; expected 25"):
        Planted(haystack=haystack, needles=needles, frames=25, height=64).write(tmp_path / "long.mp4")


def test_a_film_is_the_same_file_every_time(tmp_path: Path) -> None:
    """Wherever its pictures lie in memory: what runs are resumed on must not differ in a bit."""
    media = SingleNeedle(name="niah", frames=(16,), needles=1, depths=(0.0, 0.5), size=64).items()[0].media
    hashes, kept = set(), []
    for number in range(6):
        kept.append(np.empty(1 + 13 * number))
        hashes.add(hashlib.sha256(media.write(tmp_path / f"{number}.mp4").read_bytes()).hexdigest())
    assert len(hashes) == 1
    grey = yuv420(np.full((4, 4, 3), 128, np.uint8))
    assert grey.shape == (6, 4) and set(grey[:4].ravel()) == {126} and set(grey[4:].ravel()) == {128}
    red = yuv420(np.broadcast_to(np.array([255, 0, 0], np.uint8), (2, 2, 3)))
    assert red.tolist() == [[82, 82], [82, 82], [90, 240]]


def test_a_drawn_haystack_holds_different_frames_and_a_card_at_every_depth() -> None:
    task = SingleNeedle(name="niah", frames=(40, 30), needles=2, depths=(0.0, 0.5, 1.0), size=32)
    items = task.items()
    assert [item.extra["frames"] for item in items[:6]] == [40] * 3 + [30] * 3  # lengths take turns
    assert [item.extra["depth"] for item in items[:3]] == [0.0, 0.5, 1.0]
    assert [item.spans_s for item in items[:3]] == [((0.0, 2.0),), ((19.0, 21.0),), ((38.0, 40.0),)]
    film = items[0].media.film  # pyright: ignore[reportAttributeAccessIssue]
    renderer = Renderer(film, 32)
    hashes = {hashlib.sha256(renderer.frame(number).tobytes()).hexdigest() for number in range(40)}
    assert len(hashes) == 40
    assert task.max_frames() == 40
    with pytest.raises(ConfigError, match="a frame between them"):
        SingleNeedle(name="niah", frames=(40,), depths=(0.5, 0.52), needles=1).items()


def test_a_multihop_film_asks_every_step_of_every_chain() -> None:
    task = Multihop(name="niah-multihop", frames=(64,), needles=1, hops=2, needle_s=1.0, size=32)
    items = task.items()
    kinds = [item.extra["kind"] for item in items]
    assert [kinds.count(kind) for kind in ("NH", "NH prefix", "NH pointer")] == [4, 8, 8]
    assert sum(task.counts(item) for item in items) == 4
    assert {item.extra["depth"] for item in items} <= set(task.depths)
    for item in items:
        assert task.score(item.answer, item).right


def test_coverage_is_what_the_formula_says() -> None:
    """100 of 1,000 frames are sampled: of needles of 2 frames a fifth is seen, and none of the rest can be answered."""
    depths = tuple(np.linspace(0, 1, 40).tolist())
    items = SingleNeedle(name="niah", frames=(1000,), needles=5, depths=depths, size=32).items()
    rule = SamplingRule(kind="middle", frame_multiple=1, min_frames=1)
    clock = Clock(np.arange(1000.0), 1000.0)
    times = sample_times(clock, rule, 100).times_s.tolist()
    seen = sum(covered(item.spans_s, times) for item in items) / len(items)
    assert len(items) == 200 and abs(seen - 2 * 100 / 1000) < 3 * (0.2 * 0.8 / 200) ** 0.5


def record_at(frames: int, depth: float, right: bool, **extra: bool) -> Record:
    where = {"frames": str(frames), "depth": f"{depth:g}"}
    return Record(id=f"{frames} {depth}", arm="model", group="film", right=right, breakdowns=where, extra=extra)


def test_the_grid_by_hand_and_its_picture(tmp_path: Path) -> None:
    records = [
        record_at(2000, 0.2, True, covered=True, survived=True),
        record_at(2000, 0.2, False, covered=True, survived=False),
        record_at(1000, 0.0, True),
    ]
    cells = cells_of(records)
    assert cells == [
        {"frames": 1000, "depth": 0.0, "n": 1, "accuracy": 1.0, "covered": None, "survived": None},
        {"frames": 2000, "depth": 0.2, "n": 2, "accuracy": 0.5, "covered": 1.0, "survived": 0.5},
    ]
    assert heat_map(cells, tmp_path / "grid.png", "by hand").stat().st_size > 5000
    assert nearest_depth(0.31, (0.0, 0.2, 0.4)) == 0.4 and nearest_depth(0.3, (0.2, 0.4)) == 0.2
    with pytest.raises(ConfigError, match="no cell"):
        heat_map([], tmp_path / "grid.png", "nothing")


def test_both_questions_of_a_chain_by_hand() -> None:
    def one(number: int, kind: str, right: bool, answer: str, guess: str = "A") -> Record:
        extra = {"kind": kind, "frames": 1000, "guess": guess}
        return Record(id=f"{number} {kind}", arm="model", group=str(number), right=right, answer=answer, extra=extra)

    rights = [(True, True), (True, False), (False, True), (False, False), (True, True)]
    records = [
        one(number, kind, right, "AABCA"[number])
        for number, pair in enumerate(rights)
        for kind, right in zip(("caption", "question"), pair, strict=True)
    ]
    assert pair_figures(records)["pairs"]["1000"] == {
        "n": 5, "caption": 0.6, "question": 0.6, "mean": 0.6, "both": 0.4, "only_caption": 0.2, "only_question": 0.2,
        "neither": 0.2, "chance_both": 0.0625, "control_constant_letter_caption": 0.6,
        "control_caption_from_words_of_question": 0.6,
    }  # fmt: skip


def memory_of(first: int, clips: int) -> VideoMemory:
    """Return a memory of clips of 4 frames with 8 tokens each, numbered from `first` on."""
    tokens = torch.arange(first, first + clips * 8, dtype=torch.float32).unsqueeze(1)
    weight = torch.zeros(clips * 8, 4, dtype=torch.int64)
    weight[torch.arange(clips * 8), torch.arange(clips * 8) % 8 // 2] = 1
    index = torch.arange(clips).repeat_interleave(8)
    times = np.arange(clips * 4, dtype=np.float64).reshape(clips, 4)
    return VideoMemory(VisualTokens(tokens, weight, index), times, clips * 4.0, "", {"kind": "video"})


def test_composition_by_hand() -> None:
    """Two clips of hay, a needle before frame 2: it stands within the first clip, as published, or at its start."""
    hay, needle = memory_of(0, 2), memory_of(100, 1)
    found = composed(hay, [needle], [2], split_clips=True)
    values = found.tokens.features.flatten().tolist()
    assert values == [*range(4), *range(100, 108), *range(4, 16)]
    assert found.frame_pts_s.tolist() == [[0, 1, 6, 7], [8, 9, 10, 11], [2, 3, 4, 5]]
    assert found.tokens.clip_index.tolist() == [0] * 4 + [2] * 8 + [0] * 4 + [1] * 8
    assert found.duration_s == 12
    at_start = composed(hay, [needle], [2], split_clips=False)
    assert at_start.tokens.features.flatten().tolist() == [*range(100, 108), *range(16)]
    two = composed(hay, [needle, memory_of(200, 1)], [8, 0], split_clips=True)
    assert two.tokens.features.flatten().tolist() == [*range(200, 208), *range(16), *range(100, 108)]
    assert two.frame_pts_s.tolist()[2:] == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert cut(hay, 4).tokens.features.flatten().tolist() == list(range(8))
    assert doubled(cut(hay, 4)).tokens.features.flatten().tolist() == [*range(8), *range(8)]
    with pytest.raises(ConfigError, match="multiple of 4"):
        cut(hay, 6)


def test_the_published_protocol_runs_with_its_quirks(loaded: LoadedModel, tmp_path: Path) -> None:
    values = write_annotations(tmp_path / "media") | {"frames": [16, 32], "depths": [0.0, 0.5], "duplicate_above": 16}
    task = build("niah-published", {**values, "annotations": str(tmp_path / "media" / "single.json")})
    run = small_run(loaded, task, baselines=("blind", "random-drop"))
    assert list(check_arms(run)) == ["random-drop"]
    run = small_run(loaded, task, baselines=("blind",))
    run_shard(run, tmp_path / "run")
    merged = merge(run, tmp_path / "run")
    own = [one for one in merged.records if one.arm == "model"]
    assert len(own) == 2 * 2 * 2 and all(one.error is None for one in own)
    # 16 tokens a frame, a needle of 4 frames: 20 and 36 frames.
    assert sorted({(one.breakdowns["frames"], one.tokens) for one in own}) == [("16", 320), ("32", 576)]
    assert all(len(one.text) <= 1 for one in own)  # one byte: one token
    assert all(one.extra["covered"] and one.extra["survived"] for one in own)
    assert summarize(merged, task, {})["figures"]["grid"][0]["n"] == 2
    assert isinstance(task, NeedlesInTokens) and "The video lasts" not in task.chat(task.items()[0])


def test_released_chains_run_in_real_files(loaded: LoadedModel, tmp_path: Path) -> None:
    values = write_annotations(tmp_path / "media") | {"frames": [16], "height": 64}
    task = build("niah-coco-multihop", {**values, "annotations": str(tmp_path / "media" / "chains.json")})
    run: Run = small_run(loaded, task)
    run = Run(task=task, model=loaded, budget=type(run.budget)(max_frames=24, max_new_tokens=2))
    run_shard(run, tmp_path / "run")
    merged = merge(run, tmp_path / "run")
    assert [one.error for one in merged.records] == [None, None]
    assert {one.frames for one in merged.records} == {16}  # 21 frames, in whole groups of 8
    found = summarize(merged, task, {})
    assert found["figures"]["pairs"]["16"]["n"] == 1
    (tmp_path / "media" / IMAGES[0]).unlink()
    again = build("niah-coco-multihop", {**values, "annotations": str(tmp_path / "media" / "chains.json")})
    assert [Path(name).name for name in again.missing()] == ["niah_9_3_COCO_c.jpg"] and not again.items()
