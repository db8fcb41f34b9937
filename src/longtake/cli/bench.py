"""`longtake bench`: measure the claims of the README, from a clone of the repository."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from longtake.core.errors import ConfigError


def run(names: list[str], quick: bool, as_json: bool) -> None:
    """Run the benches that lie beside the sources."""
    root = Path(__file__).parents[3]
    if not (root / "bench" / "__main__.py").is_file():
        raise ConfigError("the benches are not part of the installed package; expected a clone; run it from there")
    sys.path.insert(0, str(root))
    flags = [flag for flag, wanted in (("--quick", quick), ("--json", as_json)) if wanted]
    importlib.import_module("bench.__main__").main([*names, *flags])
