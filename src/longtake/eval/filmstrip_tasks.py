"""Questions about films of the FILMSTRIP world as tasks, one for each kind: nothing is downloaded, all is drawn."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longtake.core.errors import ConfigError
from longtake.eval.answers import (
    choices_text,
    overlap,
    read_glyph,
    read_number,
    read_phrase,
    read_span,
)
from longtake.eval.encode import encode
from longtake.eval.hops import hop_figures
from longtake.eval.parsers import LETTERS as CHOICE_LETTERS
from longtake.eval.parsers import read_letter
from longtake.eval.result import Record, text_hash
from longtake.eval.task import Item, Scored, Task, register
from longtake.media.filmstrip import (
    Film,
    Question,
    ask_film,
    build_film,
    control_frames,
    film_frames,
    level_spec,
)
from longtake.media.filmstrip.attributes import ALL_KEYS, DIRECTIONS, FIRST_SEED, GLYPHS, LETTERS
from longtake.media.filmstrip.phrases import NOT_SHOWN
from longtake.media.filmstrip.render import REFERENCE_SIDE
from longtake.media.filmstrip.world import MOST_BOUNCES, MOST_HAPPENINGS

FORMS = ("open", "choices")
RIGHT_OVERLAP = 0.5
LETTER_REQUEST = "Only give the best option."
MOST_TRACED = 40
# Kinds of questions that a task asks for hop by hop, beside the one that counts.
STEPS = ("NH prefix", "NH pointer", "NH trace")


@dataclasses.dataclass(frozen=True)
class DrawnFilm:
    """A film that is written when it is needed; control: what is made of it instead (filmstrip.CONTROLS)."""

    film: Film
    size: int = REFERENCE_SIDE
    control: str | None = None
    suffix: str = ".mp4"

    @property
    def key(self) -> str:
        """Return a name that follows from all that is drawn."""
        return self._key

    @functools.cached_property
    def _key(self) -> str:
        planned = dataclasses.asdict(self.film)
        return f"filmstrip-{text_hash(planned, self.size, self.control)[:24]}"

    def write(self, path: Path) -> Path:
        """Write it frame by frame."""
        side, rate = self.size, self.film.spec.fps
        if self.control is None:
            return encode(film_frames(self.film, side), path, rate, (side, side))
        return encode(control_frames(self.film, self.control, side), path, rate, (side, side))


def film_item(film: Film, question: Question, number: int, media: DrawnFilm, **more: object) -> Item:
    """Make an item of a question about a film."""
    seed = film.spec.seed
    return Item(
        id=f"{question.kind.replace(' ', '-').lower()}-{seed}-{film.spec.num_frames}-{number}",
        media=media,
        question=question.text,
        choices=question.choices,
        answer=question.answer,
        group=f"film {seed} {film.spec.num_frames}",
        duration_class="",
        spans_s=question.spans_s,
        extra={"kind": question.kind, "seen": "unseen pair" if question.is_held_out else "seen pair", **more},
    )


def open_pool(kind: str, item: Item) -> Sequence[str]:
    """Return all that an open question of a kind could be answered with; none where that is not a list."""
    glyphs = GLYPHS if item.extra.get("style") == "rich" else LETTERS
    pools: dict[str, Sequence[str]] = {
        "N1": glyphs, "NH": glyphs, "NH prefix": glyphs, "DE": LETTERS,
        "NH pointer": [str(key) for key in ALL_KEYS], "OR first": [str(key) for key in ALL_KEYS],
        "CO": [str(number) for number in range(1, MOST_HAPPENINGS + 1)],
        "MO": DIRECTIONS, "MO turn": ("left", "right"), "MO speed": ("faster", "slower"), "MO path": ("first", "last"),
        "MO bounce": [str(number) for number in range(1, MOST_BOUNCES + 1)],
    }  # fmt: skip
    pool = list(pools.get(kind, item.choices))
    return [*pool, NOT_SHOWN] if NOT_SHOWN in item.choices or item.answer == NOT_SHOWN else pool


def read_open(text: str, item: Item) -> str | None:
    """Read an open answer as its kind of question asks for."""
    kind = str(item.extra["kind"])
    if read_phrase(text, [NOT_SHOWN]):
        return NOT_SHOWN
    if kind == "TG":
        span = read_span(text)
        return None if span is None else f"{span[0]:g} to {span[1]:g} seconds"
    pool = open_pool(kind, item)
    if kind in ("N1", "NH", "NH prefix", "DE"):
        return read_glyph(text, pool)
    if kind in ("CO", "MO bounce"):
        return read_number(text)
    if kind == "NH trace":
        return " ".join(text.split()) or None
    return read_phrase(text, pool)


def score_question(text: str, item: Item, form: str) -> Scored:
    """Compare an answer with the right one; a time is right from an overlap of a half on, and scores its overlap."""
    if form == "choices" and item.choices:
        letter = read_letter(text, item.choices)
        parsed = item.choices[CHOICE_LETTERS.index(letter)] if letter else None
    else:
        parsed = read_open(text, item)
    if item.extra["kind"] != "TG" or item.answer == NOT_SHOWN:
        return Scored(right=parsed == item.answer, parsed=parsed)
    span = None if parsed is None else read_span(parsed)
    score = 0.0 if span is None else overlap(span, item.spans_s[0])
    return Scored(right=score >= RIGHT_OVERLAP, parsed=parsed, score=score)


def hop_extra(film: Film, question: Question) -> dict[str, object]:
    """Return what a question about a chain needs to be diagnosed: which hop, the letters of the decoys, the start's."""
    chain = next((chain for chain in film.chains if question.subject and question.subject[0] in chain), ())
    if not chain:
        return {}
    hop = len(question.subject) - 1  # 0 for a pointer, which is about its own card alone
    decoys = sorted({film.cards[other[hop]].letter for other in film.chains if other != chain})
    start = film.cards[chain[0]].letter
    return {"chain": f"{film.spec.seed} {film.spec.num_frames} {chain[0]}", "hop": hop, "decoys": decoys,
            "start": start}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmQuestions(Task):
    """What all tasks that ask about drawn films have in common.

    form: `open` takes the answer itself (as `longtake-tiny` learned it), `choices` a letter of the listed choices.
    """

    form: str = "open"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"form is {self.form!r}; expected open or choices; choose one")

    def prompt(self, item: Item) -> str:
        """Write the question, with its choices where a letter is asked for."""
        if self.form == "open" or not item.choices:
            return item.question
        return f"{item.question}\n{choices_text(item.choices)}\n{LETTER_REQUEST}"

    def score(self, text: str, item: Item) -> Scored:
        """Read and compare; questions about chains say whether a decoy or the start card was answered."""
        scored = score_question(text, item, self.form)
        if "chain" not in item.extra:
            return scored
        told = {name: item.extra[name] for name in ("chain", "hop", "kind")}
        told |= {"decoy": scored.parsed in item.extra["decoys"], "start": scored.parsed == item.extra["start"]}  # pyright: ignore[reportOperatorIssue]
        return dataclasses.replace(scored, extra=told)

    def chance(self, item: Item) -> float:
        """Return how often a guess is right: among the choices, or among all answers that the question could have."""
        if self.form == "choices" and item.choices:
            return 1 / len(item.choices)
        kind = str(item.extra["kind"])
        if kind == "OR first":  # names no card, so any of them could be first
            return 1 / int(str(item.extra["num_cards"]))
        if kind in ("TG", "NH trace", "DE tile"):
            return 0.0
        return 1 / len(open_pool(kind, item))

    def counts(self, item: Item) -> bool:
        """Leave out the steps of a chain, which are there to tell where it broke."""
        return item.extra["kind"] not in STEPS

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by kind of question, by seen and unseen pairs, by hops."""
        found = {"kind": str(item.extra["kind"]), "pairs": str(item.extra["seen"])}
        return found | ({"hops": str(item.extra["hop"])} if "hop" in item.extra else {})

    def figures(self, records: Sequence[Record]) -> Mapping[str, object]:
        """Return the account of chains, hop by hop, where there are any."""
        return hop_figures(records)


@register("filmstrip-n1", kind="N1")
@register("filmstrip-nh", kind="NH")
@register("filmstrip-or", kind="OR")
@register("filmstrip-co", kind="CO")
@register("filmstrip-mo", kind="MO")
@register("filmstrip-de", kind="DE")
@register("filmstrip-tg", kind="TG")
@register("filmstrip-ab", kind="AB")
@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmstripTask(FilmQuestions):
    """One kind of question about films of one level of the ladder.

    kind: N1 single retrieval, NH chains, OR order, CO counting, MO motion, DE detail, TG time, AB what is not shown.
    level: L0 … L5. films, questions: how many, and how many a film (the first ones in a random order; of chains
    whole ones). first_seed: of the films, else that of the test split. control: show this in place of the films. hops:
    else by turns, as the level has them. size: of the picture in pixels.

    Raises: ConfigError for an unknown level, control or form, or a count below 1.
    """

    template = "filmstrip"
    parser = "longtake.eval.answers"
    kind: str = "N1"
    level: str = "L1"
    films: int = 40
    questions: int = 16
    first_seed: int | None = None
    hops: int | None = None
    control: str | None = None
    size: int = REFERENCE_SIDE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.films < 1 or self.questions < 1:
            raise ConfigError(f"films {self.films}, questions {self.questions}: expected both at least 1; raise them")
        self._film(0)

    def _film(self, number: int) -> Film:
        seed = (FIRST_SEED["test"] if self.first_seed is None else self.first_seed) + number
        more = {} if self.hops is None else {"hops": self.hops}
        return build_film(level_spec(self.level, seed, (self.kind,), **more))

    def items(self) -> Sequence[Item]:
        """Return the questions film by film."""
        return self._items

    @functools.cached_property
    def _items(self) -> list[Item]:
        return [item for number in range(self.films) for item in self._items_of(self._film(number))]

    def _items_of(self, film: Film) -> list[Item]:
        media = DrawnFilm(film, self.size, self.control)
        asked = [one for one in ask_film(film, more=True) if one.task == self.kind]
        if self.form == "choices":
            asked = [one for one in asked if one.choices or one.kind == "TG"]
        if self.kind == "NH":
            asked = _whole_chains(asked, self.questions)
        more = {"num_cards": len(film.cards), "style": film.spec.style}
        return [
            film_item(film, one, number, media, **more, **hop_extra(film, one))
            for number, one in enumerate(asked[: self.questions])
        ]


def _whole_chains(asked: Sequence[Question], room: int) -> list[Question]:
    """Put the questions about one chain together, so that a limit cuts no chain in two, unless it is the first.

    Pointers of later cards are asked with the chain that they lie on: their subject is the card itself, so that they
    come last.
    """
    chains: dict[object, list[Question]] = {}
    for one in asked:
        if one.subject and one.kind in ("NH", "NH prefix"):
            chains.setdefault(one.subject[0], []).append(one)
    found: list[Question] = []
    for chain in chains.values():
        if found and len(found) + len(chain) > room:
            break
        found += sorted(chain, key=lambda one: (one.kind, len(one.subject)))
    rest = [one for one in asked if one.kind in ("NH pointer", "NH trace")]
    return list(itertools.chain(found, rest))


def probe_tasks(films: int, form: str) -> dict[str, Task]:
    """Return the small sets that stand beside a score: what a figure of many questions could hide."""
    kinds: dict[str, dict[str, Any]] = {
        "counting": {"kind": "CO"},
        "order": {"kind": "OR"},
        "negation": {"kind": "AB"},
        "small text": {"kind": "DE"},
        "identity": {"kind": "N1"},
    }
    return {
        name: FilmstripTask(
            name=f"filmstrip-{fields['kind'].lower()}", level="L0", films=films, questions=4, form=form, **fields
        )
        for name, fields in kinds.items()
    }
