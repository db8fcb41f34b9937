"""From a question to token ids: the ChatML text around a video, with a placeholder id where its tokens go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from longtake.core.chat import PLACEHOLDER, PLACEHOLDER_ID, Turn, first_video_turn, render_chat
from longtake.core.errors import PromptError

CONTROL_TEXTS = (PLACEHOLDER, "<|im_start|>", "<|im_end|>", "<|endoftext|>")


def check_question(question: str) -> str:
    """Return the question without blanks around it.

    Raises: PromptError if nothing is left, or if it holds a visual placeholder or a control token of the template.
    """
    text = question.strip()
    if not text:
        raise PromptError("the question is empty; expected some text; ask something about the video")
    for control in CONTROL_TEXTS:
        if control in text:
            raise PromptError(
                f"the question contains {control!r}, which the prompt template uses itself; expected plain text; "
                "remove it (the video is put in front of the question for you)"
            )
    return text


def place_media(text: str, in_place: Sequence[str], in_front: Sequence[str]) -> str:
    """Put what stands for each picture or video at its placeholder, in order; without any, in front of the text.

    Raises: PromptError if placeholders and media differ in number.
    """
    count = text.count(PLACEHOLDER)
    if count not in (0, len(in_place)):
        raise PromptError(
            f"the question holds {count} placeholders {PLACEHOLDER} for {len(in_place)} pictures and videos; expected "
            "one for each, in order, or none; add or remove placeholders, or files"
        )
    if not count:
        return "".join(in_front) + text
    pieces = text.split(PLACEHOLDER)
    return pieces[0] + "".join(part + piece for part, piece in zip(in_place, pieces[1:], strict=True))


def video_prompt(question: str, duration_s: float, num_frames: int, later: Sequence[Turn] = ()) -> str:
    """Render a conversation that starts with a question about a video, the assistant's next turn left open.

    `later` holds the turns after the first question: answers and further questions, in order. The question goes in
    as it was asked: the released model sees blanks around it too.

    Raises: PromptError as `check_question`.
    """
    check_question(question)
    for turn in later:
        if turn.role == "user":
            check_question(turn.text)
    return render_chat([Turn("user", first_video_turn(question, duration_s, num_frames)), *later])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Int64[Tensor, "L"]:
    """Tokenise the text pieces between placeholders on their own and join them with the placeholder's id.

    Source: VideoChat-Flash; Qwen tokenizers add no token at the beginning, so none is added here.
    """
    ids: list[int] = []
    for index, piece in enumerate(prompt.split(PLACEHOLDER)):
        if index:
            ids.append(PLACEHOLDER_ID)
        if piece:
            ids.extend(tokenizer(piece, add_special_tokens=False)["input_ids"])
    return torch.tensor(ids, dtype=torch.int64)


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids that end an answer: the template's end of turn and the tokenizer's own end."""
    found = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id]
    return tuple(sorted({i for i in found if isinstance(i, int) and i != tokenizer.unk_token_id}))
