"""Pictures and videos before one question: where their tokens stand, what is refused, what an answer rests on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.core.budget import Budget
from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.errors import BudgetError, ConfigError, PromptError
from longtake.core.types import VideoMemory
from longtake.engine import show as show_module
from longtake.engine.ask import Chat, ask
from longtake.engine.ingest import ingest
from longtake.engine.ledger import Ledger
from longtake.engine.pictures import picture_visual
from longtake.engine.select import Selector, question_rows
from longtake.engine.show import encode, gather, prompt_of, show, shown
from longtake.media.images import read_image
from longtake.media.sampling import PVC_RELEASED
from longtake.media.synthetic import draw_clock
from longtake.media.transforms import normalize_frames, pad_to_square
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.methods.select.qc_comp import QcComp
from longtake.models.loaded import LoadedModel
from longtake.models.prompt import stop_ids
from longtake.models.pvc_prompt import Shown, expand
from longtake.models.splice import Visual
from longtake.models.tiny_pvc import tiny_pvc

SHORT = Budget(max_new_tokens=4, max_frames=16)
QUESTION = "What is it?"


@pytest.fixture(scope="module")
def shared_pvc() -> LoadedModel:
    return tiny_pvc()


@pytest.fixture
def pvc(shared_pvc: LoadedModel) -> Iterator[LoadedModel]:
    """Return a tiny PVC; what a test sets on its configuration is taken back."""
    before = shared_pvc.config.to_dict()
    yield shared_pvc
    for name in ("frame_labels", "tokenizer_model_max_length", "dynamic_image_size"):
        setattr(shared_pvc.config, name, before[name])


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a picture of 192 x 96 pixels."""
    path = tmp_path_factory.mktemp("pictures") / "wide.png"
    Image.fromarray(draw_clock(1.0, 96, 192)).save(path)
    return path


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a picture of 40 x 120 pixels."""
    path = tmp_path_factory.mktemp("pictures") / "tall.png"
    Image.fromarray(draw_clock(2.0, 120, 40)).save(path)
    return path


def test_a_pvc_answer_is_that_of_the_prompt_as_released_code_writes_it(pvc: LoadedModel, wide: Path):
    visual = picture_visual(read_image(wide), pvc)
    assert visual.pixel_values is not None
    tiles = len(visual.pixel_values)
    assert tiles == 3  # two beside each other, and the thumbnail
    prompt = expand(prompt_of([shown(ingest(wide, pvc), pvc)], pvc, QUESTION), [tiles * 4 * 4])
    ids = torch.tensor([pvc.tokenizer(prompt)["input_ids"]])
    written = pvc.model.generate(ids, [visual], max_new_tokens=4, stop_ids=stop_ids(pvc.tokenizer))
    answer = ask(wide, QUESTION, pvc, SHORT)
    assert answer.text == str(pvc.tokenizer.decode(written.ids[0], skip_special_tokens=True)).strip()


def test_a_pvc_video_streamed_in_is_the_video_encoded_at_once(pvc: LoadedModel, film: Path):
    memory = gather(film, pvc, SHORT)[0]
    assert memory.num_frames == 16
    showing = show([memory], prompt_of([shown(memory, pvc)], pvc, QUESTION), pvc)
    assert [len(block) for block in showing.blocks] == [4] * 16
    with show_module.open_video(film) as video:
        frames = next(video.frames_at(memory.frame_pts_s.ravel())).pixels
    at_once = pvc.model.visual_blocks(Visual(pixel_values=normalize_frames(frames, 56)))
    torch.testing.assert_close(torch.stack(list(showing.blocks)), torch.stack(at_once), atol=1e-5, rtol=1e-4)


def test_without_frame_labels_a_video_is_one_block(pvc: LoadedModel, film: Path):
    pvc.config.frame_labels = False
    memory = gather(film, pvc, SHORT)[0]
    prompt = prompt_of([shown(memory, pvc)], pvc, QUESTION)
    assert f"user\n<image>\n{QUESTION}" in prompt
    assert [len(block) for block in show([memory], prompt, pvc).blocks] == [64]


@pytest.mark.parametrize("question", ["What is it?", "Is <image> in <image>, or <image>?"])
@pytest.mark.parametrize("family", ["flash", "pvc"])
def test_every_block_is_read_at_its_place_in_the_text(
    family: str, question: str, loaded: LoadedModel, pvc: LoadedModel, wide: Path, tall: Path, film: Path
):
    model = loaded if family == "flash" else pvc
    memories = gather([wide, film, tall], model, SHORT, question)
    showing = show(memories, prompt_of([shown(memory, model) for memory in memories], model, question), model)
    spliced = model.model.splice_inputs(showing.ids.unsqueeze(0), showing.blocks)
    assert spliced.lengths == [showing.num_text + sum(len(memory.tokens) for memory in memories)]
    features = torch.cat([memory.tokens.features for memory in memories])
    assert torch.equal(spliced.embeds[0, showing.places], features)
    order = [1, 1, 1] if family == "flash" else [1, 16, 1]
    assert len(showing.blocks) == sum(order) == int((showing.ids == PLACEHOLDER_ID).sum())


def test_several_pictures_of_videochat_flash_are_64_tokens_each_on_a_padded_square(
    loaded: LoadedModel, wide: Path, tall: Path
):
    memories = gather([wide, tall], loaded, SHORT)
    lone = gather(wide, loaded, SHORT)[0]
    assert [len(memory.tokens) for memory in memories] == [36, 36]  # the tiny tower has but 36 patches
    assert len(lone.tokens) == 36 * 3
    square = normalize_frames(pad_to_square(read_image(tall))[None], loaded.config.vision_config.image_size)
    expected = loaded.model.visual_blocks(Visual(pixel_values=square, modality="image"))[0]
    assert torch.equal(memories[1].tokens.features, expected)


def test_prompts_of_several_name_the_length_of_a_video(loaded: LoadedModel, film: Path, wide: Path):
    memories = gather([wide, film], loaded, SHORT)
    parts = [shown(memory, loaded) for memory in memories]
    said = "The video lasts for 24.00 seconds, and 16 frames are uniformly sampled from it."
    assert f"user\n<image>\n<image>\n{said}\n{QUESTION}<" in prompt_of(parts, loaded, QUESTION)
    placed = prompt_of(parts, loaded, "Is <image> part of <image> ?")
    assert f"user\nIs <image> part of <image>\n{said} ?<" in placed


@pytest.mark.parametrize("family", ["flash", "pvc"])
@pytest.mark.parametrize("question", ["Is <image> here?", "<image>, <image>, <image>?", "", "a </s> <|im_end|>"])
def test_a_bad_question_about_several_is_refused_before_any_is_opened(
    family: str, question: str, loaded: LoadedModel, pvc: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(show_module, "open_video", lambda *_: pytest.fail("it was opened"))
    count = question.count("<image>")
    match = f"{count} placeholders <image> for 2 pictures and videos" if count else "question"
    with pytest.raises(PromptError, match=match):
        ask(["a.png", "b.png"], question, loaded if family == "flash" else pvc)


def test_several_are_refused_unread_where_tokens_are_dropped(loaded: LoadedModel):
    loaded.model.reducer = ProgressiveDrop(kind="uniform", layers=(1,), ratios=(1.0, 0.5))
    with pytest.raises(BudgetError, match="2 pictures and videos arrived .*ProgressiveDrop"):
        ask(["a.png", "b.png"], QUESTION, loaded)


def test_nothing_to_show_is_refused(pvc: LoadedModel):
    with pytest.raises(PromptError, match="no picture or video arrived"):
        ask([], QUESTION, pvc)


@pytest.mark.parametrize("family", ["flash", "pvc"])
def test_more_tiles_than_the_context_holds_are_refused_unread_with_how_many_fit(
    family: str, loaded: LoadedModel, pvc: LoadedModel, wide: Path
):
    model = loaded if family == "flash" else pvc
    each = 36 if family == "flash" else 16
    memory = gather(wide, model, SHORT, QUESTION)[0]
    num_text = show([memory], prompt_of([shown(memory, model)], model, QUESTION), model).num_text
    model.config.tokenizer_model_max_length = num_text + 3 * each - 1
    calls: list[object] = []
    hook = model.model.vision.register_forward_pre_hook(lambda *_: calls.append(1))
    advice = "max_tiles 1$"
    with pytest.raises(PromptError, match=f"becomes 3 tiles of {each} tokens, and 2 of them fit the .*{advice}"):
        ask(wide, QUESTION, model, SHORT)
    hook.remove()
    assert not calls
    assert ask(wide, QUESTION, model, Budget(max_new_tokens=2, max_tiles=1)).finish_reason
    model.config.tokenizer_model_max_length = num_text + each - 1
    with pytest.raises(PromptError, match="0 of them fit .*show fewer files"):
        ask(wide, QUESTION, model, SHORT)


def test_the_room_left_by_earlier_ones_is_what_a_later_picture_has(pvc: LoadedModel, wide: Path, film: Path):
    text = encode(prompt_of([Shown(kind="image", entries=1)] * 2, pvc, QUESTION), pvc)
    pvc.config.tokenizer_model_max_length = len(text) - 2 + 64 + 40
    with pytest.raises(PromptError, match="becomes 3 tiles of 16 tokens, and 2 of them fit the 40 tokens"):
        ask([film, wide], QUESTION, pvc, SHORT)


def test_frames_that_do_not_fit_beside_pictures_say_how_many_would(pvc: LoadedModel, wide: Path, film: Path):
    memories = gather([wide, film], pvc, SHORT, QUESTION)
    showing = show(memories, prompt_of([shown(memory, pvc) for memory in memories], pvc, QUESTION), pvc)
    pvc.config.tokenizer_model_max_length = showing.num_text + 48 + 64 - 5
    with pytest.raises(PromptError, match=r"of pictures and video\), 5 more than .*max_frames 14 "):
        ask(memories, QUESTION, pvc, SHORT)
    assert ask([wide, film], QUESTION, pvc, Budget(max_new_tokens=2, max_frames=14)).finish_reason == "length"


@pytest.mark.parametrize("family", ["flash", "pvc"])
def test_evidence_names_which_of_several_it_is_of(
    family: str, loaded: LoadedModel, pvc: LoadedModel, wide: Path, tall: Path, film: Path
):
    answer = ask([wide, film, tall], QUESTION, loaded if family == "flash" else pvc, SHORT)
    assert 1 <= len(answer.evidence) <= 5
    scores = [span.score or 0.0 for span in answer.evidence]
    assert scores == sorted(scores, reverse=True) and sum(scores) <= 1 + 1e-6
    for span in answer.evidence:
        assert span.medium in (1, 2, 3)
        assert (span.end_s > span.start_s) == (span.medium == 2)


def test_evidence_of_one_has_no_number(pvc: LoadedModel, wide: Path):
    assert [span.medium for span in ask(wide, QUESTION, pvc, SHORT).evidence] == [None]


def test_the_attention_to_several_is_shared_as_to_a_single_block(loaded: LoadedModel, memory: VideoMemory):
    """The same tokens as one block and as two that touch are read alike, so they get the same attention."""
    from longtake.engine.evidence import attention_at, token_attention

    features, ids = memory.tokens.features, torch.tensor([[256, 257, PLACEHOLDER_ID, 40, 41]])
    walked = loaded.model.prefill(loaded.model.splice_inputs(ids, [features]), use_cache=True)
    one = token_attention(loaded, walked, 2, len(features))
    assert torch.equal(attention_at(loaded, walked, torch.arange(2, 2 + len(features))), one)


@pytest.mark.parametrize("state_times", [True, False])
def test_pvc_answers_from_the_frames_that_a_selector_keeps(state_times: bool, pvc: LoadedModel, film: Path):
    memory = gather(film, pvc, Budget(max_frames=32))[0]
    method = QcComp(window=2, stride=1, clip_frames=4, chunk_frames=16, first_layer=0, last_layer=3)
    selector = Selector(method=method, frames_kept=8, state_times=state_times)
    with pytest.raises(ConfigError, match="each of 32 frames has a place of its own"):
        ask(memory, QUESTION, pvc, SHORT, selector=selector)
    pvc.config.frame_labels = False
    answer = ask(memory, QUESTION, pvc, SHORT, selector=selector)
    assert answer.evidence_kind == "relevance"
    assert "8 of 32 frames were selected" in answer.ledger["notes"]  # pyright: ignore[reportOperatorIssue]


def test_the_rows_of_a_pvc_question_are_its_own_tokens(pvc: LoadedModel):
    what = Shown(kind="video", entries=8, is_whole=True)
    prompt = prompt_of([what], pvc, "Where is the key?")
    rows, header = question_rows(pvc, prompt, "Where is the key?", QcComp())
    ids = encode(prompt, pvc).tolist()
    behind = ids[ids.index(PLACEHOLDER_ID) + 1 :]
    assert pvc.tokenizer.decode(behind[rows]) == "Where is the key?"
    assert pvc.tokenizer.decode(behind[header:]) == "<|im_start|>assistant\n"


def test_a_selector_among_several_is_refused(loaded: LoadedModel, wide: Path, memory: VideoMemory):
    with pytest.raises(ConfigError, match="2 pictures and videos"):
        ask([wide, memory], QUESTION, loaded, SHORT, selector=Selector(frames_kept=8))


@pytest.mark.parametrize("given", [None, PVC_RELEASED])
def test_pvc_takes_no_more_frames_than_it_was_trained_on_unless_a_rule_says_so(given, pvc: LoadedModel, film: Path):
    ledger = Ledger()
    memory = gather(film, pvc, Budget(max_frames=120), rule=given, ledger=ledger)[0]
    noted = any("96 frames" in note for note in ledger.notes)
    assert (memory.num_frames, noted) == ((96, True) if given is None else (120, False))


def test_a_picture_without_dynamic_size_is_one_tile(pvc: LoadedModel, wide: Path):
    pvc.config.dynamic_image_size = False
    assert len(gather(wide, pvc, SHORT)[0].tokens) == 16


@pytest.mark.parametrize("size", [(1, 1), (30_000, 20)])
@pytest.mark.parametrize("family", ["flash", "pvc"])
def test_pictures_of_extreme_shapes_are_answered(
    family: str, size: tuple[int, int], loaded: LoadedModel, pvc: LoadedModel, tmp_path: Path
):
    path = tmp_path / "extreme.png"
    Image.new("RGB", size, "teal").save(path)
    answer = ask(path, QUESTION, loaded if family == "flash" else pvc, SHORT)
    assert np.isfinite([span.score or 0.0 for span in answer.evidence]).all()


def test_what_a_picture_does_not_show_is_noted(pvc: LoadedModel, tmp_path: Path):
    path = tmp_path / "moving.webp"
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    lone, second = ask(path, QUESTION, pvc, SHORT), ask([path, path], QUESTION, pvc, SHORT)
    assert any("holds 2 pictures" in note for note in lone.ledger["notes"])  # pyright: ignore[reportGeneralTypeIssues]
    assert any(str(note).startswith("2: ") for note in second.ledger["notes"])  # pyright: ignore[reportGeneralTypeIssues]


@pytest.mark.parametrize("family", ["flash", "pvc"])
def test_a_conversation_goes_on_about_several_that_are_encoded_once(
    family: str, loaded: LoadedModel, pvc: LoadedModel, wide: Path, tall: Path, monkeypatch: pytest.MonkeyPatch
):
    model = loaded if family == "flash" else pvc
    chat = Chat([wide, tall], model, SHORT)
    monkeypatch.setattr(show_module, "open_video", lambda *_: pytest.fail("it was opened again"))
    chat.ask("Is <image> like <image>?")
    with pytest.raises(PromptError, match="<image>"):
        chat.ask("And <image>?")
    chat.ask("Why?")
    assert [turn.role for turn in chat.turns] == ["user", "assistant"] * 2
    assert [turn.text for turn in chat.turns[::2]] == ["Is <image> like <image>?", "Why?"]
