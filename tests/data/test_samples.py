"""Records become samples; whatever is wrong with one has a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.core.chat import PLACEHOLDER_ID
from longtake.data.failures import BrokenSampleError
from longtake.data.samples import DataSettings, Preparation, control_ids
from longtake.media.sampling import SamplingRule
from longtake.media.synthetic import read_clock, write_clock_video
from longtake.models.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()
RULE = SamplingRule(frame_multiple=4, min_frames=4)


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def preparation(image_size: int = 96, context: int = 1000, **settings: object) -> Preparation:
    values = {"rule": RULE, "max_frames": 8, "isolate": False} | settings
    return Preparation(
        settings=DataSettings(**values),
        encode=encode,
        control=control_ids(encode),
        image_size=image_size,
        count_visual=lambda count, kind: 16 * count if kind == "video" else 64 * count,
        context=context,
    )


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clock_video(folder / "film.mp4", 8.0, fps=4, size=(96, 192))
    Image.fromarray(np.full((30, 60, 3), 200, dtype=np.uint8)).save(folder / "picture.png")
    (folder / "broken.mp4").write_bytes(b"no film")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def talk(question: str = "<image>\nWhat?", answer: str = "This.") -> list[dict]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def test_a_video_is_sampled_normalised_and_announced(media: Path) -> None:
    sample = preparation()("a:1", {"video": "film.mp4", "conversations": talk()}, media, "video")
    assert sample.pixels is not None and sample.pixels.shape == (8, 3, 96, 96)
    text = TOKENIZER.decode([token for token in sample.ids.tolist() if token != PLACEHOLDER_ID])
    assert "The video lasts for 8.00 seconds, and 8 frames are uniformly sampled from it. \nWhat?" in text
    assert sample.ids.tolist().count(PLACEHOLDER_ID) == 1
    assert sample.num_tokens == len(sample.ids) - 1 + 8 * 16
    answer = TOKENIZER.decode(sample.labels[-len(encode("This.<|im_end|>\n")) :].tolist())
    assert answer == "This.<|im_end|>\n"


def test_a_part_of_a_video_is_taken_by_its_seconds(media: Path) -> None:
    record = {"video": "film.mp4", "start": 4, "end": 8.0, "conversations": talk()}
    sample = preparation()("a:1", record, media, "video")
    assert sample.pixels is not None
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (sample.pixels.permute(0, 2, 3, 1) * spread + mean) * 255
    shown = [read_clock(frame.round().clamp(0, 255).byte().numpy()) for frame in pixels]
    assert len(shown) == 4 and 4.0 <= shown[0] < shown[-1] <= 8.0


@pytest.mark.parametrize(("mode", "tiles", "grid"), [("square", 1, None), ("anyres", 3, (2, 1))])
def test_a_picture_is_one_square_or_tiles(media: Path, mode: str, tiles: int, grid: tuple | None) -> None:
    record = {"image": ["picture.png"], "conversations": talk()}
    sample = preparation(image_size=32, image_mode=mode)("a:1", record, media, "image")
    assert sample.pixels is not None and sample.pixels.shape == (tiles, 3, 32, 32)
    assert (sample.modality, sample.tile_grid) == ("image", grid)


def test_the_plain_template_keeps_the_caption_alone(media: Path) -> None:
    sample = preparation(template="plain")("a:1", {"video": "film.mp4", "conversations": talk()}, media, "video")
    assert sample.ids.tolist() == [PLACEHOLDER_ID, *encode("This.\n")]
    assert sample.num_labels == len(encode("This.\n"))


VIDEO = {"video": "film.mp4", "conversations": talk()}


@pytest.mark.parametrize(
    ("record", "kind", "reason"),
    [
        ({"conversations": talk("What?", "  ")}, "text", "empty_answer"),
        ({"conversations": [*talk("What?"), *talk("And?", "")]}, "text", "empty_answer"),
        ({"conversations": []}, "text", "bad_record"),
        ({"conversations": talk("What?")[:1]}, "text", "bad_record"),
        ({"conversations": [{"from": "robot", "value": "x"}, *talk()]}, "text", "bad_record"),
        ({"conversations": [{"from": "human", "value": 3}]}, "text", "bad_record"),
        ({}, "text", "bad_record"),
        (VIDEO | {"video": 3}, "video", "bad_record"),
        (VIDEO | {"video": ["film.mp4", "film.mp4"]}, "video", "several_visuals"),
        (VIDEO | {"image": "picture.png"}, "video", "several_visuals"),
        (VIDEO | {"conversations": talk("What?")}, "video", "placeholder_mismatch"),
        (VIDEO | {"conversations": talk("<image> <image>")}, "video", "placeholder_mismatch"),
        (VIDEO | {"conversations": [*talk("What?"), *talk("<image> What?")]}, "video", "placeholder_mismatch"),
        ({"conversations": talk()}, "text", "placeholder_mismatch"),
        (VIDEO | {"video": "nowhere.mp4"}, "video", "missing_media"),
        ({"conversations": talk()}, "video", "missing_media"),
        (VIDEO | {"video": "broken.mp4"}, "video", "broken_media"),
        ({"image": "broken.png", "conversations": talk()}, "image", "broken_media"),
        (VIDEO | {"start": 100.0, "end": 101.0}, "video", "broken_media"),
        (VIDEO | {"conversations": talk(answer="long " * 300)}, "video", "too_long"),
    ],
)
def test_a_broken_record_says_why(media: Path, record: dict, kind: str, reason: str) -> None:
    with pytest.raises(BrokenSampleError) as caught:
        preparation()("a:1", record, media, kind)
    assert caught.value.reason == reason


def test_seconds_that_are_no_number_are_a_bad_record(media: Path) -> None:
    with pytest.raises(BrokenSampleError) as caught:
        preparation()("a:1", VIDEO | {"start": "soon"}, media, "video")
    assert caught.value.reason == "bad_record"
