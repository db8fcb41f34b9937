"""The reference of the command line, docs/cli.md, written from the commands themselves.

Write it anew with `python -m longtake.cli.reference > docs/cli.md`; a test compares the two.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from longtake.cli.main import app
from longtake.core.errors import LongtakeError

HEADER = """\
# The command line

Written by `python -m longtake.cli.reference`; do not edit.

Answers and tables go to standard output, everything else (progress, notes, errors) to standard error. With `--json`
standard output holds one JSON object (`chat`: one a question, each on its own line) and nothing else. An error is one
line that starts with `error:`; with `--json` also `{"error": {"type": …, "message": …}}` on standard output.
"""
ANSWER = """\
## The JSON of an answer

`ask`, `chat` and `demo` write `answer` (text), `evidence` (a list of `start_s`, `end_s`, `score`, strongest first; the
score is the span's share of the attention to the video), `finish_reason` (`stop` or `length`) and `ledger`: `stages`
(by name: `seconds`, `bytes`, `tokens`), `total_s`, `unstaged_s` (what the stages leave of the total),
`peak_memory_bytes` (of the process) and `notes` (decoder, device, dtype, and what was lost on the way). With
`--select` the evidence are the spans that were selected, a score is a span's peak relevance over the video's mean, and
`evidence_kind` is `relevance`. With several pictures and videos each span has a `medium`, the number of its file from
1; a picture has no seconds, so its span starts and ends at 0. With `--verify` there is `verify` (`without_cited` and
`without_others`: the answers without what was removed; `holds`), with `--pictures` `pictures` (paths, one a span).
"""
OTHER_CODES = (
    (0, "", "Done."),
    (1, "", "A mistake of ours, with a traceback; or `bench` missed a target."),
    (2, "", "An unknown command or option, or a missing argument."),
    (130, "", "Interrupted by Ctrl-C."),
)


def exit_codes() -> list[tuple[int, str, str]]:
    """Return every exit code with the error's name and meaning, ascending."""
    found = list(OTHER_CODES)
    waiting = [LongtakeError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind is LongtakeError or kind.__module__ != LongtakeError.__module__:
            continue  # errors of other rooms, such as the server's client, never end a command
        found.append((kind.exit_code, f"`{kind.__name__}`", (kind.__doc__ or "").splitlines()[0]))
    return sorted(found)


def reference() -> str:
    """Write the whole page."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    parts = [HEADER, *(_command(name, command) for name, command in commands.items()), ANSWER]
    codes = [f"| {code} | {name} | {text} |" for code, name, text in exit_codes()]
    parts.append("\n".join(["## Exit codes", "", "| code | error | meaning |", "|---|---|---|", *codes, ""]))
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help" and not p.hidden]
    shown = " ".join(_argument(p) for p in arguments)
    lines = [f"## longtake {name}", "", f"`longtake {' '.join(filter(None, [name, shown, '[OPTIONS]']))}`", ""]
    lines += [(command.help or "").strip(), ""]
    rows = [f"| `{_argument(p)}` | {p.help or ''} | |" for p in arguments]
    rows += [f"| `{', '.join(p.opts)}` | {p.help or ''} | {_default(p)} |" for p in options]
    return "\n".join([*lines, "| argument or option | meaning | default |", "|---|---|---|", *rows, ""])


def _argument(parameter: Any) -> str:
    text = str(parameter.name).upper() + ("..." if parameter.nargs == -1 else "")
    return text if parameter.required else f"[{text}]"


def _default(parameter: Any) -> str:
    empty = parameter.default is None or parameter.is_flag or parameter.multiple
    return "" if empty else f"`{parameter.default}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
