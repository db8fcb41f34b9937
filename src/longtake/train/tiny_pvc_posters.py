"""Posters of letters as pictures with questions: what the tiny PVC learns to read, and is measured on."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from longtake.core.config import StrictConfig
from longtake.media.filmstrip import FilmSpec, build_film, vocabulary
from longtake.media.filmstrip.attributes import LETTERS, stream
from longtake.media.filmstrip.questions import PHRASES
from longtake.media.filmstrip.render import Renderer
from longtake.media.transforms import normalize_pixels
from longtake.models.pvc_prompt import CONTROL_TEXTS, IMG_CONTEXT, SYSTEM_TEXT, Shown, pvc_prompt, pvc_prompt_ids
from longtake.models.tiny import word_tokenizer

CHANCE = 1 / len(LETTERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosterSpec(StrictConfig):
    """How posters look: letters a side, pixels a side, and the height of letters in a picture of 128 pixels.

    Each poster takes one of these heights.
    """

    side: int = 4
    image_size: int = 56
    letter_px: tuple[float, ...] = (16.0, 18.0, 20.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Posters:
    """Stills of one frame each, and their letters row by row, as numbers in the alphabet.

    pixels: grey, as posters are. seeds: of the films, one a poster.
    """

    pixels: UInt8[Tensor, "E S S"]
    letters: Int64[Tensor, "E C"]
    seeds: list[int]

    @property
    def side(self) -> int:
        """Number of rows, and of columns."""
        return round(self.letters.shape[1] ** 0.5)

    def __len__(self) -> int:
        return len(self.seeds)

    def at(self, numbers: list[int]) -> Posters:
        """Take some of them."""
        return Posters(self.pixels[numbers], self.letters[numbers], [self.seeds[i] for i in numbers])

    def pictures(self) -> Float[Tensor, "E 3 S S"]:
        """Return them as a model is fed."""
        return normalize_pixels(self.pixels.unsqueeze(1).expand(-1, 3, -1, -1))


def draw_posters(spec: PosterSpec, first_seed: int, count: int) -> Posters:
    """Draw the posters of consecutive film seeds; equal seeds give equal posters, whatever the count."""
    pixels, letters, seeds = [], [], list(range(first_seed, first_seed + count))
    for seed in seeds:
        height = spec.letter_px[int(stream("poster height", seed).integers(len(spec.letter_px)))]
        film = build_film(
            FilmSpec(
                seed=seed,
                tasks=("DE",),
                num_frames=1,
                still_frames=1,
                num_extras=0,
                poster_side=spec.side,
                detail_px=height,
            )
        )
        picture = Renderer(film, spec.image_size).frame(0)
        assert (picture == picture[..., :1]).all(), "a poster of letters is grey"
        pixels.append(picture[..., 0])
        letters.append([LETTERS.index(letter) for letter in film.posters[0].letters])
    return Posters(torch.from_numpy(np.stack(pixels)), torch.tensor(letters), seeds)


def poster_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer with a token for every word of a poster's prompt, and PVC's control tokens."""
    tokenizer = word_tokenizer([*vocabulary(), SYSTEM_TEXT, "user", "assistant"])
    tokenizer.add_tokens(list(CONTROL_TEXTS), special_tokens=True)
    return tokenizer


class PosterTexts:
    """Cuts the prompt of a picture and a question into ids, as `longtake ask` would: each question once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._known: dict[tuple[int, int, int], list[int]] = {}
        first, second = (self._prompt(0, *place) for place in ((1, 2), (3, 4)))
        shown = first.index(min(first))  # the placeholder, below every id
        same = next(i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])
        # The wordings begin differently, so the question starts right behind the end of the picture and a new line.
        start = shown + 3
        assert same > start
        self.before, self.after = first[:shown], first[shown + 1 : start]
        self.letters = [self._ids(letter)[0] for letter in LETTERS]
        self.end = self._ids("<|im_end|>")

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def _prompt(self, wording: int, row: int, column: int) -> list[int]:
        text = PHRASES["DE"][wording].format(a=row, b=column)
        prompt = pvc_prompt(text, [Shown(kind="image", entries=1)])
        return pvc_prompt_ids(self.tokenizer, prompt).tolist()

    def question(self, wording: int, cell: int, side: int) -> list[int]:
        """Return the ids of a question for a cell, from behind the picture up to the answer."""
        row, column = 1 + cell // side, 1 + cell % side
        key = (wording, row, column)
        if key not in self._known:
            self._known[key] = self._prompt(*key)[len(self.before) + 1 + len(self.after) :]
        return self._known[key]

    def answer(self, letter: int) -> list[int]:
        """Return the ids of an answer: the letter, and the end of the turn."""
        return [self.letters[letter], *self.end]


def context_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id of the token that stands for a visual one in a prompt."""
    found = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    assert isinstance(found, int)
    return found
