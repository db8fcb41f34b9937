"""Write docs/results.md and docs/results.html from what was measured: `python recipes/write_results.py`.

Every figure on the page, in tables, pictures and sentences, is worked out here from the files of
`measure_methods.py` in docs/results; none is typed. `--check` writes nothing and says if the page is not what they
give.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure_methods import CELLS, KINDS
from measured_arms import ARMS, BLACK, EVERY_ARM, OWN_ARMS, PVC, SYSTEMS
from measured_cells import Measured, Part, Share, joined, read_part
from results_figures import draw, draw_frames, draw_needles, draw_seconds, draw_tokens, is_control
from results_page import Block, Commands, Figure, Heading, Points, Table, Text, to_html, to_markdown

from longtake.core.errors import ConfigError
from longtake.eval.result import text_hash, write_text
from longtake.eval.statistics import LEVEL, Paired
from longtake.media.filmstrip.attributes import ALL_KEYS, LETTERS

DOCS = Path(__file__).parents[1] / "docs"
TITLE = "Results"
LABELS: Mapping[str, str] = dict(zip(KINDS, ("letter of a card", "picture on a card"), strict=True))
CHANCE: Mapping[str, int] = dict(zip(KINDS, (len(LETTERS), len(ALL_KEYS)), strict=True))
UNCLEAR, LARGE = "not told apart with so few films", 0.3
METHODS, NEEDLES, OWN = "methods", "needles", ("pvc", "static")
CONTROLS: Mapping[str, str | None] = {name: arm.control for name, arm in EVERY_ARM.items()}
ALL_PATCHES = next(iter(ARMS))
PROMPTED = next(name for name, arm in ARMS.items() if arm.tells_seconds)
INTRO = """What every method of the registry is worth on the model that comes with the package,
[longtake-tiny](tiny.md), and beside each method **the same count of tokens, or frames, taken at random**. The model
has learned [FILMSTRIP](filmstrip.md) films and nothing else, so this page compares methods; it does not say how good
a large model is. Films are of the test split, written to mp4 and read back; answers are open and compared as text.
Nothing was tuned for a method: reducers and selectors meet weights that never saw them at work. What tuning changes
is in [tiny.md](tiny.md), what the papers had predicted in [predictions.md](predictions.md)."""
READING = """*Against random* is the share of right answers minus that of the control on the same questions, both
kinds together, in points, with an interval over films; `better` and `worse` need the interval and McNemar's test.
Tokens are visual ones for each frame of the film, as they enter the first and the last layer. *First* is the seconds
from the film's file to its first answer, decoding and encoding with it; *further* those of one more question, with
all kept that can be. A table that compares so many methods at once calls about one in twenty of equals different."""
SELECTING = """A selector reads the whole film, a piece at a time, before frames are chosen: the tokens in the table
are those that the answer is written from, the seconds hold all. The prompt of the answer is that of the whole film,
as released."""
WAYS = """*VideoChat-Flash way*: clips merged by ToMe, progressive drop by attention between the layers. *XComp way*:
LP-Comp's cosine between the layers, frames chosen by QC-Comp's local windows; of a film of no more frames than are
kept, all are read. Both on the same weights. One card stands at each depth of a film, the others are its decoys; all
frames are different ones and all are encoded."""
WAY_OF_PVC = """*PVC* is a checkpoint of its own (`recipes/tiny_pvc_films.py`, [tiny_pvc.md](tiny_pvc.md)): one token a
frame, each frame encoded with a look back at some before it. Its control, *static frames*, was trained alike without
that look and without times. *Frames chosen* and *random frames* read a part of the same memory, as many frames as the
ways that choose; of a film of no more, all."""
MISSING = """Not on this page: weights tuned for a method (not shipped), models of the released sizes, other seeds of
training than the one of the bundled model, and methods of other packages."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the page is up to date")
    given = parser.parse_args()
    blocks = page(given.docs, is_drawn=not given.check)
    texts = {f"{TITLE.lower()}.md": to_markdown(blocks, given.docs), f"{TITLE.lower()}.html": to_html(blocks, TITLE)}
    for name, text in texts.items():
        path = given.docs / name
        if not given.check:
            write_text(path, text)
        elif not path.is_file() or path.read_text("utf-8") != text:
            sys.exit(f"{name} is not what the measurements give; run python recipes/write_results.py")


