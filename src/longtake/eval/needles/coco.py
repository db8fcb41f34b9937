"""The released needle questions as tasks: in real files (`niah-coco…`), and as published (`niah-published…`)."""

from __future__ import annotations

import abc
import dataclasses
import functools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longtake.core.chat import PLACEHOLDER, Turn, render_chat
from longtake.core.errors import ConfigError
from longtake.core.types import Frames, VideoMemory, VisualTokens
from longtake.eval.filmstrip_tasks import DrawnFilm
from longtake.eval.needles.grid import DEPTHS, cells_of
from longtake.eval.needles.planted import Needle, Planted, needle_spans
from longtake.eval.needles.released import (
    Asked,
    ChainRecord,
    SingleRecord,
    placements,
    read_chains,
    read_single,
    words_overlap,
)
from longtake.eval.parsers import LETTERS, read_letter
from longtake.eval.result import Record, text_hash
from longtake.eval.task import Drawn, Encode, Item, Scored, Task, register
from longtake.media.filmstrip import build_film
from longtake.media.filmstrip.attributes import FIRST_SEED
from longtake.media.filmstrip.ladder import FilmSpec
from longtake.media.images import read_image
from longtake.media.sampling import SamplingRule

CAPTION, ABOUT = "caption", "question"
CHANCE = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleasedNeedles(Task):
    """What the tasks over released annotations have in common.

    annotations: the released JSON file. media: the folder of its pictures. haystack: any video; empty for a drawn
    world without cards, all of it different frames. frames: lengths of the grid. depths: rows of it (of single
    needles). fps: frames a second taken from the haystack.

    Raises: ConfigError for a length or depth out of range.
    """

    template = "released: question with its options"
    annotations: str = ""
    media: str = ""
    haystack: str = ""
    frames: tuple[int, ...] = (1000,)
    depths: tuple[float, ...] = DEPTHS
    fps: float = 1.0
    chained: bool = False

    def __post_init__(self) -> None:
        if not self.annotations or not self.media:
            raise ConfigError(
                f"annotations {self.annotations!r} and media {self.media!r} arrived; expected the released JSON file "
                "and the folder of its pictures; pass --set task.annotations=FILE --set task.media=FOLDER"
            )
        if not self.frames or min(self.frames) < 1 or any(not 0 <= depth <= 1 for depth in self.depths):
            raise ConfigError(
                f"frames {self.frames}, depths {self.depths}: expected at least 1, and shares from 0 to 1; correct them"
            )

    @functools.cached_property
    def records(self) -> Sequence[SingleRecord | ChainRecord]:
        """Return all records of the file."""
        return read_chains(self.annotations) if self.chained else read_single(self.annotations)

    def images_of(self, record: SingleRecord | ChainRecord) -> list[Path]:
        """Return where a record's pictures should be."""
        names = record.images if isinstance(record, ChainRecord) else (record.image,)
        return [Path(self.media) / name for name in names]

    def missing(self) -> list[str]:
        """Return the pictures that are not in the folder; their records are not asked."""
        return [str(path) for record in self.records for path in self.images_of(record) if not path.is_file()]

    def items(self) -> Sequence[Item]:
        """Return record by record, over all lengths and depths."""
        return self._items

    @functools.cached_property
    def _items(self) -> list[Item]:
        found: list[Item] = []
        for record in self.records:
            if not all(path.is_file() for path in self.images_of(record)):
                continue
            for length in self.frames:
                found += self._of(record, length)
        return found

    def _of(self, record: SingleRecord | ChainRecord, length: int) -> list[Item]:
        images = self.images_of(record)
        if isinstance(record, ChainRecord):
            needles = tuple(map(_needle, images, placements(len(images), length)))
            proof = (*record.links, record.target)
            return [
                self._item(
                    f"{record.id}-{length}-{kind}",
                    needles,
                    length,
                    asked,
                    proof,
                    kind=kind,
                    guess=words_overlap(record),
                )
                for kind, asked in ((CAPTION, record.caption), (ABOUT, record.about))
            ]
        return [
            self._item(
                f"{record.id}-{length}-{depth:g}",
                (_needle(images[0], int(depth * length)),),
                length,
                record.asked,
                (0,),
                depth=depth,
            )
            for depth in self.depths
        ]

    def _item(
        self, name: str, needles: tuple[Needle, ...], length: int, asked: Asked, proof: tuple[int, ...], **more: object
    ) -> Item:
        media = self.planted(needles, length)
        spans = needle_spans([needle.before for needle in needles], self.hold_frames, self.fps)
        return Item(
            id=name,
            media=media,
            question=asked.text,
            choices=asked.options,
            answer=asked.answer,
            group=name.split("-", 1)[0],
            spans_s=tuple(spans[place] for place in proof),
            extra={"frames": length, **more},
        )

    @property
    @abc.abstractmethod
    def hold_frames(self) -> int:
        """Return how many frames of the haystack a needle takes the room of."""

    @abc.abstractmethod
    def planted(self, needles: tuple[Needle, ...], length: int) -> Drawn:
        """Return what a haystack with needles is."""

    def haystack_media(self, length: int) -> Path | Drawn:
        """Return the haystack: the given video, else a drawn film of that length without cards."""
        if self.haystack:
            return Path(self.haystack)
        spec = FilmSpec(seed=FIRST_SEED["test"], num_frames=max(length, 16), fps=self.fps, num_cards=2)
        return DrawnFilm(build_film(spec), control="removed")

    def max_frames(self) -> int:
        """Return how many frames the longest haystack has with its needles."""
        most = max(len(self.images_of(record)) for record in self.records)
        return max(self.frames) + most * self.hold_frames

    def prompt(self, item: Item) -> str:
        """Return the question as released: its options in it, an opening bracket behind them."""
        return item.question

    def chance(self, item: Item) -> float:
        """Return what a guess among the letters would score; a model that names no letter scores less."""
        return CHANCE

    def breakdowns(self, item: Item) -> Mapping[str, str]:
        """Count again by length, by depth or by question."""
        more = {name: str(item.extra[name]) for name in ("depth", "kind") if name in item.extra}
        return {"frames": str(item.extra["frames"]), **more}

    def told(self, right: bool, parsed: str | None, item: Item) -> Scored:
        """Return a score with what the joint figures of a chain need."""
        names = ("kind", "guess", "frames")
        return Scored(right=right, parsed=parsed, extra={n: item.extra[n] for n in names if n in item.extra})

    def figures(self, records: Sequence[Record]) -> Mapping[str, object]:
        """Return the grid of single needles, or both questions of a chain together."""
        return pair_figures(records) if self.chained else {"grid": cells_of(records)}


