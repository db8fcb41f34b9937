"""`longtake memory`: what is in memories, whether they are whole, and how to make them smaller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.output import out, print_json, seconds_text
from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError, MemoryFormatError

if TYPE_CHECKING:
    from longtake.memory.reader import StoredMemory

ACTIONS = ["info", "verify", "prune"]


def run(
    action: str,
    memories: list[str],
    tokens_per_frame: float | None,
    store: str | None,
    as_json: bool,
    keys: str | None = None,
) -> None:
    """Do one thing to every memory.

    Raises: ConfigError for an unknown action, or a wish that only prune has; MemoryFormatError at the first that is
        damaged.
    """
    if action not in ACTIONS:
        raise ConfigError(f"memory has no action {action!r}; {nearest_name(action, ACTIONS)}")
    changes = tokens_per_frame is not None or store is not None
    if action != "prune" and (changes or keys is not None):
        raise ConfigError(
            f"memory {action} changes nothing; expected no --tokens-per-frame, --store or --keys; use prune"
        )
    if keys not in (None, "none"):
        raise ConfigError(f"--keys {keys} arrived; expected none, which removes them; `ask --keep-keys` makes them")
    from longtake.memory.keys import remove_keys
    from longtake.memory.prune import prune
    from longtake.memory.reader import StoredMemory

    rows = []
    for path in [file for name in memories for file in _files(Path(name))]:
        if keys == "none":
            remove_keys(path)
        if action == "prune" and (changes or keys is None):
            path = prune(path, tokens_per_frame=tokens_per_frame, store=store)
        with StoredMemory(path) as stored:
            if action == "verify":
                stored.verify()
            rows.append(describe(stored))
        rows[-1]["keys"] = _keys(path, action, rows[-1]["digest"])
        if not as_json:
            out.print(_text(rows[-1], action), markup=False)
    if as_json:
        print_json({"memories": rows})


def _files(path: Path) -> list[Path]:
    """Return the memories of a folder, or the file itself.

    Raises: MemoryFormatError if a folder holds none.
    """
    if not path.is_dir():
        return [path]
    from longtake.memory.reader import memory_files

    found = memory_files(path)
    if not found:
        raise MemoryFormatError(f"{path} holds no memory; expected *.ltm files; run `longtake ingest VIDEO -o {path}`")
    return found


def _keys(memory: Path, action: str, digest: str) -> dict[str, Any] | None:
    """Return the plain facts of the keys beside a memory; none if there are none.

    Raises: MemoryFormatError if they are damaged, where that was asked.
    """
    from longtake.memory.keys import StoredKeys, keys_path

    path = keys_path(memory)
    if not path.exists():
        return None
    try:
        with StoredKeys(memory) as stored:
            if action == "verify":
                stored.verify()
            is_current = stored.key.memory == digest
            return {"path": str(path), "bytes": stored.num_bytes, "is_current": is_current, "key": stored.key.to_dict()}
    except MemoryFormatError as error:
        if action == "verify":
            raise
        return {"path": str(path), "bytes": path.stat().st_size, "is_current": False, "error": str(error)}


def describe(stored: StoredMemory) -> dict[str, Any]:
    """Return the plain facts of a memory; every segment is compared with its checksum on the way."""
    header, key = stored.header, stored.header.identity
    segments = list(stored.segments())
    num_tokens = sum(len(segment.tokens) for segment in segments)
    num_frames = sum(segment.frame_pts_s.size for segment in segments)
    closing = stored.closing()
    return {
        "path": str(stored.path),
        "source": header.source,
        "is_complete": stored.is_complete,
        "bytes": stored.num_bytes,
        "uncommitted_bytes": stored.num_torn_bytes,
        "segments": len(segments),
        "num_frames": num_frames,
        "frames_planned": header.num_frames,
        "duration_s": closing.get("duration_s", header.duration_s),
        "tokens": num_tokens,
        "tokens_per_frame": num_tokens / max(num_frames, 1),
        "width": header.width,
        "store": key.store,
        "relative_error": max((segment.relative_error for segment in segments), default=0.0),
        "made_at": header.made_at,
        "made_with": header.made_with,
        "warnings": closing.get("warnings", []),
        "digest": stored.digest,
        "key": key.fingerprint(),
        "key_fields": key.to_dict(),
    }


def _text(row: dict[str, Any], action: str) -> str:
    planned = f" of {row['frames_planned']}" if row["frames_planned"] else ""
    state = "whole" if row["is_complete"] else f"unfinished: {row['num_frames']}{planned} frames"
    lines = [f"{row['path']}  {state}" + (", every checksum matches" if action == "verify" else "")]
    if action == "verify":
        return lines[0]
    count = f"{row['tokens']} of width {row['width']}, {row['tokens_per_frame']:g} a frame"
    lines += [
        f"  video    {row['source']}, {seconds_text(row['duration_s'])}",
        f"  tokens   {count}, {row['num_frames']} frames",
        f"  stored   {row['store']}, {row['bytes'] / 1e6:.2f} MB, relative error {row['relative_error']:.2%}",
        f"  made     {row['made_at']} {row['made_with']}",
        f"  key      {row['key']}",
    ]
    if kept := row["keys"]:
        state = "" if kept["is_current"] else ", not of this memory as it is"
        lines.append(f"  keys     {kept['path']}, {kept['bytes'] / 1e6:.2f} MB{state}")
    return "\n".join([*lines, *(f"  note     {text}" for text in row["warnings"])])
