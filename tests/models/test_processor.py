"""The processor: AutoProcessor finds it, and its output is what the model takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

import longtake.auto
from longtake.core.errors import PromptError
from longtake.models.processor import VideoChatFlashProcessor
from longtake.models.tiny import build_random, byte_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("tiny")
    build_random().save_pretrained(where)
    byte_tokenizer().save_pretrained(where)
    return where


def test_auto_processor_reads_the_frame_size_from_the_model(folder: Path, tmp_path: Path):
    longtake.auto.register()
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, VideoChatFlashProcessor)
    assert processor.image_size == 96
    processor.save_pretrained(folder)
    assert AutoProcessor.from_pretrained(folder).image_size == 96


def test_text_and_videos_become_model_inputs(folder: Path):
    processor = VideoChatFlashProcessor.from_pretrained(folder)
    frames = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    text = processor.prompt("What?", 4.0, 4)
    inputs = processor(text=[text, "hello"], videos=[frames])
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert (inputs["input_ids"] == -200).sum() == 1
    assert inputs["pixel_values"].shape == (1, 4, 3, 96, 96)
    model = build_random()
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape[0] == 2
    answer = model.generate(**inputs, max_new_tokens=2)
    assert answer.num_prompt_tokens == [int(inputs["attention_mask"][0].sum()) - 1 + 64, 5]


def test_videos_and_placeholders_must_match(folder: Path):
    processor = VideoChatFlashProcessor.from_pretrained(folder)
    with pytest.raises(PromptError, match="0 videos arrived for 1 placeholders"):
        processor(text="<image> what?")
