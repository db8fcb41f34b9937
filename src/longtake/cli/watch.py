"""`longtake watch`: a memory that grows with its video."""

from __future__ import annotations

from typing import Any

from longtake.cli.output import err, out, print_json, waiting
from longtake.core.errors import ConfigError


def run(
    video: str,
    target: str,
    fps: float,
    max_mb: float | None,
    store: str,
    quiet_s: float,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Watch until the video does not grow any more, and say how the memory does.

    Raises: ConfigError if the memory is not to be a `.ltm` file.
    """
    from longtake.cli.memory import describe
    from longtake.cli.models import TINY_NOTICE, load_model, model_options
    from longtake.engine.watch import Watching, watch
    from longtake.memory.reader import StoredMemory, is_memory_file

    if not is_memory_file(target):
        raise ConfigError(f"the memory is to be {target}; expected a name that ends in .ltm; pass -o live.ltm")
    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    with waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
    limit = None if max_mb is None else int(max_mb * 1e6)
    how = Watching(fps=fps, store=store, max_bytes=limit, quiet_s=quiet_s, options=model_options(model))

    def show(stored: StoredMemory) -> None:
        if not as_json:
            err.print(f"{stored.num_segments} segments, {stored.num_bytes / 1e6:.2f} MB")

    path = watch(video, loaded, target, how, on_segment=show)
    with StoredMemory(path) as stored:
        row = describe(stored)
    if as_json:
        print_json({"memories": [row]})
    else:
        out.print(f"{path}  {row['num_frames']} frames, {row['tokens']} tokens, {row['bytes'] / 1e6:.2f} MB")
