"""`longtake train`: run a recipe, or take one up where it was stopped."""

from __future__ import annotations

import logging
import os

from rich.table import Table

from longtake.cli.output import err, out, print_json, progress_bars


def run(name: str, settings: list[str], as_json: bool) -> None:
    """Run the named recipe with settings on top, and say what it came to."""
    from transformers.utils import logging as transformers_logging

    from longtake.recipes import find_recipe
    from longtake.train.loop import train
    from longtake.train.recipe import with_settings

    recipe = with_settings(find_recipe(name), settings)
    speaks = os.getenv("RANK", "0") == "0"  # of the processes that torchrun starts, the first
    transformers_logging.disable_progress_bar()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("longtake.train").setLevel(logging.INFO if speaks else logging.WARNING)
    with progress_bars(quiet=as_json or not speaks) as on_progress:
        result = train(recipe, on_progress=on_progress)
    if not speaks:
        return
    if as_json:
        print_json(result.to_dict())
        return
    table = Table(show_header=False)
    for field, value in result.to_dict().items():
        shown = ", ".join(f"{reason} {count}" for reason, count in value.items()) if field == "broken" else value
        table.add_row(field, str(shown or "none"))
    out.print(table)
    err.print(f"The model is in {result.model}; ask it: longtake ask VIDEO QUESTION --model {result.model}")
