"""XComp's inputs against the released code: frames, prompts, question spans, vision batches, projector, key names."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longtake.convert.key_map import HEAD, released_shapes
from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.protocols import Grid
from longtake.engine.select import question_rows, released_vision_batches
from longtake.media.sampling import XCOMP_RELEASED, frame_indices
from longtake.methods.compress.tome import ToMe
from longtake.methods.select.qc_comp import XCOMP_2B_RELEASED, XCOMP_CLEAN
from longtake.models.loaded import LoadedModel
from longtake.models.presets import preset
from longtake.models.prompt import prompt_ids, video_prompt
from longtake.models.tiny import tiny_model
from longtake.nn.projector import MlpProjector
from tests.parity.xcomp_goldens import load

SAMPLING = load("e_frame_sampling")[0]
PROMPTS = load("e_prompts")[0]["rows"]
BATCHES = load("e_vision_chunks")[0]["rows"]
KEYS = load("g_checkpoint_keys")[0]
# The published pattern by which Qwen2's tokenizer cuts text into words.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = {"<|im_start|>": 151644, "<|im_end|>": 151645}


def check_indices(found: list[int], case: dict) -> None:
    assert len(found) == case["count"]
    if isinstance(case["indices"], list):
        assert found == case["indices"]
    else:
        assert found[:16] == case["indices"]["first16"]
        assert found[-16:] == case["indices"]["last16"]
        assert sum(found) == case["indices"]["sum"]


@pytest.mark.parametrize("case", SAMPLING["get_frame_indices"], ids=lambda c: f"{c['num_video_frames']}")
def test_frames_before_they_are_doubled_are_the_released_ones(case: dict) -> None:
    rule = dataclasses.replace(
        XCOMP_RELEASED, fps=float(case["EXTRA_PARAM_FPS"]), min_frames=case["min_frames"], fill="spread"
    )
    assert case["error"] is None and case["clip_len"] == rule.frame_multiple
    check_indices(frame_indices(case["num_video_frames"], float(case["video_fps"]), rule, case["max_frames"]), case)


@pytest.mark.parametrize("case", SAMPLING["load_video"], ids=lambda c: f"{c['num_video_frames']}")
def test_frames_and_the_time_they_are_said_to_last_are_the_released_ones(case: dict) -> None:
    assert (case["EXTRA_PARAM_FPS"], case["min_frames"]) == (XCOMP_RELEASED.fps, XCOMP_RELEASED.min_frames)
    found = frame_indices(case["num_video_frames"], float(case["video_fps"]), XCOMP_RELEASED, case["max_frames"])
    check_indices(found, case)
    prompt = video_prompt("Why?", case["num_video_frames"] / float(case["video_fps"]), len(found))
    assert f"<image>{case['time_message']}Why?" in prompt


def words_of(text: str) -> list[str]:
    """Cut text as Qwen's tokenizer does before it looks for pairs: in these prompts every word is one token."""
    cut = pre_tokenizers.Split(Regex(WORDS), "isolated")
    parts = re.split(r"(<\|im_start\|>|<\|im_end\|>)", text)
    return [
        word for part in parts for word in ([part] if part in CONTROL else [w for w, _ in cut.pre_tokenize_str(part)])
    ]


