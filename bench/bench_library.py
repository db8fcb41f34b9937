"""A library: how long a question takes with ten, a hundred and a thousand memories in a folder.

Each memory is 96 seconds at one frame and one token a second, of random tokens in the tiny model's width. A question
looks at the folder, searches the index, reads the best video and writes one token. Opened anew means that the index is
read from its file too, every byte of it compared with its checksum.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.bench_memory import CLIPS_PER_SEGMENT, FRAMES_PER_CLIP, ONE_WORD, synthetic_header
from bench.pairs import paired
from longtake.core.types import VisualTokens
from longtake.engine.library import Library
from longtake.memory.segment import pack_segment
from longtake.memory.writer import MemoryWriter
from longtake.models.loaded import LoadedModel
from longtake.models.naming import question_vector
from longtake.models.tiny import tiny_model

QUESTION = "Which letter is on the card with the red circle?"
NUM_FRAMES = 96
ROUNDS = 9
BEST = 10


def write_memory(path: Path, loaded: LoadedModel, seed: int) -> None:
    generator, each = torch.Generator().manual_seed(seed), CLIPS_PER_SEGMENT * FRAMES_PER_CLIP
    header = synthetic_header(64, NUM_FRAMES, "float16")
    key = dict(header.key) | {"model": loaded.fingerprint, "content": f"{seed:064d}"}
    with MemoryWriter(path, dataclasses.replace(header, key=key, dtype="float32")) as writer:
        for start in range(0, NUM_FRAMES, each):
            clips = torch.arange(each // FRAMES_PER_CLIP).repeat_interleave(FRAMES_PER_CLIP)
            features = torch.randn(each, 64, generator=generator)
            times = np.arange(start, start + each, dtype=np.float64).reshape(-1, FRAMES_PER_CLIP)
            tokens = VisualTokens(features, torch.ones(each, FRAMES_PER_CLIP, dtype=torch.int64), clips)
            writer.append(pack_segment(tokens, times, b"", "float16", start))
        writer.finish(float(NUM_FRAMES))


def library_of(folder: Path, loaded: LoadedModel, count: int) -> Library:
    folder.mkdir()
    for seed in range(count):
        write_memory(folder / f"{seed:04d}.ltm", loaded, seed)
    library = Library(folder, loaded)
    library.refresh()
    return library


def found_of_the_best(library: Library, loaded: LoadedModel) -> float:
    """Return the share of the truly best segments that the index finds, by comparing with every vector."""
    vector = question_vector(loaded, QUESTION).numpy()
    index = library._index
    every = {
        (name, segment): score
        for name, entry in index.entries.items()
        for segment, score in enumerate(index.scores(entry, vector).tolist())
    }
    best = set(sorted(every, key=lambda place: -every[place])[:BEST])
    return len(best & {(one.path.name, one.segment) for one in library.rank(QUESTION, BEST)}) / len(best)


def growth(claim: str, few: Callable[[], object], many: Callable[[], object], times_more: int) -> dict:
    """Compare a question over many memories with one over few."""
    many_s, few_s, ratios = paired(many, few, ROUNDS)
    median = ratios[len(ratios) // 2]
    return {
        "claim": claim,
        "baseline": f"{few_s:.4g} s",
        "ours": f"{many_s:.4g} s",
        "ratio": f"{median:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})",
        "target": f"<= {times_more**0.5:.1f}",
        "ok": median <= times_more**0.5,
        "n": len(ratios),
    }


def run(quick: bool) -> list[dict]:
    counts = (2, 8) if quick else (10, 100, 1000)
    loaded, rows = tiny_model(), []
    with tempfile.TemporaryDirectory() as name:
        libraries, spent_s = {}, 0.0
        for count in counts:
            start_s = time.perf_counter()
            libraries[count] = library_of(Path(name) / str(count), loaded, count)
            spent_s = time.perf_counter() - start_s
        few, *others = libraries.values()
        for count, library in list(libraries.items())[1:]:
            against, more = f"{count} memories against {counts[0]}", count // counts[0]
            rows.append(
                growth(
                    f"a question over {against}",
                    lambda: few.ask(QUESTION, ONE_WORD),
                    lambda library=library: library.ask(QUESTION, ONE_WORD),
                    more,
                )
            )
            rows.append(
                growth(
                    f"a question over {against}, index opened anew",
                    lambda: Library(few.folder, loaded).ask(QUESTION, ONE_WORD),
                    lambda library=library: Library(library.folder, loaded).ask(QUESTION, ONE_WORD),
                    more,
                )
            )
        largest = others[-1]
        share = found_of_the_best(largest, loaded)
        rows.append(
            {
                "claim": f"of the {BEST} best segments of {counts[-1]} memories, found by the index",
                "baseline": f"{len(largest._index)} vectors, written and indexed in {spent_s:.0f} s",
                "ours": f"{largest.path.stat().st_size / 1e6:.1f} MB of index",
                "ratio": f"{share:.2f}",
                "target": ">= 0.9",
                "ok": share >= 0.9,
                "n": BEST,
            }
        )
    return rows
