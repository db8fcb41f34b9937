"""A record becomes what a model is trained on: ids, labels, normalised pixels. Whatever is wrong with it is typed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from longtake.core.chat import IGNORE_LABEL, PLACEHOLDER, Turn, time_message
from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError, VideoError
from longtake.data.annotations import Modality
from longtake.data.conversation import ControlIds, Template, encode_chat, encode_plain, place_visual, read_turns
from longtake.data.failures import BrokenSampleError
from longtake.media.images import read_image
from longtake.media.pixels import resize_exact
from longtake.media.sampling import SamplingRule, sample_times
from longtake.media.transforms import normalize_pixels, tile_image
from longtake.media.video import open_video

CHUNK_FRAMES = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(StrictConfig):
    """What is trained on, and how a record is prepared.

    annotations: a yaml list of data sets, or one .json or .jsonl file. rule, max_frames: which frames of a video.
    image_mode: a picture as one square, or as tiles of `anyres`. state_time: say in the prompt how long the video
    is. grouped: text-only records are never in a batch with others. max_failures: more broken samples stop the run.
    set_seed, keep_share: see `read_annotations`. isolate: decode in a process that can be stopped. workers: samples
    that are prepared at once, one step ahead.

    Raises: ConfigError for values out of range.
    """

    annotations: str = ""
    template: Template = "qwen_2"
    rule: SamplingRule = dataclasses.field(default_factory=lambda: SamplingRule(frame_multiple=4))
    max_frames: int = 512
    image_mode: Literal["square", "anyres"] = "anyres"
    max_tile_side: int = 6
    state_time: bool = True
    max_length: int = 32768
    grouped: bool = True
    max_failures: int = 1000
    set_seed: int | None = None
    keep_share: float = 1.0
    isolate: bool = True
    workers: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.keep_share <= 1:
            raise ConfigError(f"keep_share is {self.keep_share}; expected above 0 and at most 1; change it")
        if min(self.workers, self.max_frames, self.max_length, self.max_tile_side) < 1 or self.max_failures < 0:
            raise ConfigError(f"counts arrived as {self}; expected at least 1, and 0 for max_failures; raise them")


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSample:
    """One conversation: ids and labels int64 [L], and the pixels [T, 3, S, S] of its visual, if it has one.

    num_tokens: its length once visual tokens stand where the placeholder is.
    """

    name: str
    ids: Tensor
    labels: Tensor
    num_tokens: int
    pixels: Tensor | None = None
    modality: Literal["video", "image"] = "video"
    tile_grid: tuple[int, int] | None = None

    @property
    def num_labels(self) -> int:
        """Tokens that the loss counts: the first of a sequence is never predicted."""
        return int((self.labels[1:] != IGNORE_LABEL).sum())


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Turn records into samples.

    encode: text to ids. count_visual: from the pixels' count of frames (or tiles) and the modality to visual tokens.
    context: tokens that the model can read.
    """

    settings: DataSettings
    encode: Callable[[str], list[int]]
    control: ControlIds
    image_size: int
    count_visual: Callable[[int, str], int]
    context: int

    def __call__(self, name: str, record: Mapping[str, Any], root: Path, modality: Modality) -> TrainingSample:
        """Prepare one record.

        Raises: BrokenSampleError saying what is wrong with it.
        """
        turns = _turns(record)
        path = _media_path(record, root, modality)
        _check_placeholders(turns, path is not None)
        if path is None:
            return self._finish(name, turns, None, "", "video", None)
        if not path.exists():
            raise BrokenSampleError("missing_media", f"{path} is not there")
        try:
            if modality == "image":
                pixels, grid = self._read_image(path)
                return self._finish(name, turns, pixels, "", "image", grid)
            pixels, message = self._read_video(path, record)
        except (VideoError, OSError) as error:
            raise BrokenSampleError("broken_media", str(error)) from error
        return self._finish(name, turns, pixels, message, "video", None)

    def _read_image(self, path: Path) -> tuple[Tensor, tuple[int, int] | None]:
        picture = read_image(path)
        if self.settings.image_mode == "square":
            return _normalized(resize_exact(picture, (self.image_size, self.image_size))[None]), None
        tiles, grid = tile_image(picture, self.image_size, self.settings.max_tile_side)
        return _normalized(tiles), grid

    def _read_video(self, path: Path, record: Mapping[str, Any]) -> tuple[Tensor, str]:
        settings = self.settings
        start, end = (_seconds(record.get(key)) for key in ("start", "end"))
        with open_video(path, isolate=settings.isolate) as video:
            sampled = sample_times(video.clock, settings.rule, settings.max_frames, start_s=start, end_s=end)
            size = (self.image_size, self.image_size)
            chunks = video.frames_at(sampled.times_s, size=size, chunk_frames=CHUNK_FRAMES)
            pixels = torch.cat([_normalized(frames.pixels) for frames in chunks])
        return pixels, time_message(sampled.duration_s, len(pixels)) if settings.state_time else ""

    def _finish(
        self,
        name: str,
        turns: list[Turn],
        pixels: Tensor | None,
        message: str,
        modality: Literal["video", "image"],
        grid: tuple[int, int] | None,
    ) -> TrainingSample:
        if self.settings.template == "plain":
            ids, labels = self._plain(turns)
        else:
            placed = [Turn(turn.role, place_visual(turn.text, message)) for turn in turns]
            ids, labels = encode_chat(placed, self.encode, self.control)
        length = len(ids) if pixels is None else len(ids) - 1 + self.count_visual(len(pixels), modality)
        limit = min(self.context, self.settings.max_length)
        if length > limit:
            raise BrokenSampleError("too_long", f"{length} tokens; expected at most {limit}; nothing is ever cut")
        return TrainingSample(name, torch.tensor(ids), torch.tensor(labels), length, pixels, modality, grid)

    def _plain(self, turns: list[Turn]) -> tuple[list[int], list[int]]:
        if PLACEHOLDER not in turns[0].text:
            raise BrokenSampleError("placeholder_mismatch", "no visual; expected one under the template plain")
        try:
            return encode_plain(turns, self.encode)
        except ConfigError as error:
            raise BrokenSampleError("bad_record", str(error)) from error


