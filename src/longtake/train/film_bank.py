"""A bank of clips, encoded once, from which films for training are put together by index."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longtake.media.filmstrip.attributes import DIRECTIONS, TRAINING_KEYS, Key
from longtake.media.filmstrip.questions import NOT_SHOWN, PHRASES
from longtake.media.filmstrip.world import MOST_HAPPENINGS, Card, Motion
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
    motions: of all films, moved: the clips of each, from the first up to and without the last.
    """

    tokens: Mapping[int, Float[Tensor, "K M C"]]
    first_clip: list[int]
    cards: list[Card]
    shown: list[list[int]]
    happened: list[list[str]]
    motions: list[Motion]
    moved: list[range]

    @property
    def num_clips(self) -> int:
        """Count of clips."""
        return len(self.shown)

    def film_of(self, clip: int) -> int:
        """Return the number of the film that a clip is of."""
        return int(np.searchsorted(self.first_clip, clip, side="right")) - 1

    def place(self, clip: int) -> int:
        """Return where in its own film a clip stands."""
        return clip - self.first_clip[self.film_of(clip)]

    @functools.cached_property
    def clips_of(self) -> Mapping[int, list[int]]:
        """By the number of a card that a clip without motion shows: those clips."""
        found: dict[int, list[int]] = {}
        for clip, cards in enumerate(self.shown):
            for card in cards if clip not in self.moving else ():
                found.setdefault(card, []).append(clip)
        return found

    @functools.cached_property
    def by_key(self) -> Mapping[Key, list[int]]:
        """By what a card is named by: the numbers of the cards that clips show."""
        found: dict[Key, list[int]] = {}
        for card in self.clips_of:
            found.setdefault(self.cards[card].key, []).append(card)
        return found

    @functools.cached_property
    def pointing(self) -> list[int]:
        """Numbers of the cards with a picture of another card."""
        return [card for card in self.clips_of if self.cards[card].points_to is not None]

    @functools.cached_property
    def moving(self) -> frozenset[int]:
        """Clips that show any part of a motion."""
        return frozenset(clip for clips in self.moved for clip in clips)


Encode = Callable[[Float[Tensor, "K F 3 S S"]], Mapping[int, Float[Tensor, "K M C"]]]


def merged_by_tome(tower: UmtTower, budgets: Sequence[int]) -> Encode:
    """Return what encodes clips and merges their patches to each count of tokens a frame."""

    def encode(pixels: Tensor) -> dict[int, Tensor]:
        patches, grid = tower.encode_together(pixels), tower.grid(CLIP_FRAMES)
        return {budget: ToMe(tokens_per_frame=budget)(patches, grid).features for budget in dict.fromkeys(budgets)}

    return encode