def page(docs: Path, is_drawn: bool) -> list[Block]:
    """Put the page together; is_drawn: draw pictures that are not of this data.

    Raises: ConfigError if a file is of another model, or a picture is of other data and may not be drawn.
    """
    files = {name: docs / "results" / f"{name}.jsonl" for name in (METHODS, NEEDLES)}
    files |= {name: docs / "results" / f"needles-{name}.jsonl" for name in OWN}
    parts = {name: read_part(path) for name, path in files.items()}
    if len({parts[name].head["model"] for name in (METHODS, NEEDLES)}) > 1:
        raise ConfigError("methods and needles are of different models; expected one; measure again what is older")
    methods, needles = parts[METHODS], joined([parts[name] for name in (NEEDLES, *OWN)])
    texts = {name: path.read_text("utf-8") for name, path in files.items()}
    stamps = {
        METHODS: text_hash(texts[METHODS]),
        NEEDLES: text_hash("".join(texts[name] for name in (NEEDLES, *OWN))),
    }
    figures = {
        "tokens": (METHODS, lambda: draw_tokens(methods, LABELS)),
        "frames": (METHODS, lambda: draw_frames(methods, LABELS)),
        "seconds": (METHODS, lambda: draw_seconds(methods)),
        NEEDLES: (NEEDLES, lambda: draw_needles(needles)),
    }
    paths = {}
    for name, (data, make) in figures.items():
        paths[name] = docs / "pictures" / f"{TITLE.lower()}_{name}.png"
        if is_drawn:
            draw(paths[name], stamps[data], make)
    return [
        Heading(level=1, text=TITLE),
        Text(text=INTRO),
        Heading(level=2, text="What was found"),
        Points(sentences=findings(methods, needles)),
        *method_blocks(methods, paths),
        *needle_blocks(needles, [parts[name] for name in OWN], paths[NEEDLES]),
        Heading(level=2, text="What is missing"),
        Text(text=" ".join(filter(None, [MISSING, *(planned(name, part) for name, part in parts.items())]))),
        Heading(level=2, text="Again"),
        Commands(lines=[*(str(part.head["command"]) for part in parts.values()), "python recipes/write_results.py"]),
    ]


def method_blocks(part: Part, paths: Mapping[str, Path]) -> list[Block]:
    """Return the comparison of all methods."""
    shortest, longest = part.lengths[0], part.lengths[-1]
    kinds = " and ".join(LABELS.values())
    tables = [method_table(part, frames) for frames in part.lengths]
    return [
        Heading(level=2, text="Accuracy against tokens a frame"),
        Figure(
            path=paths["tokens"],
            caption=f"Films of {shortest:,} frames. {provenance(part)}",
            alt=f"Share of right answers, {kinds}, against visual tokens a frame, for every method and its control; "
            "the figures are in the table below",
        ),
        Text(text=READING),
        tables[0],
        Text(text=SELECTING),
        Heading(level=2, text="Accuracy against frames"),
        Figure(
            path=paths["frames"],
            caption=f"Films of {shortest:,} to {longest:,} frames; dashed and hollow: at random. {provenance(part)}",
            alt=f"Share of right answers, {kinds}, against the frames of the film, a column for each family of "
            "methods; the figures are in the tables",
        ),
        *tables[1:],
        Heading(level=2, text="Accuracy against seconds"),
        Figure(
            path=paths["seconds"],
            caption=f"All questions together; on top the first answer about a film, below one more. "
            f"{busy(part)} {provenance(part)}",
            alt="Share of right answers against seconds, for the first answer from the file on and for each further "
            "one, a column for each length of film; the figures are in the tables above",
        ),
    ]


