"""`longtake doctor`: what this machine has."""

from __future__ import annotations

from rich.table import Table

from longtake.cli.output import out, print_json


def run(as_json: bool) -> None:
    """Report versions, devices, decoders and whether the hub answers."""
    from longtake.engine.doctor import examine

    found = examine()
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False)
    for name, value in found.items():
        text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name, text)
    out.print(table)
