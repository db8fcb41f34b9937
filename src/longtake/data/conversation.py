"""A training record becomes text, ids and labels, as the released training prepares them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from longtake.core.chat import IGNORE_LABEL, PLACEHOLDER, PLACEHOLDER_ID, SYSTEM_TEXT, Turn
from longtake.core.errors import ConfigError

Template = Literal["qwen_2", "plain"]
NOISE_MARK = "QA_GT_caption_based_noisy"
ROLES: Mapping[str, Literal["user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlIds:
    """Token ids that the loss always counts: the newline and the two marks of a turn."""

    newline: int = 198
    turn_start: int = 151644
    turn_end: int = 151645


def read_turns(record: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Read a record's conversation, in either of its two spellings.

    Raises: ConfigError for a turn without a known role or without text.
    """
    turns = []
    for number, message in enumerate(record):
        role = ROLES.get(str(message.get("from", message.get("role"))))
        text = message.get("value", message.get("content"))
        if role is None or not isinstance(text, str):
            raise ConfigError(
                f"turn {number}: role {message.get('from', message.get('role'))!r} and text {text!r}; expected human "
                "or gpt (user or assistant) and a text; mend the record"
            )
        turns.append(Turn(role, text))
    return turns


def place_visual(text: str, time_message: str = "") -> str:
    """Move the only placeholder of a turn to its front, and say behind it how long the video lasts.

    Source: VideoChat-Flash training text; it leaves a blank and a newline before the question, inference a blank.
    """
    if text.count(PLACEHOLDER) == 1 and not text.startswith(PLACEHOLDER):
        text = f"{PLACEHOLDER}\n{text.replace(PLACEHOLDER, '').strip()}".strip()
    if time_message:
        text = text.replace(PLACEHOLDER, f"{PLACEHOLDER}{time_message.rstrip()} ")
    return text.replace(NOISE_MARK, "")


def encode_with_placeholders(text: str, encode: Callable[[str], list[int]]) -> list[int]:
    """Tokenise the pieces between placeholders on their own, joined by the placeholder's id."""
    first, *rest = text.split(PLACEHOLDER)
    ids = encode(first) if first else []
    for piece in rest:
        ids += [PLACEHOLDER_ID, *(encode(piece) if piece else [])]
    return ids


def encode_chat(
    turns: Sequence[Turn], encode: Callable[[str], list[int]], control: ControlIds | None = None
) -> tuple[list[int], list[int]]:
    """Return ids and labels of a conversation under the template qwen_2.

    The assistant's turns count whole, with their header; so do newlines and turn marks anywhere, in the system's and
    the user's parts too.

    Source: VideoChat-Flash training; pinned by tests/parity/test_labels.py.
    """
    control = control or ControlIds()
    always = {control.newline, control.turn_start, control.turn_end}
    ids: list[int] = []
    labels: list[int] = []
    for role, text in [("system", SYSTEM_TEXT), *turns]:
        own = encode_with_placeholders(f"<|im_start|>{role}\n{text}<|im_end|>\n", encode)
        ids += own
        labels += [token if role == "assistant" or token in always else IGNORE_LABEL for token in own]
    return ids, labels


def encode_plain(turns: Sequence[Turn], encode: Callable[[str], list[int]]) -> tuple[list[int], list[int]]:
    """Return ids and labels of a caption: the placeholder, then the text and a newline; what was asked is left out.

    Raises: ConfigError if the record is not one question with one answer.
    Source: VideoChat-Flash stage 1, template plain.
    """
    if [turn.role for turn in turns] != ["user", "assistant"]:
        raise ConfigError(f"{len(turns)} turns arrived; expected one question and one caption; use another template")
    caption = encode(f"{turns[1].text}\n")
    return [PLACEHOLDER_ID, *caption], [IGNORE_LABEL, *caption]
