"""Figures on disk: matplotlib where it is installed, without its global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longtake.core.errors import ConfigError, MissingExtraError, StorageError

FORMATS = (".png", ".pdf", ".svg")


def check_figure_path(path: str | Path) -> Path:
    """Return where a figure is to go, before any work is done for it.

    Raises: ConfigError for a suffix that no figure has; StorageError if its folder is not there; MissingExtraError
        without matplotlib.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ConfigError(f"the figure is to be {target}; expected a name that ends in {', '.join(FORMATS)}; rename it")
    if not target.absolute().parent.is_dir():
        raise StorageError(f"the folder of {target} is not there; expected one to write to; make it first")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "figures need matplotlib, which is not installed; expected the extra; pip install 'longtake[plot]'"
        ) from error
    return target


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, target: Path) -> Path:
    """Write a figure.

    Raises: StorageError if it cannot be written.
    """
    try:
        figure.savefig(target, dpi=120)
    except OSError as error:
        raise StorageError(
            f"{target} could not be written ({error}); expected room and permission; choose another place"
        ) from error
    return target
