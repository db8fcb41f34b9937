"""A page as plain blocks, written as Markdown and as one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from collections.abc import Sequence
from pathlib import Path

LINK, CODE = re.compile(r"\[([^\]]+)\]\([^)]+\)"), re.compile(r"`([^`]+)`")
BOLD, ITALIC = re.compile(r"\*\*([^*]+)\*\*"), re.compile(r"\*([^*]+)\*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading; level from 1."""

    level: int
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; `code`, **bold**, *italic* and [links](there) mean what they do in Markdown."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Points:
    """Sentences, one a line."""

    sentences: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a line above that says what it is of."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commands:
    """Lines to be typed."""

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture. alt: what it shows, for those who do not see it."""

    path: Path
    caption: str
    alt: str


Block = Heading | Text | Points | Table | Commands | Figure


def to_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """Write a page for `folder`, from which pictures are named."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Text():
            return block.text
        case Points():
            return "\n".join(f"- {sentence}" for sentence in block.sentences)
        case Commands():
            return "\n".join(["```", *block.lines, "```"])
        case Figure():
            return f"![{block.alt}]({block.path.relative_to(folder).as_posix()})\n\n*{block.caption}*"
        case Table():
            lines = [block.head, ["---"] * len(block.head), *block.rows]
            return f"{block.caption}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_html(blocks: Sequence[Block], title: str) -> str:
    """Write the page whole: style, pictures and the few lines that sort a table are in it."""
    body = "\n".join(_html(block) for block in blocks)
    return TEMPLATE.replace("{title}", html.escape(title)).replace("{body}", body)


def _html(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
        case Text():
            return f"<p>{_inline(block.text)}</p>"
        case Points():
            points = "\n".join(f"<li>{_inline(sentence)}</li>" for sentence in block.sentences)
            return f"<ul>\n{points}\n</ul>"
        case Commands():
            lines = "\n".join(map(html.escape, block.lines))
            return f"<pre><code>{lines}</code></pre>"
        case Figure():
            data = base64.b64encode(block.path.read_bytes()).decode()
            picture = f'<img alt="{html.escape(block.alt)}" src="data:image/png;base64,{data}">'
            return f"<figure>{picture}<figcaption>{_inline(block.caption)}</figcaption></figure>"
        case Table():
            cells = "".join(
                f'<th scope="col"><button type="button">{_inline(name)}</button></th>' for name in block.head
            )
            rows = "\n".join(_row(row) for row in block.rows)
            table = f"<table><thead><tr>{cells}</tr></thead><tbody>\n{rows}\n</tbody></table>"
            return f'<section><p class="caption">{_inline(block.caption)}</p><div class="wide">{table}</div></section>'


def _row(row: Sequence[str]) -> str:
    first, *others = map(_inline, row)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{text}</td>" for text in others)}</tr>'


def _inline(text: str) -> str:
    """Turn the little Markdown of a line into HTML; links lead to pages that this file does not hold, so they go."""
    text = LINK.sub(r"\1", html.escape(text, quote=False))
    text = BOLD.sub(r"<strong>\1</strong>", CODE.sub(r"<code>\1</code>", text))
    return ITALIC.sub(r"<em>\1</em>", text)


TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 80rem; margin: 2rem auto;
  padding: 0 1rem; }
p, pre, ul, h1, h2, h3 { max-width: 52rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
pre { background: #f3f3f3; padding: .75rem; overflow-x: auto; }
code { font-size: .9em; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
figcaption, .caption { color: #444; font-size: .9rem; text-align: left; padding: .5rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th[scope=row], th:first-child { text-align: left; font-weight: 600; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; }
thead button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: .2rem;
  text-align: inherit; cursor: pointer; }
thead button:focus-visible { outline: 2px solid #0072b2; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
tbody tr:hover { background: #f5f8fa; }
</style>
</head>
<body>
<main>
{body}
</main>
<script>
"use strict";
// Two cells are compared by their first numbers where both have one, else as texts; names are always texts.
const number = (cell) => {
  const found = cell.tagName === "TD" && cell.textContent.replaceAll(",", "").match(/[+-]?\\d+(\\.\\d+)?/);
  return found ? Number(found[0]) : null;
};
const compare = (a, b) => number(a) !== null && number(b) !== null ? number(a) - number(b)
  : a.textContent.localeCompare(b.textContent);
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = button.closest("table").tBodies[0], place = head.cellIndex;
    const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((a, b) => sign * compare(a.cells[place], b.cells[place]));
    body.append(...rows);
  });
}
</script>
</body>
</html>
"""
