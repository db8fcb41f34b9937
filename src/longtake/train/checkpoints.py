"""Where a run stands, on disk: written aside, flushed, renamed; a checkpoint that can be seen is whole."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from longtake.core.errors import CheckpointError, StorageError
from longtake.core.files import flush

WEIGHTS, OPTIMIZER, PROGRESS = "weights.safetensors", "optimizer.pt", "progress.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything that a run needs to go on.

    weights: those that are trained. progress: plain values: `step` (steps made), recipe, failures … The position in
    the data and the state of random numbers are no part of it: both are functions of the seed and the step.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run, in one folder; the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def all(self) -> list[Path]:
        """Return the whole checkpoints, oldest first."""
        return sorted(self.folder.glob("step_*"))

    def save(self, snapshot: Snapshot) -> Path:
        """Write a checkpoint, then let go of old ones.

        Raises: StorageError if the disk is full or read-only; the checkpoints before it are whole, and nothing half
            is left behind.
        """
        target = self.folder / f"step_{snapshot.progress['step']:09d}"
        aside: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".step_*"):  # of a run that was killed while it wrote
                shutil.rmtree(left)
            if target.exists():
                return target
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=self.folder))
            save_file({name: value.contiguous() for name, value in snapshot.weights.items()}, aside / WEIGHTS)
            torch.save(snapshot.optimizer, aside / OPTIMIZER)
            (aside / PROGRESS).write_text(json.dumps(snapshot.progress), encoding="utf-8")
            for path in aside.iterdir():
                flush(path)
            aside.rename(target)
            flush(self.folder)
            for old in self.all()[: -self.keep]:
                shutil.rmtree(old)
        except (OSError, SafetensorError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise StorageError(
                f"the checkpoint {target} could not be saved ({error}); expected room and permission to write; free "
                "some space and start the same command again: the checkpoint before it is whole"
            ) from error
        finally:
            if aside is not None and aside.exists():
                shutil.rmtree(aside, ignore_errors=True)
        return target

    def newest(self) -> Snapshot | None:
        """Read the newest checkpoint; none if there is none.

        Raises: CheckpointError if it cannot be read.
        """
        found = self.all()
        if not found:
            return None
        path = found[-1]
        try:
            return Snapshot(
                load_file(path / WEIGHTS),
                torch.load(path / OPTIMIZER, weights_only=True),
                json.loads((path / PROGRESS).read_text(encoding="utf-8")),
            )
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint {path} cannot be read ({error}); expected a whole one; remove it to go on from the "
                "one before it"
            ) from error
