"""The text around a video: ChatML rendering, the placeholder, the time message. Pure strings, no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

PLACEHOLDER = "<image>"
PLACEHOLDER_ID = -200
IGNORE_LABEL = -100
SYSTEM_TEXT = "You are a helpful assistant."


class Turn(NamedTuple):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


def render_chat(turns: Sequence[Turn], system: str = SYSTEM_TEXT) -> str:
    """Render a conversation as ChatML, the assistant's next turn left open.

    Source: VideoChat-Flash template "qwen_2" (the same object as "qwen_1_5").
    """
    parts = [f"<|im_start|>system\n{system}<|im_end|>\n"]
    parts += [f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>\n" for turn in turns]
    return "".join(parts) + "<|im_start|>assistant\n"


def time_message(duration_s: float, num_frames: int) -> str:
    """Say how long the sampled part lasts and how many frames were taken, with the released blanks around it.

    Source: VideoChat-Flash, time message "short": a leading newline and a trailing blank.
    """
    return f"\nThe video lasts for {duration_s:.2f} seconds, and {num_frames} frames are uniformly sampled from it. "


def first_video_turn(question: str, duration_s: float, num_frames: int) -> str:
    """Write the first user turn about a video as inference does: one blank before the question.

    Source: VideoChat-Flash inference; training puts a blank and a newline there (spec section 8.5).
    """
    return f"{PLACEHOLDER}{said_of_video(duration_s, num_frames)} {question}"


def said_of_video(duration_s: float, num_frames: int) -> str:
    """Write what stands between a lone video and any question about it."""
    return f"\n{time_message(duration_s, num_frames).strip()}"
