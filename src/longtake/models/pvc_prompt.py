"""PVC's prompts: its chat template, where pictures and frames stand in the text, and the ids of its own tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from longtake.core.chat import PLACEHOLDER, PLACEHOLDER_ID, Turn
from longtake.core.errors import CheckpointError, PromptError
from longtake.models.prompt import place_media

IMG_START, IMG_CONTEXT, IMG_END = "<img>", "<IMG_CONTEXT>", "</img>"
SYSTEM_TEXT = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
SPECIAL_IDS: Mapping[str, int] = MappingProxyType(
    {
        "<s>": 1,
        "</s>": 2,
        "<|im_end|>": 92542,
        "<|im_start|>": 92543,
        IMG_START: 92544,
        IMG_END: 92545,
        IMG_CONTEXT: 92546,
        "<quad>": 92547,
        "</quad>": 92548,
        "<ref>": 92549,
        "</ref>": 92550,
        "<box>": 92551,
        "</box>": 92552,
    }
)
CONTROL_TEXTS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", IMG_START, IMG_CONTEXT, IMG_END)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture or video of a prompt.

    entries: the picture's tiles, the thumbnail counted, or the video's frames. duration_s: of the video. is_whole:
    the video stands in one place instead of one for every frame, as reducers and selectors need it.
    """

    kind: Literal["image", "video"]
    entries: int
    duration_s: float | int = 0.0
    is_whole: bool = False

    @property
    def blocks(self) -> list[int]:
        """Entries behind each placeholder: a picture has one for all of its tiles, a video one for every frame."""
        return [self.entries] if self.kind == "image" or self.is_whole else [1] * self.entries


def render_pvc_chat(turns: Sequence[Turn], system: str = SYSTEM_TEXT) -> str:
    """Render a conversation, the assistant's next turn left open; nothing stands between two messages.

    Source: InternVL template "internlm2-chat" of July 2024; later ones have a newline behind each message.
    """
    parts = [f"<|im_start|>system\n{system}<|im_end|>"]
    parts += [f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>" for turn in turns]
    return "".join(parts) + "<|im_start|>assistant\n"


def check_pvc_text(text: str) -> str:
    """Return a question without blanks around it.

    Raises: PromptError if nothing but placeholders is left, or it holds a control token of the template.
    """
    if not text.replace(PLACEHOLDER, "").strip():
        raise PromptError("the question is empty; expected some text; ask something about what is shown")
    for control in CONTROL_TEXTS:
        if control in text:
            raise PromptError(
                f"the question contains {control!r}, which the prompt template uses itself; expected plain text; "
                f"remove it (write {PLACEHOLDER} where a picture or video belongs)"
            )
    return text.strip()


def lay_out(question: str, media: Sequence[Shown]) -> str:
    """Write the first user turn: one placeholder for each picture and for each frame of a video.

    A question may hold a placeholder where each picture or video belongs, in order; without any they stand in front,
    numbered where there are several.

    Raises: PromptError if placeholders and media differ in number, or for a text that `check_pvc_text` refuses.
    Source: PVC README: `Image-1: <image>` for several pictures, `Frame1: <image>` for a video. Numbers of several
        videos and of mixed media are ours.
    """
    text = check_pvc_text(question)
    return place_media(text, [_lines(shown) for shown in media], [f"{part}\n" for part in _numbered(media)])


def _lines(shown: Shown) -> str:
    if shown.kind == "image" or shown.is_whole:
        return PLACEHOLDER
    return "\n".join(f"Frame{number}: {PLACEHOLDER}" for number in range(1, shown.entries + 1))


def _numbered(media: Sequence[Shown]) -> list[str]:
    """Write the media in order, each with its number among its kind where it is not the only one."""
    totals = {kind: sum(shown.kind == kind for shown in media) for kind in ("image", "video")}
    seen = {"image": 0, "video": 0}
    written: list[str] = []
    for shown in media:
        seen[shown.kind] += 1
        mark = ""
        if shown.kind == "image" and len(media) > 1:
            mark = f"Image-{seen['image']}: "
        elif totals[shown.kind] > 1:
            mark = f"Video-{seen['video']}:\n"
        written.append(mark + _lines(shown))
    return written


def expand(prompt: str, num_tokens: Sequence[int]) -> str:
    """Replace each placeholder by as many context tokens as its picture or frame takes, between their brackets.

    Raises: PromptError if placeholders and counts differ in number.
    Source: InternVL `chat`.
    """
    pieces = prompt.split(PLACEHOLDER)
    if len(pieces) - 1 != len(num_tokens):
        raise PromptError(
            f"the prompt holds {len(pieces) - 1} placeholders {PLACEHOLDER} for {len(num_tokens)} pictures or frames; "
            "expected one for each; add or remove placeholders, or media"
        )
    blocks = [f"{IMG_START}{IMG_CONTEXT * count}{IMG_END}" for count in num_tokens]
    return pieces[0] + "".join(block + piece for block, piece in zip(blocks, pieces[1:], strict=True))


def pvc_prompt(question: str, media: Sequence[Shown], later: Sequence[Turn] = (), system: str = SYSTEM_TEXT) -> str:
    """Write a conversation that starts with a question about media; `later` holds the turns behind the question.

    Raises: PromptError as `lay_out`; also where a later question brings a placeholder.
    """
    for turn in later:
        if turn.role == "user" and PLACEHOLDER in check_pvc_text(turn.text):
            raise PromptError(
                f"a later question holds {PLACEHOLDER}; expected plain text; show pictures and videos in the first"
            )
    return render_pvc_chat([Turn("user", lay_out(question, media)), *later], system)


def pvc_prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Int64[Tensor, "L"]:
    """Tokenise a prompt, with its brackets, and one placeholder id where the tokens of a picture or frame go.

    Raises: CheckpointError if the tokenizer does not know the context token.
    Source: InternVL `chat`, whose text holds every context token; the text around them is cut the same either way.
    """
    context: Any = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    if context is None or context == tokenizer.unk_token_id:
        raise CheckpointError(
            f"the tokenizer has no token {IMG_CONTEXT}; expected the nine that PVC adds to InternLM2's; copy "
            "the tokenizer files of the model's repository beside the weights"
        )
    ids = torch.tensor(tokenizer(expand(prompt, [1] * prompt.count(PLACEHOLDER)))["input_ids"], dtype=torch.int64)
    return ids.masked_fill(ids.eq(int(context)), PLACEHOLDER_ID)
