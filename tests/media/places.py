from __future__ import annotations

import json
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "media"
SHARED = Path(__file__).parents[3] / "shared" / "data"
GOLDEN_FACTS: dict[str, dict] = json.loads((GOLDEN / "facts.json").read_text())
SHARED_FACTS: dict[str, dict] = (
    json.loads((SHARED / "video_facts.json").read_text()) if (SHARED / "video_facts.json").exists() else {}
)
