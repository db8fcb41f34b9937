"""Needles that are drawn: cards in films of the FILMSTRIP world, at every depth of films of any length."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from longtake.core.errors import ConfigError
from longtake.eval.filmstrip_tasks import DrawnFilm, FilmQuestions, film_item, hop_extra
from longtake.eval.needles.grid import DEPTHS, cells_of, nearest_depth
from longtake.eval.result import Record
from longtake.eval.task import Item, register
from longtake.media.filmstrip import Film, FilmSpec, Question, ask_film, build_film
from longtake.media.filmstrip.attributes import FIRST_SEED
from longtake.media.filmstrip.render import REFERENCE_SIDE
from longtake.media.filmstrip.world import NUM_CHAINS


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnNeedles(FilmQuestions):
    """What both tasks with drawn needles have in common.

    frames: lengths of the haystack, all of it different frames, one a second. depths: rows of the grid, shares of the
    haystack before the needle. needles: films of each length. needle_s: how long a card is shown. needle_size: share
    of the picture. first_seed: of the films, else that of the test split. size: of the picture in pixels.

    Raises: ConfigError for a length, depth or count out of range.
    """

    template = "filmstrip"
    parser = "longtake.eval.answers"
    frames: tuple[int, ...] = (1000,)
    depths: tuple[float, ...] = DEPTHS
    needles: int = 20
    needle_s: float = 2.0
    needle_size: float = 0.4
    num_extras: int = 4
    first_seed: int | None = None
    size: int = REFERENCE_SIDE

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.frames or min(self.frames) < 1 or self.needles < 1:
            raise ConfigError(
                f"frames {self.frames}, needles {self.needles}: expected lengths and a count of at least 1; raise them"
            )
        if not self.depths or any(not 0 <= depth <= 1 for depth in self.depths):
            raise ConfigError(f"depths are {self.depths}; expected shares from 0 to 1; correct them")

    def items(self) -> Sequence[Item]:
        """Return the first film of every length, then the second of every length, and so on."""
        return self._items

    @functools.cached_property
    def _items(self) -> list[Item]:
        return [item for number in range(self.needles) for length in self.frames for item in self._of(number, length)]

    def _of(self, number: int, length: int) -> list[Item]:
        film = self.film(number, length)
        media = DrawnFilm(film, self.size)
        return [
            film_item(
                film,
                one,
                index,
                media,
                num_cards=len(film.cards),
                style=film.spec.style,
                frames=length,
                depth=depth,
                **hop_extra(film, one),
            )
            for index, (one, depth) in enumerate(self.questions(film))
        ]

    def max_frames(self) -> int:
        """Return the length of the longest haystack."""
        return max(self.frames)

    def film(self, number: int, length: int) -> Film:
        """Plan a film."""
        raise NotImplementedError

    def questions(self, film: Film) -> list[tuple[Question, float]]:
        """Return what is asked of a film, each with the row of the grid that it belongs to."""
        raise NotImplementedError

    def _spec(self, number: int, length: int, **more: Any) -> FilmSpec:
        seed = (FIRST_SEED["test"] if self.first_seed is None else self.first_seed) + number
        return FilmSpec(
            seed=seed,
            num_frames=length,
            needle_s=self.needle_s,
            needle_size=self.needle_size,
            num_extras=self.num_extras,
            **more,
        )

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by length and depth."""
        return {**super().breakdowns(item), "frames": str(item.extra["frames"]), "depth": f"{item.extra['depth']:g}"}

    def figures(self, records: Sequence[Record]) -> Mapping[str, object]:
        """Return the grid, and the account of chains where there are any."""
        return {"grid": cells_of(records), **super().figures(records)}


@register("niah")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SingleNeedle(DrawnNeedles):
    """Single hop: a film holds a card at every depth, and each is asked for; the others are decoys of equal grammar."""

    def film(self, number: int, length: int) -> Film:
        """Plan a film with a card at every depth.

        Raises: ConfigError if the cards would touch.
        """
        film = build_film(self._spec(number, length, tasks=("N1",), num_cards=max(2, len(self.depths))))
        cards = []
        for card, depth in zip(film.cards[: len(self.depths)], self.depths, strict=True):
            shown = card.stop - card.start
            start = round(depth * (length - shown))
            cards.append(dataclasses.replace(card, start=start, stop=start + shown))
        in_order = sorted(cards, key=lambda card: card.start)
        if any(later.start <= card.stop for card, later in pairwise(in_order)):
            raise ConfigError(
                f"{len(cards)} cards of {self.needle_s} s arrived for {length} frames; expected a frame between them; "
                "choose a longer film, shorter cards, or fewer depths"
            )
        return dataclasses.replace(film, cards=tuple(cards))

    def questions(self, film: Film) -> list[tuple[Question, float]]:
        """Ask for every card, from the first depth on."""
        asked = {int(one.subject[0]): one for one in ask_film(film) if one.task == "N1"}
        return [(asked[number], depth) for number, depth in enumerate(self.depths)]


@register("niah-multihop")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Multihop(DrawnNeedles):
    """Multi-hop: pictures on cards lead from one to the next; four chains of equal length and grammar lie in a film.

    Every chain is asked for its last card with the same sentence; what is right about it stops at the chains of the
    others. Each step is asked for too, so that it can be told where a chain broke. The depth of an item is that of its
    last card, in the nearest row. hops: how many pictures are followed, 1 to 4.
    """

    hops: int = 2

    def film(self, number: int, length: int) -> Film:
        """Plan a film with four chains, their cards at random times."""
        num_cards = NUM_CHAINS * (self.hops + 1)
        return build_film(self._spec(number, length, tasks=("NH",), hops=self.hops, num_cards=num_cards))

    def questions(self, film: Film) -> list[tuple[Question, float]]:
        """Ask chain by chain: what each card of it points to, then hop by hop, then for the last card."""
        asked = [one for one in ask_film(film, more=True) if one.kind in ("NH", "NH prefix", "NH pointer")]
        if self.form == "choices":
            asked = [one for one in asked if one.choices]
        found = []
        for chain in film.chains:
            own = [one for one in asked if int(one.subject[0]) in chain]
            own.sort(key=lambda one: (one.kind != "NH pointer", one.kind == "NH", one.subject))
            last = film.cards[chain[-1]]
            depth = nearest_depth(last.start / max(1, film.spec.num_frames - (last.stop - last.start)), self.depths)
            found += [(one, depth) for one in own]
        return found
