"""Many threads ask one model about many memories: `python -m tests.memory.stress QUESTIONS`; counts wrong answers."""

from __future__ import annotations

import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from longtake.core.budget import Budget
from longtake.engine.ask import ask
from longtake.engine.remember import Wish, remember
from longtake.media.sampling import SamplingRule
from longtake.media.synthetic import write_clock_video
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import tiny_model

QUESTIONS = ("What happens?", "Who is it?", "When does it end?")
SHORT = Budget(max_new_tokens=2, tokens_per_frame=1)
LENGTHS_S = (8, 9, 10, 12, 16)


def memories(folder: Path, loaded: LoadedModel) -> list[Path]:
    wish = Wish(rule=SamplingRule(min_frames=8))
    films = [write_clock_video(folder / f"{s}.mp4", s, fps=4, size=(64, 128)) for s in LENGTHS_S]
    return [remember(film, loaded, folder, wish) for film in films]


def wrong_answers(num_questions: int, num_threads: int = 8) -> int:
    """Ask in a random order from many threads; count the answers that differ from those of one thread."""
    loaded = tiny_model()
    with tempfile.TemporaryDirectory() as name:
        paths = memories(Path(name), loaded)

        def answer(pair: tuple[Path, str]) -> tuple:
            found = ask(pair[0], pair[1], loaded, SHORT)
            return found.text, found.evidence

        pairs = [(path, question) for path in paths for question in QUESTIONS]
        expected = {pair: answer(pair) for pair in pairs}
        assert len({value[1] for value in expected.values()}) == len(pairs), "answers that cannot be told apart"
        asked = random.Random(0).choices(pairs, k=num_questions)
        with ThreadPoolExecutor(num_threads) as pool:
            return sum(found != expected[pair] for pair, found in zip(asked, pool.map(answer, asked), strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    count = int(sys.argv[1])
    sys.stdout.write(f"{wrong_answers(count)} wrong answers of {count}\n")
