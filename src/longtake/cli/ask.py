"""`longtake ask`: one question, one answer, with its evidence and its cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from longtake.cli.output import err, ledger_table, out, print_json, progress_bars, seconds_text, waiting
from longtake.core.budget import Budget
from longtake.core.types import Answer, Span

SPANS_SHOWN = 5


def run(
    media: list[str],
    question: str,
    budget: Budget,
    start_s: float | None,
    end_s: float | None,
    model: dict[str, Any],
    verifies: bool,
    pictures: str | None,
    as_json: bool,
    videos: int = 1,
    keeps_keys: bool = False,
) -> None:
    """Answer a question about videos and pictures, or from a folder of memories."""
    check_early(question, len(media))
    if keeps_keys:
        check_keys(media, model["select"][0])
    if len(media) == 1 and is_library(media[0]):
        check_library_wishes(media[0], start_s, end_s, verifies, pictures)
        run_library(media[0], question, budget, model, videos, as_json)
        return
    check_wishes(media, verifies, pictures)
    from longtake.cli.models import TINY_NOTICE, load_model, model_options, selector_for
    from longtake.engine.ask import ask
    from longtake.engine.ledger import Ledger
    from longtake.engine.show import gather

    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    ledger = Ledger()
    with ledger.stage("load"), waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
        selector = selector_for(loaded, model)
    with progress_bars(quiet=as_json) as advance:
        memories = gather(
            media,
            loaded,
            budget,
            question,
            start_s=start_s,
            end_s=end_s,
            options=model_options(model),
            ledger=ledger,
            on_progress=advance,
        )
    if keeps_keys and selector is not None:
        from longtake.engine.select import keep_keys

        with ledger.stage("keys"), waiting("keeping the keys of the video", quiet=as_json):
            keep_keys(memories[0], loaded, selector.method)
    with waiting("reading the question", quiet=as_json) as stop_waiting:
        on_token = None if as_json else printer(stop_waiting)
        answer = ask(memories, question, loaded, budget, selector=selector, on_token=on_token, ledger=ledger)
    more: dict[str, Any] = {}
    if verifies:
        from longtake.engine.verify import verify

        with waiting("asking without the evidence", quiet=as_json):
            more["verify"] = verify(memories[0], question, loaded, answer, budget, selector=selector).to_dict()
    if pictures is not None:
        from longtake.engine.remember import save_pictures

        more["pictures"] = [str(path) for path in save_pictures(media[0], answer.evidence, pictures)]
    if as_json:
        print_json(answer_json(answer) | more)
        return
    out.print()
    show_evidence(answer, media)
    show_more(more)
    err.print(ledger_table(answer.ledger))


def is_library(medium: str) -> bool:
    """Say whether something that is asked is a folder of memories."""
    from longtake.memory.reader import memory_files

    return Path(medium).is_dir() and bool(memory_files(medium))


def check_library_wishes(
    folder: str, start_s: float | None, end_s: float | None, verifies: bool, pictures: str | None
) -> None:
    """Refuse wishes that need one memory where a folder of them is asked.

    Raises: ConfigError.
    """
    from longtake.core.errors import ConfigError

    if start_s is not None or end_s is not None or verifies or pictures is not None:
        raise ConfigError(
            f"the folder of memories {folder} arrived with --start, --end, --verify or --pictures; expected one memory "
            "for these; ask the folder first, then the memory that it answers from"
        )


def run_library(folder: str, question: str, budget: Budget, model: dict[str, Any], videos: int, as_json: bool) -> None:
    """Answer a question from the memories of a folder."""
    from longtake.cli.models import TINY_NOTICE, load_model, model_options, selector_for
    from longtake.engine.ledger import Ledger
    from longtake.engine.library import Library

    if model["name"] is None and model["recipe"] is None:
        err.print(TINY_NOTICE)
    ledger = Ledger()
    with ledger.stage("load"), waiting("loading the model", quiet=as_json):
        loaded = load_model(**model)
        selector = selector_for(loaded, model)
        library = Library(folder, loaded, options=model_options(model))
    with waiting("looking through the library", quiet=as_json) as stop_waiting:
        on_token = None if as_json else printer(stop_waiting)
        found = library.ask(question, budget, videos=videos, selector=selector, on_token=on_token, ledger=ledger)
    read = [str(path) for path in found.read]
    if as_json:
        segments = [{"memory": str(one.path), "segment": one.segment, **_span_json(one.span)} for one in found.found]
        skipped = [dataclasses.asdict(one) for one in found.skipped]
        print_json(answer_json(found.answer) | {"read": read, "found": segments, "skipped": skipped})
        return
    out.print()
    show_evidence(found.answer, read)
    for one in found.found:
        times = f"{seconds_text(one.span.start_s)} – {seconds_text(one.span.end_s)}"
        err.print(f"found  {one.path}  {times}  likeness {one.span.score:.3f}", markup=False)
    err.print(ledger_table(found.answer.ledger))


def check_keys(media: Sequence[str], selects: str | None) -> None:
    """Refuse to keep keys where nothing is selected by them, or there is no memory to put them beside.

    Raises: ConfigError.
    """
    from longtake.core.errors import ConfigError
    from longtake.memory.reader import is_memory_file

    if selects is None or len(media) > 1 or not is_memory_file(media[0]):
        raise ConfigError(
            f"--keep-keys arrived with {', '.join(media)} and {selects or 'no'} --select; expected one memory and "
            "--select qc-comp; run `longtake ingest` first"
        )


def check_wishes(media: Sequence[str], verifies: bool, pictures: str | None) -> None:
    """Refuse wishes that need one video, or one memory, where there is something else.

    Raises: ConfigError.
    """
    from longtake.core.errors import ConfigError
    from longtake.memory.reader import is_memory_file

    if verifies and len(media) > 1:
        raise ConfigError(f"--verify arrived with {len(media)} files; expected one video or memory; name one")
    if pictures is not None and (len(media) > 1 or not is_memory_file(media[0])):
        raise ConfigError(
            f"--pictures arrived with {', '.join(media)}; expected one memory, which keeps small pictures; run "
            "`longtake ingest` first"
        )


def show_more(more: dict[str, Any]) -> None:
    """Print what became of the answer without its evidence, and where its pictures are."""
    if check := more.get("verify"):
        out.print(f"without what it cites:  {check['without_cited']}", markup=False)
        out.print(f"without as much else:   {check['without_others']}", markup=False)
        holds = "the answer hangs on its evidence" if check["holds"] else "the answer does not hang on its evidence"
        out.print(holds)
    for path in more.get("pictures", ()):
        out.print(f"picture  {path}", markup=False)


def check_early(question: str, num_media: int) -> None:
    """Refuse what no model would take, before one is loaded.

    Raises: PromptError.
    """
    from longtake.core.chat import PLACEHOLDER
    from longtake.models.prompt import check_question, place_media

    check_question(question.replace(PLACEHOLDER, " "))
    place_media(question, [PLACEHOLDER] * num_media, [])


def printer(first: Callable[[], None]) -> Callable[[str], None]:
    """Return a function that prints pieces of an answer as they come; `first` is called before each."""

    def show(piece: str) -> None:
        first()
        out.print(piece, end="", markup=False)

    return show


def answer_json(answer: Answer) -> dict[str, Any]:
    """Return the plain form of an answer; what its scores mean, and whether there is evidence, where that is known."""
    kind = {} if answer.evidence_kind == "attention" else {"evidence_kind": answer.evidence_kind}
    claim = {} if answer.evidence_found is None else {"evidence_found": answer.evidence_found}
    return (
        kind
        | claim
        | {
            "answer": answer.text,
            "evidence": [_span_json(span) for span in answer.evidence],
            "finish_reason": answer.finish_reason,
            "ledger": answer.ledger,
        }
    )


def _span_json(span: Span) -> dict[str, Any]:
    """Return the plain form of a span; which of several it is of is said where there are several."""
    values = dataclasses.asdict(span)
    return values if span.medium is not None else {key: values[key] for key in values if key != "medium"}


def show_evidence(answer: Answer, media: Sequence[str] = ()) -> None:
    """Print the spans that an answer rests on, with the names of their files where there are several."""
    if answer.evidence_found is False:
        out.print("  no evidence found")
    for span in answer.evidence[:SPANS_SHOWN]:
        score = span.score or 0.0
        text = f"{score:.2f} times the mean relevance"
        if answer.evidence_kind == "attention":
            text = f"{score:.0%} of the attention"
        name = "" if span.medium is None else f"{media[span.medium - 1]}  "
        times = f"{seconds_text(span.start_s)} – {seconds_text(span.end_s)}  " if span.end_s > span.start_s else ""
        if name or times:  # of a picture that is alone there is nothing to tell
            out.print(f"  {name}{times}{text}", markup=False)
    if len(answer.evidence) > SPANS_SHOWN:
        out.print(f"  and {len(answer.evidence) - SPANS_SHOWN} more spans that were read")
    for note in answer.ledger["notes"]:  # pyright: ignore[reportGeneralTypeIssues]
        err.print(f"note: {note}", markup=False)
