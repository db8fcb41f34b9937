"""Many questions behind one film: each sees the film and itself, none sees another; only answers are learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from longtake.core.chat import IGNORE_LABEL

FILM = 0
PADDING = -1


@dataclasses.dataclass(frozen=True, eq=False)
class PackedText:
    """The text around one film, as ids: what stands before it, what follows it, and each question with its answer.

    proofs: for each question the visual tokens that prove its answer, counted from 0; empty if nobody knows. mentions:
    for each question the things that it or its answer mentions: which of its tokens ends the mention, and the visual
    tokens that show the thing.
    """

    before: list[int]
    after: list[int]
    questions: list[tuple[list[int], list[int]]]
    proofs: list[list[int]] = dataclasses.field(default_factory=list)
    mentions: list[list[tuple[int, list[int]]]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, eq=False)
class Proofs:
    """Where one film's visual tokens lie, rows of text, and for each the visual tokens that it is about.

    rows: [Q]. proves: bool [Q, N]; a row that is about none teaches nothing.
    """

    visual: slice
    rows: Int64[Tensor, "Q"]
    proves: Bool[Tensor, "Q N"]


@dataclasses.dataclass(frozen=True, eq=False)
class PackedBatch:
    """A batch as the language model reads it.

    embeds: [B, L, D]. positions, labels: [B, L]. mask: bool [B, 1, L, L], true where a row may look. proofs: a film
    each.
    """

    embeds: Float[Tensor, "B L D"]
    positions: Int64[Tensor, "B L"]
    labels: Int64[Tensor, "B L"]
    mask: Bool[Tensor, "B 1 L L"]
    proofs: list[Proofs]
    mentions: list[Proofs]


def spread_positions(
    count: int, first: int, longest: int, generator: torch.Generator, dense_share: float = 0.5
) -> Int64[Tensor, "N"]:
    """Place visual tokens at ascending positions from `first` on, as if the film were longer than it is.

    A share of the films keeps consecutive positions; the others are spread over a random part of `longest`, uniform
    in its logarithm. A model that is trained so meets the positions of long films without their tokens.
    """
    if longest <= count or float(torch.rand((), generator=generator)) < dense_share:
        return first + torch.arange(count)
    share = float(torch.rand((), generator=generator))
    span = round(count * (longest / count) ** share)
    return first + torch.randperm(span, generator=generator)[:count].sort().values


def pack(
    embed: torch.nn.Module,
    films: Sequence[Tensor],
    texts: Sequence[PackedText],
    longest: int,
    generator: torch.Generator,
) -> PackedBatch:
    """Lay out films, [N, D] each, and their questions, padded on the right.

    Every question starts at the position right behind the film's text, as it would if it were the only one.
    """
    rows = [_row(len(film), text, longest, generator) for film, text in zip(films, texts, strict=True)]
    length = max(len(row.ids) for row in rows)
    ids, positions, labels, blocks = (
        torch.stack([_padded(getattr(row, name), length, fill) for row in rows])
        for name, fill in (("ids", 0), ("positions", 0), ("labels", IGNORE_LABEL), ("blocks", PADDING))
    )
    embeds = embed(ids)
    for sample, (film, text) in enumerate(zip(films, texts, strict=True)):
        start = len(text.before)
        embeds[sample, start : start + len(film)] = film.to(embeds.dtype)
    about = [_proofs(len(film), text) for film, text in zip(films, texts, strict=True)]
    proofs, mentions = [one[0] for one in about], [one[1] for one in about]
    return PackedBatch(embeds, positions, labels, block_mask(blocks), proofs, mentions)


def _proofs(num_visual: int, text: PackedText) -> tuple[Proofs, Proofs]:
    """Return the rows that are about to answer with their proofs, and the rows of mentions with what they mention."""
    start = len(text.before)
    place, answering, mentioning = start + num_visual + len(text.after), [], []
    for index, (question, answer) in enumerate(text.questions):
        if text.proofs:
            answering.append((place + len(question) - 1, text.proofs[index]))
        if text.mentions:
            mentioning += [(place + row, tokens) for row, tokens in text.mentions[index]]
        place += len(question) + len(answer)
    visual = slice(start, start + num_visual)
    return _rows_about(visual, answering), _rows_about(visual, mentioning)


def _rows_about(visual: slice, about: list[tuple[int, list[int]]]) -> Proofs:
    proves = torch.zeros(len(about), visual.stop - visual.start, dtype=torch.bool)
    for index, (_, tokens) in enumerate(about):
        proves[index, tokens] = True
    return Proofs(visual, torch.tensor([row for row, _ in about], dtype=torch.int64), proves)


def block_mask(blocks: Int64[Tensor, "B L"]) -> Bool[Tensor, "B 1 L L"]:
    """Let each row look back at the film's part and at its own question; padding looks at itself alone."""
    row, column = blocks.unsqueeze(2), blocks.unsqueeze(1)
    length = blocks.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
    seen = (column == FILM) | (column == row)
    itself = torch.eye(length, dtype=torch.bool, device=blocks.device)
    return ((causal & seen & (row != PADDING)) | itself).unsqueeze(1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Row:
    ids: Tensor
    positions: Tensor
    labels: Tensor
    blocks: Tensor


def _row(num_visual: int, text: PackedText, longest: int, generator: torch.Generator) -> _Row:
    before = torch.arange(len(text.before))
    visual = spread_positions(num_visual, len(before), longest, generator)
    start = (int(visual[-1]) if num_visual else len(before) - 1) + 1
    ids = [*text.before, *[0] * num_visual, *text.after]
    labels = [IGNORE_LABEL] * len(ids)
    positions = [before, visual, start + torch.arange(len(text.after))]
    blocks = [FILM] * len(ids)
    for number, (question, answer) in enumerate(text.questions, start=1):
        ids += question + answer
        labels += [IGNORE_LABEL] * len(question) + answer
        positions.append(start + len(text.after) + torch.arange(len(question) + len(answer)))
        blocks += [number] * (len(question) + len(answer))
    return _Row(torch.tensor(ids), torch.cat(positions), torch.tensor(labels), torch.tensor(blocks))


def _padded(values: Tensor, length: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, length - len(values)), value=fill)
