"""Prompts, training texts and labels against the released code."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from longtake.core.chat import Turn, first_video_turn, render_chat
from longtake.data.conversation import ControlIds, encode_chat, encode_plain, place_visual, read_turns
from tests.parity.vcf_goldens import GOLDEN, load

CONTROL = ControlIds(newline=198, turn_start=257, turn_end=258)
LABELS = load("g_labels")[0]["data"]
TOKENIZER = Tokenizer.from_file(str(GOLDEN / "g_tokenizer.json"))


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("row", load("e_prompts")[0]["data"])
def test_prompts_equal_the_released_ones(row: dict) -> None:
    turns = [Turn(role, text) for role, text in row["history"]]
    assert render_chat([*turns, Turn("user", row["user"])]) == row["prompt"]


def test_first_turn_has_one_blank_before_the_question() -> None:
    expected = load("e_prompts")[0]["data"][0]["user"]
    assert first_video_turn("Describe this video.", 30.0, 64) == expected


@pytest.mark.parametrize("row", LABELS, ids=lambda row: f"{row['kind']}-{len(row['input_ids'])}")
def test_training_ids_and_labels_equal_the_released_ones(row: dict) -> None:
    turns = read_turns(row["conversations"])
    message = row["time_message"] if row["has_visual"] else ""
    if row["kind"] == "plain":
        ids, labels = encode_plain(turns, encode)
    else:
        turns = [Turn(turn.role, place_visual(turn.text, message)) for turn in turns]
        assert [turn.text for turn in turns] == row["texts_after_multimodal_step"]
        ids, labels = encode_chat(turns, encode, CONTROL)
    assert ids == row["input_ids"]
    assert labels == row["labels"]
