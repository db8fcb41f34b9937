"""FILMSTRIP films as memories, with their questions: what the measuring recipes share."""

from __future__ import annotations

import tempfile
from pathlib import Path

import longtake
from longtake.core.types import VideoMemory
from longtake.media.filmstrip import Film, Question, ask_film, build_film, level_spec, write_film
from longtake.media.sampling import SamplingRule
from longtake.models.loaded import LoadedModel

CALIBRATION_SEED, TEST_SEED = 19_000_000, 20_000_000
CLIP_FRAMES = 4


def drawn_film(level: str, seed: int, tasks: tuple[str, ...], frames: int | None = None) -> Film:
    """Draw a film of a level; frames: another length than the level's."""
    return build_film(level_spec(level, seed, tasks, **({} if frames is None else {"num_frames": frames})))


def film_memory(film: Film, model: LoadedModel, *, is_black: bool = False) -> VideoMemory:
    """Write a film as a video file, black or as it is, and ingest it, every frame of it."""
    frames = film.spec.num_frames // CLIP_FRAMES * CLIP_FRAMES
    rule = SamplingRule(fps=film.spec.fps, frame_multiple=CLIP_FRAMES, min_frames=CLIP_FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        path = write_film(film, Path(folder) / "film.mp4", control="black" if is_black else None)
        return longtake.ingest(path, model, longtake.Budget(max_frames=frames), rule=rule)


def open_questions(film: Film, limit: int, *, is_shown: bool = True) -> list[Question]:
    """Return questions to be answered freely: about what the film shows, or else about what it does not show."""
    asked = ask_film(film, more=not is_shown)
    return [one for one in asked if bool(one.spans_s) == is_shown][:limit]


def load_model(checkpoint: str) -> LoadedModel:
    """Load a checkpoint; `random` is the tiny model of random weights, whose figures say nothing."""
    if checkpoint == "random":
        from longtake.models.tiny import tiny_model

        return tiny_model()
    return longtake.load(checkpoint)
