"""Answer from the parts of a video that a question looks at: score its clips, keep the best, forget the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from longtake.core.chat import PLACEHOLDER_ID, Turn
from longtake.core.config import StrictConfig
from longtake.core.errors import BudgetError, ConfigError, MemoryFormatError, PromptError, VideoError
from longtake.core.protocols import LayerCompressor
from longtake.core.types import Span, VideoMemory, VisualTokens
from longtake.engine.kept_keys import anew, find_keys, key_of, place_of
from longtake.engine.show import after_visual, encode, prompt_of, prompt_saying, shown
from longtake.memory.keys import REMEDY, KeysKey, KeysWriter, StoredKeys, keys_path
from longtake.methods.select.qc_comp import XCOMP_CLEAN, QcComp, chunks, frame_scores, top_frames
from longtake.models.clip_scorer import ClipScorer, ReadChunk, ranks_by_place
from longtake.models.loaded import LoadedModel
from longtake.models.prompt import check_question
from longtake.models.pvc_prompt import Shown
from longtake.nn.language.layers import LanguageModel

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
DEFAULT_STATE_GB = 4.0
_STATE = "select"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selector(StrictConfig):
    """Which frames of a memory an answer is written from.

    method: how clips are scored. frames_kept: how many frames stay, a multiple of the vision clip. state_times:
    whether the final prompt says how many frames are shown and which seconds they are from; the released code repeats
    the count of the whole video.

    Raises: ConfigError if no frame is to stay.
    """

    method: QcComp = XCOMP_CLEAN
    frames_kept: int = 512
    state_times: bool = True

    def __post_init__(self) -> None:
        if self.frames_kept < 1:
            raise ConfigError(f"frames_kept is {self.frames_kept}; expected at least one vision clip; raise it")


def selector_of(loaded: LoadedModel, frames_kept: int = 512, fields: Mapping[str, object] | None = None) -> Selector:
    """Return the selector that a model's preset names, else the clean one; `fields` replace those of its method.

    Raises: ConfigError for an unknown field or one of a wrong value.
    """
    own = dict((loaded.config.methods or {}).get("select") or XCOMP_CLEAN.to_dict())
    own.pop("name", None)
    state_times = bool(own.pop("state_times", True))
    method = QcComp.from_dict(own | dict(fields or {}))
    return Selector(method=method, frames_kept=frames_kept, state_times=state_times)


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """What was selected: the relevance of each frame, float64 [T] (minus infinity without one), and the clips kept."""

    relevance: Float[Tensor, "T"]
    clips: list[int]
    warnings: tuple[str, ...] = ()

    def spans(self, memory: VideoMemory) -> tuple[Span, ...]:
        """Return the seconds that were kept, strongest first; the score is the peak relevance over the video's mean."""
        per_clip = clip_means(self.relevance, memory)
        mean = float(per_clip[per_clip.isfinite()].mean())
        found = []
        for run in _runs(self.clips):
            start_s, end_s = _bounds(memory, run)
            peak = float(per_clip[run].max())
            found.append(Span(start_s=start_s, end_s=end_s, score=peak / mean if mean > 0 else 0.0))
        return tuple(sorted(found, key=lambda span: -(span.score or 0.0)))


def _runs(clips: list[int]) -> list[list[int]]:
    """Cut ascending numbers where they are not neighbours."""
    cuts = np.nonzero(np.diff(clips) > 1)[0] + 1
    return [part.tolist() for part in np.split(np.array(clips), cuts)]


def _bounds(memory: VideoMemory, run: list[int]) -> tuple[float, float]:
    """Return when a run of clips starts, and when the first frame behind it does."""
    times = memory.frame_pts_s.ravel()
    start_s, last_s = float(memory.frame_pts_s[run[0], 0]), float(memory.frame_pts_s[run[-1], -1])
    later = times[times > last_s]
    step_s = float(np.median(np.diff(np.unique(times)))) if len(np.unique(times)) > 1 else memory.duration_s
    return start_s, float(later[0]) if len(later) else last_s + step_s


def clip_means(relevance: Float[Tensor, "T"], memory: VideoMemory) -> Float[Tensor, "K"]:
    """Return the mean relevance of the frames of each vision clip."""
    return relevance.unflatten(0, memory.frame_pts_s.shape).mean(1)