@torch.no_grad()
def build_bank(
    encode: Encode, stream: ClipStream, num_films: int, report: Callable[[int, int], None] = lambda *_: None
) -> FilmBank:
    """Render and encode films: encode makes tokens of the clips of one, by count of tokens a frame."""
    parts: dict[int, list[Tensor]] = {}
    first_clip, cards, shown, happened, motions, moved = [0], [], [], [], [], []
    for number in range(num_films):
        clips = stream(number)
        for budget, tokens in encode(clips.pixels).items():
            parts.setdefault(budget, []).append(tokens)
        start = len(cards)
        cards += clips.film.cards
        for frames in clips.card.tolist():
            shown.append([start + card for card in dict.fromkeys(frames) if card >= 0])
        kinds = {one.frame: one.kind for one in clips.film.happenings}
        for index in range(len(clips.card)):
            frames = range(clips.first_frame + index * CLIP_FRAMES, clips.first_frame + (index + 1) * CLIP_FRAMES)
            happened.append([kinds[frame] for frame in frames if frame in kinds])
        for motion in clips.film.motions:
            first, last = ((frame - clips.first_frame) // CLIP_FRAMES for frame in (motion.start, motion.stop - 1))
            if first >= 0 and last < len(clips.card):
                motions.append(motion)
                moved.append(range(first_clip[-1] + first, first_clip[-1] + last + 1))
        first_clip.append(len(shown))
        report(number + 1, num_films)
    joined = {budget: torch.cat(kept) for budget, kept in parts.items()}
    return FilmBank(joined, first_clip, cards, shown, happened, motions, moved)


@dataclasses.dataclass(frozen=True, eq=False)
class Composed:
    """A film made of clips of the bank: their numbers in order, its cards in order of appearance, its motions."""

    clips: list[int]
    cards: list[int]
    motions: list[int]


def whole_film(bank: FilmBank, rng: np.random.Generator) -> Composed:
    """Take a film as it was rendered."""
    film = int(rng.integers(len(bank.first_clip) - 1))
    clips = range(bank.first_clip[film], bank.first_clip[film + 1])
    motions = [number for number, moved in enumerate(bank.moved) if moved.start in clips]
    return Composed(list(clips), list(dict.fromkeys(card for clip in clips for card in bank.shown[clip])), motions)


def compose(
    bank: FilmBank,
    rng: np.random.Generator,
    num_clips: int,
    card_share: float,
    motion_share: float = 0.0,
    chain_share: float = 0.0,
    *,
    keeps_times: bool = False,
) -> Composed:
    """Put short runs of clips of many films together, in any order; no two of its cards are of one shape and colour.

    keeps_times: in the order of their places in their own films, for tokens that know when their frame was shown.

    card_share: how many of the clips should show a card; the others come from where films show none. motion_share: how
    many runs should show a motion, whole; no two of a film are of one colour. chain_share: how many runs should show a
    card with a picture, or the card that a picture of this film leads to.
    """
    runs: list[list[int]] = []
    keys: dict[Key, int] = {}
    motions: list[int] = []
    room = num_clips
    while room > 0:
        if bank.motions and rng.random() < motion_share:
            run = _motion_run(bank, rng, motions, room)
        elif rng.random() < chain_share:
            run = _chain_run(bank, rng, keys)
        else:
            run = _card_run(bank, rng, rng.random() < card_share)
        fitting = list(itertools.takewhile(functools.partial(_fits, bank, keys), run[:room]))
        runs.append(fitting)
        room -= len(fitting)
    places = rng.permutation(len(runs)).tolist()
    if keeps_times:
        places = sorted((place for place in places if runs[place]), key=lambda place: bank.place(runs[place][0]))
    clips = [clip for place in places for clip in runs[place]]
    return Composed(clips, list(dict.fromkeys(card for clip in clips for card in bank.shown[clip])), motions)


def _fits(bank: FilmBank, keys: dict[Key, int], clip: int) -> bool:
    """Say whether all cards of a clip may be in the film, and note them if so."""
    if any(keys.get(bank.cards[card].key, card) != card for card in bank.shown[clip]):
        return False
    keys |= {bank.cards[card].key: card for card in bank.shown[clip]}
    return True


def _chain_run(bank: FilmBank, rng: np.random.Generator, keys: Mapping[Key, int]) -> list[int]:
    """Return a clip with a card that a picture of the film leads to and that it lacks; else one with a picture."""
    pictured = [bank.cards[card].points_to for card in keys.values()]
    wanted = [key for key in pictured if key is not None and key in bank.by_key and key not in keys]
    cards = bank.by_key[wanted[0]] if wanted else bank.pointing
    return [_pick(bank.clips_of[_pick(cards, rng)], rng)] if cards else []


def _card_run(bank: FilmBank, rng: np.random.Generator, with_card: bool) -> list[int]:
    """Return up to LONGEST_RUN clips in a row of one film, all with a card or all without, and none with a motion."""
    clip = int(rng.integers(bank.num_clips))
    end, run = bank.first_clip[bank.film_of(clip) + 1], []
    for follower in range(clip, min(clip + int(rng.integers(1, LONGEST_RUN + 1)), end)):
        if follower in bank.moving or bool(bank.shown[follower]) != with_card:
            break
        run.append(follower)
    return run


def _motion_run(bank: FilmBank, rng: np.random.Generator, motions: list[int], room: int) -> list[int]:
    """Return the clips of a motion that fits in, and note it; none if its colour is taken or a card is beside it."""
    number = int(rng.integers(len(bank.motions)))
    run = list(bank.moved[number])
    taken = {bank.motions[one].colour for one in motions}
    if len(run) > room or bank.motions[number].colour in taken or any(bank.shown[clip] for clip in run):
        return []
    motions.append(number)
    return run


class Asked(NamedTuple):
    """A question about a composed film, its answer, and the clips of the film, counted from 0, that prove it.

    mentions: what the question or the answer may mention, each with the clips that show it.
    """

    text: str
    answer: str
    proof: list[int]
    mentions: dict[str, list[int]]


def training_questions(
    bank: FilmBank,
    film: Composed,
    rng: np.random.Generator,
    count: int,
    mix: Mapping[str, float],
    rough_share: float = 0.0,
) -> list[Asked]:
    """Ask `count` questions of a composed film.

    mix: share of each kind of question (keys of PHRASES). A kind that the film cannot be asked gives no question.
    rough_share: of questions worded roughly (`roughen`).
    """
    names, weights = list(mix), np.array(list(mix.values()))
    asked = []
    for kind in rng.choice(names, size=count, p=weights / weights.sum()):
        found = _MAKERS[str(kind)](bank, film, rng)
        if found is not None:
            wording = int(rng.integers(NUM_TRAINING_WORDINGS))
            phrase = PHRASES["N1" if kind == "AB" else str(kind)][wording]
            if rough_share and rng.random() < rough_share:
                phrase = roughen(phrase, rng)
            text = phrase.format(**found.values)
            mentions = {name: _clips_where(film, shows) for name, shows in found.mentions.items()}
            asked.append(Asked(text, found.answer, _clips_where(film, found.proves), mentions))
    return asked


TRAINING_WORDS = sorted(
    {word for ways in PHRASES.values() for way in ways[:-1] for word in way.split() if "{" not in word}
)
ROUGH_WORDS = 0.3


def roughen(phrase: str, rng: np.random.Generator) -> str:
    """Leave out some words of a phrase, and put others in the place of some; what fills its gaps stays.

    A model that was asked in three wordings alone takes a fourth for whichever begins alike.
    """
    words = []
    for word in phrase.split():
        dice = rng.random()
        if "{" in word or dice >= ROUGH_WORDS:
            words.append(word)
        elif dice < ROUGH_WORDS / 2:
            words.append(TRAINING_WORDS[int(rng.integers(len(TRAINING_WORDS)))])
    return " ".join(words) or phrase


_Test = Callable[[int], bool]


def _clips_where(film: Composed, test: _Test) -> list[int]:
    return [i for i, clip in enumerate(film.clips) if test(clip)]


class _Found(NamedTuple):
    """What fills a phrase's gaps, the answer, which clips of the bank prove it, and which show what is mentioned."""

    values: Mapping[str, object]
    answer: str
    proves: _Test
    mentions: Mapping[str, _Test]


_Asked = _Found | None


def _shows(bank: FilmBank, *cards: int) -> _Test:
    return lambda clip: any(card in bank.shown[clip] for card in cards)


def _mentions(bank: FilmBank, *cards: int) -> dict[str, _Test]:
    return {str(bank.cards[card].key): _shows(bank, card) for card in cards}


def _pick(items: list[int], rng: np.random.Generator) -> int:
    return items[int(rng.integers(len(items)))]


def _ask_letter(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    if not film.cards:
        return None
    number = _pick(film.cards, rng)
    card = bank.cards[number]
    return _Found({"a": card.key}, card.letter, _shows(bank, number), _mentions(bank, number))


def _ask_pointer(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    cards = [card for card in film.cards if bank.cards[card].points_to is not None]
    if not cards:
        return None
    number = _pick(cards, rng)
    card = bank.cards[number]
    return _Found({"a": card.key}, str(card.points_to), _shows(bank, number), _mentions(bank, number))


def _ask_order(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    if len(film.cards) < 2:
        return None
    i, j = (int(v) for v in rng.choice(len(film.cards), size=2, replace=False))
    a, b, first = (film.cards[place] for place in (i, j, min(i, j)))
    keys = {"a": bank.cards[a].key, "b": bank.cards[b].key}
    return _Found(keys, str(bank.cards[first].key), _shows(bank, first), _mentions(bank, a, b))  # look at the answer


def _ask_first(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    if not film.cards:
        return None
    first = film.cards[0]
    return _Found({}, str(bank.cards[first].key), _shows(bank, first), _mentions(bank, first))


def _ask_count(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    happened = [kind for clip in film.clips for kind in bank.happened[clip]]
    kinds = sorted({kind for kind in happened if happened.count(kind) <= MOST_HAPPENINGS})
    if not kinds:
        return None
    kind = kinds[int(rng.integers(len(kinds)))]

    def shows(clip: int) -> bool:
        return kind in bank.happened[clip]

    return _Found({"a": kind}, str(happened.count(kind)), shows, {kind: shows})


def _ask_absent(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    shown = {bank.cards[card].key for card in film.cards}
    # A pair held out from training must not be learned as one that is never shown.
    key = TRAINING_KEYS[int(rng.integers(len(TRAINING_KEYS)))]
    return None if key in shown else _Found({"a": key}, NOT_SHOWN, lambda clip: False, {})


def _ask_motion(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    motion = _one_motion(bank, film, rng, turned=False)
    if motion is None:
        return None
    return _found_motion(bank, motion, DIRECTIONS[bank.motions[motion].direction])


def _ask_turn(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    motion = _one_motion(bank, film, rng, turned=True)
    if motion is None:
        return None
    return _found_motion(bank, motion, ("left", "right")[bank.motions[motion].turn > 0])


def _found_motion(bank: FilmBank, motion: int, answer: str) -> _Found:
    def shows(clip: int) -> bool:
        return clip in bank.moved[motion]

    colour = bank.motions[motion].colour
    return _Found({"a": colour}, answer, shows, {colour: shows})


def _one_motion(bank: FilmBank, film: Composed, rng: np.random.Generator, *, turned: bool) -> int | None:
    """Choose a motion whose ball is the only one of its colour in the film."""
    colours = [bank.motions[one].colour for one in film.motions]
    alone = [one for one, colour in zip(film.motions, colours, strict=True) if colours.count(colour) == 1]
    fitting = [one for one in alone if bank.motions[one].turn or not turned]
    return _pick(fitting, rng) if fitting else None


def _chain(bank: FilmBank, film: Composed, rng: np.random.Generator) -> list[int] | None:
    """Follow the pictures from a card from which they lead to an end inside the film; none if they lead in a circle."""
    by_key = {bank.cards[card].key: card for card in film.cards}
    starts = [card for card in film.cards if bank.cards[card].points_to is not None]
    if not starts:
        return None
    chain = [_pick(starts, rng)]
    while (follows := bank.cards[chain[-1]].points_to) is not None:
        if follows not in by_key or by_key[follows] in chain:
            return None
        chain.append(by_key[follows])
    return chain


def _ask_hops(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    chain = _chain(bank, film, rng)
    if chain is None:
        return None
    return _Found(
        {"a": bank.cards[chain[0]].key}, bank.cards[chain[-1]].letter, _shows(bank, *chain), _mentions(bank, chain[0])
    )


def _ask_trace(bank: FilmBank, film: Composed, rng: np.random.Generator) -> _Asked:
    chain = _chain(bank, film, rng)
    if chain is None:
        return None
    steps = ", ".join(str(bank.cards[card].key) for card in chain[1:])
    answer = f"{steps}: {bank.cards[chain[-1]].letter}"
    return _Found({"a": bank.cards[chain[0]].key}, answer, _shows(bank, *chain[:1]), _mentions(bank, *chain))


_MAKERS: dict[str, Callable[[FilmBank, Composed, np.random.Generator], _Asked]] = {
    "N1": _ask_letter,
    "NH pointer": _ask_pointer,
    "NH": _ask_hops,
    "NH trace": _ask_trace,
    "OR": _ask_order,
    "OR first": _ask_first,
    "CO": _ask_count,
    "MO": _ask_motion,
    "MO turn": _ask_turn,
    "AB": _ask_absent,
}