def prompt_of(row: dict) -> str:
    duration_s, num_frames = re.findall(r"for ([\d.]+) seconds, and (\d+) frames", row["time_message"])[0]
    return video_prompt(row["question"], float(duration_s), int(num_frames))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """The tiny model with a tokenizer of the words of the released prompts and the ids that they have there."""
    vocabulary: dict[str, int] = {}
    for row in PROMPTS:
        before, after = prompt_of(row).split("<image>")
        words = [*words_of(before), "<image>", *words_of(after)]
        assert len(words) == len(row["input_ids"])
        for word, number in zip(words, row["input_ids"], strict=True):
            assert vocabulary.setdefault(word, number) == number, word
    assert vocabulary.pop("<image>") == PLACEHOLDER_ID
    assert len(set(vocabulary.values())) == len(vocabulary)
    plain = {word: number for word, number in vocabulary.items() if word not in CONTROL}
    inner = Tokenizer(models.WordLevel(plain | CONTROL, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    return dataclasses.replace(tiny_model(), tokenizer=PreTrainedTokenizerFast(tokenizer_object=inner))


@pytest.mark.parametrize("row", PROMPTS, ids=lambda row: row["question"][:20])
def test_prompt_ids_and_the_span_that_is_scored_are_the_released_ones(loaded: LoadedModel, row: dict) -> None:
    prompt = prompt_of(row)
    assert prompt_ids(loaded.tokenizer, prompt).tolist() == row["input_ids"]
    assert row["input_ids"].index(PLACEHOLDER_ID) == row["placeholder_index"]
    rows, header = question_rows(loaded, prompt, row["question"], XCOMP_2B_RELEASED)
    assert row["placeholder_index"] + 1 + header == row["assistant_header_index"]
    assert header == row["num_question_tokens_after_video"]
    wanted, words = row["with_bias_27"], words_of(prompt.split("<image>")[1])
    assert (rows.start, rows.stop - rows.start) == (27, wanted["num_scored"])
    assert "".join(words[: rows.start]) == wanted["skipped_text"]
    assert "".join(words[rows]) == wanted["scored_text"]


@pytest.mark.parametrize("row", PROMPTS, ids=lambda row: row["question"][:20])
def test_the_clean_span_is_the_whole_question_and_nothing_else(loaded: LoadedModel, row: dict) -> None:
    prompt = prompt_of(row)
    rows, _ = question_rows(loaded, prompt, row["question"], XCOMP_CLEAN)
    assert "".join(words_of(prompt.split("<image>")[1])[rows]).strip() == row["question"]


@pytest.mark.parametrize("row", BATCHES, ids=lambda row: f"{row['num_frames']}")
def test_vision_batches_are_the_released_ones(row: dict) -> None:
    found = [[batch.start, batch.stop] for batch in released_vision_batches(row["num_frames"])]
    assert found == row["vision_batches"]


@pytest.mark.parametrize("case", ["f_projector_clip_4f_14", "f_projector_image_1f_28"])
def test_merged_and_projected_tokens_come_in_the_released_order(case: str) -> None:
    facts, tensors = load(case)
    tokens = tensors["input.tokens"].flatten(0, 1).unsqueeze(0)
    grid = Grid(
        num_frames=facts["frames"], rows=facts["grid"], columns=facts["grid"], num_heads=facts["num_heads_for_metric"]
    )
    methods: Any = preset("xcomp_2b_released").config().methods
    method = ToMe.from_dict({key: value for key, value in methods["compress"].items() if key != "name"})
    merged = method(tokens, grid).features
    assert method.out_tokens(grid) == facts["tokens_out"]
    torch.testing.assert_close(merged, tensors["output.merged"], atol=1e-5, rtol=0)
    projector = MlpProjector(tokens.shape[-1], tensors["state.mlp.2.bias"].numel())
    projector.load_state_dict({key.removeprefix("state."): v for key, v in tensors.items() if key.startswith("state.")})
    with torch.no_grad():
        torch.testing.assert_close(projector(merged), tensors["output.tokens"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["xcomp_2b_released", "xcomp_clean"])
def test_every_name_of_the_released_checkpoint_maps_and_none_is_left_over(name: str) -> None:
    config = preset(name).config()
    expected = {
        template.format(i=number): tuple(entry["shape"])
        for template, entry in KEYS["templates"].items()
        for number in range(entry["count"])
    }
    expected[HEAD] = expected["model.embed_tokens.weight"]
    shapes = released_shapes(config)
    assert shapes == expected and len(shapes) == KEYS["num_tensors"]
    assert config.tie_word_embeddings and config.context_length == 131072
    assert sum(math.prod(shape) for key, shape in shapes.items() if key != HEAD) == pytest.approx(1.84e9, rel=5e-3)
