"""`longtake demo`: the whole path on a video that is made on the spot."""

from __future__ import annotations

import tempfile
from pathlib import Path

from longtake.cli.ask import answer_json, show_evidence
from longtake.cli.models import RANDOM_NOTICE, load_model
from longtake.cli.output import err, ledger_table, out, print_json, progress_bars
from longtake.core.budget import Budget

DURATION_S = 60.0
QUESTION = "What happens in this video?"


def run(video: str | None, as_json: bool) -> None:
    """Render a film (or open the user's), ingest it, ask one question, and show the cost."""
    (err if as_json else out).print(RANDOM_NOTICE)
    from longtake.engine.ask import ask
    from longtake.engine.ingest import ingest
    from longtake.engine.ledger import Ledger
    from longtake.media.synthetic import write_clock_video

    ledger = Ledger()
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        path = video
        if path is None:
            with ledger.stage("render"):
                path = str(write_clock_video(Path(folder) / "film.mp4", DURATION_S, size=(144, 256)))
        with ledger.stage("load"):
            loaded = load_model(None)
        with progress_bars(quiet=as_json) as advance:
            budget = Budget(max_new_tokens=32)
            memory = ingest(path, loaded, budget, ledger=ledger, on_progress=advance)
        answer = ask(memory, QUESTION, loaded, budget, ledger=ledger)
    if as_json:
        print_json({"weights": "random", "question": QUESTION} | answer_json(answer))
        return
    out.print(f"film: {memory.duration_s:.0f} s, {memory.num_frames} frames, {len(memory.tokens)} visual tokens")
    out.print(f"question: {QUESTION}")
    out.print(f"answer (noise): {answer.text!r}", markup=False)
    show_evidence(answer)
    out.print(ledger_table(answer.ledger))