def method_table(part: Part, frames: int) -> Table:
    """Return the arms of one length, families together."""
    own = part.of(frames)
    kept = next(cell.kept for cell in CELLS if (cell.part, cell.frames) == (METHODS, frames))
    first = next(iter(own.values()))
    asked = ", ".join(f"{LABELS[kind]} n {first.share(kind).n} (chance one in {CHANCE[kind]})" for kind in first.rows)
    caption = (
        f"**Films of {frames:,} frames**, {first.share().films} films; {asked}; a selector keeps {kept} frames. "
        f"{provenance(part)}"
    )
    head = ["method", "tokens a frame", *(f"{LABELS[kind]}, %" for kind in first.rows), "against random", "verdict"]
    rows = []
    for name, cell in sorted(own.items(), key=lambda one: list(ARMS).index(one[0])):
        tokens, (cold, warm) = cell.tokens_per_frame(), cell.seconds()
        shares = [told(cell.share(kind)) for kind in cell.rows]
        control = ARMS[name].control
        lead = against_random(cell, None if control is None else own[control])
        rows.append([name, f"{tokens[0]:g} → {tokens[-1]:g}", *shares, *lead, f"{cold:.2f}", f"{warm:.3f}"])
    return Table(caption=caption, head=[*head, "first, s", "further, s"], rows=rows)


def needle_blocks(part: Part, own: Sequence[Part], path: Path) -> list[Block]:
    """Return the maps of needles, and their sums over all depths; own: what has checkpoints of its own."""
    measured = " ".join([provenance(part), *(command(other) for other in own)])
    longest = part.lengths[-1]
    rows = []
    for (frames, name), cell in sorted(part.cells.items(), key=lambda one: one[0][0]):
        control, (cold, warm) = CONTROLS[name], cell.seconds()
        other = None if control is None else part.cells.get((frames, control))
        share, alive = cell.share(), cell.share(column="alive")
        texts = [name, f"{frames:,}", f"{share.n}", f"{share.films}", told(share), told(alive)]
        rows.append([*texts, *against_random(cell, other), f"{cold:.2f}", f"{warm:.3f}"])
    head = ["way", "frames", "n", "films", "right, %", "needle reaches the last layer, %", "against control", "verdict"]
    return [
        Heading(level=2, text=f"Needles in films of up to {longest:,} frames"),
        Text(text=WAYS),
        Figure(
            path=path,
            caption=f"A cell is its share of right answers and its count of needles; it has no interval of its own: "
            f"those over all depths are in the table. {measured}",
            alt="Heat maps of right answers by depth of the needle and frames of the film, for "
            f"{', '.join((*SYSTEMS, PVC.name))} and their controls",
        ),
        Text(text=WAY_OF_PVC),
        Table(
            caption=f"**All depths together**; chance one in {CHANCE[KINDS[0]]}. {busy(part)} {measured}",
            head=[*head, "first, s", "further, s"],
            rows=rows,
        ),
    ]


def findings(methods: Part, needles: Part) -> list[str]:
    """Say in words what the tables say, what is not better than random first."""
    said = [sentence for frames in methods.lengths for sentence in verdicts(methods, frames)]
    own = methods.of(methods.lengths[0])
    base, few = own[ALL_PATCHES], own[SYSTEMS[0]]
    said.append(
        f"From all patches to one token a frame ({SYSTEMS[0]}), films of {methods.lengths[0]:,} frames: "
        f"{told_lead(few.against(base))} (all patches {told(base.share())} %)."
    )
    prompted = own[PROMPTED].against(own[ARMS[PROMPTED].select or ""])
    said.append(
        f"Telling the model which seconds a selector chose ({PROMPTED}; the default of `longtake ask`) instead of "
        f"repeating the prompt of the whole film: {told_lead(prompted)}. The tiny model was never trained on such a "
        "sentence."
    )
    black = own[BLACK.name].share()
    said.append(f"A black film: {told(black)} % of {black.n} right.")
    longest = methods.lengths[-1]
    cold, warm = methods.cells[longest, SYSTEMS[0]].seconds()
    said.append(
        f"Films of {longest:,} frames, {SYSTEMS[0]}: the first answer takes {cold:.1f} s from the file on, each "
        f"further one {warm:.2f} s."
    )
    return said + needle_findings(needles)


