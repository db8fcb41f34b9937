"""The loss curve: a line of JSON a step, TensorBoard, and a picture."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from longtake.core.errors import MissingExtraError, StorageError
from longtake.train.recipe import SavingSettings


class Curve:
    """Write down every step of a run; steps after `last_step`, of a run that was killed, are taken back first.

    Raises: MissingExtraError if TensorBoard or matplotlib is wanted and not installed.
    """

    def __init__(self, folder: Path, settings: SavingSettings, last_step: int) -> None:
        self.path, self.picture = folder / "loss.jsonl", folder / "loss.png" if settings.picture else None
        folder.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.rows: list[dict[str, Any]] = []
        for line in lines:
            with contextlib.suppress(ValueError):  # the last line of a run that was killed may be half
                self.rows.append(json.loads(line))
        self.rows = [row for row in self.rows if row["step"] <= last_step]
        aside = self.path.with_suffix(".new")  # renamed, so that a run that is killed here still has its curve
        aside.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        aside.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _board(folder, last_step) if settings.tensorboard else None
        if self.picture is not None:
            _figure()

    def add(self, row: dict[str, Any]) -> None:
        """Write one step: `step`, `loss`, and what else is known of it.

        Raises: StorageError if the disk is full.
        """
        self.rows.append(row)
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(f"{self.path} could not be written ({error}); expected room; free some space") from error
        if self._board is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, row["step"])

    def draw(self) -> None:
        """Draw the loss over the steps."""
        if self.picture is None or all(row["loss"] is None for row in self.rows):
            return
        figure = _figure()
        axes = figure.subplots()
        known = [(row["step"], row["loss"]) for row in self.rows if row["loss"] is not None]
        axes.plot(*zip(*known, strict=True), linewidth=1)
        axes.set(xlabel="step", ylabel="loss per labelled token", title="training loss")
        axes.grid(alpha=0.3)
        try:
            figure.savefig(self.picture, dpi=120)
        except OSError as error:
            raise StorageError(
                f"{self.picture} could not be written ({error}); expected room; free some space"
            ) from error

    def __enter__(self) -> Curve:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, last_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "saving.tensorboard is on and TensorBoard is missing; pip install 'longtake[train]', or set it to false"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=last_step + 1)


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "saving.picture is on and matplotlib is missing; pip install 'longtake[train]', or set it to false"
        ) from error
    return Figure(figsize=(8, 4), layout="constrained")
