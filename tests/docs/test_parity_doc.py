"""The code blocks of docs/parity.md run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_of_the_parity_page_runs(monkeypatch: pytest.MonkeyPatch):
    text = (ROOT / "docs" / "parity.md").read_text("utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) >= 5
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], "docs/parity.md", "exec"), names)
    assert "answer" in names