def tokens_per_clip(memory: VideoMemory) -> int:
    """Return how many tokens each vision clip became.

    Raises: ConfigError if clips differ in it, or are out of order.
    """
    num_clips = len(memory.frame_pts_s)
    each, rest = divmod(len(memory.tokens), num_clips)
    index = memory.tokens.clip_index.cpu()
    if rest or not torch.equal(index, torch.arange(num_clips).repeat_interleave(each)):
        raise ConfigError(
            f"{len(memory.tokens)} tokens arrived for {num_clips} clips; expected as many for each, in order; select "
            "from a memory whose compressor gives every clip the same count"
        )
    return each


def subset(memory: VideoMemory, clips: list[int]) -> VideoMemory:
    """Return the memory of some of its clips, in the given order; times and weights of each token stay its own.

    Raises: ConfigError as `tokens_per_clip`.
    """
    each, tokens = tokens_per_clip(memory), memory.tokens
    rows = (torch.tensor(clips).unsqueeze(1) * each + torch.arange(each)).flatten()
    kept = VisualTokens(
        tokens.features[rows.to(tokens.features.device)],
        tokens.frame_weight[rows.to(tokens.frame_weight.device)],
        torch.arange(len(clips)).repeat_interleave(each),
    )
    settings = dict(memory.settings) | {"clips": tuple(clips)}
    return dataclasses.replace(memory, tokens=kept, frame_pts_s=memory.frame_pts_s[clips], settings=settings)