def verdicts(part: Part, frames: int) -> list[str]:
    """Return which methods of a length beat as much at random, and which do not."""
    own = part.of(frames)
    found: dict[str, list[str]] = {}
    for name, cell in own.items():
        control = ARMS[name].control
        if control is not None and control in own:
            test = cell.against(own[control])
            found.setdefault(outcome(test), []).append(f"{name} ({points(test.difference)})")
    share = next(iter(own.values())).share()
    of = f"Films of {frames:,} frames ({share.n} questions, {share.films} films)"
    said = []
    if "not different" in found:
        said.append(f"{of}: **not better than random drop**: {'; '.join(found['not different'])}.")
    if UNCLEAR in found:
        said.append(f"{of}: {UNCLEAR}: {'; '.join(found[UNCLEAR])}.")
    if "worse" in found:
        said.append(f"{of}: **worse than random drop**: {'; '.join(found['worse'])}.")
    said.append(f"{of}: better than as much at random: {'; '.join(found.get('better', ['none']))}.")
    return said


def needle_findings(part: Part) -> list[str]:
    """Return what each way reads in the longest films, and whether its control does as well."""
    longest, said = part.lengths[-1], []
    for name in (*SYSTEMS, *OWN_ARMS):
        cell = part.cells.get((longest, name))
        control = part.cells.get((longest, CONTROLS[name] or ""))
        if cell is None or control is None:
            continue
        share, test = cell.share(), cell.against(control)
        words = {"not different": "**not better than it**", UNCLEAR: UNCLEAR}
        verdict = words.get(outcome(test), f"{test.verdict} than it")
        said.append(
            f"Needles in {longest:,} frames, {name}: {told(share)} % of {share.n} right in {share.films} films; "
            f"{points(test.difference)} points against {CONTROLS[name]}, {verdict}."
        )
    return said


def planned(name: str, part: Part) -> str:
    """Say which films were planned and are not measured; nothing if all are."""
    found = []
    for cell in (one for one in CELLS if one.part == name):
        own = part.of(cell.frames)
        films = next(iter(own.values())).share().films if own else 0
        if films < cell.films:
            found.append(f"{films} of {cell.films} films of {cell.frames:,} frames")
    return f"Of what was planned, part {name} has {', '.join(found)}; its command goes on." if found else ""


def busy(part: Part) -> str:
    """Say how much else the machine did meanwhile."""
    low, high = part.load
    return f"The machine's load was {low:.1f} to {high:.1f} meanwhile, of which ours is one: seconds are upper bounds."


def outcome(test: Paired) -> str:
    """Return the verdict; where nothing is told apart and a large lead is not ruled out either, that it is unclear."""
    return UNCLEAR if test.verdict == "not different" and test.interval.high > LARGE else test.verdict


def told(share: Share) -> str:
    """Write a share with its interval, in percent."""
    low, high = share.interval.low, share.interval.high
    return f"{100 * share.right:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def against_random(cell: Measured, control: Measured | None) -> list[str]:
    """Write what a method has over its control, and what that comes to; a control has none."""
    if control is None:
        return ["", "control" if is_control(cell.arm) else ""]
    test = cell.against(control)
    return [told_lead(test).rpartition(",")[0], test.verdict]


def told_lead(test: Paired) -> str:
    """Write a difference with its interval, in points, and what it comes to."""
    return f"{points(test.difference)} ({points(test.interval.low)} to {points(test.interval.high)}), {test.verdict}"


def points(difference: float) -> str:
    """Write a difference of shares in points, with its sign."""
    return f"{100 * difference:+.1f}"


def command(part: Part) -> str:
    """Say which checkpoint a part is of, and how it was measured."""
    return f"Checkpoint `{part.head['model'][: len('fingerprint')]}`: `{part.head['command']}`."


def provenance(part: Part) -> str:
    """Say what was measured on what, and how."""
    head = part.head
    return (
        f"Intervals of {LEVEL:.0%} over films. {head['machine']}, {head['threads']} thread, torch {head['torch']}. "
        f"{command(part)}"
    )


if __name__ == "__main__":
    main()
