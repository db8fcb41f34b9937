"""A bank of clips, encoded once, from which films for training are put together by index."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.media.filmstrip.questions import PHRASES
from longtake.media.filmstrip.world import MOST_HAPPENINGS, Card
from longtake.methods.compress.tome import ToMe
from longtake.nn.vision.umt import UmtTower
from longtake.train.film_clips import CLIP_FRAMES, ClipStream

NUM_TRAINING_WORDINGS = 3
LONGEST_RUN = 4


@dataclasses.dataclass(frozen=True, eq=False)
class FilmBank:
    """Merged tokens of clips, and what they show.

    tokens: by tokens a frame, [K, M, C]. first_clip: where each film begins; the last entry is K. cards: all cards of
    all films. shown: for each clip the numbers of its cards, in order. happened: for each clip what happened, by kind.
    """

    tokens: Mapping[int, Float[Tensor, "K M C"]]
    first_clip: list[int]
    cards: list[Card]
    shown: list[list[int]]
    happened: list[list[str]]

    @property
    def num_clips(self) -> int:
        """Count of clips."""
        return len(self.shown)


@torch.no_grad()
def build_bank(
    tower: UmtTower,
    stream: ClipStream,
    num_films: int,
    budgets: tuple[int, ...],
    report: Callable[[int, int], None],
) -> FilmBank:
    """Render and encode films; each budget merges the same patches."""
    parts: dict[int, list[Tensor]] = {budget: [] for budget in budgets}
    first_clip, cards, shown, happened = [0], [], [], []
    for number in range(num_films):
        clips = stream(number)
        patches = tower.encode_together(clips.pixels)
        for budget, kept in parts.items():
            kept.append(ToMe(tokens_per_frame=budget)(patches, tower.grid(CLIP_FRAMES)).features)
        start = len(cards)
        cards += clips.film.cards
        for frames in clips.card.tolist():
            shown.append([start + card for card in dict.fromkeys(frames) if card >= 0])
        kinds = {one.frame: one.kind for one in clips.film.happenings}
        for index in range(len(clips.card)):
            frames = range(clips.first_frame + index * CLIP_FRAMES, clips.first_frame + (index + 1) * CLIP_FRAMES)
            happened.append([kinds[frame] for frame in frames if frame in kinds])
        first_clip.append(len(shown))
        report(number + 1, num_films)
    tokens = {budget: torch.cat(kept) for budget, kept in parts.items()}
    return FilmBank(tokens, first_clip, cards, shown, happened)


@dataclasses.dataclass(frozen=True, eq=False)
class Composed:
    """A film made of clips of the bank: their numbers in order, and its cards in order of appearance."""

    clips: list[int]
    cards: list[int]


def whole_film(bank: FilmBank, rng: np.random.Generator) -> Composed:
    """Take a film as it was rendered."""
    film = int(rng.integers(len(bank.first_clip) - 1))
    clips = list(range(bank.first_clip[film], bank.first_clip[film + 1]))
    return Composed(clips, list(dict.fromkeys(card for clip in clips for card in bank.shown[clip])))


def compose(bank: FilmBank, rng: np.random.Generator, num_clips: int, card_share: float) -> Composed:
    """Put short runs of clips of many films together; no two of its cards are of one shape and colour.

    card_share: how many of the clips should show a card; the others come from where films show none.
    """
    clips: list[int] = []
    keys: dict[object, int] = {}
    while len(clips) < num_clips:
        clip, wants_card = int(rng.integers(bank.num_clips)), rng.random() < card_share
        if bool(bank.shown[clip]) != wants_card:
            continue
        film = int(np.searchsorted(bank.first_clip, clip, side="right")) - 1
        for follower in range(clip, min(clip + int(rng.integers(1, LONGEST_RUN + 1)), bank.first_clip[film + 1])):
            fits = all(keys.get(bank.cards[card].key, card) == card for card in bank.shown[follower])
            if not fits or bool(bank.shown[follower]) != wants_card or len(clips) == num_clips:
                break
            keys |= {bank.cards[card].key: card for card in bank.shown[follower]}
            clips.append(follower)
    return Composed(clips, list(keys.values()))


class Asked(NamedTuple):
    """A question about a composed film, its answer, and the clips of the film, counted from 0, that prove it."""

    text: str
    answer: str
    proof: list[int]


def training_questions(
    bank: FilmBank, film: Composed, rng: np.random.Generator, count: int, mix: Mapping[str, float]
) -> list[Asked]:
    """Ask `count` questions of a composed film.

    mix: share of each kind of question (keys of PHRASES). A kind that the film cannot be asked gives no question.
    """
    names, weights = list(mix), np.array(list(mix.values()))
    asked = []
    for kind in rng.choice(names, size=count, p=weights / weights.sum()):
        found = _MAKERS[str(kind)](bank, film, rng)
        if found is not None:
            wording = int(rng.integers(NUM_TRAINING_WORDINGS))
            text = PHRASES[str(kind)][wording].format(**found.values)
            proof = [i for i, clip in enumerate(film.clips) if found.proves(clip)]
            asked.append(Asked(text, found.answer, proof))
    return asked


class _Found(NamedTuple):
    """What fills a phrase's gaps, the answer, and which clips of the bank prove it."""

    values: Mapping[str, object]
    answer: str
    proves: Callable[[int], bool]