class ScoredVideo:
    """A memory's chunks as a language model has read them: what every question about it has in common.

    Chunks are read when they are first needed, from the keys beside the memory's file where there are any. As many as
    `limit_bytes` holds are kept; the others are read anew for each question, so that the scores do not depend on the
    limit. notes: why keys that are there were not used.

    Raises: VideoError if the frames are not whole clips, or fewer than a window that must be whole; ConfigError if
        chunks do not begin where vision clips do; BudgetError if not even one window fits the limit.
    """

    def __init__(
        self,
        memory: VideoMemory,
        language: LanguageModel,
        method: QcComp,
        reducer: LayerCompressor | None,
        limit_bytes: float = DEFAULT_STATE_GB * 1e9,
    ) -> None:
        self.memory, self.language, self.method, self.reducer = memory, language, method, reducer
        self.limit_bytes = limit_bytes
        _check_length(memory, method)
        self.scorer = ClipScorer(language, method, ranks_by_place(reducer, len(language.layers), len(memory.tokens)))
        self.frames = chunks(memory.num_frames, method)
        self.vision_clips = [_whole_clips(frames, memory) for frames in self.frames]
        self.notes: list[str] = []
        self.stored: StoredKeys | None = None
        self._prefix = torch.empty(0, dtype=torch.int64)
        self._read: dict[int, ReadChunk] = {}
        window_frames = min((method.window or len(self.frames[0])) * method.clip_frames, memory.num_frames)
        needed = self.scorer.num_bytes(window_frames // memory.frame_pts_s.shape[1] * tokens_per_clip(memory))
        if needed > limit_bytes:
            raise BudgetError(
                f"one window of {window_frames} frames takes {needed / 1e6:.1f} MB of keys and values and the limit "
                f"is {limit_bytes / 1e6:.1f} MB; expected room for one; pass memory_gb {needed / 1e9:.3g} or more"
            )

    def fits(
        self, language: LanguageModel, method: QcComp, reducer: LayerCompressor | None, limit_bytes: float
    ) -> bool:
        """Say whether what was read serves a question to be scored this way."""
        return (
            self.language is language
            and (self.method, self.limit_bytes) == (method, limit_bytes)
            and (self.reducer is reducer or self.reducer == reducer)
        )

    @property
    def kept_bytes(self) -> int:
        """Bytes of the chunks that are kept."""
        return sum(chunk.num_bytes() for chunk in self._read.values())

    @torch.no_grad()
    def clip_scores(self, ids: Int64[Tensor, "L"], rows: slice, header: int) -> list[Tensor]:
        """Return the scores [layers, K] of each chunk's clips.

        ids: the prompt with a placeholder where the video is. rows: which tokens after the video are the question;
        header: how many precede the assistant's turn.
        """
        start = int((ids == PLACEHOLDER_ID).nonzero()[0])
        self.begin(ids[:start])
        device = self.language.embed_tokens.weight.device
        text: Tensor = self.language.embed_tokens(ids[start + 1 :].to(device))
        seen = text[:header] if self.method.window else text
        return [self.scorer.score(self.chunk(index), seen, rows) for index in range(len(self.frames))]

    def frame_scores(self, ids: Int64[Tensor, "L"], rows: slice, header: int) -> Float[Tensor, "T"]:
        """Return the relevance of each frame, float64; minus infinity where no window gave it a score."""
        scores = self.clip_scores(ids, rows, header)
        return frame_scores(scores, self.frames, self.memory.num_frames, self.method.clip_frames)

    def begin(self, prefix: Int64[Tensor, "P"]) -> bool:
        """Forget what was read behind another beginning of the prompt; say whether this is another one."""
        if torch.equal(prefix, self._prefix):
            return False
        self._prefix, self._read, self.stored = prefix, {}, None
        self.notes.clear()
        return True

    def chunk(self, index: int) -> ReadChunk:
        """Return a chunk as it is kept, from the disk, or read by the language model."""
        if index in self._read:
            return self._read[index]
        chunk = self._from_disk(index) or self._from_video(index)
        if self.kept_bytes + chunk.num_bytes() <= self.limit_bytes:
            self._read[index] = chunk
        return chunk

    def _from_disk(self, index: int) -> ReadChunk | None:
        """Return a stored chunk; none if there are no keys, or, which is noted, they are damaged."""
        if self.stored is None:
            return None
        try:
            tensors = self.stored.chunk(index)
        except MemoryFormatError as error:
            self.notes.append(anew(f"{error}; {REMEDY}"))
            self.stored = None
            return None
        return ReadChunk.from_tensors(tensors, self.language.embed_tokens.weight.device)

    def _from_video(self, index: int) -> ReadChunk:
        weight = self.language.embed_tokens.weight
        prefix: Tensor = self.language.embed_tokens(self._prefix.to(weight.device))
        features = subset(self.memory, self.vision_clips[index]).tokens.features
        num_clips = len(self.frames[index]) // self.method.clip_frames
        return self.scorer.read(prefix, features.to(device=weight.device, dtype=weight.dtype), num_clips)


def _check_length(memory: VideoMemory, method: QcComp) -> None:
    """Refuse frames that are no whole clips, or too few for a window that must be whole."""
    count, clip = memory.num_frames, method.clip_frames
    if count % clip:
        raise VideoError(
            f"{count} frames arrived; expected a multiple of the scored clip of {clip}; sample "
            f"{max(count // clip, 1) * clip} frames, or change clip_frames"
        )
    if not method.last_window and not method.circular and count // clip < method.window:
        raise VideoError(
            f"{count} frames are {count // clip} clips; expected at least a window of {method.window}; sample "
            f"{method.window * clip} frames or more, or set last_window"
        )


def _whole_clips(frames: np.ndarray, memory: VideoMemory) -> list[int]:
    """Return the vision clips that a chunk's frames are."""
    length = memory.frame_pts_s.shape[1]
    heads = frames[::length]
    whole = heads[:, None] + np.arange(length)
    if len(frames) % length or (heads % length).any() or not np.array_equal(whole.ravel(), frames):
        raise ConfigError(
            f"a chunk begins at frame {int(frames[0])} and has {len(frames)}; expected whole vision clips of {length}, "
            "which are encoded once; choose other repeats or chunk_frames, or sample a multiple of both clips"
        )
    return (heads // length).tolist()


def question_rows(loaded: LoadedModel, prompt: str, question: str, method: QcComp) -> tuple[slice, int]:
    """Return which tokens after the video are the question, and how many precede the assistant's turn.

    With skipped_tokens the span is what the released code takes: all but the first so many. Without, it is found in
    the prompt: the tokens of the last question alone.

    Raises: PromptError if the span is empty.
    """
    text = after_visual(prompt, loaded)
    encoded = loaded.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    header_at = text.rindex(TURN_START)
    header = sum(1 for start, _ in offsets if start < header_at)
    if method.skipped_tokens >= 0:
        rows = slice(method.skipped_tokens, header)
    else:
        begin = text.rindex(question, 0, text.rindex(TURN_END))
        inside = [i for i, (start, end) in enumerate(offsets) if start < begin + len(question) and end > begin]
        rows = slice(inside[0], inside[-1] + 1) if inside else slice(0, 0)
    if rows.start >= rows.stop:
        raise PromptError(
            f"no token of the question is left to score: {header} tokens follow the video and the first {rows.start} "
            "are skipped; expected some; ask in more words, or set skipped_tokens to -1"
        )
    return rows, header


def scored_video(memory: VideoMemory, loaded: LoadedModel, method: QcComp, limit_gb: float | None) -> ScoredVideo:
    """Return what is kept with the memory for this model and method, or start anew.

    Raises: VideoError, ConfigError, BudgetError as `ScoredVideo`.
    """
    limit = (DEFAULT_STATE_GB if limit_gb is None else limit_gb) * 1e9
    language, reducer = loaded.model.language, loaded.model.reducer
    state = memory.kept.get(_STATE)
    if not isinstance(state, ScoredVideo) or not state.fits(language, method, reducer, limit):
        state = ScoredVideo(memory, language, method, reducer, limit)
        memory.kept[_STATE] = state
    return state


def relevance(
    memory: VideoMemory,
    question: str,
    loaded: LoadedModel,
    method: QcComp,
    *,
    later: tuple[Turn, ...] = (),
    limit_gb: float | None = None,
) -> Float[Tensor, "T"]:
    """Return how much the (last) question looks at each frame of a memory; minus infinity where nothing is known.

    What does not depend on the question is kept with the memory: the next question costs its own few tokens.

    Raises: PromptError for a bad question; VideoError, ConfigError, BudgetError as `ScoredVideo`.
    """
    check_question(question)
    prompt = prompt_of([_as_one_block(memory, loaded)], loaded, question, later)
    asked = next((turn.text for turn in reversed(later) if turn.role == "user"), question)
    rows, header = question_rows(loaded, prompt, asked, method)
    state, ids = scored_video(memory, loaded, method, limit_gb), encode(prompt, loaded)
    _begin(state, memory, loaded, ids)
    return state.frame_scores(ids, rows, header)


def _begin(state: ScoredVideo, memory: VideoMemory, loaded: LoadedModel, ids: Int64[Tensor, "L"]) -> None:
    """Look for keys on disk, once for each beginning of a prompt."""
    prefix = ids[: int((ids == PLACEHOLDER_ID).nonzero()[0])]
    place = place_of(memory)
    if not state.begin(prefix) or place is None or not keys_path(place.path).exists():
        return
    key = key_of(memory, loaded, state.method, state.scorer.reducer, prefix, len(state.frames))
    state.stored, note = find_keys(memory, key)
    state.notes += [note] if note else []


def keep_keys(memory: VideoMemory, loaded: LoadedModel, method: QcComp, *, limit_gb: float | None = None) -> Path:
    """Write what every question about a stored memory has in common beside its file; return where it is.

    The first question of another process, scored by this method, then costs its own few tokens. Keys that are there
    already are kept, others replaced.

    Raises: ConfigError for a picture, or a memory that is not read from a file; MemoryFormatError if it is unfinished;
        StorageError if the keys cannot be written; VideoError, BudgetError as `ScoredVideo`.
    """
    if memory.settings.get("kind") != "video":
        raise ConfigError(f"{memory.source} is no video; expected one to select frames from; leave its keys out")
    state = scored_video(memory, loaded, method, limit_gb)
    ids = encode(prompt_of([_as_one_block(memory, loaded)], loaded, "?"), loaded)
    prefix = ids[: int((ids == PLACEHOLDER_ID).nonzero()[0])]
    state.begin(prefix)
    key, place = key_of(memory, loaded, method, state.scorer.reducer, prefix, len(state.frames)), place_of(memory)
    assert place is not None, "a memory with a key has a place"
    if not place.is_complete:
        raise MemoryFormatError(
            f"{place.path} is unfinished; expected a finished memory to keep the keys of; ingest the rest first"
        )
    if _are_whole(memory, key):
        return keys_path(place.path)
    state.stored = None
    with KeysWriter(place.path, key) as writer:
        for index in range(len(state.frames)):
            writer.append(state.chunk(index).to_tensors())
        path = writer.finish()
    state.stored = StoredKeys(place.path)
    return path


def _are_whole(memory: VideoMemory, key: KeysKey) -> bool:
    """Say whether these very keys are there, every byte as it was written."""
    stored, _ = find_keys(memory, key)
    if stored is None:
        return False
    with stored:
        try:
            stored.verify()
        except MemoryFormatError as error:
            anew(str(error))
            return False
    return True


def _as_one_block(memory: VideoMemory, loaded: LoadedModel) -> Shown:
    """Say how a video stands in the text.

    Raises: ConfigError if each of its frames has a place of its own.
    """
    what = shown(memory, loaded)
    if len(what.blocks) > 1:
        raise ConfigError(
            f"each of {len(what.blocks)} frames has a place of its own in the prompt; expected a video in one block "
            "to select from; set frame_labels to false in the configuration of a model that was trained so (pvc_xcomp)"
        )
    return what


def check_frames_kept(memory: VideoMemory, frames_kept: int) -> int:
    """Return how many vision clips are to stay.

    Raises: ConfigError if `frames_kept` is no multiple of the vision clip.
    """
    length = memory.frame_pts_s.shape[1]
    if frames_kept < 1 or frames_kept % length:
        near = max(frames_kept // length, 1) * length
        raise ConfigError(
            f"frames_kept is {frames_kept}; expected a multiple of the vision clip of {length}; pass {near}"
        )
    return frames_kept // length


def best_clips(scores: Float[Tensor, "T"], memory: VideoMemory, frames_kept: int) -> Selection:
    """Keep the clips of the most relevant frames, in order of time; of equals the earlier one stays.

    Raises: ConfigError if `frames_kept` is no multiple of the vision clip, or no frame has a score.
    """
    wanted, per_clip = check_frames_kept(memory, frames_kept), clip_means(scores, memory)
    valid = int(per_clip.isfinite().sum())
    if valid == 0:
        raise ConfigError(
            f"none of {len(per_clip)} clips has a score that is a number; expected finite scores; load the model in a "
            "wider dtype, or choose other layers"
        )
    warnings = ()
    if valid < len(per_clip):
        lost = (~per_clip.isfinite()).nonzero().flatten().tolist()
        warnings = (f"{len(lost)} of {len(per_clip)} clips have no finite score and were left out; first: {lost[0]}",)
    return Selection(scores, top_frames(per_clip, min(wanted, valid)), warnings)


def select(
    memory: VideoMemory,
    question: str,
    loaded: LoadedModel,
    selector: Selector,
    *,
    later: tuple[Turn, ...] = (),
    limit_gb: float | None = None,
) -> Selection | None:
    """Choose the frames that an answer is to be written from; none if all of them stay.

    Raises: as `relevance` and `best_clips`.
    """
    if memory.settings.get("kind") == "image":
        return None
    check_frames_kept(memory, selector.frames_kept)
    if memory.num_frames < selector.method.gate_frames or memory.num_frames <= selector.frames_kept:
        return None
    scores = relevance(memory, question, loaded, selector.method, later=later, limit_gb=limit_gb)
    found, state = best_clips(scores, memory, selector.frames_kept), memory.kept.get(_STATE)
    notes = tuple(state.notes) if isinstance(state, ScoredVideo) else ()
    return dataclasses.replace(found, warnings=(*notes, *found.warnings))


def selected_prompt(
    memory: VideoMemory,
    selection: Selection,
    question: str,
    later: tuple[Turn, ...],
    selector: Selector,
    loaded: LoadedModel,
) -> str:
    """Write the prompt of the answer over the selected frames.

    Source: XComp repeats the prompt of the whole video; with `state_times` ours says what is really shown.
    """
    if not selector.state_times:
        return prompt_of([shown(memory, loaded)], loaded, question, later)
    part = memory.frame_pts_s[selection.clips]
    seconds = ", ".join("{:.1f}-{:.1f}".format(*_bounds(memory, run)) for run in _runs(selection.clips))
    said = (
        f"The video lasts for {memory.duration_s:.2f} seconds, and {part.size} of the {memory.num_frames} frames "
        f"sampled from it are shown, from these seconds: {seconds}."
    )
    return prompt_saying(said, shown(memory, loaded), loaded, question, later)


def released_vision_batches(num_frames: int) -> list[range]:
    """Return the runs of frames that the released code encodes at once: a pair above 512, quarters of 1,024 from there.

    Source: XComp inference; boundaries are multiples of 8, so clips of 4 or 8 frames come out the same as one by one.
    """
    parts = 1 if num_frames <= 512 else 2 if num_frames < 1024 else num_frames // 256
    length = num_frames // parts // 8 * 8
    ends = [*(length * part for part in range(1, parts)), num_frames]
    return [range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
