"""Run the benches and print a table: `python -m bench [--quick] [NAME …]`; exits 1 when a target is missed."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

COLUMNS = ("claim", "baseline", "ours", "ratio", "target", "ok", "n")


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    quick, as_json = "--quick" in arguments, "--json" in arguments
    names = [name.removeprefix("bench_") for name in arguments if not name.startswith("-")]
    files = sorted(Path(__file__).parent.glob("bench_*.py"))
    known = [f.stem.removeprefix("bench_") for f in files]
    if unknown := [name for name in names if name not in known]:
        sys.stderr.write(f"error: there is no bench {', '.join(unknown)}; expected {', '.join(known)}\n")
        sys.exit(2)
    wanted = [f"bench_{name}" for name in known if not names or name in names]
    rows = [row for name in wanted for row in importlib.import_module(f"bench.{name}").run(quick)]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        table = Table(title=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        for column in COLUMNS:
            table.add_column(column)
        for row in rows:
            table.add_row(*(str(row.get(column, "")) for column in COLUMNS))
        Console().print(table)
    if not quick and not all(row["ok"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