_Asked = _Found | None


def _shows(bank: FilmBank, *cards: int) -> Callable[[int], bool]:
    return lambda clip: any(card in bank.shown[clip] for card in cards)


def _pick(items: list[int], rng: np.random.Generator) -> int:
    return items[int(rng.integers(len(items)))]


def _ask_letter(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    if not film.cards:
        return None
    number = _pick(film.cards, rng)
    card = bank.cards[number]
    return _Found({"a": card.key}, card.letter, _shows(bank, number))


def _ask_pointer(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    cards = [card for card in film.cards if bank.cards[card].points_to is not None]
    if not cards:
        return None
    number = _pick(cards, rng)
    card = bank.cards[number]
    return _Found({"a": card.key}, str(card.points_to), _shows(bank, number))


def _ask_order(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    if len(film.cards) < 2:
        return None
    i, j = (int(v) for v in rng.choice(len(film.cards), size=2, replace=False))
    a, b, first = (film.cards[place] for place in (i, j, min(i, j)))
    keys = {"a": bank.cards[a].key, "b": bank.cards[b].key}
    return _Found(keys, str(bank.cards[first].key), _shows(bank, a, b))


def _ask_first(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    if not film.cards:
        return None
    return _Found({}, str(bank.cards[film.cards[0]].key), _shows(bank, film.cards[0]))


def _ask_count(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    happened = [kind for clip in film.clips for kind in bank.happened[clip]]
    kinds = sorted({kind for kind in happened if happened.count(kind) <= MOST_HAPPENINGS})
    if not kinds:
        return None
    kind = kinds[int(rng.integers(len(kinds)))]
    return _Found({"a": kind}, str(happened.count(kind)), lambda clip: kind in bank.happened[clip])


def _chain(bank: FilmBank, film: Composed, rng: np.random.Generator) -> list[int] | None:
    """Follow the pictures from a card from which they lead to an end inside the film."""
    by_key = {bank.cards[card].key: card for card in film.cards}
    starts = [card for card in film.cards if bank.cards[card].points_to is not None]
    if not starts:
        return None
    chain = [_pick(starts, rng)]
    while (follows := bank.cards[chain[-1]].points_to) is not None:
        if follows not in by_key:
            return None
        chain.append(by_key[follows])
    return chain


def _ask_hops(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    chain = _chain(bank, film, rng)
    if chain is None:
        return None
    return _Found({"a": bank.cards[chain[0]].key}, bank.cards[chain[-1]].letter, _shows(bank, *chain))


def _ask_trace(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    chain = _chain(bank, film, rng)
    if chain is None:
        return None
    steps = ", ".join(str(bank.cards[card].key) for card in chain[1:])
    answer = f"{steps}: {bank.cards[chain[-1]].letter}"
    return _Found({"a": bank.cards[chain[0]].key}, answer, _shows(bank, *chain[:1]))


_MAKERS: dict[str, Callable[[FilmBank, Composed, np.random.Generator], _Asked]] = {
    "N1": _ask_letter,
    "NH pointer": _ask_pointer,
    "NH": _ask_hops,
    "NH trace": _ask_trace,
    "OR": _ask_order,
    "OR first": _ask_first,
    "CO": _ask_count,
}
