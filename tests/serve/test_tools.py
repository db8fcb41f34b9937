"""The tools that assistants are given, through the official client."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from mcp import Client

from longtake.models.loaded import LoadedModel
from longtake.serve.service import Service
from longtake.serve.settings import Limits, ServeSettings
from longtake.serve.tools import build_tools


async def talk(service: Service, name: str, outside: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with Client(build_tools(service)) as client:
        found["tools"] = {tool.name: tool for tool in (await client.list_tools()).tools}
        found["early"] = await client.call_tool("evidence", {"video": "video-" + "0" * 24})
        found["outside"] = await client.call_tool("ingest", {"path": outside})
        made = await client.call_tool("ingest", {"path": name})
        found["video"] = json.loads(made.content[0].text)  # pyright: ignore
        video = found["video"]["video"]
        asked = await client.call_tool("ask", {"video": video, "question": "What happens?"})
        found["answer"] = json.loads(asked.content[0].text)  # pyright: ignore
        found["evidence"] = (await client.call_tool("evidence", {"video": video})).content
    return found


def test_an_assistant_ingests_asks_and_sees_the_evidence(model: LoadedModel, films: list[Path], tmp_path: Path) -> None:
    root = films[0].parent
    limits = Limits(max_frames=8, max_tokens=6)
    service = Service(model, ServeSettings(store=str(tmp_path), local_root=str(root), limits=limits))
    try:
        found = asyncio.run(talk(service, films[0].name, "../../etc/passwd"))
    finally:
        service.close()
    assert set(found["tools"]) == {"ingest", "ask", "evidence"}
    assert all(tool.description for tool in found["tools"].values())
    assert found["early"].is_error and "nothing was asked" in found["early"].content[0].text
    assert found["outside"].is_error and "climbs" in found["outside"].content[0].text
    assert found["video"]["frames"] == 8 and found["video"]["name"] == films[0].name
    assert found["answer"]["evidence"] and found["answer"]["finish_reason"] in ("stop", "length")
    kinds = [part.type for part in found["evidence"]]
    assert kinds == ["text", "image"] * len(found["answer"]["evidence"])
    assert base64.b64decode(found["evidence"][1].data).startswith(b"\xff\xd8")
