"""`longtake compare`: why do two runs score differently?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from longtake.cli.output import out, print_json

if TYPE_CHECKING:
    from longtake.eval.compare import Comparison, Flip, Side

FLIPS_SHOWN = 10
WIDEST = 60


def run(first: str, second: str, arm: str, shown: int, as_json: bool) -> None:
    """Compare two runs and print what differs and what follows."""
    from longtake.eval.compare import compare

    found = compare(first, second, arm)
    if as_json:
        print_json(found.to_dict())
        return
    show_sides(found)
    show_differences(found)
    show_shared(found)
    show_flips(found, shown)


def show_sides(found: Comparison) -> None:
    """Print each run's own figures."""
    has_parts = any(side.score != side.accuracy for side in (found.first, found.second))
    table = Table(title="each run on its own items", title_justify="left")
    for name in ("", "folder", "n", "failed", "unparsed", "accuracy", *(["score"] if has_parts else []), "interval"):
        table.add_column(name, justify="left" if name in ("", "folder") else "right")
    for letter, side in (("first", found.first), ("second", found.second)):
        table.add_row(letter, side.folder, *_figures(side, has_parts))
    out.print(table)


def _figures(side: Side, has_parts: bool) -> list[str]:
    parts = [f"{side.score:.1%}"] if has_parts else []
    limits = f"{side.interval.low:.1%} – {side.interval.high:.1%}"
    counts = [str(count) for count in (side.num_items, side.num_failed, side.num_unparsed)]
    return [*counts, f"{side.accuracy:.1%}", *parts, limits]


def show_differences(found: Comparison) -> None:
    """Print the settings that differ."""
    if not found.differences:
        out.print("the manifests are equal")
        return
    table = Table(title="settings that differ", title_justify="left")
    for name in ("about", "setting", "first", "second"):
        table.add_column(name)
    for one in found.differences:
        table.add_row(one.subject, one.field, cut(one.first), cut(one.second))
    out.print(table)


def show_shared(found: Comparison) -> None:
    """Print both runs on the items of both, with the interval and the test of their difference."""
    shared = found.shared
    first, second = found.shared_scores
    for count, name in ((len(found.only_first), "first"), (len(found.only_second), "second")):
        if count:
            out.print(f"{count} items have an answer in the {name} run alone and are left out of what follows")
    out.print(f"on the {shared.num_items} items of both, {shared.num_groups} groups: {first:.1%} and {second:.1%}")
    low, high = shared.interval.low, shared.interval.high
    out.print(
        f"difference {shared.difference:+.1%}, from {low:+.1%} to {high:+.1%} ({shared.interval.kind}); right in the "
        f"first alone {shared.only_first}, in the second alone {shared.only_second}, McNemar p = {shared.p:.3g}"
    )
    out.print(found.verdict)


def show_flips(found: Comparison, shown: int) -> None:
    """Print what the items that flipped differ in, and some of them."""
    if not found.flips:
        out.print("no item is right in one and wrong in the other")
        return
    told = ", ".join(f"{cause} {count}" for cause, count in found.causes.items())
    out.print(f"the {len(found.flips)} items that are right in one alone differ in: {told}")
    for flip in found.flips[:shown]:
        out.print(_flip_line(flip), markup=False)
    if len(found.flips) > shown:
        out.print(f"and {len(found.flips) - shown} more; --json has all")


def _flip_line(flip: Flip) -> str:
    said = " | ".join(f"{cut(text)} ({parsed})" for text, parsed in (
        (flip.first, flip.first_parsed), (flip.second, flip.second_parsed)
    ))  # fmt: skip
    return f"  {flip.id}: right in the {flip.right_in} ({', '.join(flip.causes)}), answer {cut(flip.answer)}: {said}"


def cut(value: Any) -> str:
    """Write a value in at most a few words."""
    text = " ".join(str(value).split())
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
