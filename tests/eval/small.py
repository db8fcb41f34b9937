"""A run small enough for a test: a few questions about films of 16 frames."""

from __future__ import annotations

from typing import Any

from longtake.core.budget import Budget
from longtake.eval.filmstrip_tasks import FilmstripTask
from longtake.eval.runner import Run
from longtake.models.loaded import LoadedModel

BASELINES = ("blind", "single-frame", "random-drop", "low-resolution")


def small_task(films: int = 2, questions: int = 2, kind: str = "N1") -> FilmstripTask:
    return FilmstripTask(
        name=f"filmstrip-{kind.lower()}", kind=kind, level="L0", films=films, questions=questions, size=64
    )


def small_run(model: LoadedModel, task: Any = None, **more: Any) -> Run:
    budget = Budget(max_frames=16, max_new_tokens=3)
    return Run(task=task or small_task(), model=model, budget=budget, **more)