def _turns(record: Mapping[str, Any]) -> list[Turn]:
    try:
        turns = read_turns(record["conversations"])
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise BrokenSampleError("bad_record", str(error)) from error
    if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise BrokenSampleError("bad_record", "the turns are not question, answer, question, answer …")
    if any(turn.role == "assistant" and not turn.text.strip() for turn in turns):
        raise BrokenSampleError("empty_answer", "an assistant's turn is empty")
    return turns


def _media_path(record: Mapping[str, Any], root: Path, modality: Modality) -> Path | None:
    """Return where the one visual of a record lies; none for text."""
    found = [item for key in ("image", "video") for item in _as_list(record.get(key))]
    if len(found) > 1:
        raise BrokenSampleError("several_visuals", f"{len(found)} visuals; expected one image or one video")
    if not all(isinstance(item, str) for item in found):
        raise BrokenSampleError("bad_record", f"the media path is {found[0]!r}; expected text")
    if modality != "text" and not found:
        raise BrokenSampleError("missing_media", f"no path of the {modality} that its list promises")
    return root / found[0] if found else None


def _seconds(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise BrokenSampleError("bad_record", f"start or end is {value!r}; expected seconds") from error


def _as_list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]


def _check_placeholders(turns: list[Turn], has_visual: bool) -> None:
    count = sum(turn.text.count(PLACEHOLDER) for turn in turns)
    if count != int(has_visual) or (has_visual and PLACEHOLDER not in turns[0].text):
        raise BrokenSampleError(
            "placeholder_mismatch",
            f"{count} placeholders {PLACEHOLDER} for {int(has_visual)} visuals; expected one each, in the first turn",
        )


def _normalized(pixels: np.ndarray) -> Tensor:
    return normalize_pixels(
        torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(0, 3, 1, 2).contiguous()
    )


def control_ids(encode: Callable[[str], list[int]]) -> ControlIds:
    """Return the ids of the newline and of the marks of a turn in a tokenizer.

    Raises: ConfigError if one of them is not a token of its own.
    """
    ids = [encode(text) for text in ("\n", "<|im_start|>", "<|im_end|>")]
    if any(len(own) != 1 for own in ids):
        raise ConfigError(
            f"the newline and the marks of a turn are {ids} in this tokenizer; expected one token each; use a "
            "tokenizer of the Qwen kind"
        )
    return ControlIds(newline=ids[0][0], turn_start=ids[1][0], turn_end=ids[2][0])
