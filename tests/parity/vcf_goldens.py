"""The frozen vectors of VideoChat-Flash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "videochat_flash"


def load(case: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    facts = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    path = GOLDEN / f"{case}.safetensors"
    tensors = load_file(path) if path.exists() else {}
    return facts, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def cases(prefix: str) -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob(f"{prefix}*.json"))
