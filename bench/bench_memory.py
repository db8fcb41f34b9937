"""A memory on disk: the second question against the first, opening one, and how large an hour is.

The film is an hour long, one token a frame. A first question decodes and encodes it; a second one is asked from the
file with the keys of the video kept. Sizes are those of the 2B model (width 1,536), by arithmetic and by writing one.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch

from bench.bench_scoring import DEPTH, SHAPE
from bench.pairs import paired, row, seconds
from longtake.core.budget import Budget
from longtake.core.types import VisualTokens
from longtake.engine.ask import ask
from longtake.engine.remember import DEFAULT_FRAMES, Wish, recall, remember
from longtake.engine.select import keep_keys, relevance
from longtake.engine.watch import ROOM_TO_GROW
from longtake.media.synthetic import draw_clock, write_clock_video
from longtake.memory.demote import demote
from longtake.memory.format import BLOCK_BYTES, filled
from longtake.memory.key import MemoryHeader, MemoryKey
from longtake.memory.keys import keys_path
from longtake.memory.quantize import Store
from longtake.memory.reader import StoredMemory
from longtake.memory.segment import pack_segment, thumbnail
from longtake.memory.writer import MemoryWriter
from longtake.methods.compress.tome import ToMe
from longtake.methods.select.qc_comp import XCOMP_CLEAN
from longtake.models.loaded import LoadedModel
from longtake.models.prefix import PrefixStore
from longtake.models.presets import preset
from longtake.models.tiny import build_random, tiny_config, tiny_model

QUESTIONS = ("What happens in the video?", "What comes after that?")
ONE_WORD = Budget(max_new_tokens=1)
HOUR_S, CLIPS_PER_SEGMENT, FRAMES_PER_CLIP = 3600, 8, 4
PATCHES_PER_FRAME = 1024


def one_token_a_frame() -> LoadedModel:
    loaded = tiny_model()
    loaded.model.compressor = ToMe(tokens_per_frame=1)
    return loaded


def questions(folder: Path, duration_s: int, short_s: int) -> list[dict]:
    """Measure answers about a long film and a short one."""
    loaded, wish = one_token_a_frame(), Wish(budget=Budget(max_frames=DEFAULT_FRAMES))
    films = [
        write_clock_video(folder / f"{length}.mp4", length, fps=4, size=(72, 128), key_frame_every=16)
        for length in (duration_s, short_s)
    ]

    def cold(film: Path) -> None:
        ask(remember(film, loaded, folder, wish), QUESTIONS[0], loaded, ONE_WORD)

    cold(films[1])  # what a process does once is not counted
    first_s = seconds(lambda: cold(films[0]))
    path, other = (remember(film, loaded, folder, wish) for film in films)
    memories = [recall(memory, loaded) for memory in (path, other)]
    rows, long_s = [], 0.0
    target = 1.5
    for tokens_per_frame in (0.25, 1):
        keys = [PrefixStore(), PrefixStore()]
        budget = dataclasses.replace(ONE_WORD, tokens_per_frame=tokens_per_frame)

        def warm(place: int, keys: list[PrefixStore] = keys, budget: Budget = budget) -> None:
            ask(memories[place], QUESTIONS[1], loaded, budget, prefixes=keys[place])

        long_s, other_s, ratios = paired(lambda: warm(0), lambda: warm(1), 9)
        lengths = f"{duration_s // 60} min against {short_s // 60} min"
        rows.append(
            {
                "claim": f"warm question about {lengths}, {tokens_per_frame:g} tokens a frame, keys kept",
                "baseline": f"{other_s:.4g} s",
                "ours": f"{long_s:.4g} s",
                "ratio": f"{ratios[4]:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})",
                "target": f"<= {target:g}",
                "ok": ratios[4] <= target,
                "n": len(ratios),
            }
        )
    opened = sorted(seconds(lambda: ask(path, QUESTIONS[1], loaded, ONE_WORD)) for _ in range(5))
    minutes = f"{duration_s // 60} min"
    return [
        row(f"second question about {minutes} against the first, keys kept", first_s, long_s, [first_s / long_s], 50),
        *rows,
        {
            "claim": f"open a memory of {minutes} and write the first token, no keys kept",
            "baseline": f"{first_s:.4g} s",
            "ours": f"{opened[2]:.3f} s",
            "ratio": f"{first_s / opened[2]:.0f}",
            "target": "<= 0.3 s",
            "ok": opened[2] <= 0.3,
            "n": len(opened),
        },
    ]


def first_question(folder: Path, num_frames: int) -> list[dict]:
    """Open a memory as a new process does and score a question, with keys beside it and without.

    The language model has 7 layers of width 128, as in `bench_scoring`; 16 tokens a frame, which were drawn at random.
    """
    model = build_random(tiny_config(num_hidden_layers=DEPTH, **SHAPE))
    loaded = LoadedModel(model, tiny_model().tokenizer, model.config, "f" * 64)
    plain, kept = (stored_tokens(folder / f"{name}.ltm", loaded, num_frames) for name in ("plain", "kept"))
    made_s = seconds(lambda: keep_keys(recall(kept, loaded), loaded, XCOMP_CLEAN))

    def scores(path: Path) -> torch.Tensor:
        return relevance(recall(path, loaded), QUESTIONS[0], loaded, XCOMP_CLEAN)

    assert torch.equal(scores(plain), scores(kept)), "keys from the disk give other scores"
    without_s, with_s, ratios = paired(lambda: scores(plain), lambda: scores(kept), 5)
    keys_mb = keys_path(kept).stat().st_size / 1e6
    what = f"first question of a new process about {num_frames} frames, {keys_mb:.0f} MB of keys"
    return [row(f"{what} (made in {made_s:.1f} s) against none", without_s, with_s, ratios, 5)]


def stored_tokens(path: Path, loaded: LoadedModel, num_frames: int) -> Path:
    """Write a memory of random tokens that a model takes for its own."""
    width, per_clip = loaded.model.lm_head.in_features, 16 * FRAMES_PER_CLIP
    header = synthetic_header(width, num_frames, "float32")
    key = dataclasses.replace(header.identity, model=loaded.fingerprint)
    generator = torch.Generator().manual_seed(0)
    with MemoryWriter(path, dataclasses.replace(header, key=key.to_dict(), dtype="float32")) as writer:
        for start in range(0, num_frames, CLIPS_PER_SEGMENT * FRAMES_PER_CLIP):
            features = torch.randn(CLIPS_PER_SEGMENT * per_clip, width, generator=generator)
            weight = torch.ones(len(features), FRAMES_PER_CLIP, dtype=torch.int64)
            tokens = VisualTokens(features, weight, torch.arange(CLIPS_PER_SEGMENT).repeat_interleave(per_clip))
            times = np.arange(CLIPS_PER_SEGMENT * FRAMES_PER_CLIP, dtype=np.float64).reshape(-1, FRAMES_PER_CLIP)
            writer.append(pack_segment(tokens, times + start, b"", "float32"))
        writer.finish(float(num_frames))
    return path


def arithmetic_bytes(num_frames: int, tokens_per_frame: int, width: int, picture_bytes: int) -> float:
    """Count the bytes of an int8 memory: tokens, their scales and frame weights, times, thumbnails, blocks."""
    tokens = num_frames * tokens_per_frame
    segments = num_frames / (CLIPS_PER_SEGMENT * FRAMES_PER_CLIP)
    each = tokens * (width + 4 + 2 * FRAMES_PER_CLIP) + 8 * num_frames + 4 * num_frames / FRAMES_PER_CLIP
    return each + segments * (filled(picture_bytes) + 700 + 2 * BLOCK_BYTES)


def size_of_an_hour(folder: Path, tokens_per_frame: int, num_frames: int, target_mb: float) -> dict:
    """Write a synthetic memory of the 2B shape, tokens drawn at random, pictures as an encoder would see them."""
    width, store = preset("videochat_flash_2b").config().hidden_size, "int8"
    num_clips, per_clip = num_frames // FRAMES_PER_CLIP, tokens_per_frame * FRAMES_PER_CLIP
    path = folder / f"{tokens_per_frame}.ltm"
    generator = torch.Generator().manual_seed(0)
    picture = b""
    with MemoryWriter(path, synthetic_header(width, num_frames, store)) as writer:
        for start in range(0, num_clips, CLIPS_PER_SEGMENT):
            clips = torch.arange(start, min(start + CLIPS_PER_SEGMENT, num_clips))
            count = len(clips) * per_clip
            weight = torch.randint(0, PATCHES_PER_FRAME, (count, FRAMES_PER_CLIP), generator=generator)
            features = torch.randn(count, width, generator=generator)
            tokens = VisualTokens(features, weight, clips.repeat_interleave(per_clip))
            times = np.arange(len(clips) * FRAMES_PER_CLIP, dtype=np.float64).reshape(-1, FRAMES_PER_CLIP)
            picture = thumbnail(draw_clock(float(start * FRAMES_PER_CLIP), 224, 224), 16 / 9)
            writer.append(pack_segment(tokens, times + start * FRAMES_PER_CLIP, picture, store))
        writer.finish(float(num_frames))
    with StoredMemory(path) as stored:
        stored.verify()
        error = max(segment.relative_error for segment in stored.segments())
    size = path.stat().st_size / 1e6
    expected = arithmetic_bytes(num_frames, tokens_per_frame, width, len(picture)) / 1e6
    return {
        "claim": f"{num_frames} frames of the 2B model at {tokens_per_frame} tokens in int8, error {error:.2%}",
        "baseline": f"{expected:.2f} MB by arithmetic",
        "ours": f"{size:.2f} MB written",
        "ratio": f"{size / expected:.3f}",
        "target": f"<= {target_mb:g} MB",
        "ok": size <= target_mb,
        "n": 1,
    }


def a_day(folder: Path, hours: int) -> list[dict]:
    """Let a memory grow for a day at one frame a second, a sixteenth of the 2B model's width and of 200 MB."""
    path, cap = folder / "day.ltm", 200_000_000 // 16
    width, per_clip = 1536 // 16, 16 * FRAMES_PER_CLIP
    frames_each = CLIPS_PER_SEGMENT * FRAMES_PER_CLIP
    clips = torch.arange(CLIPS_PER_SEGMENT).repeat_interleave(per_clip)
    weight = torch.ones(len(clips), FRAMES_PER_CLIP, dtype=torch.int64)
    generator, sizes, resident = torch.Generator().manual_seed(0), [], []
    for number in range(hours * HOUR_S // frames_each):
        features = torch.randn(len(clips), width, generator=generator)
        times = np.arange(frames_each, dtype=np.float64).reshape(-1, FRAMES_PER_CLIP) + number * frames_each
        with MemoryWriter(path, synthetic_header(width, 0, "int8")) as writer:
            tokens = VisualTokens(features, weight, clips)
            writer.append(pack_segment(tokens, times, b"", "int8", number * frames_each))
        if path.stat().st_size > cap:
            demote(path, int(cap * ROOM_TO_GROW))
        sizes.append(path.stat().st_size)
        resident.append(psutil.Process().memory_info().rss)
    with StoredMemory(path) as stored:
        parts = [(part.first_frame, len(part.tokens) / frames_each) for part in stored.segments()]
    ages = {count: (hours * HOUR_S - first) / HOUR_S for first, count in reversed(parts)}
    reach = ", ".join(f"{count:g}: {age:.1f} h" for count, age in ages.items())
    early, late = max(resident[len(resident) // 4 : len(resident) // 2]), max(resident[len(resident) // 2 :])
    return [
        {
            "claim": f"{hours} h of live film under a cap; tokens a frame and how far back ({reach})",
            "baseline": f"{cap / 1e6:.1f} MB allowed",
            "ours": f"{max(sizes) / 1e6:.2f} MB at most",
            "ratio": f"{max(sizes) / cap:.3f}",
            "target": "<= 1",
            "ok": max(sizes) <= cap,
            "n": len(sizes),
        },
        {
            "claim": f"{hours} h of live film: resident size, second half against second quarter",
            "baseline": f"{early / 1e6:.0f} MB",
            "ours": f"{late / 1e6:.0f} MB",
            "ratio": f"{late / early:.3f}",
            "target": "<= 1.05",
            "ok": late <= 1.05 * early,
            "n": len(resident),
        },
    ]


def synthetic_header(width: int, num_frames: int, store: Store) -> MemoryHeader:
    key = MemoryKey(
        content="0" * 64,
        model="0" * 64,
        compressor="0" * 64,
        sampling="0" * 64,
        max_frames=num_frames,
        max_tiles=None,
        start_s=None,
        end_s=None,
        frames_per_clip=FRAMES_PER_CLIP,
        clips_per_segment=CLIPS_PER_SEGMENT,
        store=store,
        decoder="pyav",
        device="cpu",
        longtake="bench",
    )
    return MemoryHeader(
        key=dataclasses.asdict(key),
        source="bench",
        width=width,
        num_frames=num_frames,
        duration_s=float(num_frames),
        aspect=16 / 9,
        settings={"kind": "video"},
        dtype="bfloat16",
        made_at="",
        made_with="",
    )


def run(quick: bool) -> list[dict]:
    num_frames = 320 if quick else HOUR_S
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = [size_of_an_hour(folder, count, num_frames, target) for count, target in ((16, 90.0), (1, 10.0))]
        day = a_day(folder, 1 if quick else 24)
        asked = questions(folder, 120 if quick else HOUR_S, 60 if quick else 600)
        return [*asked, *first_question(folder, 256 if quick else 576), *sizes, *day]
