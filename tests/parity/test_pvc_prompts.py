"""PVC's prompts against the released template, and what happens where media and text do not match."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longtake.core.chat import PLACEHOLDER_ID, Turn
from longtake.core.errors import CheckpointError, PromptError
from longtake.models.pvc_prompt import (
    IMG_CONTEXT,
    IMG_END,
    IMG_START,
    SPECIAL_IDS,
    Shown,
    check_pvc_text,
    expand,
    lay_out,
    pvc_prompt,
    pvc_prompt_ids,
    render_pvc_chat,
)
from longtake.models.tiny import byte_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "pvc" / "a_prompts.json"
ROWS = json.loads(GOLDEN.read_text("utf-8"))["rows"]
QUESTIONS = ("What is in the image?", "Compare.", "Describe this video in detail.", "What is it?")
ONE, TWO, FILM = Shown(kind="image", entries=1), Shown(kind="image", entries=7), Shown(kind="video", entries=2)


def turns_of(row: dict) -> list[Turn]:
    found = []
    for question, answer in row["turns"]:
        found += [Turn("user", question)] + ([Turn("assistant", answer)] if answer else [])
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_strings_equal_those_of_the_released_template(row: dict) -> None:
    prompt = render_pvc_chat(turns_of(row))
    assert prompt == row["prompt"]
    counts = [row["tokens_per_entry"] * row["repeat"] * entries for entries in row["num_patches_list"]]
    assert expand(prompt, counts) == row["expanded"]
    assert sum(counts) == row["expanded"].count(IMG_CONTEXT) == row["context_tokens"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_media_are_put_in_front_of_a_question_as_the_released_examples_do(row: dict) -> None:
    first, *later = turns_of(row)
    entries = row["num_patches_list"]
    media = [Shown(kind="image", entries=count) for count in entries]
    if row["name"].startswith("video"):
        media = [Shown(kind="video", entries=len(entries))]
    question = first.text.rpartition("<image>")[2].strip().rpartition("\n")[2]
    assert question in QUESTIONS or not media
    assert pvc_prompt(question, media, later) == row["prompt"]
    assert [count for shown in media for count in shown.blocks] == entries


@pytest.mark.parametrize(
    ("question", "media", "expected"),
    [
        ("What?", [], "What?"),
        ("What?", [ONE], "<image>\nWhat?"),
        ("What?", [ONE, TWO], "Image-1: <image>\nImage-2: <image>\nWhat?"),
        ("What?", [FILM], "Frame1: <image>\nFrame2: <image>\nWhat?"),
        ("What?", [TWO, FILM], "Image-1: <image>\nFrame1: <image>\nFrame2: <image>\nWhat?"),
        (
            "What?",
            [FILM, FILM],
            "Video-1:\nFrame1: <image>\nFrame2: <image>\nVideo-2:\nFrame1: <image>\nFrame2: <image>\nWhat?",
        ),
        ("Is <image> in <image>?", [ONE, TWO], "Is <image> in <image>?"),
        ("Is <image> in\n<image>?", [ONE, FILM], "Is <image> in\nFrame1: <image>\nFrame2: <image>?"),
    ],
)
def test_media_stand_where_the_text_says_or_in_front(question: str, media: list[Shown], expected: str) -> None:
    assert lay_out(question, media) == expected


@pytest.mark.parametrize("question", ["Is <image> there?", "<image> <image> <image>: same?"])
def test_placeholders_that_do_not_match_the_media_are_both_named(question: str) -> None:
    count = question.count("<image>")
    with pytest.raises(PromptError, match=f"{count} placeholders <image> for 2 pictures and videos"):
        lay_out(question, [ONE, FILM])
    with pytest.raises(PromptError, match=f"{count} placeholders <image> for 2 pictures or frames"):
        expand(question, [4, 4])


@pytest.mark.parametrize("text", ["", "  \n", "<image>", "a <IMG_CONTEXT>", "a </img>", "<|im_end|>", "</s> x"])
def test_empty_questions_and_control_tokens_are_refused(text: str) -> None:
    with pytest.raises(PromptError, match="expected"):
        check_pvc_text(text)


def test_a_later_question_cannot_bring_a_picture() -> None:
    with pytest.raises(PromptError, match="a later question"):
        pvc_prompt("What?", [ONE], [Turn("assistant", "A dog."), Turn("user", "And <image> here?")])


def test_special_ids_are_the_nine_behind_the_base_vocabulary() -> None:
    added = [SPECIAL_IDS[text] for text in (IMG_START, IMG_END, IMG_CONTEXT)]
    assert added == [92544, 92545, 92546]
    assert sorted(SPECIAL_IDS.values()) == [1, 2, *range(92542, 92553)]


def test_ids_hold_one_place_for_each_block_between_its_brackets() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": [IMG_START, IMG_END, IMG_CONTEXT]})
    ids = pvc_prompt_ids(tokenizer, pvc_prompt("What?", [TWO, FILM])).tolist()
    start, end = (tokenizer.convert_tokens_to_ids(text) for text in (IMG_START, IMG_END))
    places = [index for index, token in enumerate(ids) if token == PLACEHOLDER_ID]
    assert len(places) == 3
    assert all((ids[place - 1], ids[place + 1]) == (start, end) for place in places)
    whole = tokenizer(expand(pvc_prompt("What?", [TWO, FILM]), [1, 1, 1]))["input_ids"]
    context = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    assert ids == [PLACEHOLDER_ID if token == context else token for token in whole]


def test_a_tokenizer_without_the_context_token_is_refused() -> None:
    with pytest.raises(CheckpointError, match="has no token <IMG_CONTEXT>"):
        pvc_prompt_ids(byte_tokenizer(), "<image>")
