"""`longtake convert`: write a checkpoint under the names of this house, or explain the names that it has."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from longtake.cli.output import err, out, print_json
from longtake.core.errors import ConfigError


def run(folder: str, target: str | None, explain: bool, table: str | None, preset: str | None, as_json: bool) -> None:
    """Explain the names of a checkpoint, or save it anew."""
    if explain == (target is not None):
        raise ConfigError(
            "a target folder and --explain, or neither, arrived; expected one of the two; name the folder to write, "
            "or pass --explain"
        )
    names = None if table is None else Path(table)
    if target is None:
        _explain(Path(folder), names, preset, as_json)
        return
    from transformers.utils import logging as transformers_logging

    from longtake.convert.load import load, save

    transformers_logging.disable_progress_bar()
    written = save(load(folder, preset=preset, names=names), target)
    if as_json:
        print_json({"folder": str(written)})
        return
    err.print(f"The checkpoint is in {written}", markup=False)


def _explain(folder: Path, names: Path | None, preset: str | None, as_json: bool) -> None:
    from longtake.convert.config_reader import read_config
    from longtake.convert.integrity import explain_folder
    from longtake.convert.pvc_roles import NAMES_FILE
    from longtake.models.presets import preset as find_preset
    from longtake.models.pvc_configuration import PvcConfig

    config = read_config(folder) if preset is None else find_preset(preset).config()
    if not isinstance(config, PvcConfig):
        raise ConfigError(
            f"{folder} is of the kind {config.model_type}, whose names are known; expected a PVC checkpoint; load it"
        )
    match = explain_folder(folder, config, names)
    if as_json:
        print_json(match.to_dict())
        return
    rows = Table(title=f"names in {folder}", title_justify="left")
    for heading in ("name in the checkpoint", "shape", "layers", "stands for"):
        rows.add_column(heading, overflow="fold")
    for theirs, ours in match.renamed.items():
        rows.add_row(theirs, "", "", ours)
    for name in match.open:
        layers = f"{name.layers[0]}-{name.layers[-1]}" if name.layers else ""
        rows.add_row(
            name.name, str(list(name.shape)), layers, "? " + " or ".join(name.candidates or ("nothing known",))
        )
    if rows.row_count:
        out.print(rows)
    for name in match.absent:
        out.print(f"missing: {name}", markup=False)
    if match.open:
        out.print(
            f"{len(match.open)} names are open. Write each with one of its candidates into a JSON object, name to "
            f"candidate (weight and bias go together: leave out the last part), and save it as {NAMES_FILE} beside the "
            "weights, or pass it with --table.",
            markup=False,
        )
    elif not match.absent:
        out.print("every name is explained", markup=False)