def _needle(image: Path, before: int) -> Needle:
    return Needle(image=image, before=before)


def pair_figures(records: Sequence[Record]) -> dict[str, Any]:
    """Return by length how often the caption, the question about the target, both, one or none were right.

    The paper's second column is `both` (by chance 1/16), the released script's `QA Score` is `question`. Controls
    stand beside them: the best constant letter, and the caption that the words of the second question point to, which
    needs no picture.

    Source: VideoChat-Flash multi-hop needles.
    """
    pairs: dict[str, dict[str, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
    for one in records:
        if one.error is None and one.extra.get("kind") in (CAPTION, ABOUT):
            pairs[str(one.extra["frames"])][one.group][one.extra["kind"]] = one
    return {"pairs": {length: _pair_shares(list(found.values())) for length, found in pairs.items()}} if pairs else {}


def _pair_shares(pairs: Sequence[Mapping[str, Record]]) -> dict[str, Any]:
    whole = [(pair[CAPTION], pair[ABOUT]) for pair in pairs if len(pair) == 2]
    if not whole:
        return {"n": 0}
    count = len(whole)
    both = sum(caption.right and about.right for caption, about in whole)
    captions, abouts = (sum(pair[place].right for pair in whole) for place in (0, 1))
    letters = [caption.answer for caption, _ in whole]
    return {
        "n": count,
        "caption": captions / count,
        "question": abouts / count,
        "mean": (captions + abouts) / (2 * count),
        "both": both / count,
        "only_caption": (captions - both) / count,
        "only_question": (abouts - both) / count,
        "neither": (count - captions - abouts + both) / count,
        "chance_both": CHANCE**2,
        "control_constant_letter_caption": max(map(letters.count, "ABCD")) / count,
        "control_caption_from_words_of_question": sum(c.extra["guess"] == c.answer for c, _ in whole) / count,
    }


@register("niah-coco", chained=False)
@register("niah-coco-multihop", chained=True)
@dataclasses.dataclass(frozen=True, kw_only=True)
class NeedlesInFiles(ReleasedNeedles):
    """Needles written into a real file, which is then seen and asked like any video.

    needle_s: how long a picture is shown. height: of the written picture in pixels.
    """

    parser = "longtake.eval.parsers.read_letter"
    needle_s: float = 1.0
    height: int = 224

    @property
    def hold_frames(self) -> int:
        """Return how many frames a needle is shown for."""
        return max(1, round(self.needle_s * self.fps))

    def planted(self, needles: tuple[Needle, ...], length: int) -> Drawn:
        """Return a file that is written when it is needed."""
        return Planted(haystack=self.haystack_media(length), needles=needles, frames=length, hold=self.hold_frames,
                       fps=self.fps, height=self.height)  # fmt: skip

    def score(self, text: str, item: Item) -> Scored:
        """Compare the letter of a reply."""
        letter = read_letter(text, item.choices) or None
        return self.told(letter == item.answer, letter, item)


@dataclasses.dataclass(frozen=True)
class Composed:
    """A haystack of tokens with needles of tokens: nothing is written to a file."""

    needles: tuple[Needle, ...]
    length: int
    suffix: str = ""

    @property
    def key(self) -> str:
        """Return a name that follows from needles, places and length."""
        return text_hash([(str(needle.image), needle.before) for needle in self.needles], self.length)[:24]

    def write(self, path: Path) -> Path:
        """Refuse: there is no video.

        Raises: ConfigError.
        """
        raise ConfigError(f"a file {path} of composed tokens was asked for; expected their memory; use compose")


def released_letter(token: str) -> str:
    """Return the first token of an answer as the released scorer compares it: small, without brackets.

    Source: VideoChat-Flash needles: `(A` is right where A is, and `(` alone is wrong, though `A` may follow.
    """
    return token.strip().lower().replace("(", "").replace(")", "")


@register("niah-published", chained=False)
@register("niah-published-multihop", chained=True)
@dataclasses.dataclass(frozen=True, kw_only=True)
class NeedlesInTokens(ReleasedNeedles):
    """The published protocol: tokens of pictures are put between tokens of a haystack that was encoded without them.

    No sampler, no time message and no selector takes part, and the score is the one token of largest logit over the
    whole vocabulary. Its quirks: clip_repeat, a picture is repeated to fill a clip, so that it is seen longer than any
    event; split_clips, a needle may stand within the tokens of a clip, else it moves to the clip's beginning;
    duplicate_above, a longer haystack is half as long and shown twice (none: all of it is different).

    Source: VideoChat-Flash, xtuner-eval_niah (stages A to C).
    """

    parser = "first token, longtake.eval.needles.coco.released_letter"
    max_new_tokens = 1
    composes = True
    clip_repeat: int = 4
    split_clips: bool = True
    duplicate_above: int | None = 7500

    @property
    def hold_frames(self) -> int:
        """Return how many frames a needle takes the room of."""
        return self.clip_repeat

    def planted(self, needles: tuple[Needle, ...], length: int) -> Drawn:
        """Return what tells this composition from others."""
        return Composed(needles, length)

    def rule(self) -> SamplingRule:
        """Take the haystack's frames one after the other, in batches of 8 as released."""
        return SamplingRule(fps=self.fps, frame_multiple=8, min_frames=8)

    def chat(self, item: Item) -> str:
        """Return the conversation: no line break and no time message between video and question."""
        return render_chat([Turn("user", f"{PLACEHOLDER}{item.question}")])

    def score(self, text: str, item: Item) -> Scored:
        """Compare the first token."""
        letter = released_letter(text)
        known = letter.upper() if letter and letter.upper() in LETTERS[: len(item.choices)] else None
        return self.told(letter == item.answer.lower(), known, item)

    def compose(self, item: Item, encode: Encode) -> VideoMemory:
        """Put the tokens of an item's needles between those of the haystack.

        Raises: ConfigError if the haystack is too short, or its clips have no whole count of tokens a frame.
        """
        media = item.media
        assert isinstance(media, Composed), "the items of this task are compositions"
        base = self._haystack(media.length, encode)
        needles = [self._needle(needle.image, encode) for needle in media.needles]
        return composed(base, needles, [needle.before for needle in media.needles], split_clips=self.split_clips)

    def _haystack(self, length: int, encode: Encode) -> VideoMemory:
        """Return the haystack's tokens, `length` frames of it; encoded once and kept."""
        twice = self.duplicate_above is not None and length > self.duplicate_above
        wanted = length // 2 if twice else length
        kept = self._kept.get("haystack")
        if kept is None or kept.num_frames < wanted:
            most = max(self.frames)
            if self.duplicate_above is not None and most > self.duplicate_above:
                most = max(most // 2, *(n for n in self.frames if n <= self.duplicate_above), 0)
            kept = self._kept["haystack"] = _encoded(self.haystack_media(most), encode)
        base = cut(kept, wanted)
        return doubled(base) if twice else base

    def _needle(self, image: Path, encode: Encode) -> VideoMemory:
        """Return the tokens of one picture shown all through a clip; kept for the next depth."""
        if str(image) not in self._kept:
            pixels = read_image(image)
            frames = np.broadcast_to(pixels, (self.clip_repeat, *pixels.shape))
            self._kept[str(image)] = encode(Frames(frames, np.arange(self.clip_repeat, dtype=np.float64)))
        return self._kept[str(image)]

    @functools.cached_property
    def _kept(self) -> dict[str, VideoMemory]:
        return {}


def _encoded(media: Path | Drawn, encode: Callable[[Path | Frames], VideoMemory]) -> VideoMemory:
    if isinstance(media, Path):
        return encode(media)
    with tempfile.TemporaryDirectory(prefix="longtake-haystack-") as folder:
        return encode(media.write(Path(folder) / f"haystack{media.suffix}"))


def cut(memory: VideoMemory, num_frames: int) -> VideoMemory:
    """Return the beginning of a memory, so many frames in whole clips.

    Raises: ConfigError if it is shorter, or the frames are no whole clips.
    """
    length = memory.frame_pts_s.shape[1]
    if num_frames > memory.num_frames or num_frames % length:
        raise ConfigError(
            f"{num_frames} frames of a haystack of {memory.num_frames} were asked for; expected at most as many, and a "
            f"multiple of {length}; choose another length, or a longer haystack"
        )
    clips = num_frames // length
    inside = memory.tokens.clip_index < clips
    tokens = VisualTokens(
        memory.tokens.features[inside.to(memory.tokens.features.device)],
        memory.tokens.frame_weight[inside],
        memory.tokens.clip_index[inside],
    )
    return dataclasses.replace(memory, tokens=tokens, frame_pts_s=memory.frame_pts_s[:clips])


def doubled(memory: VideoMemory) -> VideoMemory:
    """Return a memory shown twice in a row: a quirk of the released code for long haystacks."""
    tokens = memory.tokens
    twice = VisualTokens(
        torch.cat([tokens.features] * 2),
        torch.cat([tokens.frame_weight] * 2),
        torch.cat([tokens.clip_index, tokens.clip_index + len(memory.frame_pts_s)]),
    )
    return dataclasses.replace(memory, tokens=twice, frame_pts_s=np.concatenate([memory.frame_pts_s] * 2))


def composed(
    haystack: VideoMemory, needles: Sequence[VideoMemory], before: Sequence[int], *, split_clips: bool
) -> VideoMemory:
    """Put needles before the given frames of a haystack, and give every frame, one a second, the time of its place.

    A frame is taken to be an equal part of its clip's tokens. split_clips: a needle may divide the tokens of a clip;
    else it stands at the clip's beginning.

    Raises: ConfigError if the clips of haystack or needles have no whole, equal count of tokens a frame.
    """
    num_clips, length = haystack.frame_pts_s.shape
    per_frame, rest = divmod(len(haystack.tokens), haystack.num_frames)
    if rest:
        raise ConfigError(
            f"{len(haystack.tokens)} tokens arrived for {haystack.num_frames} frames; expected as many for each; "
            "choose a whole number of tokens a frame"
        )
    places = [min(frame, haystack.num_frames) for frame in before]
    if not split_clips:
        places = [place // length * length for place in places]
    order = sorted(range(len(places)), key=lambda place: places[place])
    parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    times = np.empty((num_clips + sum(len(needle.frame_pts_s) for needle in needles), length))
    frame, shift, row = 0, 0, num_clips
    moved = np.zeros(haystack.num_frames)
    for place in order:
        parts.append(_rows(haystack, frame * per_frame, places[place] * per_frame, 0))
        moved[frame : places[place]] = shift
        needle = needles[place]
        parts.append(_rows(needle, 0, len(needle.tokens), row))
        own = np.arange(needle.num_frames, dtype=np.float64).reshape(needle.frame_pts_s.shape)
        times[row : row + len(own)] = places[place] + shift + own
        row, shift, frame = row + len(own), shift + needle.num_frames, places[place]
    parts.append(_rows(haystack, frame * per_frame, len(haystack.tokens), 0))
    moved[frame:] = shift
    times[:num_clips] = (np.arange(haystack.num_frames) + moved).reshape(num_clips, length)
    features, weights, clips = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return dataclasses.replace(
        haystack,
        tokens=VisualTokens(features, weights, clips),
        frame_pts_s=times,
        duration_s=float(haystack.num_frames + shift),
    )


def _rows(memory: VideoMemory, start: int, stop: int, clip: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a run of a memory's tokens, their clips counted from another number."""
    tokens = memory.tokens
    return tokens.features[start:stop], tokens.frame_weight[start:stop], tokens.clip_index[start:stop] + clip
