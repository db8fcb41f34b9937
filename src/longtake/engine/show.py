"""What a question is asked about: pictures, videos and memories, where they stand in the text, and if they fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from longtake.core.budget import Budget
from longtake.core.chat import (
    PLACEHOLDER,
    PLACEHOLDER_ID,
    Turn,
    first_video_turn,
    render_chat,
    said_of_video,
)
from longtake.core.errors import BudgetError, PromptError
from longtake.core.types import VideoMemory
from longtake.engine.ingest import Progress, Source, ingest
from longtake.engine.ledger import Ledger
from longtake.engine.pictures import ingest_picture
from longtake.engine.remember import memory_of, within
from longtake.media.sampling import SamplingRule
from longtake.media.video import Video, open_video
from longtake.memory.reader import is_memory_file
from longtake.models.loaded import LoadedModel
from longtake.models.prompt import check_question, place_media, prompt_ids
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.pvc_prompt import IMG_END, Shown, pvc_prompt, pvc_prompt_ids

Medium = Source | Video | VideoMemory


@dataclasses.dataclass(frozen=True, eq=False)
class Showing:
    """A prompt with what stands at its placeholders.

    ids: [L], one placeholder id for each block. blocks: [N, D] tokens each, in order; a memory is one or several.
    num_said: how many tokens behind a lone video every question about it begins with.
    """

    memories: tuple[VideoMemory, ...]
    ids: Int64[Tensor, "L"]
    blocks: tuple[Tensor, ...]
    num_said: int = 0

    @property
    def num_text(self) -> int:
        """Count of tokens that are not visual."""
        return len(self.ids) - len(self.blocks)

    @property
    def places(self) -> Int64[Tensor, "N"]:
        """Positions of the visual tokens in the prompt as it is read."""
        found, added = [], 0
        for place, block in zip((self.ids == PLACEHOLDER_ID).nonzero().flatten().tolist(), self.blocks, strict=True):
            found.append(torch.arange(place + added, place + added + len(block)))
            added += len(block) - 1
        return torch.cat(found)


def media_list(media: Medium | Sequence[Medium]) -> list[Medium]:
    """Return one or several things to show as a list.

    Raises: PromptError if there is nothing.
    """
    found: list[Any] = list(media) if isinstance(media, list | tuple) else [media]
    if not found:
        raise PromptError("no picture or video arrived; expected at least one; pass one")
    return found


def gather(
    media: Medium | Sequence[Medium],
    model: LoadedModel,
    budget: Budget,
    question: str | None = None,
    *,
    later: Sequence[Turn] = (),
    rule: SamplingRule | None = None,
    start_s: float | int | None = None,
    end_s: float | int | None = None,
    options: str = "",
    ledger: Ledger | None = None,
    on_progress: Progress | None = None,
) -> list[VideoMemory]:
    """Turn what is to be shown into memories, in order; the limits of the budget and the bounds hold for each video.

    question: none if it is not known yet. The others as in `memory_of`.

    Raises: PromptError for a bad question, or a picture with more tiles than the context holds; BudgetError for
        several where a model drops tokens between layers: all before anything is encoded; what opening and encoding
        raise.
    """
    found, ledger = media_list(media), ledger or Ledger()
    _check_reducer(len(found), model)
    draft = prompt_of([_UNKNOWN] * len(found), model, "?" if question is None else question, later)
    room = model.config.context_length - (len(encode(draft, model)) - len(found))
    memories = []
    for medium in found:
        is_alone = len(found) == 1
        if isinstance(medium, VideoMemory) or is_memory_file(medium):
            memory = memory_of(medium, model, budget, start_s=start_s, end_s=end_s, options=options, ledger=ledger)
        else:
            with ledger.stage("open"):
                opened = medium if isinstance(medium, Video) else open_video(medium)
            try:
                if opened.info.container == "image":
                    memory = ingest_picture(opened, model, budget, ledger, is_alone=is_alone, room=room)
                else:
                    memory = ingest(
                        opened,
                        model,
                        budget,
                        rule=rule,
                        start_s=start_s,
                        end_s=end_s,
                        ledger=ledger,
                        on_progress=on_progress,
                    )
            finally:
                if opened is not medium:
                    with ledger.stage("decode"):
                        opened.close()
        memories.append(within(memory, budget))
        room -= len(memories[-1].tokens)
    return memories


def _check_reducer(num_media: int, model: LoadedModel) -> None:
    """Refuse several pictures and videos where tokens are dropped between layers, before any is encoded."""
    reducer = model.model.reducer
    if reducer is not None and num_media > 1:
        raise BudgetError(
            f"{num_media} pictures and videos arrived for a model that drops tokens between layers "
            f"({type(reducer).__name__}); expected one, since it drops from one block; ask about one, or take a model "
            "without it"
        )


_UNKNOWN = Shown(kind="image", entries=1)


def shown(memory: VideoMemory, model: LoadedModel) -> Shown:
    """Say what of a memory stands in the text."""
    if memory.settings.get("kind") == "image":
        return _UNKNOWN
    is_whole = not getattr(model.config, "frame_labels", False)
    return Shown(kind="video", entries=memory.num_frames, duration_s=memory.duration_s, is_whole=is_whole)


def blocks_of(memory: VideoMemory, model: LoadedModel) -> list[Tensor]:
    """Return the tokens of each placeholder of a memory."""
    features, what = memory.tokens.features, shown(memory, model)
    if len(what.blocks) == 1:
        return [features]
    return list(features.split(memory.tokens.clip_index.cpu().bincount(minlength=what.entries).tolist()))


def prompt_of(media: Sequence[Shown], model: LoadedModel, question: str, later: Sequence[Turn] = ()) -> str:
    """Write a conversation that starts with a question about media, the assistant's next turn left open.

    A question about several may hold a placeholder for each, in order; else they stand in front. A PVC model takes
    such a question about a single one too; the others were trained with it in front.

    Raises: PromptError for a bad question, or placeholders that differ from the media in number.
    """
    if isinstance(model.config, PvcConfig):
        return pvc_prompt(question, media, later)
    for turn in later:
        if turn.role == "user":
            check_question(turn.text)
    if len(media) > 1:
        check_question(question.replace(PLACEHOLDER, " "))
        parts = [_with_time(item) for item in media]
        return render_chat([Turn("user", place_media(question, parts, [f"{part}\n" for part in parts])), *later])
    check_question(question)
    if media[0].kind == "image":
        return render_chat([Turn("user", f"{PLACEHOLDER}\n{check_question(question)}"), *later])
    return render_chat([Turn("user", first_video_turn(question, media[0].duration_s, media[0].entries)), *later])


def prompt_saying(said: str, what: Shown, model: LoadedModel, question: str, later: Sequence[Turn] = ()) -> str:
    """Write a conversation about one video, with a sentence of ours about it before the question."""
    if isinstance(model.config, PvcConfig):
        return pvc_prompt(f"{said} {question}", [what], later)
    return render_chat([Turn("user", f"{PLACEHOLDER}\n{said} {question}"), *later])


def after_visual(prompt: str, model: LoadedModel) -> str:
    """Return the text behind the tokens of a prompt's first visual, as it is tokenised."""
    bracket = IMG_END if isinstance(model.config, PvcConfig) else ""
    return bracket + prompt.split(PLACEHOLDER, 1)[1]


