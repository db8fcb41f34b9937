"""What docs/benchmarks.md says of readers, tasks and settings is so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from longtake.eval.benchmarks.base import Benchmark
from longtake.eval.parsers import READERS, SPAN_READERS
from longtake.eval.task import tasks

TEXT = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text("utf-8")
CHOICES = ("red", "blue", "green", "yellow")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, the head first, the rule below it left out."""
    part = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = re.search(r"(?:^\|.*\|\n)+", part, re.MULTILINE)
    assert table is not None
    lines = table[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_readers_read_what_the_table_says() -> None:
    head, *body = rows("What reads a reply")
    names = [cell.strip("`") for cell in head[1:]]
    assert set(names) < set(READERS)
    for reply, *shown in body:
        text = "" if reply == "(nothing)" else reply.strip("`")
        for name, cell in zip(names, shown, strict=True):
            expected = {"–": "", "right, whatever the answer": "ABCD"}.get(cell, cell)
            assert READERS[name](text, CHOICES) == expected, (text, name)


def test_every_task_prompt_and_reader_is_listed() -> None:
    listed = "\n".join(" ".join(row) for row in rows("Tasks"))
    for name, (cls, fields) in tasks().items():
        if not issubclass(cls, Benchmark):
            continue
        plain = name.removesuffix("-released")
        told = {"mvbench-pvc": "`pvc`", "longvideobench-no-subtitles": "`upstream`", "videomme-subtitles": "subtitles"}
        short = f"`{plain.removeprefix('vdc')}`" if plain.startswith("vdc-") and plain != "vdc-short" else f"`{plain}`"
        assert told.get(plain, short) in listed, name
        if "parser" in fields:
            assert f"`{fields['parser']}`" in listed, name
        assert all(f"`{template}`" in listed or template == "first-paraphrase" for template in cls.templates), name
    assert {"vcf-span", "lmms-span"} < set(SPAN_READERS)


def test_every_setting_is_listed() -> None:
    fields = {
        field.name for cls, _ in tasks().values() if issubclass(cls, Benchmark) for field in dataclasses.fields(cls)
    }
    listed = set(re.findall(r"`task\.(\w+)`", TEXT))
    assert listed <= fields
    assert fields - listed == {"name", "data", "mcq", "section", "most_times"}
