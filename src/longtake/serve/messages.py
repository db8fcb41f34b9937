"""OpenAI's messages become a question with media in front, and the turns behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from longtake.core.chat import PLACEHOLDER, Turn
from longtake.serve.errors import ApiError
from longtake.serve.schemas import FilePart, ImagePart, Message, TextPart, VideoPart


@dataclasses.dataclass(frozen=True)
class Named:
    """A picture or video as a message names it; `any` says that its kind follows from what it is."""

    kind: Literal["image", "video", "any"]
    address: str


@dataclasses.dataclass(frozen=True)
class Conversation:
    """What a model is asked: the first question, what is shown with it, and the turns behind it."""

    question: str
    media: tuple[Named, ...]
    later: tuple[Turn, ...]


def _bad(message: str, number: int) -> ApiError:
    return ApiError(400, message, code="invalid_value", param=f"messages[{number}]")


def conversation_of(messages: Sequence[Message]) -> Conversation:
    """Read messages: instructions first, then a user's, which may show pictures and videos, then text in turns.

    Instructions are written in front of the first question: the models know no other place for them.

    Raises: ApiError 400 for anything else.
    """
    rules = [message for message in messages if message.role in ("system", "developer")]
    turns = [(number, message) for number, message in enumerate(messages) if message not in rules]
    if not turns or turns[0][1].role != "user":
        raise _bad("The conversation does not begin with a user's message; expected one; add it.", 0)
    if turns[-1][1].role != "user":
        raise _bad("The last message is not a user's; expected the question to answer.", turns[-1][0])
    question, media = _first(*turns[0])
    later = [Turn(_role(message), _text(number, message)) for number, message in turns[1:]]
    instructions = [_text(number, message) for number, message in enumerate(messages) if message in rules]
    return Conversation("\n".join([*instructions, question]), media, tuple(later))


def _role(message: Message) -> Literal["user", "assistant"]:
    return "assistant" if message.role == "assistant" else "user"


def _text(number: int, message: Message) -> str:
    """Return the text of a message that shows nothing."""
    content = message.content
    if content is None:
        return ""
    if isinstance(content, str):
        return _plain(content, number)
    texts = [part.text for part in content if isinstance(part, TextPart)]
    if len(texts) < len(content):
        raise _bad("A later message shows a picture or video; expected them in the first user's message.", number)
    return _plain("\n".join(texts), number)


def _plain(text: str, number: int) -> str:
    if PLACEHOLDER in text:
        raise _bad(f"The text contains {PLACEHOLDER!r}, which stands for a picture itself; remove it.", number)
    return text


def _first(number: int, message: Message) -> tuple[str, tuple[Named, ...]]:
    """Return the first question, with a placeholder where each of several media stands, and the media."""
    content = message.content
    if content is None or isinstance(content, str):
        return _text(number, message), ()
    pieces, media = list[str](), list[Named]()
    for part in content:
        if isinstance(part, TextPart):
            pieces.append(_plain(part.text, number))
            continue
        pieces.append(PLACEHOLDER)
        media.append(_named(part))
    if len(media) == 1:
        pieces = [piece for piece in pieces if piece != PLACEHOLDER]
    return "\n".join(pieces), tuple(media)


def _named(part: ImagePart | VideoPart | FilePart) -> Named:
    if isinstance(part, ImagePart):
        return Named("image", part.image_url.url)
    if isinstance(part, VideoPart):
        return Named("video", part.video_url.url)
    return Named("any", part.file.file_id)