def _with_time(item: Shown) -> str:
    """Write the placeholder of one of several; a video says how long it lasts, as a lone one does."""
    if item.kind == "image":
        return PLACEHOLDER
    return f"{PLACEHOLDER}{said_of_video(item.duration_s, item.entries)}"


def encode(prompt: str, model: LoadedModel) -> Int64[Tensor, "L"]:
    """Tokenise a prompt, with a placeholder id for each block of visual tokens."""
    if isinstance(model.config, PvcConfig):
        return pvc_prompt_ids(model.tokenizer, prompt)
    return prompt_ids(model.tokenizer, prompt)


def show(memories: Sequence[VideoMemory], prompt: str, model: LoadedModel) -> Showing:
    """Put memories at the placeholders of a prompt."""
    blocks = [block for memory in memories for block in blocks_of(memory, model)]
    ids = encode(prompt, model)
    return Showing(tuple(memories), ids, tuple(blocks), _num_said(memories, ids, model))


def _num_said(memories: Sequence[VideoMemory], ids: Int64[Tensor, "L"], model: LoadedModel) -> int:
    """Count the tokens by which a prompt says how long its one video lasts; none if it does not begin so."""
    if len(memories) != 1 or memories[0].settings.get("kind") == "image" or isinstance(model.config, PvcConfig):
        return 0
    video = shown(memories[0], model)
    said = prompt_ids(model.tokenizer, said_of_video(video.duration_s, video.entries))
    start = int((ids == PLACEHOLDER_ID).nonzero()[0]) + 1
    return len(said) if torch.equal(ids[start : start + len(said)], said) else 0


def check_fits(showing: Showing, context: int, frame_group: int) -> None:
    """Refuse a prompt that is longer than the context.

    Raises: PromptError that says by how much, and how many frames would fit.
    """
    num_visual = sum(len(block) for block in showing.blocks)
    total = showing.num_text + num_visual
    if total <= context:
        return
    videos = [memory for memory in showing.memories if memory.settings.get("kind") != "image"]
    per_frame = sum(memory.tokens_per_frame for memory in videos)
    pictures = num_visual - sum(len(memory.tokens) for memory in videos)
    left = context - showing.num_text - pictures
    fits = max(0, int(left / per_frame)) // frame_group * frame_group if videos else 0
    kind = "pictures" if not videos else "video" if not pictures else "pictures and video"
    advice = f"pass max_frames {fits} or fewer" if fits else "ask in fewer words, or start a new conversation"
    if fits and len(showing.memories) == 1:
        each, frames = showing.memories[0].frame_pts_s.shape[1], showing.memories[0].num_frames
        most = left * each // frames  # tokens a clip may have
        advice += f", or tokens_per_frame {most / each:g}" if most else ""
    if not fits and len(showing.memories) > 1:
        advice = "show fewer files or ask in fewer words"
    raise PromptError(
        f"the prompt has {total} tokens ({showing.num_text} of text, {num_visual} of {kind}), {total - context} more "
        f"than the context of {context}; expected it to fit; {advice}"
    )
